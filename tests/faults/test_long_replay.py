"""A long sweep in virtual time, whose trials fail and are preempted: nothing grows, nothing drifts.

The replay's cluster stands in for Ray's controller. One report in a hundred is lost to a failure
and one to a preemption; the trial goes on from its last checkpoint, up to four reports back.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler

from benchmarks.decision_cost import weight
from tune_stoppers import (
    BoundASHAScheduler,
    FreezeThawScheduler,
    PatienceStopper,
    PromotionASHAScheduler,
    RuleScheduler,
    rules,
)
from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.backtest.process import Faults
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.layout import read_lines, segments_of
from tune_stoppers.journal.lines import Line
from tune_stoppers.journal.rerun import rerun
from tune_stoppers.recorded.table import Curve
from tune_stoppers.tune.schedulers.pausing import PausingScheduler

LOOKS = 10  # at what is held, while the sweep goes on
CHECKPOINT_EVERY = 5
WORKERS = 32
TASK: Any = {"metric": "loss", "mode": "min"}

RULES: dict[str, Callable[[int], Any]] = {  # for trials of so many reports
    "bound": lambda length: BoundASHAScheduler(length, **TASK),
    "promotion": lambda length: PromotionASHAScheduler(length, **TASK),
    "freeze-thaw": lambda length: FreezeThawScheduler(length, **TASK),
    "rule, dry run": lambda length: RuleScheduler(
        rules.Patience(length // 10) | rules.Divergence(), dry_run=True, **TASK
    ),
    "stopper, dry run": lambda length: PatienceStopper(
        "loss", "min", patience=length // 10, dry_run=True
    ),
}
SLOW = ("freeze-thaw",)  # it compares all trials at each choice


def curves(trials: int, length: int) -> list[Curve]:
    """Curves that fall at different speeds to different floors, with a little noise."""
    dice = np.random.default_rng(0)
    steps = np.arange(1, length + 1)
    made = []
    for number in range(trials):
        losses = dice.random() + steps ** -dice.uniform(0.2, 1.2) + dice.normal(0, 0.01, length)
        made.append(Curve(f"t{number:06d}", {"lr": 1e-3}, steps, {"loss": losses}))
    return made


def flush(rule: Any) -> None:
    """Wait for what is being written: virtual time runs faster than any storage."""
    recorder = rule._live.recorder if isinstance(rule, Stopper) else rule._memory._recorder
    assert recorder is None or recorder.flush(120)


def play(
    rule: Any, reports: int, length: int, folder: Path
) -> tuple[Cluster, list[tuple[int, int]]]:
    """A sweep of so many reports; (bytes that the rule holds, trials so far) at each look."""
    stops = isinstance(rule, Stopper)
    cluster = Cluster(
        curves((2 if rule.dry_run else 20) * reports // length, length),
        FIFOScheduler() if stops else rule,
        rule if stops else None,
        workers=WORKERS,
        faults=Faults(0.01, 0.01, max_failures=-1, seed=1),
        checkpoint_every=CHECKPOINT_EVERY,
        folder=folder,
    )
    if isinstance(rule, PausingScheduler):
        rule.use_clock(lambda: cluster.now)
    sizes = []
    for look in range(1, LOOKS + 1):
        cluster.run(max_reports=reports * look // LOOKS)
        flush(rule)
        sizes.append((weight(rule), len(cluster._started)))
    return cluster, sizes


def repeats(cluster: Cluster) -> int:
    """Reports at the step at which their trial had just reported: a lost one made again."""
    newest: dict[str, int] = {}
    count = 0
    for _, trial, row in cluster.log:
        count += newest.get(trial.trial_id) == row
        newest[trial.trial_id] = row
    return count


def check(name: str, reports: int, length: int, folder: Path) -> None:
    """Play the sweep, and hold what is in memory against what is on the storage."""
    rule = RULES[name](length)
    cluster, sizes = play(rule, reports, length, folder)
    assert len(cluster.log) == reports
    lost = sum(entry.action == "retry" for entry in cluster.journal)
    assert 0.01 * reports < lost < 0.03 * reports

    (run,) = folder.glob(f"tune_stoppers/*-{type(rule).__name__}-*")
    filesystem = pafs.LocalFileSystem()
    numbered = read_lines(filesystem, segments_of(filesystem, str(run)))
    assert sorted(numbered) == list(range(1, len(numbered) + 1))
    lines = list(numbered.values())
    judged = [line for line in lines if "action" in line]
    assert len(judged) == reports - repeats(cluster)
    again = rerun(rule.rule, lines, sign=1)
    assert (again.checked, again.unsure, again.differing) == (len(judged), 0, ())
    if not isinstance(rule, Stopper):
        check_record(rule, lines)
        check_states(rule, run, len(rule._memory.trials))

    bytes_then, trials_then = sizes[LOOKS // 4]
    bytes_now, trials_now = sizes[-1]
    assert bytes_now / trials_now < 1.2 * bytes_then / trials_then
    assert bytes_now / trials_now < 10_000


def check_record(rule: Any, lines: list[Line]) -> None:
    """What the scheduler remembers is what its journal says."""
    record = rule.rule.init()
    for _ in fold(rule.rule, record, lines, 1):
        pass
    assert rule.rule.dump(record) == rule.rule.dump(rule.record)
    assert set(rule._memory.trials) == {line["trial"] for line in lines if line["trial"]}


def check_states(rule: Any, run: Path, trials: int) -> None:
    """Two generations of the state at most, in proportion to the trials."""
    states = sorted(run.glob("state-*.json"))
    assert 1 <= len(states) <= 2
    assert states[-1].stat().st_size < 5_000 * trials
    assert len(json.loads(states[-1].read_text())["body"]["state"]["trials"]) <= trials


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.stress] if name in SLOW else []) for name in RULES],
)
def test_faults_leave_no_trace(tmp_path: Path, name: str) -> None:
    """After 5,000 reports with faults among them, memory, journal and a replay of it agree."""
    check(name, 5_000, 100, tmp_path / "run" / "experiment")


@pytest.mark.stress
@pytest.mark.parametrize("name", [name for name in RULES if name not in SLOW])
def test_a_million_reports_leave_no_trace(tmp_path: Path, name: str) -> None:
    """As much as a large sweep reports in a day: it holds no more for a trial than at first."""
    check(name, 1_000_000, 1_000, tmp_path / "run" / "experiment")
