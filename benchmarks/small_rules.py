"""The rules that small sweeps are run under."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import optuna

from benchmarks.contestants import (
    BOUND,
    OURS,
    PROMOTION,
    THAW,
    OracleScheduler,
    asha,
    auto,
    bound_asha,
    freeze_thaw,
    median,
    optunas,
    promotion,
)
from tune_stoppers.backtest.comparison import NO_STOPPING
from tune_stoppers.recorded.sweep import Sweep

ASHA, ASHA_LATE = "Ray ASHA, defaults", "Ray ASHA, 15 %, eta 2"
ORACLE, STOP_ONLY = "oracle's order", f"{OURS}, no checkpoints"


class Contestant(NamedTuple):
    """A scheduler for a pool, and how the pool is tried."""

    make: Callable[[Sweep], Any]
    checkpoints: bool = True  # whether its trials have any
    ordered: Callable[[Sweep], Sweep] | None = None  # in which order; None: as drawn
    searcher: Callable[[Sweep, int], Any] | None = None  # of a pool and a seed; None: in that order


def _pruner(make: Callable[[], Any]) -> Contestant:
    return Contestant(lambda pool: optunas(make))


RULES: dict[str, Contestant] = {
    NO_STOPPING: Contestant(lambda pool: None),
    ASHA: Contestant(partial(asha, 4, None)),
    ASHA_LATE: Contestant(partial(asha, 2, 0.15)),
    OURS: Contestant(auto),
    STOP_ONLY: Contestant(auto, checkpoints=False),
    BOUND: Contestant(bound_asha),
    PROMOTION: Contestant(promotion),
    THAW: Contestant(freeze_thaw),
    "Ray median": Contestant(median),
    "Optuna median": _pruner(optuna.pruners.MedianPruner),
    "Optuna percentile (25 %)": _pruner(lambda: optuna.pruners.PercentilePruner(25.0)),
    "Optuna successive halving": _pruner(optuna.pruners.SuccessiveHalvingPruner),
    **{
        f"Ray ASHA, {100 * first:g} %, eta {eta}": Contestant(partial(asha, eta, first))
        for first in (0.05, 0.15, 0.25)
        for eta in (2, 3, 4)
        if (first, eta) != (0.15, 2)
    },
    ORACLE: Contestant(OracleScheduler),
}
BASELINES = (NO_STOPPING, ASHA, ASHA_LATE, ORACLE)  # always run: others are measured against them
MINE = (OURS, STOP_ONLY, BOUND, PROMOTION, THAW)
