"""What a picture shows, as data: marks on two axes, in the units of the axes.

A drawer places the marks and gives each role its look. It decides nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tune_stoppers.report.data.story import Points, Story, TrialStory
from tune_stoppers.report.glyphs import Glyph, glyphs_of
from tune_stoppers.report.scales import Scale, short

Side = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class TrialRef:
    """The trial that a mark belongs to."""

    number: int  # its index in the story
    glyph: Glyph  # of its ending
    best: bool


@dataclass(frozen=True)
class Line:
    """A line through points; NaN breaks it. `steps`: level up to the next point. A `band` is
    filled."""

    points: Points
    role: Literal["curve", "recorded", "envelope", "band", "median", "lead", "unstopped"]
    trial: TrialRef | None = None
    steps: bool = False


@dataclass(frozen=True)
class Rule:
    """A straight line over the whole picture, with a text at its end."""

    at: float
    upright: bool
    role: Literal["rung", "threshold", "axis"]
    text: str = ""


@dataclass(frozen=True)
class Mark:
    """A shape of `glyphs.SHAPES`, or the glyph of an ending, at a point."""

    x: float
    y: float
    shape: str
    role: Literal["mark", "star", "would", "event", "off"]
    trial: TrialRef | None = None


@dataclass(frozen=True)
class Bar:
    """A bar along x, `thickness` units of y high."""

    begin: float
    end: float
    y: float
    thickness: float
    role: Literal["bar", "spare", "amount"]
    trial: TrialRef | None = None
    glyph: Glyph | None = None  # its colour, where it is no trial's


@dataclass(frozen=True)
class Label:
    """A text beside a point, above or below it; `side`: which end of it lies there."""

    x: float
    y: float
    text: str
    role: Literal["callout", "tick", "name"]
    side: Side = "start"
    below: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its name, its scale, and the labels on it as (value, text)."""

    name: str
    scale: Scale
    ticks: tuple[tuple[float, str], ...]
    labels: Literal["round", "values", "names"] = "round"  # what they are; names may be cut

    @classmethod
    def of(cls, name: str, scale: Scale, count: int = 5) -> Axis:
        """With round values as labels; the name says where the axis is logarithmic."""
        ticks = tuple((value, short(value)) for value in scale.ticks(count))
        return cls(f"{name} (log)" if scale.log else name, scale, ticks)


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    shape: str
    text: str
    glyph: Glyph | None = None  # where it stands for a cause of ending


@dataclass(frozen=True)
class Picture:
    """One picture. Later marks lie on earlier ones; glyphs and labels lie on lines."""

    title: str
    about: str  # for those who do not see it
    x: Axis
    y: Axis
    marks: tuple[Line | Rule | Mark | Bar | Label, ...]
    height: float = 170.0  # of the plot, in pixels of a page
    caption: str = ""
    key: tuple[Key, ...] = ()
    small: bool = False  # there are so many marks that they are drawn small
    panel: bool = False  # one of several side by side
    parallel: bool = False  # its uprights are axes, each with a scale of its own


def trial_refs(story: Story) -> dict[str, TrialRef]:
    """The trials of a story as marks name them, by id."""
    glyphs = glyphs_of(story)
    return {
        trial.trial_id: TrialRef(index, glyphs[trial.ending.cause], trial is story.best)
        for index, trial in enumerate(story.trials)
    }


def causes_key(story: Story) -> tuple[Key, ...]:
    """The glyphs of the causes of ending, with the number of trials."""
    glyphs = glyphs_of(story)
    return tuple(
        Key(glyphs[cause].name, f"{cause} ({len(trials)})", glyphs[cause])
        for cause, trials in story.causes.items()
    )


def best_last(story: Story, trials: Iterable[TrialStory]) -> list[TrialStory]:
    """In the order of their causes, the best on top of all."""
    order = {cause: index for index, cause in enumerate(story.causes)}
    return sorted(trials, key=lambda trial: (trial is story.best, order[trial.ending.cause]))


def inside(points: Sequence[tuple[float, float]], y: Scale, sign: int) -> Points:
    """A line cut where it leaves the axis; what is not finite lies beyond the bad edge.

    NaN stands between the pieces. Crossings lie where the straight line, as drawn, crosses.
    """
    found: list[tuple[float, float]] = []
    before: tuple[float, float] | None = None
    for step, value in points:
        known = value if math.isfinite(value) else sign * math.inf
        if before is not None and (y.has(before[1]) != y.has(known)):
            out, into = (before, (step, known)) if y.has(known) else ((step, known), before)
            found.append(_crossing(out, into, y))
        found.append((step, known if y.has(known) else math.nan))
        before = step, known
    return tuple(found)


def leavings(line: Points, y: Scale) -> Iterator[tuple[float, float]]:
    """The points at which a line cut by `inside` leaves the axis, or comes into it."""
    for index, (step, value) in enumerate(line):
        beside = line[max(index - 1, 0)], line[min(index + 1, len(line) - 1)]
        if value in (y.low, y.high) and any(math.isnan(near) for _, near in beside):
            yield step, value


def said_beyond(values: Iterable[float], y: Scale) -> str:
    """What lies beyond the axis, in words; "" where nothing does."""
    beyond = [value for value in values if not y.has(value)]
    finite = [value for value in beyond if math.isfinite(value)]
    if not beyond:
        return ""
    lie = "value lies" if len(beyond) == 1 else "values lie"
    text = f" Arrows: here a line leaves the axis. {len(beyond)} {lie} beyond it"
    if finite:
        text += f", the farthest at {short(max(finite, key=lambda v: abs(v - y.clamp(v))))}"
    lost = len(beyond) - len(finite)
    return text + (f"; {lost} of them are NaN or infinite." if lost else ".")


def _crossing(out: tuple[float, float], into: tuple[float, float], y: Scale) -> tuple[float, float]:
    """Where the line between a point beyond the axis and one inside meets the edge."""
    edge = y.clamp(out[1])
    here, there = y.share(into[1]), y.share(out[1]) if math.isfinite(out[1]) else math.inf
    share = (y.share(edge) - here) / (there - here) if there != here else 0.0
    return into[0] + share * (out[0] - into[0]), edge
