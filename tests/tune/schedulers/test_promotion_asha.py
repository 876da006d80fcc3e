"""PromotionASHAScheduler on a stand-in for Ray's controller, and in replays of a recorded sweep."""

import copy
import json
import logging
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.trainable import FunctionTrainable, Trainable

from tests.stand_ins.pausing_stage import Blind, StandIn, basic, endless, on_disk
from tune_stoppers import Sweep, example_path, replay
from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.backtest.process import Costs
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.tune.schedulers.promotion_asha import PromotionASHAScheduler


def promotion(pen: int = 3, **more: Any) -> PromotionASHAScheduler:
    return PromotionASHAScheduler(9, 1, pen=pen, **more)


def at_first_rung(ray: StandIn, *losses: float) -> None:
    """Trials "a", "b", … run one after the other and are paused at rung 1."""
    names = "abcdefghijklmn"[: len(losses)]
    ray.add(*names)
    for name, loss in zip(names, losses, strict=True):
        assert ray.start() == name
        assert ray.report(name, 1, loss) == "PAUSE"


# -- new trials ----------------------------------------------------------------------------------


def test_new_trials_are_held_and_started_in_order() -> None:
    """One is staged, and no other until it has left PENDING."""
    ray = StandIn(promotion())
    ray.add("a", "b", "c")
    assert set(ray.statuses().values()) == {"PAUSED"}
    assert all(trial.folder for trial in ray.trials)  # Ray's ResultGrid wants one
    assert ray.choose() == "a"
    assert ray.choose() is None
    ray.trial("a").status = "RUNNING"
    assert ray.choose() == "b"


def test_the_one_that_waits_is_named_again() -> None:
    """With `reuse_actors` Ray gives a free process to the trial that the scheduler names."""
    ray = StandIn(promotion())
    ray.add("a", "b")
    assert ray.choose() == "a"
    assert ray.scheduler.choose_trial_to_run(ray) is ray.trial("a")


def test_a_promotion_goes_before_a_new_trial() -> None:
    """The best paused trial resumes once the quota lets it, else a new one starts."""
    ray = StandIn(promotion())
    at_first_rung(ray, 2.0, 1.0, 3.0)
    ray.add("new")
    assert ray.start() == "b"
    assert "rank 1 of 3" not in ray.scheduler.explain("a")
    assert ray.start() == "new"


@pytest.mark.parametrize(
    ("search", "held"),
    [
        (basic(50), True),
        (basic(sys.maxsize), False),  # num_samples=-1: Ray would add trials for ever
        (basic(sys.maxsize, max_concurrent=8), True),
        (endless(), False),  # Ray would ask for all samples at once
        (SearchGenerator(ConcurrencyLimiter(Blind(), max_concurrent=4)), True),
    ],
)
def test_trials_are_held_only_where_the_searcher_ends_by_itself(search: Any, held: bool) -> None:
    """Trials that are held back are not pending: nothing else would keep Ray from drawing more."""
    ray = StandIn(promotion(), search)
    ray.add("a")
    assert ray.statuses() == {"a": "PAUSED" if held else "PENDING"}


def test_beside_a_searcher_without_limit_promotions_take_turns() -> None:
    """Its next trial is pending by itself; a promotion is staged beside it."""
    ray = StandIn(promotion(pen=1), endless())
    ray.add("a", "b", "c")
    for name, loss in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        ray.trial(name).status = "RUNNING"
        ray.scheduler.choose_trial_to_run(ray)
        ray.report(name, 1, loss)
    ray.add("d")
    ray.scheduler.rule.note(ray.scheduler.record, "x", "cost", {"cost": 5.0})
    assert ray.choose() is None  # too dear, and there is something else to do
    ray.scheduler.rule.note(ray.scheduler.record, "x", "cost", {"cost": -5.0})
    assert ray.choose() == "b"
    assert ray.choose() is None


# -- pausing -------------------------------------------------------------------------------------


def test_without_a_checkpoint_a_trial_is_continued_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would start from zero; it is paused at the first report with one."""
    ray = StandIn(promotion())
    ray.add("a", "b", "c")
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        for name in "ab":
            ray.start()
            assert ray.report(name, 1, 1.0, saved=False) == "CONTINUE"
            assert ray.report(name, 2, 1.0, saved=False) == "CONTINUE"
    assert [r.message.count("without a checkpoint") for r in caplog.records] == [1]
    assert ray.report("a", 3, 1.0) == "PAUSE"
    assert "no pause without a checkpoint" in ray.scheduler.explain("b")


def test_a_saving_trial_is_not_paused() -> None:
    """It is at its next checkpoint, once the save is done."""
    ray = StandIn(promotion())
    ray.add("a", "b")
    ray.start()
    ray.trial("a").is_saving = True
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    ray.trial("a").is_saving = False
    assert ray.report("a", 2, 1.0) == "PAUSE"


def test_a_trial_whose_pause_is_under_way_is_not_resumed_yet() -> None:
    """Ray goes on showing it as running until its save is done."""
    ray = StandIn(promotion())
    at_first_rung(ray, 1.0, 2.0, 3.0)
    ray.trial("a").status = "RUNNING"
    assert ray.choose() is None
    assert ray.scheduler.rule.is_paused(ray.scheduler.record, "a")
    ray.trial("a").status = "PAUSED"
    assert ray.choose() == "a"


class Saves(Trainable):
    """A class trainable with checkpoints."""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save."""


@pytest.mark.parametrize(
    ("cls", "action"),
    [(Saves, "PAUSE"), (Trainable, "CONTINUE"), (FunctionTrainable, "CONTINUE")],
)
def test_a_class_trainable_is_paused_if_it_can_save(cls: type, action: str) -> None:
    """Ray has it save then; its reports do not speak of checkpoints."""
    ray = StandIn(promotion())
    ray.add("a", "b", get_trainable_cls=lambda: cls)
    ray.start()
    result = {"training_iteration": 1, "loss": 1.0}
    assert ray.scheduler.on_trial_result(ray, ray.trial("a"), result) == action


@pytest.mark.parametrize("policy", ["worst", "stop"])
def test_a_value_that_is_not_finite_stops_the_trial_at_once(policy: Any) -> None:
    """And is recorded as worst."""
    ray = StandIn(promotion(on_nonfinite=policy))
    ray.add("a")
    ray.start()
    assert ray.report("a", 1, math.nan) == "STOP"
    assert ray.scheduler.record.rungs[0].losses == [math.inf]
    assert "not finite" in ray.trial("a").last_result["stop_reason"]


def test_train_v2_trials_are_refused() -> None:
    """Tune cannot resume them, and a pause would leave their workers running."""
    ray = StandIn(promotion())
    ray.add("a")
    ray.start()
    with pytest.raises(ValueError, match="cannot pause trial a: its checkpoints are those of a"):
        ray.report("a", 1, 1.0, saved=False, checkpoint_path="/somewhere/else")


@pytest.mark.parametrize(("length", "fine"), [("1", True), ("", True), ("2", False)])
def test_result_buffering_is_refused(
    length: str, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line to type instead."""
    monkeypatch.setenv("TUNE_RESULT_BUFFER_LENGTH", length)
    scheduler = promotion()
    if fine:
        assert scheduler.set_search_properties("loss", "min")
        return
    with pytest.raises(ValueError, match="TUNE_RESULT_BUFFER_LENGTH=2: unset it"):
        scheduler.set_search_properties("loss", "min")


def test_a_dry_run_holds_and_pauses_nothing() -> None:
    """It only says what it would have done."""
    ray = StandIn(promotion(dry_run=True))
    ray.add("a", "b")
    assert set(ray.statuses().values()) == {"PENDING"}
    assert ray.scheduler.choose_trial_to_run(ray) is ray.trial("a")
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    assert "the first 3 wait for each other" in ray.scheduler.explain("a")


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [True, False])
def test_if_nothing_runs_the_best_resumes(over: bool) -> None:
    """Whatever the quota says, and also while a searcher waits for trials to end."""
    ray = StandIn(promotion(pen=9))
    at_first_rung(ray, 2.0, 1.0)
    ray.over = over
    assert ray.choose() == "b"


def test_at_the_end_the_paused_are_given_up_with_their_reason() -> None:
    """None is left PAUSED, and none that is better than the best run."""
    ray = StandIn(promotion(pen=9))
    at_first_rung(ray, 5.0, 1.0, 4.0)
    assert ray.start() == "b"
    for step in range(2, 9):
        action = ray.report("b", step, 1.0)
        if action == "PAUSE":
            assert ray.start() == "b"
    assert ray.report("b", 9, 1.0) == "STOP"
    assert ray.choose() is None
    assert set(ray.statuses().values()) == {"TERMINATED"}
    for name in "ac":
        why = ray.trial(name).last_result["stop_reason"]
        assert why == ray.scheduler.explain(name)
        assert "is no better than the 1 there of b" in why


def test_where_a_limit_is_reached_the_worst_makes_room() -> None:
    """One at a time: the next only after the searcher has made use of the place."""
    ray = StandIn(promotion(pen=9), basic(sys.maxsize, max_concurrent=4))
    ray.add("a", "b", "c", "d")
    for name, loss in (("a", 2.0), ("b", 1.0)):
        assert ray.start() == name
        assert ray.report(name, 1, loss) == "PAUSE"
    assert ray.start() == "c"
    assert ray.start() == "d"
    assert ray.choose() is None
    assert ray.statuses() == {"a": "TERMINATED", "b": "PAUSED", "c": "RUNNING", "d": "RUNNING"}
    assert "others need its place" in ray.trial("a").last_result["stop_reason"]
    assert ray.report("c", 1, 1.5) == "PAUSE"
    assert ray.choose() is None
    assert ray.statuses()["c"] == "PAUSED"  # nobody has come for the place of the first yet
    ray.add("e")
    assert ray.start() == "e"
    assert ray.choose() is None
    assert ray.statuses()["c"] == "TERMINATED"


# -- failures and restores -----------------------------------------------------------------------


def test_a_failed_trial_is_tried_again_at_once() -> None:
    """It is not held: a retry is pending, and keeps its promotions."""
    ray = StandIn(promotion(pen=1))
    ray.add("a", "b")
    ray.start()
    ray.report("a", 1, 1.0)
    assert ray.start() == "b"
    trial = ray.trial("b")
    ray.scheduler.on_trial_error(ray, trial)
    trial.status = "PENDING"
    ray.scheduler.on_trial_add(ray, trial)
    assert trial.status == "PENDING"


def test_after_a_restore_those_that_were_paused_are_held_again(tmp_path: Path) -> None:
    """Ray has forgotten the pause; the record has not. The rest starts at once."""
    storage = on_disk(tmp_path)
    made = promotion(pen=3)
    before = StandIn(pickle.loads(pickle.dumps(made)))
    before.add("a", "b", "c", "d", "e", storage=storage)
    for name, loss in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        before.start()
        before.report(name, 1, loss)
    assert before.start() == "b"
    before.scheduler._memory.flush()

    after = StandIn(pickle.loads(pickle.dumps(made)))
    after.add("b", "c", "a", "e", "d", storage=storage)
    expected = dict.fromkeys("aced", "PAUSED") | {"b": "PENDING"}
    assert after.statuses() == expected
    after.trial("b").status = "RUNNING"
    assert after.choose() == "e"  # the first new one in Ray's order; the quota lets only b go on
    assert after.report("b", 1, 1.0) == "CONTINUE"  # it repeats itself
    assert after.scheduler.record.rungs[0].losses == [1.0, 2.0, 3.0]


def test_the_journal_gives_the_same_decisions_again(tmp_path: Path) -> None:
    """Folded through a fresh rule, line by line."""
    sweep = Sweep.from_parquet(example_path())
    made = promotion_for(sweep)
    cluster = Cluster(
        list(sweep)[:24], copy.deepcopy(made), workers=2, costs=Costs(resume=0.5), folder=tmp_path
    )
    scheduler = cluster._scheduler
    scheduler.set_search_properties(sweep.metric, sweep.mode)
    scheduler.use_clock(lambda: cluster.now)
    cluster.run()
    scheduler._memory.flush()
    (journal,) = tmp_path.glob("tune_stoppers/*/journal-*.jsonl")
    lines = read_journal(journal)
    record = made.rule.init()
    again = list(fold(made.rule, record, lines, scheduler.sign))
    assert [d.action.value for _, d in again] == [line["action"] for line, _ in again]
    assert [d.say(scheduler.sign) for _, d in again] == [line["reason"] for line, _ in again]
    assert str(made.rule.dump(record)) == str(made.rule.dump(scheduler.record))  # nan
    events = {line.get("event") for line in lines}
    assert {"paused", "resumed", "cost", "given up"} <= events
    assert json.loads(json.dumps(lines)) == lines


# -- replays -------------------------------------------------------------------------------------


def promotion_for(sweep: Sweep, **more: Any) -> PromotionASHAScheduler:
    return PromotionASHAScheduler(sweep.max_t, **more)


@pytest.fixture(scope="module")
def example() -> Sweep:
    return Sweep.from_parquet(example_path())


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("options", [{}, {"checkpoint_every": 3}, {"checkpoint_every": 0}])
def test_a_replay_ends_with_no_paused_trial(
    example: Sweep, workers: int, options: dict[str, Any]
) -> None:
    """The best is found at a fraction of the work; without checkpoints nothing is paused."""
    result = replay(example, promotion_for(example), workers=workers, **options)
    assert set(result.trials["status"]) == {"TERMINATED"}
    actions = set(result.journal["action"])
    if options.get("checkpoint_every") == 0:
        assert "pause" not in actions
        return
    assert "restart" not in actions  # nobody ever started from zero
    assert result.regret < 0.05
    assert result.savings > 0.7
    reasons = [trial.last_result.get("stop_reason", "") for trial in result.cluster.trials]
    assert sum("is no better than" in reason for reason in reasons) > len(example) / 2


@pytest.mark.parametrize("chance", [{"failure_rate": 0.02}, {"preemption_rate": 0.02}])
def test_failures_leave_no_trial_paused(example: Sweep, chance: dict[str, float]) -> None:
    """Trials that die and come back find their places again."""
    result = replay(example, promotion_for(example), workers=4, max_failures=3, **chance)
    assert set(result.trials["status"]) <= {"TERMINATED", "ERROR"}
    assert result.regret < 0.1


def test_the_cost_of_a_resume_is_measured(example: Sweep) -> None:
    """By the clock it is given, in units of the time, whatever the number of workers."""
    for workers in (1, 4):
        scheduler = promotion_for(example, pen=3)
        cluster = Cluster(list(example), scheduler, workers=workers, costs=Costs(resume=0.75))
        scheduler.set_search_properties(example.metric, example.mode)
        scheduler.use_clock(lambda cluster=cluster: cluster.now)
        cluster.run()
        assert scheduler.record.resumes > 5
        assert scheduler.rule.resume_cost(scheduler.record) == pytest.approx(0.75)


def test_one_line_says_how_it_stands() -> None:
    """Rungs, how many wait, how many are to come, and the cost of a resume."""
    ray = StandIn(promotion())
    at_first_rung(ray, 1.0, 2.0)
    ray.add("new")
    assert ray.scheduler.debug_string() == (
        "PromotionASHAScheduler: trials recorded at rungs {1: 2 (2 wait), 3: 0 (0 wait)}; "
        "1 not started; a resume costs 0 of training_iteration"
    )
