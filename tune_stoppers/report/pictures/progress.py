"""The best value so far against time."""

from __future__ import annotations

from tune_stoppers.report.data.story import Story
from tune_stoppers.report.pictures.picture import Axis, Label, Line, Mark, Picture, people
from tune_stoppers.report.scales import Scale, duration, scale_of, short, time_axis


def incumbent(story: Story) -> Picture:
    """The best value so far against time, beside that of the sweep had nothing been stopped.

    Without the latter where that is not known, empty where times are unknown.
    """
    who, found = people(story), story.incumbent
    unit, size = time_axis(story.clock, story.duration)
    whole = tuple((time / size, value) for time, value in story.unstopped)
    end = max([story.duration, *(time for time, _, _ in found)]) / size
    points = tuple((time / size, value) for time, value, _ in found)
    lead = Line((*points, *((end, value) for _, value in points[-1:])), "lead", steps=True)
    marks = [Mark(time / size, value, "dot", "mark", who[trial]) for time, value, trial in found]
    y = scale_of([value for _, value in (*points, *whole)], pad=0.05)
    told: list[Line | Label] = [Line(whole, "unstopped", steps=True)] if whole else []
    if whole:
        told.append(Label(*whole[-1], "no stopping", "callout", "end"))
    return Picture(
        title="Best so far",
        about=f"best {story.metric} so far against time",
        x=Axis.of(unit, Scale(0.0, max([end, *(time for time, _ in whole)]) or 1.0)),
        y=Axis.of(f"best {story.metric} so far", y, 4),
        marks=(*told, lead, *marks),
        caption="A dot: a trial that took the lead." + _compared(story),
    )


def _compared(story: Story) -> str:
    """When the best was found, and when without stopping; "" where the latter is not known."""
    if not story.unstopped or not story.incumbent:
        return ""
    time, value, _ = story.incumbent[-1]
    as_good = [t for t, v in story.unstopped if story.sign * v <= story.sign * value]
    end, best = story.unstopped[-1]
    text = " Dashed: the same trials, none of them stopped. They "
    if as_good:
        text += f"reach {short(value)} after {_time(story, min(as_good))} instead of "
        text += f"{_time(story, time)}, and "
    text += f"end at {short(best)} after {_time(story, end)} instead of "
    return text + f"{short(value)} after {_time(story, story.duration)}."


def _time(story: Story, value: float) -> str:
    return duration(value) if story.clock == "s" else f"{short(value)} reports"
