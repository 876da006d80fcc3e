"""A stand-in for Ray's controller that starts trials as Ray does, with `reuse_actors` or without.

One event a turn, as in `ray/tune/execution/tune_controller.py`: the scheduler names a trial; one
that is new is staged; a process that another trial has left goes to the one that is named; without
reuse, a worker that comes free goes to whoever was staged first.
"""

from types import SimpleNamespace
from typing import Any

from tests.stand_ins.pausing_stage import StandInTrial, basic

# of a kind that no real cluster of these tests has
RESOURCES = SimpleNamespace(required_resources={"worker of the stage": 1})


class Stage:
    """`workers` of them, and trials that report when they are told to."""

    def __init__(self, scheduler: Any, workers: int, *, reuse: bool) -> None:
        self.scheduler, self.free, self.reuse = scheduler, workers, reuse
        self.search_alg = basic(50)
        self.trials: list[Any] = []
        self.chosen: list[str] = []  # in the order in which they were staged, resumes included
        self.started: list[str] = []  # in the order in which they got a worker
        self._queue: list[Any] = []  # staged, with a process of their own that waits for a worker
        self._cached = 0  # processes that trials have left
        self._pending_trials_list: list[Any] = []  # to be staged, in this order
        self._starting: list[Any] = []  # they have their processes
        self._resetting_trials: list[Any] = []  # a reset takes no turn here
        self._actor_cache = self
        self.now = 0.0  # turns so far
        self.waited: list[float] = []  # from when a process was free for a trial to when it had it
        if hasattr(scheduler, "use_clock"):
            scheduler.use_clock(lambda: self.now)
        scheduler.set_search_properties("loss", "min")

    def has_cached_object(self, resources: Any) -> bool:
        assert resources is RESOURCES
        return self._cached > 0

    def get_trials(self) -> list[Any]:
        return self.trials

    def add(self, *names: str, **more: Any) -> None:
        for name in names:
            trial = StandInTrial(name, placement_group_factory=RESOURCES, **more)
            self.trials.append(trial)
            self.scheduler.on_trial_add(self, trial)
            if trial.status == "PENDING":
                self._pending_trials_list.append(trial)

    def turn(self) -> None:
        """One turn of the loop, up to the event: name, stage, hand over processes, start."""
        self.now += 1
        for trial in self._starting:
            trial.status = "RUNNING"
        self._starting.clear()
        trial = self.scheduler.choose_trial_to_run(self)
        if trial is not None and trial.status == "PAUSED":
            trial.status = "PENDING"
            self.chosen.append(trial.trial_id)
            self._queue.append(trial)
        self._queue += self._pending_trials_list
        self._pending_trials_list.clear()
        if trial in self._queue and self._cached:
            self._cached -= 1
            self._queue.remove(trial)
            self._begin(trial)
            if hasattr(self.scheduler, "use_clock"):  # it measures what a resume costs
                self.waited.append(self.now - self.scheduler._live.workers.since(trial.trial_id))
        while self.free and self._queue:
            self.free -= 1
            self._begin(self._queue.pop(0))

    def _begin(self, trial: Any) -> None:
        self._starting.append(trial)
        self.started.append(trial.trial_id)

    def report(self, trial: Any, step: int, loss: float, *, saved: bool = True) -> str:
        """A report, with a checkpoint if it is `saved`; what is decided is carried out."""
        result: dict[str, Any] = {"training_iteration": step, "loss": loss}
        if saved:
            result["checkpoint_dir_name"] = "checkpoint_0"
        action = str(self.scheduler.on_trial_result(self, trial, result))
        trial.last_result = result
        if action == "PAUSE":
            self._leave(trial, "PAUSED")
        elif action == "STOP":
            self.end(trial)
        return action

    def end(self, trial: Any) -> None:
        """The trial ends by itself, or was stopped at a report."""
        self.scheduler.on_trial_complete(self, trial, trial.last_result)
        self._leave(trial, "TERMINATED")

    def stop_trial(self, trial: Any) -> None:
        self.scheduler.on_trial_remove(self, trial)
        trial.status = "TERMINATED"

    def _leave(self, trial: Any, status: str) -> None:
        trial.status = status
        if self.reuse:
            self._cached += 1
        else:
            self.free += 1

    @property
    def running(self) -> list[Any]:
        return [trial for trial in self.trials if trial.status == "RUNNING"]
