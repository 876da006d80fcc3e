"""A rung: the losses that trials had when they came to it."""

from bisect import bisect_left, insort


class Rung:
    """The losses recorded at one rung, one a trial, sorted: O(log n) to find, to add, to rank."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.losses: list[float] = []  # sorted
        self.of_trial: dict[str, float] = {}  # oldest first

    def record(self, trial_id: str, loss: float) -> None:
        """Add the trial's loss; a trial that is here already has its entry replaced."""
        if trial_id in self.of_trial:
            self._remove(trial_id)
        insort(self.losses, loss)
        self.of_trial[trial_id] = loss
        if self.window is not None and len(self.of_trial) > self.window:
            self._remove(next(iter(self.of_trial)))

    def drop(self, trial_id: str) -> None:
        """Remove the trial's entry, if it has one."""
        if trial_id in self.of_trial:
            self._remove(trial_id)

    def _remove(self, trial_id: str) -> None:
        del self.losses[bisect_left(self.losses, self.of_trial.pop(trial_id))]

    def rank(self, loss: float) -> int:
        """1 + the number of strictly better losses: ties are in the trial's favour."""
        return 1 + bisect_left(self.losses, loss)

    @property
    def median(self) -> float:
        """The lower median of the losses; there must be some."""
        return self.losses[(len(self.losses) - 1) // 2]
