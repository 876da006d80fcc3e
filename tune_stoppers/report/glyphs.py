"""How marks look: causes of ending have a shape and a colour each, so that neither must be told.

The colours are those that Okabe and Ito (2008, "Color Universal Design") chose to be told apart
with any kind of colour vision; some are lighter on dark ground.
"""

from __future__ import annotations

from dataclasses import dataclass

from tune_stoppers.report.data.story import Story


@dataclass(frozen=True)
class Glyph:
    """A shape, by its name and as matplotlib's marker, and a colour on light and dark ground."""

    name: str
    path: str  # around the origin, 8 wide
    marker: str
    light: str
    dark: str
    filled: bool = True


DISC = "M4 0A4 4 0 1 1 -4 0A4 4 0 1 1 4 0Z"
DIAMOND, UP, DOWN = "M0 -5L5 0L0 5L-5 0Z", "M0 -5L5 4L-5 4Z", "M0 5L5 -4L-5 -4Z"
SQUARE, CROSS = "M-4 -4H4V4H-4Z", "M-4 -4L4 4M-4 4L4 -4"
PLUS = "M-5 0H5M0 -5V5"

FINISHED = Glyph("finished", DISC, "o", "#0072b2", "#56b4e9")
STOPPED = (
    Glyph("stopped-1", DIAMOND, "D", "#e69f00", "#e69f00"),
    Glyph("stopped-2", UP, "^", "#009e73", "#2ec79c"),
    Glyph("stopped-3", SQUARE, "s", "#cc79a7", "#cc79a7"),
    Glyph("stopped-4", DOWN, "v", "#7a6a00", "#f0e442"),
)
OTHERS = Glyph("stopped-5", PLUS, "P", "#5f5f5f", "#b5b5b5", False)
UNEXPLAINED = Glyph("unexplained", SQUARE, "s", "#7d7d7d", "#a0a0a0", False)
FAILED = Glyph("failed", CROSS, "x", "#d55e00", "#ff8636", False)
UNFINISHED = Glyph("unfinished", DISC, "o", "#7d7d7d", "#a0a0a0", False)
ALL = (FINISHED, *STOPPED, OTHERS, UNEXPLAINED, FAILED, UNFINISHED)

# Other shapes: a path around the origin, and matplotlib's marker.
SHAPES = {
    "dot": ("M3.5 0A3.5 3.5 0 1 1 -3.5 0A3.5 3.5 0 1 1 3.5 0Z", "."),
    "star": ("M0 -8L2 -3 8 -3 3 1 5 7 0 3 -5 7 -3 1 -8 -3 -2 -3Z", "*"),
    "would": ("M6 0A6 6 0 1 1 -6 0A6 6 0 1 1 6 0Z", "o"),
    "off-up": ("M0 -7L3.5 -1H-3.5Z", "^"),
    "off-down": ("M0 7L3.5 1H-3.5Z", "v"),
    "e-resume": ("M-2 -4L4 0L-2 4Z", ">"),
    "e-restart": ("M-4 3L-1.5 -3L1.5 3L4 -3", "x"),
    "e-pause": ("M-2 -4V4M2 -4V4", "|"),
    "e-promotion": ("M0 5V-4M-3.5 -1L0 -4.5L3.5 -1", "^"),
    "e-rollback": ("M5 0H-4M-1 -3.5L-4.5 0L-1 3.5", "<"),
    "e-end": ("M-3 -3L3 3M-3 3L3 -3", "X"),
    "e-event": ("M2.5 0A2.5 2.5 0 1 1 -2.5 0A2.5 2.5 0 1 1 2.5 0Z", "."),
}


def glyphs_of(story: Story) -> dict[str, Glyph]:
    """The glyph of each cause of ending; rules beyond the four most frequent share one."""
    own = iter(STOPPED)
    fixed = {
        "finished": FINISHED,
        "unexplained": UNEXPLAINED,
        "failed": FAILED,
        "unfinished": UNFINISHED,
    }
    return {
        cause: fixed.get(trials[0].ending.kind) or next(own, OTHERS)
        for cause, trials in story.causes.items()
    }
