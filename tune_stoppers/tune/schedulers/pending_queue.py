"""New trials that are held back until a scheduler names the one to start.

Ray starts whatever is pending, and takes many samples at once. A new trial is therefore shown to
Ray as paused; it is started by being named in `choose_trial_to_run`.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator

from tune_stoppers.tune.ray_internals.controller import uncount
from tune_stoppers.tune.ray_internals.types import PAUSED, SearchAlgorithm, Trial


class PendingQueue:
    """The trials that are held back, in Ray's order."""

    def __init__(self) -> None:
        self._trials: OrderedDict[str, Trial] = OrderedDict()

    def __len__(self) -> int:
        return len(self._trials)

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._trials

    @property
    def trials(self) -> Sequence[Trial]:
        """All of them."""
        return list(self._trials.values())

    def hold(self, trial: Trial) -> None:
        """Show a pending trial to Ray as paused."""
        trial.init_local_path()  # without it Ray's ResultGrid fails if it is never run
        trial.set_status(PAUSED)
        self._trials[trial.trial_id] = trial

    def sort(self, key: Callable[[Trial], Any]) -> None:
        """Put them in another order."""
        self._trials = OrderedDict(sorted(self._trials.items(), key=lambda pair: key(pair[1])))

    def release(self, index: int = 0) -> Trial:
        """The trial at this index, which is not held any more."""
        if not index:
            return self._trials.popitem(last=False)[1]
        return self._trials.pop(list(self._trials)[index])

    def take(self, trial_id: str) -> Trial:
        """This trial, which is not held any more."""
        return self._trials.pop(trial_id)

    def drop(self, trial_id: str) -> None:
        """The trial, if it is held, is gone."""
        self._trials.pop(trial_id, None)


def most_at_a_time(search: SearchAlgorithm) -> int:
    """`max_concurrent_trials` over configurations that are all known beforehand; 0: no such limit.

    Ray counts a trial until it has ended. Trials that wait do not run: here only those that have a
    worker count, so that all configurations can be compared (`limit_only_what_runs`).
    """
    if isinstance(search, BasicVariantGenerator) and search.total_samples < sys.maxsize:
        return int(search.max_concurrent)
    return 0


def limit_only_what_runs(search: SearchAlgorithm, trial_id: str) -> None:
    """The trial is not to count against `most_at_a_time` in Ray's way."""
    if most_at_a_time(search):
        uncount(search, trial_id)


def is_limited(search: SearchAlgorithm) -> bool:
    """Whether the searcher suggests no more than so many trials before one has ended."""
    if isinstance(search, SearchGenerator):
        return isinstance(search.searcher, ConcurrencyLimiter)
    limited = isinstance(search, BasicVariantGenerator) and bool(search.max_concurrent > 0)
    return limited and not most_at_a_time(search)


def may_hold(search: SearchAlgorithm) -> bool:
    """Whether new trials can be held back without drawing ever more from the searcher."""
    if isinstance(search, BasicVariantGenerator) and search.total_samples >= sys.maxsize:
        return is_limited(search)
    return is_limited(search) or not isinstance(search, SearchGenerator)
