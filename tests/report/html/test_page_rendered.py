"""The page as a browser shows it, on a desktop and on a phone: measured, not only written."""

import csv
import functools
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
      const wide = plot.closest(".scroll") ? box(plot).right + 50 : root.clientWidth;
      if (a.left < 0 || a.right > wide || a.top < top)
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
  view.dispatchEvent(new view.KeyboardEvent("keydown", {key: "Escape"}));
  const shown = () => [...body.rows].filter(drawn).length;
  const row = body.rows[0];
  found.card = [...row.cells].map((c) =>
    view.getComputedStyle(c, ":before").content.replaceAll('"', "")).join("|");
  found.columns = [...page.querySelectorAll("table.trials th")].map((h) => h.textContent);
  found.inside = [...row.cells].filter((c) => box(c).right <= root.clientWidth + 1).length;
  found.trials = shown();
  const cause = page.querySelector("[data-cause]");
  cause.click(); found.filtered = shown();
  found.marks = [...page.querySelectorAll("svg.plot [data-t]")].filter(drawn)
    .filter((p) => rowOf(p).dataset.c === cause.dataset.cause).length;
  function rowOf(part) { return body.querySelector(`[data-t="${part.dataset.t}"]`); }
  view.Blob = function (texts) { found.csv = texts[0].trim().split("\\r\\n"); };
  view.URL.createObjectURL = () => "#";
  page.getElementById("csv").click();
  found.note = page.getElementById("shown").textContent;
  page.querySelector("#shown button").click(); found.again = shown();
  const plot = page.querySelector(".parallel");
  if (plot) {
    plot.scrollIntoView({block: "center"});
    const at = box(plot), clientX = at.left + at.width, rows = () => [...body.rows];
    const values = (rows) => rows.map((r) => Number(r.cells[1].dataset.v || Infinity));
    const ranked = (rows) => values(rows).sort((a, b) => a - b);
    const send = (type, clientY) =>
      plot.dispatchEvent(new view.PointerEvent(type, {clientX, clientY}));
    send("pointerdown", at.top + 240); send("pointerup", at.top + 120);
    found.brushed = ranked(rows().filter(drawn));
    found.best = ranked(rows()).slice(0, found.brushed.length);
    send("pointerdown", at.top + 100); send("pointerup", at.top + 100); found.released = shown();
  }
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def measured(page, width, folder):
    """What a browser finds on the page, and its errors."""
    frame = folder / "frame.html"
    frame.write_text(MEASURE.replace("WIDTH", str(width)).replace("PAGE", page.as_uri()))
    run = None
    for attempt in range(2):  # on a busy machine a headless Chromium now and then never returns
        profile = f"--user-data-dir={folder / f'profile-{attempt}'}"
        size = f"--window-size={max(width, 500)},900"
        command = [BROWSER, *OPTIONS, profile, "--dump-dom", size, frame.as_uri()]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=60)
            break
        except subprocess.TimeoutExpired:
            continue
    assert run is not None, "Chromium did not return, twice"
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


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """What a browser finds on a page at a width, measured once."""

    @functools.cache
    def look(kind, width):
        folder = tmp_path_factory.mktemp(kind)
        page = write_page(told(kind, folder / "experiment"), folder / "report.html")
        return measured(page, width, folder)

    return look


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["experiment", "replay"])
def test_the_page_is_legible_and_works(kind, width, pages):
    """No label on another or cut off, no empty panel, no sideways scrolling, no console error;
    a column sorts both ways; a bar that is picked tells its trial."""
    found, errors = pages(kind, width)
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
    told = found["columns"] if width < 720 else ["none"] * len(found["columns"])
    assert found["card"] == "|".join(told)  # a card per trial on a phone, its cells named
    if width == 1280:
        assert found["inside"] >= found["columns"].index("lr") + 1  # configurations are in sight


@pytest.mark.parametrize("kind", ["experiment", "replay"])
def test_trials_are_chosen_in_the_page(kind, pages):
    """A cause hides its trials everywhere, also from the CSV; a note says so and shows all again;
    a brush on an axis of the parallel coordinates keeps those that pass there."""
    found, _ = pages(kind, 1280)
    assert 0 < found["filtered"] < found["trials"]
    assert found["marks"] == 0
    rows = list(csv.DictReader(found["csv"]))
    assert len(rows) == found["filtered"]
    if kind == "experiment":
        assert sorted(row["spent_s"] for row in rows) == [
            "1.0",
            "2.0",
            "3.0",
        ]  # seconds, not "3.0 s"
    assert found["note"].startswith(f"{found['filtered']} of {found['trials']} trials are shown.")
    assert found["again"] == found["trials"]
    assert ("brushed" in found) == (kind == "experiment")  # the replay swept one hyperparameter
    if "brushed" in found:
        assert 0 < len(found["brushed"]) < found["trials"]
        assert found["brushed"] == found["best"]
        assert found["released"] == found["trials"]
