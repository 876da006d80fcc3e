"""Ray's real controller under load: how much of the driver's time is ours.

    python -m benchmarks.controller_load [--trials 1000] [--reports 20] [--only NAME ...]

Cheap function trainables, eight at a time on two CPUs, actors reused, an experiment on the local
disk. Under FIFO, and with each of ours, nothing is stopped, so that all runs take in the same
reports. "ours": time of the controller's thread in our stopper or scheduler (less what Ray's FIFO
does inside of it), by a ledger around every call; of the sweep's wall time, and CPU time of the
thread's CPU time. "writer": CPU time of the thread that writes the journal and the states, of the
wall time. "snapshot": the
experiment state that Ray writes at most every 10 s, with our stopper pickled in it.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import cloudpickle, tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import FIFOScheduler

import tune_stoppers as ts
from tune_stoppers import rules
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.report.terminal.tables import markdown
from tune_stoppers.tune.schedulers.base import SweepScheduler
from tune_stoppers.tune.schedulers.memory import Memory
from tune_stoppers.tune.stoppers.combinators import ExplainedStopper

AT_A_TIME = 8
OURS, RAYS, SNAPSHOT, STATE = "ours", "Ray's", "snapshot", "state"
SCHEDULER_CALLS = (
    "on_trial_add",
    "on_trial_result",
    "on_trial_complete",
    "on_trial_remove",
    "on_trial_error",
    "choose_trial_to_run",
)

Make = Callable[[int], dict[str, Any]]  # what of ours a sweep of so many reports gets

TASK: Any = {"metric": "loss", "mode": "min"}
RULES: dict[str, Make] = {
    "Ray FIFO": lambda n: {},
    "BoundASHAScheduler": lambda n: {"scheduler": ts.BoundASHAScheduler(n + 1, dry_run=True)},
    "RuleScheduler": lambda n: {"scheduler": ts.RuleScheduler(rules.Patience(5), dry_run=True)},
    "PatienceStopper": lambda n: {"stopper": ts.PatienceStopper(**TASK, dry_run=True)},
}


class Ledger:
    """Who has the controller's thread: every moment is booked on one account."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was booked."""
        self.wall: defaultdict[str, float] = defaultdict(float)  # seconds
        self.cpu: defaultdict[str, float] = defaultdict(float)  # seconds
        self.calls: Counter[str] = Counter()
        self._open = ["controller"]
        self._since = time.perf_counter(), time.thread_time()

    def turn_to(self, account: str | None) -> None:
        """Book until now; `account` has the thread from here on, None: the one before."""
        now = time.perf_counter(), time.thread_time()
        self.wall[self._open[-1]] += now[0] - self._since[0]
        self.cpu[self._open[-1]] += now[1] - self._since[1]
        self._since = now
        if account is None:
            self._open.pop()
        else:
            self._open.append(account)
            self.calls[account] += 1

    def watch(self, owner: type, name: str, account: str) -> None:
        """Book every call of a method on `account`."""
        inner = getattr(owner, name)

        def timed(*args: Any, **more: Any) -> Any:
            self.turn_to(account)
            try:
                return inner(*args, **more)
            finally:
                self.turn_to(None)

        setattr(owner, name, timed)


def watched() -> tuple[Ledger, list[float]]:
    """The ledger of this process's controller, and the seconds of each batch of the writer."""
    ledger, batches = Ledger(), list[float]()
    for name in SCHEDULER_CALLS:
        ledger.watch(FIFOScheduler, name, RAYS)
        for owner in (SweepScheduler, ts.BoundASHAScheduler, ts.RuleScheduler):
            if name in vars(owner):
                ledger.watch(owner, name, OURS)
    for name in ("__call__", "stop_all"):
        ledger.watch(ExplainedStopper, name, OURS)
    ledger.watch(TuneController, "save_to_dir", SNAPSHOT)
    ledger.watch(Memory, "_save", STATE)
    work = Recorder._work

    def timed_work(recorder: Recorder) -> None:
        began = time.thread_time()
        work(recorder)
        batches.append(time.thread_time() - began)

    setattr(Recorder, "_work", timed_work)  # noqa: B010  # a method is no attribute to mypy
    return ledger, batches


def train(config: dict[str, Any]) -> None:
    """Reports a falling loss, as fast as it can."""
    for step in range(1, config["reports"] + 1):
        tune.report({"loss": config["floor"] + 1 / step, "grad_norm": 1 / step, "lr": 1e-3})


def run(
    name: str, trials: int, reports: int, folder: str, ledger: Ledger, batches: list[float]
) -> dict[str, Any]:
    """One sweep, and what it cost."""
    ours = RULES[name](reports)
    stopper = ours.get("stopper")
    batches.clear()
    space = {"floor": tune.uniform(0, 1), "reports": reports}
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 2 / AT_A_TIME}),
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=trials, reuse_actors=True, scheduler=ours.get("scheduler"), **TASK
        ),
        run_config=tune.RunConfig(name="load", storage_path=folder, stop=stopper, verbose=0),
    )
    ledger.begin()
    results = tuner.fit()
    ledger.turn_to("after")
    wall, cpu = sum(ledger.wall.values()), sum(ledger.cpu.values())
    assert len(results) == trials and not results.errors
    root = Path(folder, "load")
    mine = ledger.wall[OURS] + ledger.wall[STATE], ledger.cpu[OURS] + ledger.cpu[STATE]
    pickled, pickling = b"", 0.0
    if stopper is not None:
        pickling = time.perf_counter()
        pickled = cloudpickle.dumps(stopper)
        pickling = time.perf_counter() - pickling
    return {
        "rule": name,
        "results per s": trials * reports / wall,
        "ours, % of wall": 100 * mine[0] / wall,
        "ours, % of CPU": 100 * mine[1] / cpu,
        "ours, CPU µs a report": 1e6 * mine[1] / (trials * reports),
        "writer, %": 100 * sum(batches) / wall,
        "driver busy, %": 100 * cpu / wall,
        "snapshot MB": max(p.stat().st_size for p in root.glob("experiment_state-*.json")) / 1e6,
        "snapshots": ledger.calls[SNAPSHOT],
        "s each": ledger.wall[SNAPSHOT] / max(ledger.calls[SNAPSHOT], 1),
        "our pickle, kB": len(pickled) / 1e3,
        "ms": 1e3 * pickling,
        "states": ledger.calls[STATE],
        "ms each": 1e3 * ledger.wall[STATE] / max(ledger.calls[STATE], 1),
        "journal MB": sum(p.stat().st_size for p in root.glob("tune_stoppers/*/*")) / 1e6,
    }


def main() -> int:
    """Run each in turn, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=RULES, default=list(RULES))
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    rows = []
    ledger, batches = watched()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run(name, options.trials, options.reports, folder, ledger, batches))
            print(json.dumps(rows[-1]), flush=True)
    ray.shutdown()
    header = list(rows[0])
    print(markdown(header, [[_shown(row[key]) for key in header] for row in rows]))
    return 0


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
