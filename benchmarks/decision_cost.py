"""What a decision costs: microseconds per report and bytes of state per trial, and how both grow.

    python -m benchmarks.decision_cost [--only NAME ...] [--trials 10 100 ...] [--reports 12]

Every stopper and scheduler of ours, and Ray's, over the same curves, each report with a
checkpoint; the controller is a stand-in, so the cost is the rule's alone, and nothing is stored.
All trials report at once, in rounds of a new order each. Rules that hold trials back get 100
workers, and their choices count in. Times are CPU times of all reports but the first of each
trial, as far as they come within `--seconds`; the state is weighed when half of the reports are
made, of rules that hold trials back at the end. Bytecodes of Python are counted beside the time:
how much there is to do, on whatever machine; what loops inside of C does not show in them, nor
what memory costs that fits no cache. Growth: against 100 trials.
"""

import argparse
import gc
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
)

import tune_stoppers as ts
from tune_stoppers import rules
from tune_stoppers.backtest.trial import CheckpointResult, ReplayCheckpoint, ReplayTrial
from tune_stoppers.backtest.view import Searcher
from tune_stoppers.recorded.table import Curve
from tune_stoppers.report.terminal.tables import markdown

WORKERS = 100  # for rules that hold trials back
FEWEST = 20_000  # reports timed: small sweeps are run again and again
SAMPLE = 1_000  # reports whose bytecodes are counted
GROWS_FROM = 100  # trials
MOST_TRIALS = {  # they compare all trials, and are for hundreds
    "AutoScheduler": 1_000,
    "FreezeThawScheduler": 1_000,
}

Make = Callable[[int], Any]  # a stopper or scheduler, for trials of so many reports


class Cost(NamedTuple):
    """What one rule cost at one number of trials."""

    median: float  # µs per report
    mean: float
    p99: float
    work: float  # bytecodes per report, mean
    state: float  # bytes per trial
    whole: bool  # all reports were made


def ours() -> dict[str, Make]:
    """Every public stopper and scheduler, by name."""
    task: Any = {"metric": "loss", "mode": "min"}
    two = {"loss": {"mode": "min"}, "accuracy": {"mode": "max"}}
    return {
        "PatienceStopper": lambda n: ts.PatienceStopper(**task),
        "ThresholdStopper": lambda n: ts.ThresholdStopper(**task, threshold=0.0),
        "DivergenceStopper": lambda n: ts.DivergenceStopper(**task, gradient_limit=100.0),
        "MultiMetricStopper": lambda n: ts.MultiMetricStopper(two),
        "AdaptivePatienceStopper": lambda n: ts.AdaptivePatienceStopper(**task),
        "GradientStopper": lambda n: ts.GradientStopper(**task, window=8),
        "RecoveryStopper": lambda n: ts.RecoveryStopper(**task),
        "OverfitStopper": lambda n: ts.OverfitStopper(**task, train_metric="train_loss"),
        "BudgetStopper": lambda n: ts.BudgetStopper(trial_seconds=1e6, gpu_hours=1e9),
        "DiminishingReturnsStopper": lambda n: ts.DiminishingReturnsStopper(**task, max_t=n),
        "ForecastStopper": lambda n: ts.ForecastStopper(**task, max_t=n),
        "RuleStopper": lambda n: ts.RuleStopper(rules.Patience(5) | rules.Divergence(), **task),
        "AnyOf": lambda n: ts.AnyOf(ts.PatienceStopper(**task), ts.DivergenceStopper(**task)),
        "AllOf": lambda n: ts.AllOf(ts.PatienceStopper(**task), ts.DivergenceStopper(**task)),
        "RuleScheduler": lambda n: ts.RuleScheduler(rules.Patience(5), **task),
        "BoundASHAScheduler": lambda n: ts.BoundASHAScheduler(n, **task),
        "BoundASHAScheduler, nothing stopped": lambda n: ts.BoundASHAScheduler(
            n, dry_run=True, **task
        ),
        "AutoScheduler": lambda n: ts.AutoScheduler(n, **task),
        "PromotionASHAScheduler": lambda n: ts.PromotionASHAScheduler(n, **task),
        "FreezeThawScheduler": lambda n: ts.FreezeThawScheduler(n, **task),
        "RollbackScheduler": lambda n: ts.RollbackScheduler(**task),
    }


def rays() -> dict[str, Make]:
    """Ray's, by name."""
    task: Any = {"metric": "loss", "mode": "min"}
    return {
        "Ray ASHAScheduler": lambda n: ASHAScheduler(max_t=n, grace_period=1, **task),
        "Ray MedianStoppingRule": lambda n: MedianStoppingRule(grace_period=2, **task),
        "Ray HyperBandScheduler": lambda n: HyperBandScheduler(max_t=n, **task),
    }


# trials back
HOLDING = (ts.PromotionASHAScheduler, ts.FreezeThawScheduler, HyperBandScheduler)


def unmeasured() -> list[str]:
    """Public stoppers and schedulers that `ours` lacks."""
    public = {name for name in ts.__all__ if name.endswith(("Stopper", "Scheduler"))}
    return sorted(public - {name.split(",")[0] for name in ours()})


class Asking(FIFOScheduler):
    """A stopper where a scheduler is expected."""

    def __init__(self, stopper: Stopper) -> None:
        super().__init__()
        self.stopper = stopper

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the stopper."""
        return "STOP" if self.stopper(trial.trial_id, result) else "CONTINUE"


# -- the stand-in controller -------------------------------------------------------------------


class Stand:
    """Stands in for Ray's controller: as much of it as the schedulers here look at."""

    def __init__(self, rule: Any, trials: int, reports: int, seed: int = 0) -> None:
        self.rule, self.reports = rule, reports
        self.scheduler: Any = Asking(rule) if isinstance(rule, Stopper) else rule
        self.rng = random.Random(seed)
        self.floors = [self.rng.random() for _ in range(trials)]
        self.speeds = [0.2 + self.rng.random() for _ in range(trials)]
        self.trials = [ReplayTrial(i, _curve(i)) for i in range(trials)]
        self.steps: dict[ReplayTrial, int] = {}  # of the trials that run, their last
        self.waiting = trials  # that neither run nor have ended
        self.search_alg = Searcher([])
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)

    def get_trials(self) -> list[ReplayTrial]:
        """All of them."""
        return self.trials

    def get_live_trials(self) -> list[ReplayTrial]:
        """Those that have not ended: in the sweeps here, as good as all."""
        return self.trials

    def stop_trial(self, trial: ReplayTrial) -> None:
        """End a trial that does not run."""
        self.scheduler.on_trial_remove(self, trial)
        self.waiting -= 1
        trial.status = Trial.TERMINATED

    def start(self, trial: ReplayTrial) -> None:
        """Run a trial, from its checkpoint if it has one."""
        self.waiting -= 1
        trial.status = Trial.RUNNING
        latest = trial.latest_checkpoint_result
        self.steps[trial] = 0 if latest is None else latest.metrics["training_iteration"]

    def result(self, trial: ReplayTrial, step: int) -> dict[str, Any]:
        """What the trial reports: curves that fall at different speeds to different floors."""
        fallen = step ** -self.speeds[trial.index]
        loss = self.floors[trial.index] + fallen + 0.01 * self.rng.random()
        return {
            "loss": loss,
            "accuracy": 1.0 - fallen,
            "train_loss": fallen,
            "grad_norm": fallen,
            "lr": 1e-3,
            "training_iteration": step,
            "time_total_s": float(step),
            "time_this_iter_s": 1.0,
            "iterations_since_restore": step,
            "time_since_restore": float(step),
            "timestamp": 1_700_000_000 + step,
            "checkpoint_dir_name": f"checkpoint_{step:06d}",
            "trial_id": trial.trial_id,
            "done": False,
            "pid": 0,
            "hostname": "stand",
            "node_ip": "127.0.0.1",
        }

    def take(self, trial: ReplayTrial, action: str, result: dict[str, Any]) -> None:
        """Carry out what the scheduler made of a report."""
        trial.run_metadata.last_result = result
        if action == "PAUSE" or isinstance(self.rule, ts.RollbackScheduler):
            checkpoint = ReplayCheckpoint(result["checkpoint_dir_name"])
            trial.on_checkpoint(CheckpointResult(checkpoint, result))
        if action == "PAUSE":
            del self.steps[trial]
            self.waiting += 1
            trial.status = Trial.PAUSED
        elif action == "STOP" or result["training_iteration"] == self.reports:
            del self.steps[trial]
            self.scheduler.on_trial_complete(self, trial, result)
            trial.status = Trial.TERMINATED
            trial.run_metadata.checkpoint_manager.forget()

    def stage(self, chosen: ReplayTrial | None) -> bool:
        """Whether there is a trial to start, which then is pending."""
        if chosen is None or chosen.status == Trial.RUNNING:
            return False
        chosen.status = Trial.PENDING
        return True

    def fill(self, at_a_time: float) -> None:
        """Start what the scheduler chooses."""
        while self.waiting and len(self.steps) < at_a_time:
            chosen = self.scheduler.choose_trial_to_run(self)
            if not self.stage(chosen):
                return
            self.start(chosen)


def _curve(number: int) -> Curve:
    return Curve(f"{number:08x}", {"lr": 1e-3}, np.arange(0), {})


def drive(stand: Stand) -> Iterator[tuple[int, int]]:
    """(step, ns) of each report, with the choice that follows it where a trial waits for one."""
    scheduler = stand.scheduler
    at_a_time = WORKERS if isinstance(stand.rule, HOLDING) else math.inf
    if at_a_time >= len(stand.trials):
        for trial in stand.trials:
            stand.start(trial)
    else:
        stand.fill(at_a_time)
    while stand.steps:
        order = list(stand.steps)
        stand.rng.shuffle(order)
        for trial in order:
            step = stand.steps[trial] = stand.steps[trial] + 1
            result = stand.result(trial, step)
            began = time.thread_time_ns()
            action = scheduler.on_trial_result(stand, trial, result)
            took = time.thread_time_ns() - began
            stand.take(trial, action, result)
            if stand.waiting:
                began = time.thread_time_ns()
                chosen = scheduler.choose_trial_to_run(stand)  # Ray asks at every turn
                took += time.thread_time_ns() - began
                stand.stage(chosen)
                stand.fill(at_a_time)
            yield step, took


# -- measuring ---------------------------------------------------------------------------------


def weight(thing: Any) -> int:
    """Bytes of all that `thing` holds, trials of Ray's excepted."""
    beside = (ReplayTrial, type, ModuleType, FunctionType, MethodType)
    seen, waiting, total = {id(thing)}, [thing], 0
    while waiting:
        one = waiting.pop()
        total += sys.getsizeof(one)
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, beside):
                seen.add(id(other))
                waiting.append(other)
    return total


def measure(make: Make, trials: int, reports: int, seconds: float) -> Cost:
    """The cost of one rule at one number of trials."""
    times: list[int] = []
    held, whole = 0, True
    deadline = math.inf  # from the first report that counts
    while not times or (len(times) < FEWEST and whole):
        rule = make(reports)
        half = trials * reports // 2
        for made, (step, took) in enumerate(drive(Stand(rule, trials, reports)), start=1):
            if step > 1:
                times.append(took)
                deadline = min(deadline, time.thread_time() + seconds)
                if time.thread_time() > deadline and len(times) > 1:
                    whole = False
                    break
            if made == half and not held and not isinstance(rule, HOLDING):
                began = time.thread_time()
                held = weight(rule)
                deadline += time.thread_time() - began
        held = held or weight(rule)
    micros = [max(took - CLOCK, 0) / 1e3 for took in times]
    p99 = statistics.quantiles(micros, n=100)[98]
    timed = statistics.median(micros), statistics.mean(micros), p99
    return Cost(*timed, work(make, trials, reports), held / trials, whole)


class Counting:
    """A scheduler whose bytecodes are counted while it judges and chooses."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.counting, self.made = False, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def on_trial_result(self, *told: Any) -> Any:
        """As the scheduler's own."""
        return self._counted(self._scheduler.on_trial_result, told)

    def choose_trial_to_run(self, *told: Any) -> Any:
        """As the scheduler's own."""
        return self._counted(self._scheduler.choose_trial_to_run, told)

    def _counted(self, call: Callable[..., Any], told: tuple[Any, ...]) -> Any:
        before = sys.gettrace()
        sys.settrace(self._see if self.counting else before)
        try:
            return call(*told)
        finally:
            sys.settrace(before)

    def _see(self, frame: FrameType, event: str, told: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.made += event == "opcode"
        return self._see


def work(make: Make, trials: int, reports: int, sample: int = SAMPLE) -> float:
    """Bytecodes per report, mean of `sample` reports: the trials' third ones and on.

    Of rules that hold trials back: after as many reports as there are trials.
    """
    stand = Stand(make(reports), trials, reports)
    counting = stand.scheduler = Counting(stand.scheduler)
    driven = drive(stand)
    for made, (step, _) in enumerate(driven, start=1):
        if made == trials if isinstance(stand.rule, HOLDING) else step == 3:
            break
    counting.counting = True
    seen = sum(1 for _ in itertools.islice(driven, sample))
    return counting.made / max(seen, 1)


def _clock() -> int:
    """What reading the clock takes, in ns."""
    read = [-time.thread_time_ns() + time.thread_time_ns() for _ in range(10_000)]
    return int(statistics.median(read))


CLOCK = _clock()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes = [10, 100, 1_000, 10_000, 100_000]
    parser.add_argument("--trials", type=int, nargs="+", default=sizes)
    parser.add_argument("--reports", type=int, default=12, help="of each trial")
    parser.add_argument("--only", nargs="+", help="names, or beginnings of names")
    parser.add_argument("--seconds", type=float, default=30.0, help="at most, for a cell")
    options = parser.parse_args()
    wanted = tuple(options.only or [""])
    rows = []
    for name, make in (ours() | rays()).items():
        if not name.startswith(wanted):
            continue
        most = MOST_TRIALS.get(name, math.inf)
        trials = [n for n in options.trials if n <= most]
        if not trials:
            continue
        costs = {n: measure(make, n, options.reports, options.seconds) for n in trials}
        first = costs.get(GROWS_FROM, costs[trials[0]])
        for n, cost in costs.items():
            times = [f"{t:,.1f}" for t in (cost.median, cost.mean, cost.p99)]
            row = [name, f"{n:,}" + ("" if cost.whole else " (cut short)"), *times]
            row += [f"{cost.median / first.median:.2f}×"]
            row += [f"{cost.work:,.0f}", f"{cost.work / first.work:.2f}×"]
            rows.append([*row, f"{cost.state:,.0f}", f"{cost.state / first.state:.2f}×"])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["rule", "trials", "µs a report, median", "mean", "99 %", "growth"]
    print(markdown([*head, "bytecodes", "growth", "bytes a trial", "growth"], rows))
    for name in unmeasured():
        print(f"Not measured: {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
