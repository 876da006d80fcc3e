"""`DiminishingReturnsStopper`: one record for the whole sweep, and the sweep's clock."""

from typing import Unpack

from tune_stoppers.core import Mode
from tune_stoppers.rules.sweep.diminishing_returns import DiminishingReturns
from tune_stoppers.tune.stoppers.base import Common, RuleStopper, needs_objective


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
        super().__init__(rule, metric, mode, **common)
