"""A cluster that loses a node in mid-sweep: nothing is lost, and nobody is blamed for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from tests.faults.two_nodes import FLOORS, GONE_AT, SCHEDULERS, STEPS, loss_of
from tune_stoppers import explain
from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import ENDED, GIVEN_UP, LOST, Line
from tune_stoppers.report.data.explain import verify

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 300  # on a machine that does other things as well
SLOW = [pytest.param(name, marks=pytest.mark.stress) for name in SCHEDULERS if name != "bound"]


def sweep(storage: Path, scheduler: str) -> dict[str, Any]:
    """Run it on a cluster of its own; how the trials ended."""
    settings = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.two_nodes", str(storage), scheduler],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=LONGEST_SECONDS,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("scheduler", ["bound", *SLOW])
def test_trials_of_a_lost_node_go_on_elsewhere(tmp_path: Path, scheduler: str) -> None:
    """From their newest checkpoint, and the loss is no evidence against them."""
    outcome = sweep(tmp_path, scheduler)
    assert outcome["errors"] == 0
    trials = outcome["trials"]
    assert {trial["node"] for trial in trials.values()}.isdisjoint({outcome["gone"]})
    (run,) = runs_of(pafs.LocalFileSystem(), str(tmp_path / "exp"))
    lost = list(lost_trials(run.lines))
    moved = [trial for trial, end in trials.items() if end["began_after"]]
    assert lost
    assert set(lost) <= set(moved)
    promoted = {line["trial"] for line in run.lines if line.get("event") == "resumed"}
    for trial in lost:  # back at the newest checkpoint, and on from there, each step once
        assert trials[trial]["began_after"] == GONE_AT - GONE_AT % 2 or trial in promoted
        steps = [line["step"] for line in run.lines if line["trial"] == trial and "action" in line]
        assert steps == list(range(1, int(trials[trial]["step"]) + 1))
    check_record(run, trials)
    told = explain(tmp_path / "exp").set_index("trial_id")
    assert len(told) == len(FLOORS)
    assert set(told["ending"]) <= {"finished", "stopped"}
    assert set(told["cause"]) <= {run.owner, "ran to the last step"}


def lost_trials(lines: Iterable[Line]) -> Iterator[str]:
    """Those whose process died; one that waited until it was given up was only dropped."""
    given_up = set()
    for line in lines:
        if line.get("event") == GIVEN_UP:
            given_up.add(line["trial"])
        if line.get("event") == LOST and line["trial"] not in given_up:
            yield line["trial"]


def check_record(run: Any, trials: dict[str, Any]) -> None:
    """Every decision comes out again, and a rung has each trial that came so far, with its loss."""
    verified = verify(run)
    assert verified.rerun is not None
    assert not verified.failed
    scheduler = next(make() for make in SCHEDULERS.values() if make().name == run.owner)
    rule, record = scheduler.rule, scheduler.rule.init()
    for line, _ in fold(rule, record, run.lines, 1):
        assert line["value"] == loss_of(trials[line["trial"]]["floor"], line["step"])
    came: dict[str, float] = {}
    for line in run.lines:
        if "action" in line or line.get("event") == ENDED:
            came[line["trial"]] = max(line["step"], came.get(line["trial"], 0))
    for time, rung in zip(getattr(rule, "rungs", ()), getattr(record, "rungs", ()), strict=True):
        assert rung.of_trial == {
            trial: loss_of(trials[trial]["floor"], time) for trial in came if came[trial] >= time
        }
    assert max(came.values()) == STEPS
