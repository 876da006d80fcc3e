"""What a scheduler sees beside its trials: the controller, narrowed, and the searcher."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tune_stoppers.backtest.trial import ReplayTrial

if TYPE_CHECKING:
    from tune_stoppers.backtest.cluster import Cluster
    from tune_stoppers.backtest.searching import NearestSearch
    from tune_stoppers.tune.ray_internals.types import ControllerOf


class Searcher:
    """Hands out the recorded trials in order; stands in for Ray's `BasicVariantGenerator`."""

    metric = None

    def __init__(self, trials: Sequence[ReplayTrial]) -> None:
        self._waiting = deque(trials)

    def next_trial(self) -> ReplayTrial | None:
        return self._waiting.popleft() if self._waiting else None

    def max_pending(self, workers: int) -> int:
        """Trials that Ray takes ahead of time where none is better than another."""
        return max(200, int(workers * 1.1))

    def is_finished(self) -> bool:
        return not self._waiting

    def set_finished(self) -> None:
        self._waiting.clear()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """It does not learn."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nor here."""


class SchedulerView:
    """What Ray lets a scheduler see of the controller in most of its calls."""

    __slots__ = (
        "_schedule_trial_save",
        "_set_trial_status",
        "get_live_trials",
        "get_trials",
        "pause_trial",
        "search_alg",
        "stop_trial",
    )

    get_trials: Callable[[], list[ReplayTrial]]
    stop_trial: Callable[[ReplayTrial], None]
    search_alg: Searcher | NearestSearch

    def __init__(self, cluster: Cluster) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(cluster, name))


if TYPE_CHECKING:

    def _as_controllers(
        cluster: Cluster, view: SchedulerView
    ) -> tuple[ControllerOf[ReplayTrial], ControllerOf[ReplayTrial]]:
        return cluster, view
