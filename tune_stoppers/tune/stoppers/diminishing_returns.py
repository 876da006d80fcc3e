"""`DiminishingReturnsStopper`: one record for the whole sweep, and the sweep's clock."""

from collections.abc import Callable
from typing import Unpack, cast

from tune_stoppers.core import Mode, Rule
from tune_stoppers.rules.sweep.diminishing_returns import DiminishingReturns
from tune_stoppers.track import Track
from tune_stoppers.tune.stoppers.base import Common, RuleStopper, needs_objective
from tune_stoppers.tune.stoppers.budget import SpendingReader
from tune_stoppers.tune.stoppers.shared_track import SharedTrack


class DiminishingReturnsStopper(RuleStopper):
    """Ends the whole sweep once going on is expected to gain too little.

    ::

        DiminishingReturnsStopper("eval_loss", "min")  # no more than the noise of an evaluation
        DiminishingReturnsStopper("accuracy", "max", worth=0.002)  # or under 0.002 an hour

    Never before `min_trials` have reported and one has come to its end: by itself, or at `max_t`,
    to be given where a scheduler ends trials there. The reason says what is expected to be left on
    the table. `rules.DiminishingReturns` has the formula, `RuleStopper` the common keywords.
    `worth`, in the metric's own units, is per hour of the sweep, by a clock that does not run
    between a crash and `Tuner.restore`. With a searcher that improves as it goes on, more may be
    left than is said.
    """

    _kind = DiminishingReturns

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        patience: int = 5,
        min_trials: int = 30,
        ahead: float = 1.0,
        noise: float = 1.0,
        worth: float | None = None,
        max_t: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        rule = DiminishingReturns(
            patience=patience,
            min_trials=min_trials,
            ahead=ahead,
            noise=noise,
            worth=worth,
            max_t=max_t,
            start_after=common.pop("start_after", 0),
        )
        super().__init__(cast(Rule, rule), metric, mode, **common)
        self._record = rule.init()
        if worth is None:
            return
        self._reader = SpendingReader(
            self.name,
            self.rule,
            metric=metric,
            mode=mode,
            time_attr=self._reader.time_attr,
            on_missing=self._reader.metrics.on_missing,
        )

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Take the hours by another clock from now on: a replay has its own time."""
        if isinstance(self._reader, SpendingReader):
            self._reader.spending.use(clock)

    def _new_track(self, trial_id: str) -> Track:
        return SharedTrack(cast(DiminishingReturns, self.rule), self._record, trial_id)
