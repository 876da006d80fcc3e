"""Parallel coordinates: a line for each trial through its hyperparameters to its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tune_stoppers.report.data.story import Story
from tune_stoppers.report.pictures.hyperparameters import axis_of
from tune_stoppers.report.pictures.picture import (
    Axis,
    Label,
    Line,
    Picture,
    Rule,
    best_last,
    trial_refs,
)
from tune_stoppers.report.scales import Scale, objective_scale

MOST = 8  # hyperparameters, the most telling
NAMED = 6  # values that are labelled on an axis; of more, its ends
CAPTION = (
    "A line for each trial through its hyperparameters, the most telling first, to the best value "
    "once it trained (a diverged trial: on the worst edge). Drag along an axis to show in the "
    "whole page only the trials that pass there; a click on the axis lets go."
)


def parallel(story: Story) -> Picture:
    """Every trial that has a result, through up to eight hyperparameters.

    x: the index of an axis; y: the position on it, from 0 to 1.
    """
    swept, refs = story.swept[:MOST], trial_refs(story)
    values = [story.sign * loss for loss in story.outcomes]
    reached = Axis.of(f"best {story.metric}", objective_scale(values, story.sign), 4)
    axes = [axis_of(parameter, math.nan) for parameter in swept]
    lines = []
    for trial in best_last(story, story.trials):
        ref = refs[trial.trial_id]
        outcome = values[ref.number]
        if not math.isnan(outcome):
            places = [
                _position(axis.scale, place, trial.config.get(parameter.name), ref.number)
                for parameter, (axis, place) in zip(swept, axes, strict=True)
            ]
            places.append(reached.scale.position(reached.scale.clamp(outcome, story.sign)))
            lines.append(Line(tuple((float(i), y) for i, y in enumerate(places)), "curve", ref))
    every = [*(axis for axis, _ in axes), reached]
    last = len(swept)
    labels = [
        Label(float(i), axis.scale.position(value), text, "tick", "end" if i == last else "start")
        for i, axis in enumerate(every)
        for value, text in _labelled(axis)
    ]
    return Picture(
        title="Hyperparameters together",
        about="each trial through its hyperparameters to its result",
        x=Axis(
            "",
            Scale(0.0, float(last) or 1.0),
            tuple((float(index), axis.name) for index, axis in enumerate(every)),
            "names",
        ),
        y=Axis("", Scale(0.0, 1.0), (), "names"),
        marks=(*(Rule(float(index), True, "axis") for index in range(len(every))), *lines, *labels),
        height=240.0,
        caption=CAPTION,
        parallel=True,
    )


def _position(scale: Scale, place: Callable[[Any, int], float], value: Any, number: int) -> float:
    return math.nan if value is None else scale.position(place(value, number))


def _labelled(axis: Axis) -> tuple[tuple[float, str], ...]:
    few = len(axis.ticks) <= NAMED
    return axis.ticks if few else (axis.ticks[0], axis.ticks[-1])
