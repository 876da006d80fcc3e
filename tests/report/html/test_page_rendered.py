"""The page as a browser shows it, on a desktop and on a phone: measured, not only written."""

import html
import json
import re
import shutil
import subprocess

import pytest
from ray.tune.schedulers import HyperBandScheduler

from tests.report.data.test_from_replay import recorded
from tests.stand_ins.folders import journal, stop_line, sweep
from tune_stoppers import replay
from tune_stoppers.report import experiment_story, replay_story, write_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and none is installed")

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
    *("--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=8000"),
)
# In a frame of the width of the screen; the page is unchanged, and so is its policy.
MEASURE = """<!doctype html><body><iframe id="f" width="WIDTH" height="900" src="PAGE"></iframe>
<pre id="found"></pre><script>
document.getElementById("f").onload = () => {
  const frame = document.getElementById("f"), page = frame.contentDocument;
  const view = frame.contentWindow;
  const found = {overlaps: [], clipped: [], empty: [], wide: 0};
  const root = page.documentElement;
  found.wide = root.scrollWidth - root.clientWidth;
  const box = (part) => part.getBoundingClientRect();
  const drawn = (part) => box(part).width + box(part).height > 1;
  for (const plot of page.querySelectorAll("svg.plot")) {
    const name = plot.querySelector("title").textContent;
    const texts = [...plot.querySelectorAll("text")].map((t) => [t, box(t)]);
    if (![...plot.querySelectorAll("[data-t]")].some(drawn)) found.empty.push(name);
    texts.forEach(([t, a], i) => {
      const top = box(plot).top - 1;
      if (a.left < 0 || a.right > root.clientWidth || a.top < top)
        found.clipped.push(name + ": " + t.textContent);
      for (const [u, b] of texts.slice(i + 1)) {
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        const both = t.textContent + " | " + u.textContent;
        if (x > 1 && y > 3) found.overlaps.push(name + ": " + both);
      }
    });
  }
  for (const cell of page.querySelectorAll(".card *, h1, h2, p, figcaption, .legend li")) {
    const text = cell.tagName + ": " + cell.textContent;
    if (box(cell).right > root.clientWidth + 1) found.clipped.push(text);
  }
  const body = page.querySelector("table.trials tbody");
  const ids = () => [...body.rows].map((row) => row.cells[0].textContent);
  const head = page.querySelector("table.trials th button");
  head.click(); found.sorted = ids(); head.click(); found.reversed = ids();
  const bar = page.querySelector("rect.bar[data-t]");
  bar.scrollIntoView({block: "center"});
  const at = box(bar), where = {clientX: at.left + at.width / 2, clientY: at.top + at.height / 2};
  view.dispatchEvent(new view.PointerEvent("click", where));
  found.tip = page.getElementById("tip").textContent;
  found.picked = page.querySelectorAll(".on").length;
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def measured(page, width, folder):
    """What a browser finds on the page, and its errors."""
    frame = folder / "frame.html"
    frame.write_text(MEASURE.replace("WIDTH", str(width)).replace("PAGE", page.as_uri()))
    command = [BROWSER, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    run = subprocess.run(
        [*command, f"--window-size={max(width, 500)},900", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found, run.stderr[-2000:]
    assert found[1], run.stderr[-2000:]
    errors = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), errors


def told(kind, folder):
    """A small experiment, or a replay with more trials than are drawn one by one."""
    if kind == "experiment":
        sweep(folder)
        journal(folder, stop_line("aaaaa_00002", 2, numbers={"rung": 2.0}, dry_run=True))
        return experiment_story(folder, "loss", "min")
    result = replay(recorded(200, 27), HyperBandScheduler(max_t=27), workers=8, on_stall="end")
    return replay_story(result, rule="HyperBandScheduler", rungs=(1, 3, 9))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["experiment", "replay"])
def test_the_page_is_legible_and_works(kind, width, tmp_path):
    """No label on another or cut off, no empty panel, no sideways scrolling, no console error;
    a column sorts both ways; a bar that is picked tells its trial."""
    page = write_page(told(kind, tmp_path / "experiment"), tmp_path / "report.html")
    found, errors = measured(page, width, tmp_path)
    assert errors == []
    assert {key: found[key] for key in ("overlaps", "clipped", "empty", "wide")} == {
        "overlaps": [],
        "clipped": [],
        "empty": [],
        "wide": 0,
    }
    assert found["sorted"] == sorted(found["sorted"])
    assert found["reversed"] == found["sorted"][::-1]
    assert "best" in found["tip"]
    assert found["picked"] >= 3
