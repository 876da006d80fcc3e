"""The best value so far against time."""

from __future__ import annotations

import math
from itertools import pairwise

from tune_stoppers.report.data.story import Points, Story
from tune_stoppers.report.pictures.picture import (
    Axis,
    Label,
    Line,
    Mark,
    Picture,
    leavings,
    said_beyond,
    trial_refs,
)
from tune_stoppers.report.scales import Scale, objective_scale, short, time_axis


def incumbent(story: Story) -> Picture:
    """The best value so far against time, beside that of the sweep had nothing been stopped.

    Without the latter where that is not known, empty where times are unknown.
    """
    refs, found = trial_refs(story), story.incumbent
    unit, size = time_axis(story.clock, story.duration)
    points = tuple((time / size, value) for time, value, _ in found)
    whole = tuple((time / size, value) for time, value in story.unstopped)
    end = max([story.duration / size, *(time for time, _ in points)])
    values = [value for _, value in (*points, *whole)]
    lead = (*points, (end, points[-1][1])) if points else ()
    shown = [*_lasting(lead), *_lasting(whole)]
    y = objective_scale(values, story.sign, tail=75, shown=shown)
    lines = [Line(_entering(whole, y), "unstopped", steps=True)] if whole else []
    lines.append(Line(_entering(lead, y), "lead", steps=True))
    marks = [
        Mark(time / size, value, "dot", "mark", refs[trial])
        for time, value, trial in found
        if y.has(value)
    ]
    far = "off-up" if story.sign > 0 else "off-down"
    offs = [Mark(*point, far, "off") for line in lines for point in leavings(line.points, y)]
    return Picture(
        title="Best so far",
        about=f"best {story.metric} so far against time",
        x=Axis.of(unit, Scale(0.0, max([end, *(time for time, _ in whole)]) or 1.0)),
        y=Axis.of(f"best {story.metric} so far", y, 4),
        marks=(
            *lines,
            *offs,
            *marks,
            *(Label(*point, "no stopping", "callout", "end") for point in whole[-1:]),
        ),
        caption="A dot: a trial that took the lead."
        + _compared(story, size)
        + said_beyond(values, y),
    )


def _lasting(line: Points) -> list[float]:
    """The values that stayed the best for a twentieth of a line's time and more."""
    least = line[-1][0] / 20 if line else 0.0
    return [value for (time, value), (until, _) in pairwise(line) if until - time >= least]


def _entering(points: Points, y: Scale) -> Points:
    """The part of a line in steps that lies on the axis: it enters once and stays."""
    inside = [point for point in points if y.has(point[1])]
    if not inside or len(inside) == len(points):
        return tuple(inside)
    edge = max((y.low, y.high), key=lambda edge: abs(edge - inside[-1][1]))
    time = inside[0][0]
    return ((time, math.nan), (time, edge), *inside)


def _compared(story: Story, size: float) -> str:
    """When the best was found, and when without stopping; "" where the latter is not known."""
    if not story.unstopped or not story.incumbent:
        return ""
    time, value, _ = story.incumbent[-1]
    as_good = [t for t, v in story.unstopped if story.sign * v <= story.sign * value]
    end, best = story.unstopped[-1]
    text = " Dashed: the same trials, none of them stopped: "
    if as_good:
        text += f"{short(value)} is reached at {short(min(as_good) / size)} instead of "
        text += f"{short(time / size)}, and "
    text += f"the end, with {short(best)}, at {short(end / size)} instead of "
    return text + f"{short(story.duration / size)}."
