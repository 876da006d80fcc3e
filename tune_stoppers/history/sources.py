"""Where earlier sweeps are read from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tune_stoppers.history.past_sweep import PastSweep, Trial
from tune_stoppers.recorded import files
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve
from tune_stoppers.surrogate.encoding import Floats

Source = str | os.PathLike[str] | Sweep
OURS = "lora"
PROGRESS = "progress"


def read(
    sources: Source | Sequence[Source], metric: str | None, mode: str | None
) -> tuple[list[PastSweep], list[str]]:
    """The sweeps of all sources, and what is to be said of those of no use."""
    if mode not in (None, "min", "max"):
        raise ValueError(f"mode must be 'min' or 'max', got {mode!r}.")
    given = [sources] if isinstance(sources, (str, os.PathLike, Sweep)) else list(sources)
    found: list[PastSweep] = []
    said: list[str] = []
    for source in given:
        for sweep in sweeps_at(source, said):
            try:
                found.append(_past(sweep, metric, mode))
            except ValueError as error:
                said.append(f"{error} It is left out.")
    return found, said


def sweeps_at(source: Source, said: list[str]) -> Iterator[Sweep]:
    if isinstance(source, Sweep):
        yield source
        return
    if source == OURS:
        for path in sorted((Path(__file__).parents[1] / "backtest" / OURS).glob("*.parquet")):
            yield Sweep.from_parquet(path)
        return
    if files.is_csv(source):
        yield Sweep.from_csv(source)
    elif files.is_parquet(source):
        yield Sweep.from_parquet(source)
    else:
        yield Sweep.from_ray(source)


def _past(sweep: Sweep, metric: str | None, mode: str | None) -> PastSweep:
    """Judged by `metric` if the sweep reported it, else by its own objective."""
    if metric in sweep.metrics and metric is not None:
        metric, mode = sweep.objective(metric, mode)
    else:
        metric, mode = sweep.objective()
    return PastSweep.of(sweep.name, list(_trials(sweep, metric, mode)))


def _trials(sweep: Sweep, metric: str, mode: str) -> Iterator[Trial]:
    for curve in sweep:
        absent = curve.missing.get(metric, np.zeros(len(curve), dtype=bool))
        if metric not in curve.metrics or absent.all():
            continue
        losses = curve.losses(metric, mode)[~absent]
        yield Trial(curve.config, _shares(curve, sweep.max_t)[~absent], losses)


def _shares(curve: Curve, max_t: int) -> Floats:
    """The share of the horizon at each report: the trial's own progress, if it says so."""
    progress = curve.metrics.get(PROGRESS)
    if (
        progress is not None
        and np.isfinite(progress).all()
        and progress.min() >= 0
        and progress.max() <= 1
    ):
        return np.maximum.accumulate(progress)
    return np.asarray(curve.iterations / max_t)
