"""How often a rung's quota is wrong in this sweep, learnt from trials that it spares."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

PRIOR_WRONG, PRIOR_RIGHT = 0.5, 4.5  # a quota is expected to be wrong in one case of ten
MOST_WRONG = 0.25  # expected share of wrong stops; a quota that is beyond it is suspended


class Belief(NamedTuple):
    """What is known of the quota at a rung."""

    wrong: int  # of the trials tried, those that passed the next rung's quota
    tried: int

    @property
    def share(self) -> float:
        """The expected share of wrong stops: the mean of a Beta distribution."""
        prior = PRIOR_WRONG + PRIOR_RIGHT
        return (PRIOR_WRONG + self.wrong) / (prior + self.tried)

    @property
    def suspended(self) -> bool:
        """Whether the quota is wrong too often to be acted on."""
        return self.share > MOST_WRONG


@dataclass
class Audit:
    """The trials that continue although they failed a quota, and what became of them, per rung.

    The first trial that fails the quota of a rung, and every `every`-th after it, continues to the
    next rung. If it passes the quota there, the stop had been wrong. While the expected share of
    wrong stops, (0.5 + wrong) / (5 + tried), is above 1/4, the quota of the rung is suspended: all
    trials continue, and each of them is counted, so that the quota may be restored.
    """

    failed: list[int]  # per rung, as the next two
    wrong: list[int]
    tried: list[int]
    spared: dict[str, int] = field(default_factory=dict)  # trial: the rung whose quota it failed

    @classmethod
    def of(cls, rungs: int) -> "Audit":
        """Of so many rungs, before the first trial."""
        return cls([0] * rungs, [0] * rungs, [0] * rungs)

    def belief(self, rung: int) -> Belief:
        """What is known of the quota at this rung."""
        return Belief(self.wrong[rung], self.tried[rung])

    def fails(self, trial_id: str, rung: int, every: int) -> bool:
        """The trial fails the quota of this rung; whether it continues all the same.

        One that was spared here or at a later rung, and has gone back, still is.
        """
        if self.spared.get(trial_id, -1) >= rung:
            return True
        self.failed[rung] += 1
        spares = self.belief(rung).suspended or (self.failed[rung] - 1) % every == 0
        if spares:
            self.spared[trial_id] = rung
        return spares

    def comes_to_rung(self, trial_id: str, rung: int, passes: bool) -> None:
        """The trial is at a rung: for one spared before, this shows if the stop was wrong."""
        failed = self.spared.get(trial_id, rung)
        if failed < rung:
            del self.spared[trial_id]
            self.tried[failed] += 1
            self.wrong[failed] += passes

    def forget(self, trial_ids: Iterable[str]) -> None:
        """These trials will not come to another rung."""
        for trial_id in trial_ids:
            self.spared.pop(trial_id, None)
