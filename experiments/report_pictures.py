"""The pictures of the report page in `docs/img`: of a recorded LoRA sweep, replayed.

`python -m experiments.report_pictures docs/img` replays `AutoScheduler` on four workers over the
sweep `lora_docstring` that comes with the package, writes the report page, and lets a headless
Chromium (it and Pillow must be installed) take its top and its curves, 1280 pixels wide.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tune_stoppers import AutoScheduler, Sweep, example_path, replay
from tune_stoppers.report import replay_story, write_page

WIDTH = 1280  # pixels
COLOURS = 256  # of a picture, so that it stays small
PARTS = {  # file: where on the page, and how many pixels from there
    "report_top.png": ("", 680),
    "report_curves.png": ("#learning-curves", 880),
}
# In a frame, which shows the page from an anchor on.
FRAME = (
    '<body style="margin: 0"><iframe src="{page}" width="{width}" height="{height}" '
    'style="border: 0"></iframe>'
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    "--blink-settings=preferredColorScheme=1",  # light
)


def write_report(path: Path) -> Path:
    """The report page of the replay."""
    sweep = Sweep.from_parquet(Path(example_path("lora")) / "lora_docstring.parquet")
    result = replay(sweep, AutoScheduler(max_t=24), workers=4)
    return write_page(replay_story(result, rule="AutoScheduler"), path)


def take(page: Path, folder: Path, browser: str) -> list[Path]:
    """Pictures of the parts of the page; the paths written."""
    found = []
    for name, (anchor, height) in PARTS.items():
        picture, frame = (folder / name).resolve(), page.with_name("frame.html")
        where = f"{page.resolve().as_uri()}{anchor}"
        frame.write_text(FRAME.format(page=where, width=WIDTH, height=height), encoding="utf-8")
        options = [f"--user-data-dir={page.parent / 'profile'}", f"--screenshot={picture}"]
        options += [f"--window-size={WIDTH},{height}", frame.resolve().as_uri()]
        subprocess.run([browser, *OPTIONS, *options], check=True, capture_output=True)
        Image.open(picture).quantize(COLOURS).save(picture, optimize=True)
        found.append(picture)
    return found


def main(folder: Path) -> None:
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"report_pictures needs a browser, one of {', '.join(NAMES)}.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for picture in take(write_report(Path(scratch) / "report.html"), folder, browser):
            print(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m experiments.report_pictures FOLDER")
    main(Path(sys.argv[1]))
