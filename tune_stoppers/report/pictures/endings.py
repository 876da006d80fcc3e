"""What trials took, and what stopping them saved, by the cause of their ending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tune_stoppers.report.data.story import Story, TrialStory
from tune_stoppers.report.data.totals import known
from tune_stoppers.report.glyphs import glyphs_of
from tune_stoppers.report.pictures.picture import Axis, Bar, Picture
from tune_stoppers.report.scales import Scale, unit_of_time


class Amount(NamedTuple):
    """The trials of a cause, with what they spent and saved, in the story's clock."""

    cause: str
    trials: Sequence[TrialStory]
    spent: float
    saved: float


def amounts(story: Story) -> list[Amount]:
    """For each cause of ending; what is not known counts as nothing."""
    return [
        Amount(cause, trials, known(t.spent for t in trials), known(t.saved for t in trials))
        for cause, trials in story.causes.items()
    ]


def endings(story: Story) -> Picture:
    """Per cause: the time spent, and, pale, what continuing would have taken."""
    unit, size = unit_of_time(story.spent) if story.clock == "s" else ("reports", 1.0)
    glyphs, found = glyphs_of(story), amounts(story)
    bars = []
    for index, (cause, _, spent, saved) in enumerate(found):
        whole, glyph = (spent + saved) / size, glyphs[cause]
        bars.append(Bar(0.0, spent / size, -index, 0.8, "bar", glyph=glyph))
        bars.append(Bar(spent / size, whole, -index, 0.8, "spare", glyph=glyph))
    names = tuple((-i, f"{a.cause} ({len(a.trials)})") for i, a in enumerate(found))
    return Picture(
        title="How trials ended",
        about="what was spent and saved, by cause of ending",
        x=Axis.of(
            f"spent and, pale, saved, {unit}",
            Scale(0.0, max((a.spent + a.saved for a in found), default=0.0) / size or 1.0),
        ),
        y=Axis("", Scale(-len(found) + 0.4, 0.6), names, "names"),
        marks=tuple(bars),
        height=24.0 * len(found),
    )
