"""What must hold of every scheduler, whatever its trials report and whenever it is killed."""

import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.trainable import FunctionTrainable

import tune_stoppers as ts
from tests.tune.schedulers.test_base import Controller, StandIn, report, restored, started
from tune_stoppers import rules
from tune_stoppers.core import Report
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.rules.sweep.promotion import Promotion
from tune_stoppers.tune.schedulers import memory as state
from tune_stoppers.tune.schedulers.memory import fingerprint

EXAMPLES = 25


def test_revived_trial_leaves_the_rungs_as_they_were(tmp_path: Path) -> None:
    """A trial that ended, and that Ray's older memory runs again, repeats what is known."""
    scheduler = ts.PromotionASHAScheduler(9, 3, pen=1, metric="loss", mode="min")
    trial = StandIn(tmp_path, 0)
    controller = started(scheduler, trial)
    for step in range(1, 10):
        action = report(scheduler, controller, trial, step, 1.0 / step, checkpoint_dir_name="c")
    assert action == "STOP"
    scheduler.on_trial_complete(controller, trial, trial.last_result)
    before = str(scheduler.rule.dump(scheduler.record))
    second = restored(scheduler)
    again = started(second, trial)
    for step in range(7, 10):
        action = report(second, again, trial, step, 1.0 / step, checkpoint_dir_name="c")
    assert action == "STOP"
    second.on_trial_complete(again, trial, trial.last_result)
    assert str(second.rule.dump(second.record)) == before


def test_state_written_with_the_end_of_a_trial_says_that_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that has ended is not recorded a second time, whatever line a state falls on."""
    monkeypatch.setattr(state, "LINES_BETWEEN_STATES", 1)
    scheduler = bound()
    trial = StandIn(tmp_path, 0)
    controller = started(scheduler, trial)
    for step in (1, 2, 3):
        report(scheduler, controller, trial, step, 1.0)
    if scheduler._memory._lines == 0:  # the next line but one has a state: make it the next
        report(scheduler, controller, trial, 4, 1.0)
    scheduler.on_trial_complete(controller, trial, trial.last_result)
    assert scheduler._memory._lines == 0
    second = restored(scheduler)
    started(second)
    second._memory.register(trial, 1)
    assert second._memory.trials["t0"].ended


def bound() -> Any:
    return ts.BoundASHAScheduler(27, 3, metric="loss", mode="min")


def test_revived_trial_that_goes_further_is_recorded_where_it_ends(tmp_path: Path) -> None:
    """One that a clock had stopped runs again after the restore: its new end counts."""
    first = bound()
    trial = StandIn(tmp_path, 0)
    controller = started(first, trial)
    report(first, controller, trial, 1, 5.0)
    first.on_trial_complete(controller, trial, trial.last_result)
    second = restored(first)
    again = started(second, trial)  # RUNNING, as Ray remembers it
    report(second, again, trial, 1, 5.0)
    report(second, again, trial, 2, 4.0)
    trial.last_result = {"training_iteration": 3, "loss": 3.0}  # a stopper hides it
    second.on_trial_complete(again, trial, trial.last_result)
    assert second.record.rungs[0].of_trial == {"t0": 3.0}


def test_revived_trial_repeats_up_to_the_end_that_a_stopper_saw(tmp_path: Path) -> None:
    """Its last report was the stopper's alone: those before it are still repeats."""
    first = bound()
    trial = StandIn(tmp_path, 0)
    controller = started(first, trial)
    report(first, controller, trial, 2, 5.0)
    trial.last_result = {"training_iteration": 3, "loss": 3.0}
    first.on_trial_complete(controller, trial, trial.last_result)
    before = repr(first.rule.dump(first.record))
    second = restored(first)
    again = started(second, trial)
    assert report(second, again, trial, 2, 9.0) == "CONTINUE"
    assert repr(second.rule.dump(second.record)) == before


def test_sweep_that_has_ended_stays_ended(tmp_path: Path) -> None:
    """After a restore nothing more is started, and what Ray runs again stops."""
    rule = rules.Threshold(0.5, scope="sweep")
    first = ts.RuleScheduler(rule, metric="loss", mode="min")
    winner, other = StandIn(tmp_path, 0), StandIn(tmp_path, 1)
    controller = started(first, winner, other)
    assert report(first, controller, other, 1, 9.0) == "CONTINUE"
    assert report(first, controller, winner, 1, 0.4) == "STOP"
    first.on_trial_complete(controller, winner, winner.last_result)
    second = restored(first)
    winner.status = Trial.TERMINATED
    waiting = StandIn(tmp_path, 2, Trial.PENDING)
    again = started(second, winner, other, waiting)
    second.choose_trial_to_run(again)
    assert again.finished
    assert again.stopped == ["t2"]
    assert report(second, again, other, 2, 9.0) == "STOP"
    assert "past" in other.last_result["stop_reason"]


def test_stop_that_a_kill_came_before_is_carried_out(tmp_path: Path) -> None:
    """Also where Ray has kept the checkpoint of that very report, and the trial goes on from it."""
    trials = [StandIn(tmp_path, n) for n in range(4)]
    first = bound()
    controller = started(first, *trials)
    for trial, loss in zip(trials, (1.0, 2.0, 3.0, 9.0), strict=True):
        action = report(first, controller, trial, 3, loss)
    assert action == "STOP"
    for second in (restored(first), restored(restored(first))):
        assert report(second, started(second, *trials), trials[3], 4, 0.1) == "STOP"
        assert "rank 4 of 4 at rung 3" in trials[3].last_result["stop_reason"]


def test_trial_that_a_user_stopped_stays_stopped(tmp_path: Path) -> None:
    """A kill right after the request was met does not bring the trial back for good."""
    first = bound()
    trial = StandIn(tmp_path, 0)
    controller = started(first, trial)
    report(first, controller, trial, 1, 1.0)
    first._memory._recorder.requested["t0"] = "looks wrong"
    assert report(first, controller, trial, 2, 0.9) == "STOP"
    second = restored(first)
    again = started(second, trial)
    assert report(second, again, trial, 1, 1.0) == "CONTINUE"
    assert report(second, again, trial, 2, 0.9) == "STOP"
    assert trial.last_result["stop_reason"] == "user: looks wrong"


def test_user_can_stop_a_trial_that_waits(tmp_path: Path) -> None:
    """A paused or pending trial reports nothing: it is stopped without."""
    scheduler = bound()
    paused, running = StandIn(tmp_path, 0, Trial.PAUSED), StandIn(tmp_path, 1)
    controller = started(scheduler, paused, running)
    paused.last_result = {"training_iteration": 1, "loss": 1.0}
    scheduler._memory._recorder.requested |= {"t0": "enough", "t1": "enough", "gone": ""}
    scheduler.choose_trial_to_run(controller)
    assert controller.stopped == ["t0"]
    assert paused.last_result["stop_reason"] == "user: enough"
    assert set(scheduler._memory.requested) == {"t1", "gone"}


def test_metric_that_is_not_in_every_report_was_seen_before_the_restore(tmp_path: Path) -> None:
    """The first report after a restore may lack it, as any other but the sweep's first."""
    rule = rules.Overfit(train_metric="train_loss", criterion="pq")
    first = ts.RuleScheduler(rule, metric="loss", mode="min")
    trial = StandIn(tmp_path, 0)
    report(first, started(first, trial), trial, 1, 1.0, train_loss=0.9)
    second = restored(first)
    assert report(second, started(second, trial), trial, 2, 1.0) == "CONTINUE"


def test_configurations_are_told_apart() -> None:
    """Numbers of numpy count with their value, and any keys that Ray takes do."""
    one, two = ({"r": np.int64(n), "x": np.float32(n)} for n in (1, 2))
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint({"r": np.int64(1)}) == fingerprint({"r": np.int64(1)})
    assert fingerprint({1: "a", "b": {(1, 2): 0}}) != fingerprint({1: "a", "b": {(1, 3): 0}})


def test_worst_value_in_a_reason_survives_a_restore(tmp_path: Path) -> None:
    """A decision whose numbers JSON lacks is put into words again after a restore."""
    first = ts.BoundASHAScheduler(27, 3, start_after=9, metric="loss", mode="max")
    peers = [StandIn(tmp_path, n) for n in range(4)]
    controller = started(first, *peers)
    for peer in peers[:3]:
        report(first, controller, peer, 9, 1.0)
    report(first, controller, peers[3], 1, math.nan)
    assert report(first, controller, peers[3], 10, 1.0) == "STOP"  # at rung 3 it was at its worst
    reason = first.explain("t3")
    assert "-inf is rank 4 of 4 at rung 3" in reason
    second = restored(first)
    second.choose_trial_to_run(started(second, *peers))  # writes a state
    third = restored(second)
    started(third, *peers)
    again = third.rule.update(third.record, Report("t3", 10, -1.0))
    assert f"BoundASHAScheduler: {again.say(-1)}" == reason


def test_rungs_passed_at_once_after_a_value_not_finite() -> None:
    """The trial was at its worst there: no rung ever holds what has no rank."""
    rule = Promotion(max_t=27, grace_period=3)
    record = rule.init()
    rule.update(record, Report("t", 2, math.nan))
    rule.update(record, Report("t", 9, 1.0))
    assert record.rungs[0].losses == [math.inf]
    assert record.rungs[1].losses == [1.0]


LAST = 14  # step of a trial that nobody stops
MAKES: dict[str, Any] = {
    "bound": lambda: ts.BoundASHAScheduler(
        LAST, 2, 2, bound_after=0.3, window=3, lr_metric="lr", metric="loss", mode="min"
    ),
    "rule": lambda: ts.RuleScheduler(
        rules.Patience(3) | rules.Divergence(), metric="loss", mode="max"
    ),
    "promotion": lambda: ts.PromotionASHAScheduler(
        LAST, 2, 2, pen=2, resume_share=5, metric="loss", mode="min"
    ),
    "freeze-thaw": lambda: ts.FreezeThawScheduler(LAST, 2, 2, metric="loss", mode="min"),
    "rollback": lambda: ts.RollbackScheduler(2, 2, max_rollbacks=1, metric="loss", mode="min"),
}


class Acted(StandIn):
    """A trial with a curve, whose checkpoints come with every third report."""

    def __init__(self, folder: Path, number: int, losses: list[float], end: int) -> None:
        super().__init__(folder, number, Trial.PENDING, lr=0.1)
        self.losses, self.end = losses, end  # by itself or by a stopper, unseen by the scheduler
        self.step = 0
        no_checkpoints = SimpleNamespace(best_checkpoint_results=[], latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=no_checkpoints)

    def set_status(self, status: str) -> None:
        self.status = status

    def get_trainable_cls(self) -> type:
        return FunctionTrainable

    def next_result(self) -> dict[str, Any]:
        self.step += 1
        self.last_result = {
            "training_iteration": self.step,
            "loss": self.losses[self.step - 1],
            "config": self.config,
            "checkpoint_dir_name": f"c{self.step}" if self.step % 3 == 0 else None,
        }
        if self.step % 4:  # not at the first report after c3
            self.last_result["lr"] = 1.0 / self.step
        return self.last_result


class Sweep(Controller):
    """Trials that take turns, under a scheduler that can be killed."""

    def __init__(self, scheduler: Any, trials: list[Acted]) -> None:
        super().__init__(*trials)
        self.search_alg.is_finished = lambda: True
        self.begin(scheduler)
        self.fresh: dict[tuple[str, int], str] = {}  # what was done at each report, once

    def begin(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        for trial in self.trials:
            scheduler.on_trial_add(self, trial)

    def stop_trial(self, trial: Any) -> None:
        self.scheduler.on_trial_remove(self, trial)
        trial.status = Trial.TERMINATED

    def turn(self, number: int) -> None:
        trial = self.trials[number]
        chosen = self.scheduler.choose_trial_to_run(self)
        if chosen is not None and chosen.status == Trial.PAUSED:
            chosen.status, chosen.step = Trial.RUNNING, chosen.step // 3 * 3
        if trial.status == Trial.PENDING:
            trial.status = Trial.RUNNING
        if trial.status != Trial.RUNNING:
            return
        result = trial.next_result()
        if trial.step == trial.end:
            self.finish(trial)
            return
        action = self.scheduler.on_trial_result(self, trial, dict(result))
        where = (trial.trial_id, trial.step)
        if where in self.fresh:
            known = self.fresh[where]
            assert action in ("CONTINUE", known), (where, action, known)
        else:
            self.fresh[where] = action
        if action == "PAUSE":
            trial.status = Trial.PAUSED
        elif action == "STOP" or trial.step == LAST:
            self.finish(trial)

    def finish(self, trial: Acted) -> None:
        self.scheduler.on_trial_complete(self, trial, dict(trial.last_result))
        trial.status = Trial.TERMINATED

    def kill(self, back: list[int]) -> None:
        """Ray remembers each trial as it was some reports ago, at a checkpoint."""
        for trial, steps in zip(self.trials, back, strict=True):
            if trial.status == Trial.TERMINATED and (steps < 3 or not trial.step):
                continue
            trial.status = Trial.PENDING
            trial.step = max(trial.step - steps, 0) // 3 * 3
            if not trial.step:
                trial.last_result = {}
        self.begin(restored(self.scheduler))


def journal_of(folder: Path) -> list[dict[str, Any]]:
    (files,) = [sorted(run.glob("journal-*")) for run in (folder / "exp/tune_stoppers").glob("*-*")]
    return [line for file in files for line in read_journal(file)]


LOSSES = st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 3.0, 9.0, math.nan, math.inf])


@pytest.mark.parametrize("name", MAKES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_killed_scheduler_knows_and_decides_as_one_that_was_not(name: str, data: Any) -> None:
    """Whenever it is killed and from wherever its trials go on: no report counts twice.

    What it remembers is what a fresh rule makes of its journal, and, where no trial is paused, its
    decisions and its record are those of a scheduler that got each report once.
    """
    count = data.draw(st.integers(1, 4))
    curves = data.draw(
        st.lists(st.lists(LOSSES, min_size=LAST, max_size=LAST), min_size=count, max_size=count)
    )
    ends = data.draw(st.lists(st.integers(1, 2 * LAST), min_size=count, max_size=count))
    turns = data.draw(st.lists(st.integers(0, count - 1), min_size=5, max_size=60))
    kills = data.draw(st.dictionaries(st.integers(1, 59), st.just(None), max_size=3))
    back = {
        k: data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)) for k in kills
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trials = [
            Acted(folder, n, *given_) for n, given_ in enumerate(zip(curves, ends, strict=True))
        ]
        sweep = Sweep(MAKES[name](), trials)
        for turn, number in enumerate(turns):
            if turn in back:
                sweep.kill(back[turn])
            sweep.turn(number)
        scheduler = sweep.scheduler
        scheduler._memory.flush()
        lines = journal_of(folder)
        frozen = scheduler.rule.freeze(scheduler.record)
        expected = repr(scheduler.rule.dump(scheduler.record))
        for trial in trials:
            scheduler.rule.update(
                scheduler.record, Report(trial.trial_id, LAST + 1, 0.0, {"lr": 1.0})
            )
    seen = [(line["trial"], line["step"]) for line in lines if "action" in line]
    assert len(seen) == len(set(seen))
    assert set(seen) == set(sweep.fresh)
    rule, record = scheduler.rule, scheduler.rule.init()
    for line, decision in fold(rule, record, lines, scheduler.sign):
        assert line["reason"] == decision.say(scheduler.sign)
    assert repr(rule.dump(record)) == expected == repr(frozen())
