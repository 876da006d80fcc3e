"""How causes of ending look: a shape and a colour each, so that neither alone must be told.

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
