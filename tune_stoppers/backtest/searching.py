"""A searcher that improves, over recorded trials: what it suggests becomes the nearest of them.

Ray's `Searcher` suggests configurations that were never run. The recorded trial that is nearest
to a suggestion, and not in use yet, stands in for it: the searcher is told its results as those of
the suggestion.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator

from tune_stoppers.backtest.clock import StalledError
from tune_stoppers.backtest.nearest import Neighbours, space_of
from tune_stoppers.backtest.trial import ReplayTrial
from tune_stoppers.recorded.sweep import Sweep

ASKS = 600  # with nothing left to run; Ray asks once a second for ten minutes


def prepared(
    searcher: Searcher | SearchGenerator,
    sweep: Sweep,
    metric: str,
    mode: Literal["min", "max"],
    workers: int,
) -> Searcher:
    """A copy of the searcher, ready to suggest, and limited as `replay` says.

    Raises TypeError for what is no searcher, ValueError where no hyperparameter differs.
    """
    if not isinstance(searcher, (Searcher, SearchGenerator)):
        raise TypeError(
            f"searcher must be a Ray Searcher such as OptunaSearch, got {type(searcher).__name__}."
        )
    space = space_of(sweep)
    if not space:
        raise ValueError(
            f"no hyperparameter differs between the trials of sweep {sweep.name!r}; a searcher "
            "has nothing to choose by."
        )
    own = copy.deepcopy(searcher)
    if isinstance(own, SearchGenerator):
        own = own.searcher
    elif not isinstance(own, ConcurrencyLimiter):
        own = ConcurrencyLimiter(own, max_concurrent=workers)
    spec: dict[str, Any] = {"num_samples": len(sweep), "stop": None, "time_budget_s": None}
    with _blaming(own, "set_search_properties"):
        SearchGenerator(own).set_search_properties(metric, mode, space, **spec)
    return own


class NearestSearch(SearchGenerator):
    """Stands in for Ray's `SearchGenerator`, and asks and tells its searcher as that one does.

    `trials` is put in the order in which they are handed out: those not yet in use stand last.
    """

    def __init__(self, trials: list[ReplayTrial], searcher: Searcher) -> None:
        super().__init__(searcher)
        self._total_samples = len(trials)
        self._trials = trials
        self._unused = list(range(len(trials)))  # rows of the neighbours, as the trials stand
        self._neighbours = Neighbours([trial.curve.config for trial in trials])
        self._asked = 0
        self._open: dict[str, str] = {}  # unfinished trials: the id that each was suggested under

    def max_pending(self, workers: int) -> int:
        """Trials that Ray takes ahead of time: as many as may be unfinished, 1 if that is open."""
        searcher = self.searcher
        while searcher is not None:
            if isinstance(searcher, ConcurrencyLimiter):
                return int(searcher.max_concurrent)
            searcher = getattr(searcher, "searcher", None)
        return 1

    def next_trial(self) -> ReplayTrial | None:
        """The unused trial nearest to the next suggestion; None if there is none for now.

        Raises StalledError if the searcher has nothing to wait for and suggests nothing,
        RuntimeError if it fails, TypeError and ValueError for what is no configuration.
        """
        if self.is_finished():
            return None
        for _ in range(1 if self._open else ASKS):
            name = f"suggestion_{self._asked:05d}"
            self._asked += 1
            with _blaming(self.searcher, "suggest"):
                suggestion = self.searcher.suggest(name)
            if suggestion == Searcher.FINISHED:
                self._finished = True
                return None
            if suggestion is not None:
                return self._hand_out(name, suggestion)
        if self._open:
            return None
        raise StalledError(
            f"{_name(self.searcher)} suggests nothing, though all of its {self._counter} trials "
            "have ended; in Ray it would be asked for ever. It must return 'FINISHED' at its end."
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the searcher of a report that did not end its trial."""
        name = self._open[trial_id]
        with _blaming(self.searcher, "on_trial_result"):
            self.searcher.on_trial_result(name, result | {"trial_id": name})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the searcher that a trial has ended: its last report, None if it was not running."""
        name = self._open.pop(trial_id)
        told = None if result is None else result | {"trial_id": name}
        with _blaming(self.searcher, "on_trial_complete"):
            self.searcher.on_trial_complete(trial_id=name, result=told, error=error)

    def _hand_out(self, name: str, suggestion: Any) -> ReplayTrial:
        if not isinstance(suggestion, Mapping):
            raise TypeError(
                f"{_name(self.searcher)} suggested {suggestion!r}; a suggestion is a "
                "configuration, None or 'FINISHED'."
            )
        index = self._neighbours.nearest(suggestion, self._unused)
        del self._unused[index]
        trial = self._trials.pop(self._counter + index)
        self._trials.insert(self._counter, trial)
        self._counter += 1
        self._open[trial.trial_id] = name
        return trial


def _name(searcher: Searcher) -> str:
    """The searcher itself, whatever limits or repeats it."""
    while getattr(searcher, "searcher", None) is not None:
        searcher = searcher.searcher
    return type(searcher).__name__


@contextmanager
def _blaming(searcher: Searcher, call: str) -> Iterator[None]:
    """One error that says whose fault it is; in Ray it would end the sweep."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(
            f"searcher {_name(searcher)} failed in {call}: {type(error).__name__}: {error}"
        ) from error
