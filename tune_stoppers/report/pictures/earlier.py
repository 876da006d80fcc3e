"""What earlier sweeps expected of trials, against how these did."""

from __future__ import annotations

import math

from tune_stoppers.report.data.story import Story
from tune_stoppers.report.pictures.picture import Axis, Line, Mark, Picture, trial_refs
from tune_stoppers.report.scales import Scale

CAPTION = (
    "Rank correlation of what was expected with the best {metric}: {agreement:.2f}. Each mark is a "
    "trial: to the left what was expected to do well, at the bottom what did (by rank; those "
    "stopped early had less time for it). The line: a history that is right of all of them."
)


def agreement(story: Story) -> Picture | None:
    """A mark for each trial with a finite value, by both ranks; None where nothing was expected."""
    losses = {t.trial_id: story.sign * t.best_value for t in story.trials}
    known = story.earlier.agreement(losses) if story.earlier else math.nan
    if story.earlier is None or math.isnan(known):
        return None
    expected, refs = story.earlier.expected, trial_refs(story)
    both = [trial for trial in expected if math.isfinite(losses.get(trial, math.nan))]
    x = {trial: rank for rank, trial in enumerate(sorted(both, key=expected.__getitem__), 1)}
    y = {trial: rank for rank, trial in enumerate(sorted(both, key=losses.__getitem__), 1)}
    count = float(len(both))
    scale = Scale(0.5, count + 0.5)
    return Picture(
        title="Expected and reached",
        about="what was expected of each trial, against how it did",
        x=Axis("rank expected", scale, ((1.0, "best"), (count, "worst"))),
        y=Axis("rank reached", scale, ((1.0, "best"), (count, "worst"))),
        marks=(
            Line(((1.0, 1.0), (count, count)), "median"),
            *(Mark(x[t], y[t], refs[t].glyph.name, "mark", refs[t]) for t in both),
        ),
        caption=CAPTION.format(metric=story.metric, agreement=known),
    )
