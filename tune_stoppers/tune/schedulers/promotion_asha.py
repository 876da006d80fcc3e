"""`PromotionASHAScheduler`: the rule `Promotion` under Ray Tune."""

from typing import Unpack

from tune_stoppers.rules.sweep.pausing import Choice
from tune_stoppers.rules.sweep.promotion import Promotion
from tune_stoppers.tune.ray_internals.types import Controller, Trial
from tune_stoppers.tune.schedulers.base import Common
from tune_stoppers.tune.schedulers.pausing import PausingScheduler


class PromotionASHAScheduler(PausingScheduler[Promotion]):
    """Pauses trials at rungs and promotes the best; the others wait, and are given up at the end.

    ::

        PromotionASHAScheduler(max_t=40)  # rungs at 2, 6, 18; stop_reason of one that waited:
        # "nothing else is left to run, and 2.12503 at rung 18 is no better than the 2.09956 there
        # of t005, the best that ran to its end"

    `rules.Promotion` says exactly who is paused, promoted and given up. It is for few workers. On
    recorded fine-tunes of language models `AutoScheduler` finds as good trials sooner, in each of
    four families (benchmarks/results/small_sweeps.md): take this for a rule that needs no model.

    A trial is paused only at a report that came with a checkpoint, as it would start from zero
    otherwise; one that reports none runs to the end. Report a checkpoint with each evaluation.
    Nor is it paused where nothing else could use its worker.

    New trials: Ray starts whatever is pending, and takes many samples at once. They are therefore
    held back (Ray shows them as PAUSED), and started where no paused trial is to be
    promoted. One trial is always chosen ahead, waiting for the next free worker, so a promotion
    may come one trial late. A searcher without a limit, such as a plain `OptunaSearch`, would be
    asked for all its samples at once if they were held back: its trials start by themselves, and
    promotions take turns with them. `max_concurrent_trials`: as `PausingScheduler` says.

    Trials of Ray Train (`TorchTrainer` and others started in a Tune function) are refused: Tune
    does not see their checkpoints, and a pause would leave their workers running. So is
    `TUNE_RESULT_BUFFER_LENGTH` > 1: a trial could not be paused at its rung.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        grace_period: the first rung; None: 4 % of `max_t`, rounded up where time comes in whole
            steps.
        reduction_factor: 1/`reduction_factor` of the trials at a rung are promoted.
        pen: the first so many trials at a rung wait for each other, before any is promoted.
        resume_share: a resume that takes more than this share of the way to the next rung, by the
            mean of those measured, is avoided.
        on_nonfinite: a value that is not finite stops its trial at once and counts as worst at its
            next rung, unless this is "ignore", which leaves the report out.
        common: those of `SweepScheduler`.
    """

    def __init__(
        self,
        max_t: float,
        grace_period: float | None = None,
        reduction_factor: float = 3,
        *,
        pen: int = 9,
        resume_share: float = 0.25,
        **common: Unpack[Common],
    ) -> None:
        rule = Promotion(
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            pen=pen,
            resume_share=resume_share,
        )
        super().__init__(rule, **common)

    def decide(self, *, fresh: bool, over: bool, idle: bool) -> Choice | None:
        """What the rule says."""
        return self.rule.choose(self.record, fresh=fresh, over=over, idle=idle)

    def goes_on_alone(self, controller: Controller, trial: Trial) -> bool:
        """Unless it would be given up."""
        over = controller.search_alg.is_finished()
        return self.rule.goes_on_alone(self.record, trial.trial_id, over=over)
