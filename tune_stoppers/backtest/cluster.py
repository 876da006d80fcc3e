"""A cluster in virtual time that treats schedulers and stoppers as Ray 2.60's controller does.

A clock and a number of workers. `Cluster.step` is one turn of Ray's event loop: take trials from
the searcher, let the scheduler choose, stage what is pending, start what fits, handle one event.
The order in which the scheduler and the stopper are called, and with what, follows
`ray/tune/execution/tune_controller.py` for function trainables without actor reuse;
`tests/backtest/test_fidelity.py` holds it to that.

Where Ray's loop idles between reports (every 0.1 s) it asks the scheduler again and again; here it
is asked until its answer changes nothing. Where Ray hides an error of a scheduler (in `stop_trial`)
or waits for ever, the replay raises.

Over 350 lines, as it follows one loop of Ray's controller, in that loop's own order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher as RaySearcher
from ray.tune.stopper import Stopper
from ray.tune.utils import flatten_dict

from tune_stoppers.backtest.clock import Clock, StalledError
from tune_stoppers.backtest.process import Costs, Faults, Process
from tune_stoppers.backtest.searching import NearestSearch
from tune_stoppers.backtest.trial import Entry, ReplayTrial
from tune_stoppers.backtest.view import SchedulerView, Searcher
from tune_stoppers.recorded.table import Curve
from tune_stoppers.result_keys import STOP_REASON

CONTROL, REPORT = 0, 1  # priorities: at equal times, first what Ray does by itself
ENDED = (Trial.TERMINATED, Trial.ERROR)


Event = tuple[Callable[[ReplayTrial, Process], None], ReplayTrial, Process]


class Cluster:
    """Runs recorded trials under a scheduler and a stopper; `now` is the virtual time."""

    def __init__(
        self,
        curves: Sequence[Curve],
        scheduler: TrialScheduler,
        stopper: Stopper | None = None,
        *,
        workers: int = 8,
        costs: Costs | None = None,
        faults: Faults | None = None,
        checkpoint_every: int = 1,
        max_pending: int | None = None,
        searcher: RaySearcher | None = None,
        folder: Path | None = None,
    ) -> None:
        self.journal: list[Entry] = []
        self._reasons: dict[str, str] = {}
        self.log: list[tuple[float, ReplayTrial, int]] = []  # time, trial and row of each report
        self.ended_by: dict[str, str] = {}
        self.costs, self.faults = costs or Costs(), faults or Faults()
        self._released = 0.0  # worker time of processes that are gone
        self.trials = [
            ReplayTrial(index, curve, max_failures=self.faults.max_failures, folder=folder)
            for index, curve in enumerate(curves)
        ]
        self.search_alg: Searcher | NearestSearch = Searcher(self.trials)
        if searcher is not None:
            self.search_alg = NearestSearch(self.trials, searcher)
        self._scheduler, self._stopper = scheduler, stopper
        self.workers, self._free, self._checkpoint_every = workers, workers, checkpoint_every
        self._max_pending = max_pending or self.search_alg.max_pending(workers)
        self._dice = self.faults.dice(len(self.trials))
        self._clock: Clock[Event] = Clock()

        # The rest mirrors the controller: trials in order, by status, staged, with a process.
        self._trials: list[ReplayTrial] = []
        self._live: set[ReplayTrial] = set()
        states = (Trial.PENDING, Trial.RUNNING, Trial.PAUSED, *ENDED)
        self._by_status: dict[str, set[ReplayTrial]] = {status: set() for status in states}
        self._pending_list: list[ReplayTrial] = []
        self._staged: set[ReplayTrial] = set()
        self._queue: deque[ReplayTrial] = deque()  # staged, waiting for a worker
        self._processes: dict[ReplayTrial, Process] = {}
        self._cached: dict[str, str] = {}  # decisions to carry out after a save
        self._started: set[ReplayTrial] = set()
        self._ask = True  # a worker came free since the scheduler was last asked
        self._view = SchedulerView(self)

    # The run

    def run(self, *, until: float = float("inf"), max_reports: float = float("inf")) -> None:
        """Go on until every trial has ended, or the clock or the number of reports is at its limit.

        Raises StalledError where Ray would wait for ever.
        """
        self._settle()
        self._maybe_stop_all()
        while len(self.log) < max_reports and self.step(until):
            pass

    def step(self, until: float = float("inf")) -> bool:
        """One turn of the loop: settle, then handle one event. False once there is none left."""
        if self.is_finished():
            return False
        self._settle()
        upcoming = self._next_event()
        if upcoming is None:
            self._maybe_stop_all()
            if self.is_finished():
                return False
            raise StalledError(self._stall())
        time, (handle, trial, process) = upcoming
        self._clock.now = min(time, until)
        if time > until:
            return False
        self._clock.pop()
        handle(trial, process)
        self._maybe_stop_all()
        return True

    @property
    def now(self) -> float:
        return self._clock.now

    @property
    def busy(self) -> float:
        """Worker time used so far."""
        held = (p.started for p in self._processes.values() if p.started is not None)
        return self._released + sum(self.now - started for started in held)

    def is_finished(self) -> bool:
        ended = len(self._by_status[Trial.TERMINATED]) + len(self._by_status[Trial.ERROR])
        return ended == len(self._trials) and self.search_alg.is_finished()

    def _next_event(self) -> tuple[float, Event] | None:
        while upcoming := self._clock.peek():
            _, trial, process = upcoming[1]
            if self._processes.get(trial) is process:
                return upcoming
            self._clock.pop()  # its process has been taken away
        return None

    def _note(self, trial: ReplayTrial, action: str, by: str) -> None:
        step = trial.run_metadata.last_result.get("training_iteration", 0)
        told = self._reasons.get(trial.trial_id) or trial.last_result.get(STOP_REASON, "")
        reason = str(told) if action == "stop" else ""  # of one given up while paused, the last
        self.journal.append(Entry(self.now, trial.trial_id, step, action, by, reason))

    def _stall(self) -> str:
        counts = {status: len(trials) for status, trials in self._by_status.items() if trials}
        return (
            f"the sweep hangs at {self.now:g}: nothing runs and {type(self._scheduler).__name__} "
            f"chooses no trial ({counts}); in Ray it would wait for ever."
        )

    # Starting trials

    def _settle(self) -> None:
        """Add, choose and stage until nothing changes; then start what fits."""
        again = True
        while again:
            while len(self._by_status[Trial.PENDING]) < self._max_pending:
                trial = self.search_alg.next_trial()
                if trial is None:
                    break
                self._add(trial)
            again = self._choice_matters() and self._choose()
            if self._pending_list:
                self._stage_pending()
        while self._free and self._queue:
            self._start(self._queue.popleft())

    def _add(self, trial: ReplayTrial) -> None:
        self._trials.append(trial)
        self._live.add(trial)
        self._scheduler.on_trial_add(self._view, trial)
        self._by_status[trial.status].add(trial)
        if trial.status == Trial.PENDING:
            self._pending_list.append(trial)

    def _choice_matters(self) -> bool:
        """Ray asks at every turn; an answer has an effect only on trials not staged yet."""
        ask, self._ask = self._ask, False
        return ask or bool(self._by_status[Trial.PAUSED]) or bool(self._pending_list)

    def _choose(self) -> bool:
        trial = self._scheduler.choose_trial_to_run(self._view)
        if trial is None or trial in self._staged or trial in self._processes:
            return False
        self._set_trial_status(trial, Trial.PENDING)
        self._stage(trial)
        return True

    def _stage_pending(self) -> None:
        waiting = self._pending_list
        for position, trial in enumerate(waiting):
            if len(self._queue) >= self._max_pending:
                self._pending_list = waiting[position:]
                return
            pending = trial in self._by_status[Trial.PENDING]
            if pending and trial not in self._processes and trial not in self._staged:
                self._stage(trial)
        self._pending_list = []

    def _stage(self, trial: ReplayTrial) -> None:
        self._staged.add(trial)
        self._processes[trial] = Process(trial, self.costs, self._checkpoint_every)
        self._queue.append(trial)

    def _start(self, trial: ReplayTrial) -> None:
        process = self._processes[trial]
        process.started = self.now
        self._free -= 1
        delay = self.costs.start_of(again=trial in self._started)
        self._clock.push(delay, CONTROL, (self._on_started, trial, process))

    def _on_started(self, trial: ReplayTrial, process: Process) -> None:
        self._staged.discard(trial)
        self._set_trial_status(trial, Trial.RUNNING)
        process.load(self.costs)
        checkpoint = trial.latest_checkpoint_result
        again = trial in self._started
        action = ("resume" if checkpoint else "restart") if again else "start"
        self._note(trial, action, "cluster")
        self._started.add(trial)
        if checkpoint is None:
            self._train(trial)
            return
        trial.temporary_state.restoring_from = checkpoint
        delay = self.costs.load if self.costs.resume is None else 0.0
        self._clock.push(delay, CONTROL, (self._on_restored, trial, process))

    def _on_restored(self, trial: ReplayTrial, process: Process) -> None:
        trial.on_restore()
        process.resume_after(trial.last_result.get("training_iteration", 0))
        self._train(trial)
        self._live.add(trial)

    # Training, reports and saves

    def _train(self, trial: ReplayTrial) -> None:
        process = self._processes.get(trial)
        if process is None:
            name = type(self._scheduler).__name__
            raise RuntimeError(
                f"{name} let trial {trial.trial_id!r} continue after it had paused or stopped it; "
                "return NOOP from on_trial_result in that case."
            )
        process.training = True
        if process.at_end:
            self._clock.push(0.0, REPORT, (self._on_return, trial, process))
        elif self._dice and (fault := self._dice[trial.index].roll()):
            handle = self._on_preempted if fault.preempted else self._on_failed
            self._clock.push(fault.share * process.cost, REPORT, (handle, trial, process))
        else:
            self._clock.push(process.cost, REPORT, (self._on_report, trial, process))

    def _on_report(self, trial: ReplayTrial, process: Process) -> None:
        self.log.append((self.now, trial, process.row))
        trial.reported.append(process.row)
        result, flat = process.report(self.now)
        self._process(trial, process, result, flat)

    def _on_return(self, trial: ReplayTrial, process: Process) -> None:
        """The training function has returned: Ray shows its last result once more, as done."""
        result = trial.last_result
        result["done"] = True
        process.checkpoint = None
        self._process(trial, process, result, None)

    def _process(
        self,
        trial: ReplayTrial,
        process: Process,
        result: dict[str, Any],
        flat: dict[str, Any] | None,  # None: the repeated last result
    ) -> None:
        process.training = False
        if self._stopper is not None and self._stopper(trial.trial_id, result):
            decision, by = TrialScheduler.STOP, "trial" if flat is None else "stopper"
        elif flat is None:
            decision, by = TrialScheduler.STOP, "trial"
        else:
            decision = self._scheduler.on_trial_result(self._view, trial, flat)
            by = "scheduler"
        if decision == TrialScheduler.STOP:
            result["done"] = True
            self.ended_by[trial.trial_id] = by
            told = flat if by == "scheduler" and flat is not None else result
            self._reasons[trial.trial_id] = str(told.get(STOP_REASON, ""))
        elif flat is not None:
            self.search_alg.on_trial_result(trial.trial_id, flat)
        if flat is not None:
            trial.run_metadata.last_result = result
            trial.run_metadata.last_result_time = self.now
            if decision != TrialScheduler.PAUSE and process.checkpoint is not None:
                self._schedule_trial_save(trial)
        for _ in range(process.saves_queued):
            self._clock.push(0.0, CONTROL, (self._on_saved, trial, process))
        process.saves_queued = 0
        if not trial.is_saving:
            self._execute(trial, decision)
        elif trial.trial_id not in self._cached or decision in ("PAUSE", "STOP"):
            self._cached[trial.trial_id] = decision

    def _schedule_trial_save(self, trial: ReplayTrial, result: Any = None) -> None:
        process = self._processes.get(trial)
        if process is None:
            return
        if process.started is None:
            raise RuntimeError(
                f"{type(self._scheduler).__name__} asked trial {trial.trial_id!r} for a checkpoint "
                "before it ran; pause a PENDING trial with should_checkpoint=False."
            )
        trial.temporary_state.saving_to = process
        if process.training or trial.is_restoring or trial.status != Trial.RUNNING:
            process.saves_queued += 1
        else:
            self._clock.push(0.0, CONTROL, (self._on_saved, trial, process))

    def _on_saved(self, trial: ReplayTrial, process: Process) -> None:
        saved = process.saved()
        if saved is not None:
            trial.on_checkpoint(saved)
        trial.temporary_state.saving_to = None
        decision = self._cached.pop(trial.trial_id, None)
        if decision is not None:
            self._execute(trial, decision, after_save=True)

    # Decisions

    def _execute(self, trial: ReplayTrial, decision: str, after_save: bool = False) -> None:
        if decision == TrialScheduler.CONTINUE:
            self._train(trial)
        elif decision == TrialScheduler.PAUSE:
            self.pause_trial(trial, should_checkpoint=not after_save)
        elif decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif decision != TrialScheduler.NOOP:
            raise ValueError(
                f"{type(self._scheduler).__name__} decided {decision!r} for trial "
                f"{trial.trial_id!r}; a decision is CONTINUE, PAUSE, STOP or NOOP."
            )

    def pause_trial(self, trial: ReplayTrial, should_checkpoint: bool = True) -> None:
        self._cached.pop(trial.trial_id, None)
        if trial not in self._processes:
            return
        if should_checkpoint:
            self._cached[trial.trial_id] = TrialScheduler.PAUSE
            self._schedule_trial_save(trial)
            return
        self._halt(trial, Trial.TERMINATED)
        self._set_trial_status(trial, Trial.PAUSED)
        self._note(trial, "pause", "scheduler")

    def stop_trial(self, trial: ReplayTrial) -> None:
        if trial.status in ENDED:
            return
        if trial.status == Trial.RUNNING:
            result = flatten_dict(trial.last_result)
            self._scheduler.on_trial_complete(self, trial, result)
            self.search_alg.on_trial_complete(trial.trial_id, result)
        else:
            self._scheduler.on_trial_remove(self, trial)
            self.search_alg.on_trial_complete(trial.trial_id)
        by = self.ended_by.setdefault(trial.trial_id, "scheduler")
        self._halt(trial, Trial.TERMINATED)
        self._note(trial, "finish" if by == "trial" else "stop", by)
        trial.run_metadata.checkpoint_manager.forget()
        self._live.discard(trial)

    def _maybe_stop_all(self) -> None:
        if self._stopper is None or not self._stopper.stop_all():
            return
        self.search_alg.set_finished()
        for trial in list(self._trials):
            if trial.status not in ENDED:
                self._halt(trial, Trial.TERMINATED)
                self.ended_by[trial.trial_id] = "stop_all"
                self._note(trial, "stop", "stop_all")

    def _on_failed(self, trial: ReplayTrial, process: Process) -> None:
        trial.run_metadata.num_failures += 1
        self._fail(trial)

    def _on_preempted(self, trial: ReplayTrial, process: Process) -> None:
        self._fail(trial)

    def _fail(self, trial: ReplayTrial) -> None:
        if not trial.should_recover():
            self._scheduler.on_trial_error(self, trial)
            self.search_alg.on_trial_complete(trial.trial_id, error=True)
            self._halt(trial, Trial.ERROR)
            self.ended_by[trial.trial_id] = "error"
            self._note(trial, "fail", "cluster")
            return
        self._cached.pop(trial.trial_id, None)
        trial.temporary_state.saving_to = None
        self._halt(trial, Trial.ERROR)
        self._note(trial, "retry", "cluster")
        self._scheduler.on_trial_error(self, trial)
        self._set_trial_status(trial, Trial.PENDING)
        self._trials.remove(trial)  # a retry goes to the end of the line
        self._trials.append(trial)
        self._live.add(trial)
        self._scheduler.on_trial_add(self._view, trial)

    def _halt(self, trial: ReplayTrial, status: str) -> None:
        """Take the trial off its worker; what it was doing is lost."""
        if trial.status == Trial.ERROR:
            return
        if trial.is_saving:
            self._cached[trial.trial_id] = TrialScheduler.STOP  # carried out at its next save
        trial.temporary_state.saving_to = None
        trial.temporary_state.restoring_from = None
        self._set_trial_status(trial, status)
        process = self._processes.pop(trial, None)
        if process is None:
            return
        if process.started is None:
            self._queue.remove(trial)
            return
        self._released += self.now - process.started
        self._free += 1
        self._ask = True

    # What schedulers may ask

    def get_trials(self) -> list[ReplayTrial]:
        return self._trials

    def get_live_trials(self) -> set[ReplayTrial]:
        return self._live

    def _set_trial_status(self, trial: ReplayTrial, status: str) -> None:
        was = trial.status
        if was == status:
            return
        if trial not in self._by_status[was]:
            raise AssertionError(
                f"trial {trial.trial_id!r} is not known as {was}; Ray asserts here too: in "
                "on_trial_add of a new trial use trial.set_status, of a retry the controller's."
            )
        self._by_status[was].remove(trial)
        self._by_status[status].add(trial)
        if status == Trial.PENDING:
            self._pending_list.append(trial)
        trial.set_status(status)
