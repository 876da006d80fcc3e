"""What a resume costs, in units of the time: measured from when its reports come."""

from dataclasses import dataclass


@dataclass(slots=True)
class Pause:
    """A trial that is being paused, or is paused."""

    step: float  # where it was
    decided: float  # when, in seconds of the scheduler's clock
    left: float | None = None  # when it had given up its worker


class ResumeCostMeter:
    """Seconds a unit of the time takes, over all trials; and what each resume takes beside that.

    The cost of a resume: from the decision to pause until the worker is free (the save), and from
    when a worker is free for the trial until its first report (start and load), less what its
    progress to that report takes at the usual pace.
    """

    def __init__(self) -> None:
        self._seconds = 0.0  # between consecutive reports of a trial that kept running
        self._units = 0.0  # of the time, between them
        self._last: dict[str, tuple[float, float]] = {}  # when and where each trial reported last
        self._pauses: dict[str, Pause] = {}

    def report(self, trial_id: str, step: float, now: float, since: float | None) -> float | None:
        """A trial reports `step` and has had its worker `since`.

        Of the first report after a pause: what the resume cost, in units of the time; None while
        the usual pace is not known, or where the trial went back to an earlier step.
        """
        pause, last = self._pauses.pop(trial_id, None), self._last.get(trial_id)
        self._last[trial_id] = (now, step)
        if pause is None:
            if last is not None and step > last[1]:
                self._seconds += now - last[0]
                self._units += step - last[1]
            return None
        if since is None or step <= pause.step or self._seconds <= 0:
            return None
        saving = 0.0 if pause.left is None else pause.left - pause.decided
        units = (now - since + saving) * self._units / self._seconds - (step - pause.step)
        return max(units, 0.0)

    def pausing(self, trial_id: str, now: float) -> None:
        """The trial is to be paused at the step that it has just reported."""
        last = self._last.get(trial_id)
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
