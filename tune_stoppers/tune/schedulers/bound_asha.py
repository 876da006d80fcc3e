"""`BoundASHAScheduler`: the rule `BoundASHA` under Ray Tune."""

from itertools import takewhile
from typing import Literal, Unpack

from tune_stoppers.core import require
from tune_stoppers.rules.sweep.bound_asha import BoundASHA, BoundASHARecord
from tune_stoppers.surrogate.trial_scores import TrialLosses
from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.schedulers.base import Common
from tune_stoppers.tune.schedulers.expectations import Asked
from tune_stoppers.tune.schedulers.ordered import Order, OrderedScheduler


class BoundASHAScheduler(OrderedScheduler[BoundASHARecord]):
    """ASHA's quota, or an optimistic bound that cannot reach the incumbent: whichever comes first.

    ::

        BoundASHAScheduler(max_t=40)  # first rung at 2; stop_reason of the third trial there:
        # "4.05754 is rank 3 of 3 at rung 2: not in the best 1/3"

    `rules.BoundASHA` says exactly when a trial stops. Needs no checkpoints.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        grace_period: the first rung; None: 4 % of `max_t`, rounded up where time comes in whole
            steps.
        reduction_factor: 1/`reduction_factor` of the trials survive a rung.
        optimism: the larger, the later the bound stops a trial.
        noise: how many median second differences the bound allows; never less than a step of the
            metric, 0.02 for accuracy on 50 items.
        bound_after: the share of `max_t` from which the bound acts.
        window: keep only the newest N entries of each rung, for searchers that improve; these
            order their trials themselves, so not with order="model".
        lr_metric, schedule_end: the bound waits while the learning rate, reported as `lr_metric`,
            rises, and while it is near its maximum before the step `schedule_end`.
        drop: "typical": the bound reckons with at least the median drop of the sweep's trials at
            the same age, not with the trial's "own" alone.
        audit: one in so many trials that fail a rung's quota continues to the next rung, and the
            quota is suspended while it proves wrong too often; None: none does.
        order: "given", or "model": which new trial starts next, see `OrderedScheduler`.
        history: earlier sweeps, with order="model", see `OrderedScheduler`.
        time_attr: what counts as time; "progress" with max_t=1.0 compares trials of different
            length at equal progress.
        on_nonfinite: a value that is not finite stops its trial at once and counts as worst at its
            next rung, unless this is "ignore", which leaves the report out.
        common: those of `SweepScheduler`.
    """

    def __init__(
        self,
        max_t: float,
        grace_period: float | None = None,
        reduction_factor: float = 3,
        optimism: float = 4.0,
        bound_after: float = 0.2,
        *,
        noise: float = 0.6,
        window: int | None = None,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        drop: Literal["own", "typical"] = "own",
        audit: int | None = None,
        order: Order = "given",
        history: Asked | None = None,
        **common: Unpack[Common],
    ) -> None:
        rule = BoundASHA(
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            optimism=optimism,
            noise=noise,
            bound_after=bound_after,
            window=window,
            lr_metric=lr_metric,
            schedule_end=schedule_end,
            drop=drop,
            audit=audit,
        )
        super().__init__(rule, order=order, history=history, **common)
        require(
            window is None or order == "given",
            f'{self.name} window={window!r} forgets losses that order="model" compares trials by: '
            "give one of the two.",
        )

    def standing(self, trial: Trial) -> TrialLosses | None:
        """The trial's losses at the rungs that it has come to, and its best."""
        rungs, trial_id = self.record.rungs, trial.trial_id
        best = self.record.bests.get(trial_id)
        if best is None:
            return None
        at = takewhile(lambda loss: loss is not None, (r.of_trial.get(trial_id) for r in rungs))
        return TrialLosses(tuple(loss for loss in at if loss is not None), best.loss)

    def debug_string(self) -> str:
        """One line: rungs with their entries, and the incumbent."""
        rungs = ", ".join(
            f"{time:g}: {len(rung.losses)}"
            for time, rung in zip(self.record.times, self.record.rungs, strict=True)
        )
        best = self.record.incumbent
        value = f"{self.sign * best.loss:.6g} by {best.trial_id}" if best.trial_id else "none yet"
        return f"{self.name}: trials recorded at rungs {{{rungs}}}; best {value}"
