"""The rules that search benchmarks compare: ours, Ray's and Optuna's, and an oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import optuna
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from benchmarks.recorded import horizon
from tune_stoppers import (
    AutoScheduler,
    BoundASHAScheduler,
    FreezeThawScheduler,
    PromotionASHAScheduler,
)
from tune_stoppers.backtest.comparison import NO_STOPPING, Comparison
from tune_stoppers.backtest.optuna_pruner import OptunaPrunerScheduler
from tune_stoppers.backtest.thinning import PROGRESS
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve

OURS, TUNED, SECOND = "AutoScheduler", "Ray ASHA, best-tuned", "Ray ASHA, second-best"
BOUND, ORACLE = "BoundASHAScheduler", "an oracle's order, no stopping"
PROMOTION, THAW = "PromotionASHAScheduler", "FreezeThawScheduler"
TUNING_SEED = 1000  # orders on which ASHA is tuned; those reported begin at 0


class KeepFewScheduler(FIFOScheduler):
    """Keeps of each trial's first report the best `share` so far, its own included."""

    def __init__(self, share: float = 0.05) -> None:
        super().__init__()
        self._share = share
        self._firsts: dict[str, float] = {}
        self._sign = 1.0

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        self._metric, self._sign = str(metric), -1.0 if mode == "max" else 1.0
        return True

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.trial_id in self._firsts:
            return str(TrialScheduler.CONTINUE)
        loss = self._sign * float(result[self._metric])
        self._firsts[trial.trial_id] = loss = loss if math.isfinite(loss) else math.inf
        better = sum(other < loss for other in self._firsts.values())
        keep = loss < math.inf and better <= self._share * (len(self._firsts) - 1)
        return str(TrialScheduler.CONTINUE if keep else TrialScheduler.STOP)


class OracleScheduler(FIFOScheduler):
    """Starts the trials in the order of their recorded bests, and lets each run to its end.

    Where the sweep has a target: in the order of the time that each takes to get there.
    """

    def __init__(self, sweep: Sweep) -> None:
        super().__init__()
        self._merits = {curve.trial_id: merit(curve, sweep) for curve in sweep}
        self._held: list[Trial] = []
        self._ahead: Trial | None = None  # waits for the next free worker

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        trial.set_status(Trial.PAUSED)  # what is pending is started in the order given
        self._held.append(trial)

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        if self._ahead is None or self._ahead.status != Trial.PENDING:
            self._held.sort(key=lambda trial: self._merits[trial.trial_id], reverse=True)
            self._ahead = self._held.pop() if self._held else None
        return self._ahead


def merit(curve: Curve, sweep: Sweep) -> tuple[float, float]:
    """What the oracle goes by, lower is better: the time to the target, if any; the best loss."""
    metric, mode = sweep.objective()
    losses = curve.losses(metric, mode)
    if sweep.target is None:
        return 0.0, float(losses.min())
    hits = np.flatnonzero(losses <= (sweep.target if mode == "min" else -sweep.target))
    time = float(curve.durations().cumsum()[hits[0]]) if hits.size else math.inf
    return time, float(losses.min())


def asha(eta: int, first: float | None, sweep: Sweep) -> Any:
    """Ray's ASHA with its first rung at one report, or at a share of the horizon."""
    scale = 1 / sweep.max_t if PROGRESS in sweep.metrics else 1
    reports = 1 if first is None else max(1, math.ceil(first * sweep.max_t))
    return ASHAScheduler(**horizon(sweep), grace_period=reports * scale, reduction_factor=eta)


def optunas(make: Callable[[], Any]) -> Any:
    return OptunaPrunerScheduler(make())


def bound_asha(sweep: Sweep, **options: Any) -> Any:
    return BoundASHAScheduler(**horizon(sweep), **options)


def auto(sweep: Sweep) -> Any:
    return AutoScheduler(**horizon(sweep))


def promotion(sweep: Sweep) -> Any:
    return PromotionASHAScheduler(**horizon(sweep))


def freeze_thaw(sweep: Sweep) -> Any:
    return FreezeThawScheduler(**horizon(sweep))


PARTS = {  # variants of BoundASHAScheduler
    f"{BOUND}, typical drop": partial(bound_asha, drop="typical"),
    f"{BOUND}, ordered by the model": partial(bound_asha, order="model"),
    f"{BOUND}, audited": partial(bound_asha, audit=10),
    f"{BOUND}, all three": partial(bound_asha, drop="typical", order="model", audit=10),
}


def median(sweep: Sweep) -> Any:
    return MedianStoppingRule(time_attr="training_iteration", grace_period=1)


def hyperband(sweep: Sweep) -> Any:
    return HyperBandScheduler(max_t=sweep.max_t)


ASHAS = {
    f"Ray ASHA, eta {eta}, grace {'5 %' if first else '1'}": partial(asha, eta, first)
    for eta in (2, 3, 4)
    for first in (None, 0.05)
}
OTHERS: dict[str, Callable[..., Any]] = {
    "Ray median": median,
    "Ray HyperBand": hyperband,
    "Optuna median": lambda: optunas(optuna.pruners.MedianPruner),
    "Optuna percentile (25 %)": lambda: optunas(lambda: optuna.pruners.PercentilePruner(25.0)),
    "Optuna successive halving": lambda: optunas(optuna.pruners.SuccessiveHalvingPruner),
    "keep 5 % after one report": KeepFewScheduler,
}


def best_ashas(tuning: Comparison) -> dict[str, tuple[str, str]]:
    """Per family the two settings of ASHA with the best scores, best first."""
    scores = tuning.runs[tuning.runs["rule"] != NO_STOPPING]
    means = scores.groupby(["family", "rule"], sort=False)["score"].mean()
    order = {family: part.sort_values(kind="stable") for family, part in means.groupby("family")}
    return {str(f): (str(s.index[0][1]), str(s.index[1][1])) for f, s in order.items()}


def tuned(
    choice: Mapping[str, tuple[str, str]], families: Mapping[str, str], place: int
) -> Callable[[Sweep], Any]:
    """ASHA with the setting that suits each family."""
    return lambda sweep: ASHAS[choice[families[sweep.name]][place]](sweep)
