"""The best value so far against time."""

from __future__ import annotations

from tune_stoppers.report.data.story import Story
from tune_stoppers.report.pictures.picture import Axis, Line, Mark, Picture, people
from tune_stoppers.report.scales import Scale, scale_of, time_axis


def incumbent(story: Story) -> Picture:
    """The best value so far against time; empty where times are unknown."""
    who, found = people(story), story.incumbent
    unit, size = time_axis(story.clock, story.duration)
    end = max([story.duration, *(time for time, _, _ in found)]) / size
    points = tuple((time / size, value) for time, value, _ in found)
    lead = Line((*points, *((end, value) for _, value in points[-1:])), "lead", steps=True)
    marks = [Mark(time / size, value, "dot", "mark", who[trial]) for time, value, trial in found]
    return Picture(
        title="Best so far",
        about=f"best {story.metric} so far against time",
        x=Axis.of(unit, Scale(0.0, end or 1.0)),
        y=Axis.of(f"best {story.metric} so far", scale_of([v for _, v in points], pad=0.05), 4),
        marks=(lead, *marks),
        caption="A dot: a trial that took the lead.",
    )
