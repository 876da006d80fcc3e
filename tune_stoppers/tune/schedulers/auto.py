"""`AutoScheduler`: what to take without choosing."""

from typing import Unpack

from tune_stoppers.tune.schedulers.base import Common
from tune_stoppers.tune.schedulers.bound_asha import BoundASHAScheduler


class AutoScheduler(BoundASHAScheduler):
    """`BoundASHAScheduler` with `drop="typical"` and `order="model"`: nothing to tune.

    It stops trials that cannot win, and starts next what a model of the configurations promises
    most of. Needs no checkpoints. With a searcher that adapts by itself, such as `OptunaSearch`,
    the order is the searcher's.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        grace_period: the first rung; None: 4 % of `max_t`, rounded up where time comes in whole
            steps. Where trials report more rarely, the time between two reports.
        common: those of `SweepScheduler`. `time_attr="progress"` with max_t=1.0 compares trials
            of different length at equal progress.
    """

    def __init__(
        self, max_t: float, grace_period: float | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(max_t, grace_period, drop="typical", order="model", **common)
