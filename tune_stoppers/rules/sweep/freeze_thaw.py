"""FreezeThaw: every trial pauses at every rung, and continues when it is worth a worker again."""

from dataclasses import dataclass
from typing import ClassVar

from tune_stoppers.core import Decision, require_number
from tune_stoppers.rules.sweep.pausing import PausingRecord, PausingRule, PausingTrial


@dataclass(frozen=True, kw_only=True)
class FreezeThaw(PausingRule):
    """Pauses a trial at each rung, at its first report there with a checkpoint.

    Rungs, and what is recorded at them: as `PausingRule` says. Ranks do not decide who
    continues. Whoever applies the rule compares all trials that wait and all that are new by what a
    worker is worth there (`surrogate.acquisition.freeze_thaw`), and notes "resumed" for the one
    that continues.

    Units: `least_chance` is a probability. When no new trial comes, a waiting trial that is
    less likely than this to be the best is not continued.
    """

    scheduler: ClassVar[str] = "FreezeThawScheduler"

    least_chance: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("least_chance", self.least_chance, at_least=0, at_most=1)

    def at_rung(
        self, record: PausingRecord, trial_id: str, course: PausingTrial, checkpoint: bool
    ) -> Decision:
        """It waits until it is worth a worker."""
        rung = record.rungs[course.reached - 1]
        loss = rung.of_trial[trial_id]
        text = "{loss:loss} is rank {rank} of {count} at rung {rung:g}: "
        numbers = {
            "loss": loss,
            "rank": rung.rank(loss),
            "count": len(rung.losses),
            "rung": record.times[course.reached - 1],
        }
        if not checkpoint:
            return self.keep(text + "no pause without a checkpoint", **numbers)
        return self.pause(text + "it is to be compared with all others", **numbers)
