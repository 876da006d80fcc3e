"""What `AutoScheduler` knows only while its sweep runs: its model, and what that said last."""

from tune_stoppers.comparisons import Made, Said, compare
from tune_stoppers.rules.sweep.expected_improvement import CurvesRecord, ExpectedImprovement
from tune_stoppers.surrogate.acquisition.expected_improvement import ExpectedImprovementAcquisition
from tune_stoppers.surrogate.joint_model import LATE
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.schedulers.expectations import Expectations
from tune_stoppers.tune.schedulers.pausing_state import Pausing


class Beliefs(Live):
    """The model, and what it said last."""

    def __init__(self, prior: Expectations | None) -> None:
        self.order = ExpectedImprovementAcquisition(prior)
        self.turn = 0  # grows with whatever may change a choice
        self.said: tuple[int, Said[Trial]] | None = None  # at which turn, and what
        self.judged: dict[str, int] = {}  # at which rung a trial was last compared, without a pause
        self.curves: dict[str, Made] = {}  # of each trial, as last made
        self.over = ""  # why the sweep ends: who waits is given up

    def compare(
        self,
        rule: ExpectedImprovement,
        record: CurvesRecord,
        live: Pausing,
        arriving: Trial | None = None,
    ) -> Said[Trial]:
        """What a worker could do: now, or with the trial that has just come to a rung."""
        if self.said is not None and self.said[0] == self.turn and arriving is None:
            return self.said[1]
        begun = [t for trial_id, t in live.trials.items() if trial_id not in live.held]
        said = compare(
            self.order, rule, record, live.held.trials, begun, arriving=arriving, made=self.curves
        )
        if arriving is None:  # else it is of a trial that has its worker still
            self.said = self.turn, said
        return said

    def diverged(self, said: Said[Trial], trial_id: str) -> bool:
        """Whether a trial that was compared has diverged, beyond a doubt: it is stopped for good.

        As `LossScale` has it, in two reports running, and once one trial has come half the way:
        how much there is to learn is known then.
        """
        if said.compared is None or trial_id not in self.curves:
            return False
        scale, (curve, _) = said.compared.scale, self.curves[trial_id][-1]
        far = max(float(made[-1][0].progress[-1]) for made in self.curves.values())
        return far >= LATE and scale.learnt and scale.diverged(curve, reports=2)
