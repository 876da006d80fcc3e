"""States whose record cannot be read: of the former format, or damaged. The journal has it all."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

import tune_stoppers as ts
from tests.tune.schedulers.test_base import StandIn, report, restored, started
from tune_stoppers import rules
from tune_stoppers.codec import RECORD_FORMAT
from tune_stoppers.journal.layout import read_state, state_text
from tune_stoppers.tune.schedulers import memory

TASK = {"metric": "loss", "mode": "min"}
MAKES = {
    "BoundASHA": lambda: ts.BoundASHAScheduler(9, 1, **TASK),
    "Promotion": lambda: ts.PromotionASHAScheduler(9, 1, **TASK),
    "FreezeThaw": lambda: ts.FreezeThawScheduler(9, 1, **TASK),
    "Forecast": lambda: ts.RuleScheduler(rules.Forecast(max_t=9), **TASK),
    "DiminishingReturns": lambda: ts.RuleScheduler(rules.DiminishingReturns(min_trials=4), **TASK),
    "Forecast or Patience": lambda: ts.RuleScheduler(
        rules.Forecast(max_t=9) | rules.Patience(2), **TASK
    ),
}
# what the version of format 1 wrote of the sweep that `played` plays
FORMER = {
    "BoundASHA": json.loads(
        """{"times": [1, 3], "rungs": [[["t0", 5.0], ["t1", 4.0]], [["t1", "inf"]]], "drops": [],
        "noises": [], "audit": [[0, 0], [0, 0], [0, 0], {}],
        "bests": [[5.0, "t0", 1.0], [4.0, "t1", 1.0]], "incumbent": [4.0, "t1", 1.0], "courses": {
        "t0": [[1.0], [5.0], [5.0], 1.0, 5.0, 1, ["-inf", "-inf"], ["CONTINUE",
        "{loss:loss}: too early for the bound", {"loss": 5.0}], "inf"],
        "t1": [[], [], [], 2.0, 4.0, 1, ["-inf", "-inf"], ["STOP",
        "the value is {value}, which is not finite", {"value": "inf"}], "inf"]}}"""
    ),
    "Promotion": json.loads(
        """{"times": [1, 3], "rungs": [[["t0", 5.0], ["t1", 4.0]], [["t1", "inf"]]], "courses": {
        "t0": [1.0, 5.0, 5.0, 1, 0, true, ["PAUSE", "{loss:loss} is rank {rank} of {count}",
        {"loss": 5.0, "rank": 1, "count": 1}]],
        "t1": [2.0, "inf", 4.0, 1, 0, false, ["STOP",
        "the value is {value}, which is not finite", {"value": "inf"}]]},
        "ended": {}, "ends": {}, "given_up": [], "resumes": 0, "cost": 0.0}"""
    ),
}


def played(scheduler: Any, folder: Path) -> list[StandIn]:
    """A sweep of two trials, one of which has ended with a loss that is not finite."""
    trials = [StandIn(folder, n, lr=0.1) for n in range(2)]
    controller = started(scheduler, *trials)
    for trial, step, loss in ((0, 1, 5.0), (1, 1, 4.0), (1, 2, math.inf)):
        report(scheduler, controller, trials[trial], step, loss, checkpoint_dir_name="c")
    scheduler.on_trial_complete(controller, trials[1], trials[1].last_result)
    scheduler._memory.flush()
    return trials


def rewrite(folder: Path, change: Any) -> None:
    """Change every state on storage."""
    paths = list(folder.rglob("state-*.json"))
    assert paths
    for path in paths:
        body = read_state(pyarrow.fs.LocalFileSystem(), str(path))
        change(body["state"])
        path.write_text(state_text(body))


@pytest.fixture(autouse=True)
def _a_state_with_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LINES_BETWEEN_STATES", 1)


@pytest.mark.parametrize("name", FORMER)
def test_a_state_of_the_former_format_is_folded_again(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word: nothing is lost by it, as with a state of another rule."""
    first = MAKES[name]()
    trials = played(first, tmp_path)

    def change(state: dict[str, Any]) -> None:
        del state["format"]
        state["record"] = FORMER[name]

    rewrite(tmp_path, change)
    second = restored(first)
    started(second, *trials)
    assert repr(second.rule.dump(second.record)) == repr(first.rule.dump(first.record))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("wrong", [FORMER["BoundASHA"], {}, None, [], {"t0": {"more": 1}}])
@pytest.mark.parametrize("name", MAKES)
def test_a_record_that_does_not_load_is_folded_again(
    name: str, wrong: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning a state; the sweep is not broken by it, and begins with nothing of it."""
    first = MAKES[name]()
    trials = played(first, tmp_path)
    rewrite(tmp_path, lambda state: state.update(record=wrong))
    second = restored(first)
    started(second, *trials)
    assert repr(second.rule.dump(second.record)) == repr(first.rule.dump(first.record))
    assert "a state cannot be used" in caplog.text


@pytest.mark.parametrize("name", MAKES)
def test_a_state_of_this_format_is_read(name: str, tmp_path: Path) -> None:
    """Not the journal: what only the state says is known after the restore."""
    first = MAKES[name]()
    trials = played(first, tmp_path)

    def change(state: dict[str, Any]) -> None:
        assert state["format"] == RECORD_FORMAT
        state["fit"] = [1.5]  # that no line of the journal says

    rewrite(tmp_path, change)
    second = restored(first)
    started(second, *trials)
    assert second._memory.fit == [1.5]
    assert repr(second.rule.dump(second.record)) == repr(first.rule.dump(first.record))
