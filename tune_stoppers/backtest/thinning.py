"""Fewer reports a trial: replays of long curves in a fraction of the time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve, Floats, Ints

PROGRESS = "progress"


def thin(sweep: Sweep, most: int) -> Sweep:
    """`sweep` with at most `most` reports a trial; itself if it has no more.

    Iterations are cut into stretches of equal length, the same for every trial: of each stretch
    the last report stays, so also a trial's last one, and its iteration becomes the number of the
    stretch. A metric that this report lacks keeps the last value that the stretch has of it: an
    evaluation is not lost behind the training logs that follow. What else happened in between is
    not seen by any rule, nor by the score.
    """
    if most < 1:
        raise ValueError(f"thin to at least 1 report a trial, got {most}.")
    longest = max(len(curve) for curve in sweep)
    if longest <= most:
        return sweep
    stride = math.ceil(sweep.max_t / most)
    return _with(sweep, [_keep(curve, -(-curve.iterations // stride)) for curve in sweep])


def equal_progress(sweep: Sweep, horizon: str, reports: int) -> Sweep:
    """`sweep` with trials of different length made comparable at equal progress.

    `horizon`: the hyperparameter that says how long a trial was planned to be, in the sweep's own
    steps; never its last step, which a rule could not know, and which lies early where a trial
    broke off. The metric `progress` is step / horizon. `training_iteration` becomes progress in
    units of 1 / `reports`, rounded up, of each of which the last report stays; a short trial skips
    some. `time_total_s` becomes the number of recorded reports that the trial had made by then:
    what it costs under `cost="seconds"` is what it cost.

    Raises ValueError where the sweep has no steps or no such hyperparameter.
    """
    curves = []
    for curve in sweep:
        planned = curve.config.get(horizon)
        if curve.steps is None or not isinstance(planned, int | float) or not planned > 0:
            raise ValueError(
                f"trial {curve.trial_id!r} of {sweep.name!r} needs a step column and a positive "
                f"hyperparameter {horizon!r}, got {planned!r}."
            )
        progress: Floats = np.minimum(curve.steps / planned, 1.0)
        bins = np.maximum(np.ceil(progress * reports - 1e-9), 1).astype(np.int64)
        whole = replace(
            curve,
            metrics=curve.metrics | {PROGRESS: progress},
            seconds=np.arange(1.0, len(curve) + 1),
        )
        curves.append(_keep(whole, bins))
    return _with(sweep, curves)


def only_metrics(sweep: Sweep, *names: str) -> Sweep:
    """`sweep` with these metrics alone: a rule that reads no others is replayed faster."""
    curves = [
        replace(
            curve,
            metrics={name: curve.metrics[name] for name in names if name in curve.metrics},
            missing={name: curve.missing[name] for name in names if name in curve.missing},
        )
        for curve in sweep
    ]
    return _with(sweep, curves)


def _keep(curve: Curve, bins: Ints) -> Curve:
    """Of reports with the same bin, the last one, at the bin's number as iteration.

    Each metric is the last one that was reported in the bin.
    """
    rows = np.flatnonzero(np.diff(bins, append=bins[-1] + 1))
    first = np.concatenate([[0], rows[:-1] + 1])
    newest = {}
    for name, absent in curve.missing.items():
        told = np.maximum.accumulate(np.where(absent, -1, np.arange(len(bins))))[rows]
        newest[name] = np.where(told >= first, told, rows)
    missing = {name: absent[newest[name]] for name, absent in curve.missing.items()}
    return replace(
        curve,
        iterations=bins[rows],
        metrics={name: values[newest.get(name, rows)] for name, values in curve.metrics.items()},
        steps=None if curve.steps is None else curve.steps[rows],
        seconds=None if curve.seconds is None else curve.seconds[rows],
        missing={name: absent for name, absent in missing.items() if absent.any()},
    )


def _with(sweep: Sweep, curves: list[Curve]) -> Sweep:
    return Sweep(
        curves,
        name=sweep.name,
        metric=sweep.metric,
        mode=sweep.mode,
        modes=sweep.modes,
        target=sweep.target,
        surrogate=sweep.surrogate,
        description=sweep.description,
    )
