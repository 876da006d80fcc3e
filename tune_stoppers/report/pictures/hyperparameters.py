"""What trials came to against their hyperparameters, and how much each of these matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tune_stoppers.report.data.importance import by_chance, too_few
from tune_stoppers.report.data.story import Parameter, Story
from tune_stoppers.report.pictures.picture import (
    Axis,
    Bar,
    Label,
    Mark,
    Picture,
    Rule,
    best_last,
    trial_refs,
)
from tune_stoppers.report.scales import Scale, cut, objective_scale, parameter_scale, value_ticks

SMALL = 40  # trials from which marks are small
CAPTION = (
    "Each mark is a trial with its best value once it trained, on the worst edge if it diverged; "
    "those stopped early had less time to get good."
)
STRENGTH = (
    " The number beside a name: how much of the ranking of trials it explains by itself, from 0 to "
    "1 (the correlation ratio over groups of trials alike in it, corrected for chance); the "
    "strongest first. With {count} trials a hyperparameter without any influence exceeds "
    "{chance:.2f} in about one of twenty sweeps."
)


def scatter(story: Story, parameter: Parameter) -> Picture:
    """The best value of each trial once it trained against one hyperparameter."""
    refs, values = trial_refs(story), [story.sign * loss for loss in story.outcomes]
    y = objective_scale(values, story.sign)
    x, place = axis_of(parameter, story.strength(parameter))
    marks = []
    for trial in best_last(story, story.trials):
        ref, given = refs[trial.trial_id], trial.config.get(parameter.name)
        if given is not None and not math.isnan(values[ref.number]):
            level = y.clamp(values[ref.number], story.sign)
            marks.append(Mark(place(given, ref.number), level, ref.glyph.name, "mark", ref))
    return Picture(
        title=parameter.name,
        about=f"best {story.metric} against {parameter.name}",
        x=x,
        y=Axis.of(f"best {cut(story.metric, 24)}", y, 3),
        marks=tuple(marks),
        height=140.0,
        caption=_caption(story),
        small=len(story.trials) > SMALL,
        panel=True,
    )


def strengths(story: Story) -> Picture:
    """How much of the ranking of trials each hyperparameter explains, and what chance gives."""
    told = [(parameter.name, story.strength(parameter)) for parameter in story.swept]
    known = [(name, strength) for name, strength in told if not math.isnan(strength)]
    marks: list[Bar | Rule | Label] = [
        Bar(0.0, strength, -index, 0.8, "amount") for index, (_, strength) in enumerate(known)
    ]
    marks.append(Rule(by_chance(story.judged), True, "rung"))
    if not known:
        marks.append(Label(0.5, 0.0, too_few(story.judged), "callout", "middle"))
    return Picture(
        title="What matters",
        about="how much of the ranking each hyperparameter explains",
        x=Axis.of(f"goes with the ranking by {story.metric}", Scale(0.0, 1.0)),
        y=Axis(
            "",
            Scale(-max(len(known), 1) + 0.4, 0.6),
            tuple((-index, name) for index, (name, _) in enumerate(known)),
            "names",
        ),
        marks=tuple(marks),
        height=24.0 * max(len(known), 1),
    )


def axis_of(parameter: Parameter, strength: float) -> tuple[Axis, Callable[[Any, int], float]]:
    """The axis of a hyperparameter, and where on it a trial's value lies, given its number."""
    facts = [] if math.isnan(strength) else [f"{strength:.2f}"]
    if parameter.numeric:
        scale = parameter_scale(parameter)
        facts = ["log", *facts] if scale.log else facts
        ticks = value_ticks(scale, parameter.distinct)
        axis = Axis(_named(parameter, facts), scale, ticks, "values")
        return axis, lambda value, number: float(value)
    names = parameter.distinct
    slots = {name: float(index) for index, name in enumerate(names)}
    scale, ticks = Scale(-0.5, len(names) - 0.5), tuple((slots[name], name) for name in names)

    def place(value: Any, number: int) -> float:
        aside = (number * 0.618034) % 1 - 0.5  # spread evenly, the same in every report
        return slots[str(value)] + 0.6 * aside

    return Axis(_named(parameter, facts), scale, ticks, labels="names"), place


def _named(parameter: Parameter, facts: list[str]) -> str:
    return cut(parameter.name, 30) + (f" ({', '.join(facts)})" if facts else "")


def _caption(story: Story) -> str:
    count = story.judged
    if all(math.isnan(story.strength(parameter)) for parameter in story.swept):
        return f"{CAPTION} {too_few(count)}"
    return CAPTION + STRENGTH.format(count=count, chance=by_chance(count))
