"""What starting or resuming a trial costs, in units of the time: by when its reports come."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Pause:
    """A trial that is being paused, or is paused."""

    step: float  # where it was
    decided: float  # when, in seconds of the scheduler's clock
    left: float | None = None  # when it had given up its worker


class Start(NamedTuple):
    """A trial's first report, before it is known what a unit of its time takes."""

    seconds: float  # since it had a worker
    step: float


class Cost(NamedTuple):
    """What a start or a resume took, beside training."""

    units: float  # of the time
    of_start: bool


class StartCostMeter:
    """Seconds a unit of the time takes, over all trials; what each start takes beside that.

    The cost of a start: from when a worker is free for the trial until its first report, less what
    its progress to that report takes at the pace to its second one; of a trial that is paused
    before, it is not known. Of a resume, at the usual pace, and with the save: from the decision to
    pause until the worker is free.
    """

    def __init__(self) -> None:
        self._seconds = 0.0  # between consecutive reports of a trial that kept running
        self._units = 0.0  # of the time, between them
        self._last: dict[str, tuple[float, float]] = {}  # when and where each trial reported last
        self._pauses: dict[str, Pause] = {}
        self._starts: dict[str, Start] = {}

    def report(
        self, trial_id: str, step: float, now: float, since: float | None, *, first: bool = False
    ) -> Cost | None:
        """A trial reports `step` and has had its worker `since`; `first`: it never has before.

        What its start or resume cost: at the first report after a resume, the second after a start.
        Else None, also where the trial went back to an earlier step.
        """
        pause, last = self._pauses.pop(trial_id, None), self._last.get(trial_id)
        self._last[trial_id] = (now, step)
        if pause is not None:
            if since is None or step <= pause.step or self._seconds <= 0:
                return None
            saving = 0.0 if pause.left is None else pause.left - pause.decided
            usual = (now - since + saving) * self._units / self._seconds
            return Cost(max(usual - (step - pause.step), 0.0), of_start=False)
        if last is None:
            if first and since is not None:
                self._starts[trial_id] = Start(now - since, step)
            return None
        start, seconds, units = self._starts.pop(trial_id, None), now - last[0], step - last[1]
        if units <= 0:
            return None
        self._seconds += seconds
        self._units += units
        if start is None or seconds <= 0:
            return None
        return Cost(max(start.seconds * units / seconds - start.step, 0.0), of_start=True)

    def pausing(self, trial_id: str, now: float) -> None:
        """The trial is to be paused at the step that it has just reported."""
        last = self._last.get(trial_id)
        self._starts.pop(trial_id, None)
        if last is not None:
            self._pauses[trial_id] = Pause(last[1], now)

    def left(self, trial_id: str, now: float) -> None:
        """The trial has given up its worker."""
        if trial_id in self._pauses:
            self._pauses[trial_id].left = now

    def drop(self, trial_id: str) -> None:
        """The trial has ended, or starts again after a failure."""
        self._last.pop(trial_id, None)
        self._pauses.pop(trial_id, None)
        self._starts.pop(trial_id, None)
