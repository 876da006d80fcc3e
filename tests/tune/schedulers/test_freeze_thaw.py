"""FreezeThawScheduler on a stand-in for Ray's controller, and in replays."""

import copy
import math
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.search.searcher import Searcher

from tests.stand_ins.pausing_stage import Blind, StandIn, basic, endless, on_disk
from tune_stoppers import FreezeThawScheduler, Sweep, example_path, replay
from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.backtest.process import Costs, Faults
from tune_stoppers.core import Report
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.journal.rerun import rerun
from tune_stoppers.recorded.table import Curve
from tune_stoppers.surrogate.acquisition.freeze_thaw import FreezeThawAcquisition, StartedTrial
from tune_stoppers.tune.live import Live


def freeze_thaw(**more: Any) -> FreezeThawScheduler:
    return FreezeThawScheduler(9, 1, **more)  # rungs 1 and 3


def at_first_rung(ray: StandIn, *losses: float) -> None:
    """Trials "a", "b", … run one after the other and come to rung 1; new ones are still there."""
    names = "abcdefghijklmn"[: len(losses)]
    ray.add(*names, "new")
    for name, loss in zip(names, losses, strict=True):
        assert ray.start() == name
        assert ray.report(name, 1, loss) == "PAUSE"


def one_has_run(ray: StandIn, loss: float) -> None:
    """A trial that is of no further interest has run to its end."""
    ray.scheduler.rule.ended(ray.scheduler.record, Report("gone", 9, loss))


def run_to_the_end(ray: StandIn, name: str, loss: float) -> None:
    """From rung 1 to the horizon; it goes on at rung 3 at once."""
    for step in range(2, 9):
        assert ray.report(name, step, loss) == "CONTINUE"
    assert ray.report(name, 9, loss) == "STOP"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[StartedTrial]]:
    """The trials that were compared, each time."""
    seen, plain = [], FreezeThawAcquisition.choose

    def choose(self: Any, new: Any, begun: Any, *rest: Any, **more: Any) -> Any:
        seen.append(begun)
        return plain(self, new, begun, *rest, **more)

    monkeypatch.setattr(FreezeThawAcquisition, "choose", choose)
    return seen


# -- new trials, and those that come to a rung ----------------------------------------------------


def test_the_first_trials_start_in_order_and_wait_at_the_rung() -> None:
    """Eight must have reported before the model has a say; each start has its reason."""
    ray = StandIn(freeze_thaw())
    at_first_rung(ray, *(float(n) for n in range(7)))
    assert ray.start() == "new"
    assert "compared with all others" in ray.scheduler.explain("a")


def test_one_that_is_worth_most_goes_on_at_once() -> None:
    """Without a pause, which the journal says; the others wait."""
    ray = StandIn(freeze_thaw())
    at_first_rung(ray, 5.0, 6.0)
    assert ray.start() == "new"
    assert ray.report("new", 1, 1.0) == "CONTINUE"
    record = ray.scheduler.record
    assert not ray.scheduler.rule.is_paused(record, "new")
    assert record.courses["new"].passed == 1
    assert ray.statuses() == {"a": "PAUSED", "b": "PAUSED", "new": "RUNNING"}


def test_where_another_is_worth_more_it_waits() -> None:
    """And that other one is next."""
    ray = StandIn(freeze_thaw())
    at_first_rung(ray, 1.0, 5.0)
    assert ray.start() == "new"
    assert ray.report("new", 1, 6.0) == "PAUSE"
    assert ray.start() == "a"


def test_what_is_compared_of_each_trial() -> None:
    """The way to its next rung, with a resume if it waits; how many choices there were before."""
    ray = StandIn(freeze_thaw())
    at_first_rung(ray, 5.0, 6.0)
    assert ray.start() == "new"
    ray.scheduler.rule.note(ray.scheduler.record, "x", "cost", {"cost": 3.0})
    told: list[Any] = []
    order = ray.scheduler._thaw.order
    order.choose = lambda new, begun, awaited, **more: told.append((begun, awaited, more))
    ray.choose()
    ray.report("new", 1, 1.0)
    (_, awaited, then), (begun, none, now) = told
    assert (awaited, none) == ([{"name": "new"}], [])
    assert (then["picks"], now["picks"], now["arrives"]) == (2, 3, True)
    assert [trial.ahead for trial in begun] == pytest.approx([5 / 9, 5 / 9, 2 / 9])
    assert [trial.beyond for trial in begun] == pytest.approx([6 / 9] * 3)
    assert [trial.done for trial in begun] == pytest.approx([1 / 9] * 3)
    assert begun[2].standing == ((1.0,), 1.0, False)


def test_a_saving_trial_is_not_paused() -> None:
    """It is at its next checkpoint, once the save is done."""
    ray = StandIn(freeze_thaw())
    ray.add("a", "new")
    ray.start()
    ray.trial("a").is_saving = True
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    ray.trial("a").is_saving = False
    assert ray.report("a", 2, 1.0) == "PAUSE"


def test_without_a_checkpoint_nothing_is_compared_or_paused(
    compared: list[list[StartedTrial]],
) -> None:
    """It would start from zero."""
    ray = StandIn(freeze_thaw())
    ray.add("a", "new")
    ray.start()
    ray.start()
    before = len(compared)
    actions = [ray.report("a", step, 1.0, saved=False) for step in range(1, 10)]
    assert actions == ["CONTINUE"] * 8 + ["STOP"]
    assert len(compared) == before


@pytest.mark.parametrize("policy", ["worst", "stop"])
def test_a_first_value_that_is_not_finite_stops_the_trial(policy: Any) -> None:
    """And the others are compared with it."""
    ray = StandIn(freeze_thaw(on_nonfinite=policy))
    ray.add("a", "b", "c")
    ray.start()
    assert ray.report("a", 1, math.nan) == "STOP"
    ray.start()
    assert ray.report("b", 1, 1.0) == "PAUSE"
    ray.start()
    assert ray.report("c", 1, 2.0) == "PAUSE"
    assert ray.start() == "b"


def test_a_dry_run_holds_compares_and_pauses_nothing(compared: list[list[StartedTrial]]) -> None:
    """It only says what it would have done."""
    ray = StandIn(freeze_thaw(dry_run=True))
    ray.add("a", "b")
    assert set(ray.statuses().values()) == {"PENDING"}
    assert ray.scheduler.choose_trial_to_run(ray) is ray.trial("a")
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    assert compared == []


def test_reports_without_the_metric_are_left_out() -> None:
    """Under "skip", also at a rung."""
    scheduler = freeze_thaw(metric="loss", mode="min", on_missing="skip")
    ray = StandIn(scheduler)
    ray.add("a", "new")
    ray.start()
    result = {"training_iteration": 1, "checkpoint_dir_name": "c"}
    assert scheduler.on_trial_result(ray, ray.trial("a"), result) == "CONTINUE"
    assert scheduler.record.courses == {}


# -- a choice is made anew when something has changed ---------------------------------------------


def test_where_there_is_nothing_to_do_it_is_not_asked_again(
    compared: list[list[StartedTrial]],
) -> None:
    """Ray asks at every turn of its loop."""
    ray = StandIn(freeze_thaw(least_chance=1.0))
    at_first_rung(ray, 5.0, 6.0)
    assert ray.start() == "new"
    one_has_run(ray, 9.0)  # else all go on in turn
    ray.scheduler._thaw.order.least = 2  # trials that must have reported, or likewise
    assert [ray.choose() for _ in range(3)] == [None] * 3
    before = len(compared)
    assert [ray.choose() for _ in range(3)] == [None] * 3
    assert len(compared) == before


def test_one_whose_pause_took_its_time_is_chosen_then(compared: list[list[StartedTrial]]) -> None:
    """Nothing else has happened since there was nothing to do but that it has saved."""
    ray = StandIn(freeze_thaw(least_chance=0.0))
    ray.add("a", "b", "x", "new")
    assert [ray.start() for _ in range(3)] == ["a", "b", "x"]
    assert ray.report("a", 1, 1.0) == "PAUSE"
    assert ray.start() == "new"
    assert ray.report("b", 1, 2.0) == "PAUSE"  # a is better
    ray.trial("b").status = "RUNNING"  # it is saving
    assert ray.start() == "a"
    assert ray.report("x", 9, 3.0) == "STOP"
    before = len(compared)
    assert [ray.choose() for _ in range(3)] == [None] * 3
    assert len(compared) == before + 1
    ray.trial("b").status = "PAUSED"
    assert ray.choose() == "b"


def test_a_chosen_trial_that_fails_leaves_its_place_to_another() -> None:
    """And comes back at once if it is tried again: it is not held."""
    ray = StandIn(freeze_thaw())
    ray.add("a", "b")
    assert ray.choose() == "a"
    trial = ray.trial("a")
    ray.scheduler.on_trial_error(ray, trial)
    trial.status = "ERROR"
    assert ray.choose() == "b"
    trial.status = "PENDING"
    ray.scheduler.on_trial_add(ray, trial)
    assert trial.status == "PENDING"


def test_a_paused_trial_that_is_chosen_and_fails_waits_no_more() -> None:
    """What it recorded stays; the next best goes on."""
    ray = StandIn(freeze_thaw(least_chance=0.0))
    at_first_rung(ray, 1.0, 2.0)
    assert ray.start() == "new"
    assert ray.report("new", 1, 3.0) == "PAUSE"
    assert ray.choose() == "a"
    trial = ray.trial("a")
    ray.scheduler.on_trial_error(ray, trial)
    trial.status = "ERROR"
    assert ray.choose() == "b"
    assert ray.scheduler.record.rungs[0].losses == [1.0, 2.0, 3.0]


def test_a_user_can_stop_one_that_waits_or_is_new(tmp_path: Path) -> None:
    """Neither is chosen later."""
    ray = StandIn(freeze_thaw(least_chance=0.0))
    ray.add("a", "b", "c", "d", storage=on_disk(tmp_path))
    for name, loss in (("a", 1.0), ("b", 2.0)):
        assert ray.start() == name
        assert ray.report(name, 1, loss) == "PAUSE"
    ray.scheduler._memory._recorder.requested |= {"a": "enough", "c": "enough"}
    assert ray.start() == "d"
    assert ray.report("d", 1, 9.0) == "PAUSE"
    assert ray.start() == "b"
    assert ray.statuses() == dict.fromkeys("ac", "TERMINATED") | {"b": "RUNNING", "d": "PAUSED"}


# -- searchers ------------------------------------------------------------------------------------


def test_beside_a_searcher_without_limit_those_that_wait_take_turns(
    compared: list[list[StartedTrial]],
) -> None:
    """Where they are worth more than one of which nothing is known; else Ray starts its own."""
    ray = StandIn(freeze_thaw(), endless())
    ray.add("a", "b")
    for name in "ab":
        ray.trial(name).status = "RUNNING"
    ray.choose()
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    ray.add("c")
    run_to_the_end(ray, "a", 0.5)
    assert ray.report("b", 1, 9.0) == "PAUSE"
    before = len(compared)
    assert [ray.choose() for _ in range(3)] == [None] * 3
    assert len(compared) == before + 1  # and not at each turn
    ray.trial("c").status = "RUNNING"
    ray.choose()
    assert ray.report("c", 1, 0.9) == "CONTINUE"
    before = len(compared)
    ray.choose()
    assert len(compared) == before + 1  # one more has reported
    ray.report("c", 9, 0.1)
    assert ray.choose() == "b"  # nothing else is there


def test_where_a_limit_is_reached_the_worst_makes_room(compared: list[list[StartedTrial]]) -> None:
    """One at a time, where none that waits is worth more than a new one.

    What is known of it is what its last report said; it did not come to its end.
    """
    search = SearchGenerator(ConcurrencyLimiter(Blind(), max_concurrent=4))
    search._total_samples = 50
    ray = StandIn(freeze_thaw(), search)
    ray.add("a", "b", "c", "d")
    for name, loss in (("a", 1.0), ("b", 8.0), ("c", 9.0)):
        assert ray.start() == name
        assert ray.report(name, 1, loss) == "PAUSE"
    assert ray.start() == "d"
    assert ray.start() == "a"
    run_to_the_end(ray, "a", 0.1)
    assert ray.choose() is None
    assert ray.statuses() == dict.fromkeys("ac", "TERMINATED") | {"b": "PAUSED", "d": "RUNNING"}
    assert "others need its place" in ray.trial("c").last_result["stop_reason"]
    ray.add("e")
    assert ray.start() == "e"
    assert ray.report("d", 1, 10.0) == "PAUSE"
    assert [trial.done for trial in compared[-1]] == [1.0, 1 / 9, 1 / 9, 1 / 9]


def test_where_a_limited_searcher_waits_and_nothing_runs_the_best_goes_on() -> None:
    """Or it would wait for ever."""
    ray = StandIn(freeze_thaw(), basic(sys.maxsize, max_concurrent=2))
    ray.add("a", "b")
    assert ray.start() == "a"
    assert ray.report("a", 1, 9.0) == "PAUSE"
    assert ray.start() == "b"
    assert ray.report("b", 1, 1.0) == "CONTINUE"
    assert ray.choose() is None  # it is worth less than one of which nothing is known
    run_to_the_end(ray, "b", 0.1)
    assert ray.choose() == "a"


# -- the end --------------------------------------------------------------------------------------


def test_at_the_end_the_others_are_given_up_with_their_reason(
    compared: list[list[StartedTrial]],
) -> None:
    """None is left PAUSED. They are compared once, not again for each that goes."""
    ray = StandIn(freeze_thaw())
    losses = [float(n) for n in range(4, 14)]
    at_first_rung(ray, *losses[:7])
    assert ray.start() == "new"
    assert ray.report("new", 1, 0.1) == "CONTINUE"
    run_to_the_end(ray, "new", 0.01)
    before = len(compared)
    while ray.start():
        (name,) = (name for name, status in ray.statuses().items() if status == "RUNNING")
        ray.report(name, 9, 5.0)
    assert set(ray.statuses().values()) == {"TERMINATED"}
    for name in "fg":
        why = ray.trial(name).last_result["stop_reason"]
        assert why == ray.scheduler.explain(name)
        assert "no trial that waits has 5% to become the best" in why
    gone_on = sum(trial.last_result["training_iteration"] == 9 for trial in ray.trials) - 1
    assert len(compared) == before + gone_on + 1


@pytest.mark.parametrize("ran", [True, False])
def test_when_no_new_one_comes_only_what_has_a_chance_is_gone_on_with(ran: bool) -> None:
    """Before that a hopeless one that is near to its rung may be worth more than a new one.

    And while none has run to its end, nobody knows what the end is like.
    """
    ray = StandIn(freeze_thaw(least_chance=0.2))
    at_first_rung(ray, *(float(n) for n in range(8)))
    told = []
    ray.scheduler._thaw.order.choose = lambda *_, least_probability, **more: told.append(
        least_probability
    )
    assert ray.start() == "new"
    if ran:
        one_has_run(ray, 9.0)
    ray.choose()
    ray.report("new", 1, 7.0)
    assert told == ([0.0, 0.2, 0.2] if ran else [0.0, 0.0, 0.0])


def test_while_few_have_reported_nobody_is_given_up() -> None:
    """Seven losses do not say what is hopeless: all run to their ends, the best first."""
    ray = StandIn(freeze_thaw(least_chance=1.0))
    at_first_rung(ray, *(float(n) for n in range(6)))
    assert ray.start() == "new"
    assert ray.report("new", 1, 9.0) == "PAUSE"
    order = []
    while name := ray.start():
        order.append(name)
        ray.report(name, 9, 5.0)
    assert sorted(order) == ["a", "b", "c", "d", "e", "f", "new"]
    assert order[0] == "a"


def test_one_trial_alone_runs_to_its_end() -> None:
    """With nothing to compare it with."""
    ray = StandIn(freeze_thaw())
    ray.add("a")
    assert ray.start() == "a"
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    run_to_the_end(ray, "a", 1.0)
    assert ray.choose() is None


# -- restores -------------------------------------------------------------------------------------


def test_it_is_pickled_as_it_was_made() -> None:
    """What it knows of trials stays behind, and a copy begins anew."""
    ray = StandIn(freeze_thaw(least_chance=0.1))
    at_first_rung(ray, *(float(n) for n in range(7)))
    ray.start()
    ray.report("new", 1, 9.0)
    ray.scheduler.use_clock(time.monotonic)
    assert not any(isinstance(part, Live) for part in ray.scheduler.__getstate__().values())
    for again in (pickle.loads(pickle.dumps(ray.scheduler)), copy.deepcopy(ray.scheduler)):
        assert again.rule == ray.scheduler.rule
        assert (again._live.trials, again._thaw.turn, again._thaw.order._model._fitted) == (
            {},
            0,
            0,
        )
        other = StandIn(again)
        other.add("z")
        assert other.choose() == "z"


def test_after_a_restore_those_that_were_paused_are_held_again(tmp_path: Path) -> None:
    """One that went on at once goes on, also where it repeats the report of that very rung."""
    storage = on_disk(tmp_path)
    made = freeze_thaw()
    before = StandIn(pickle.loads(pickle.dumps(made)))
    before.add("a", "b", "c", storage=storage)
    for name, loss in (("a", 5.0), ("b", 6.0)):
        assert before.start() == name
        assert before.report(name, 1, loss) == "PAUSE"
    assert before.start() == "c"
    assert before.report("c", 1, 1.0) == "CONTINUE"
    before.scheduler._memory.flush()

    after = StandIn(pickle.loads(pickle.dumps(made)))
    after.add("c", "b", "a", storage=storage)
    assert after.statuses() == {"c": "PENDING", "b": "PAUSED", "a": "PAUSED"}
    after.trial("c").status = "RUNNING"
    assert after.report("c", 1, 1.0) == "CONTINUE"
    assert after.scheduler.record.rungs[0].losses == [1.0, 5.0, 6.0]
    run_to_the_end(after, "c", 0.5)
    while after.start():
        (name,) = (name for name, status in after.statuses().items() if status == "RUNNING")
        after.report(name, 9, 5.0)
    assert set(after.statuses().values()) == {"TERMINATED"}
    check_journal(after.scheduler, tmp_path)


def check_journal(scheduler: Any, folder: Path) -> list[dict[str, Any]]:
    """A fresh rule makes the same decisions of it, and comes to the same record."""
    scheduler._memory.flush()
    (run,) = folder.glob("tune_stoppers/*-FreezeThawScheduler-*")
    lines = [line for path in sorted(run.glob("journal-*")) for line in read_journal(path)]
    again = rerun(scheduler.rule, lines, scheduler.sign)
    assert again.differing == ()
    assert again.checked == sum("action" in line for line in lines)
    return lines


# -- replays --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> Sweep:
    return Sweep.from_parquet(example_path())


@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"workers": 8}, {"checkpoint_every": 3}, {"checkpoint_every": 0}]
)
def test_a_replay_ends_with_no_paused_trial(example: Sweep, options: dict[str, Any]) -> None:
    """The best is found at a fraction of the work; without checkpoints nothing is paused."""
    result = replay(example, FreezeThawScheduler(example.max_t), **{"workers": 4} | options)
    assert set(result.trials["status"]) == {"TERMINATED"}
    actions = set(result.journal["action"])
    if options.get("checkpoint_every") == 0:
        assert "pause" not in actions
        return
    assert "restart" not in actions  # nobody ever started from zero
    assert result.regret < 0.1
    assert result.savings > 0.8


def curves(config: Callable[[int], dict[str, Any]], trials: int, length: int) -> list[Curve]:
    """Falling losses; one trial in five breaks off at NaN, one of these with its first report."""
    dice, made = np.random.default_rng(trials), []
    for number in range(trials):
        steps = np.arange(1, length + 1)
        losses = dice.random() + 1 / steps
        if number % 5 == 4:
            losses[(number // 5) % length :] = math.nan
        values = {"loss": losses, "progress": steps / length}
        made.append(Curve(f"t{number}", config(number), steps, values))
    return made


CONFIGS: dict[str, Callable[[int], dict[str, Any]]] = {
    "none": lambda n: {},
    "all the same": lambda n: {"lr": 1e-3},
    "odd": lambda n: {
        "opt": {"name": ["adam", "sgd", None][n % 3], "momentum": {} if n % 2 else 0.9},
        "lr": math.nan if n % 4 == 0 else 10.0**-n,
        "layers": [n % 2],
        **({"extra": True} if n % 3 else {}),
    },
}


@pytest.mark.parametrize("trials", [1, 2, 13])
@pytest.mark.parametrize("configs", CONFIGS)
@pytest.mark.parametrize("workers", [1, 3])
def test_any_sweep_ends(tmp_path: Path, configs: str, trials: int, workers: int) -> None:
    """Whatever its configurations, few trials or many, with failures; by progress from 0 to 1."""
    scheduler = FreezeThawScheduler(1.0, time_attr="progress", metric="loss", mode="max")
    cluster = Cluster(
        curves(CONFIGS[configs], trials, 12),
        scheduler,
        workers=workers,
        costs=Costs(resume=0.5),
        faults=Faults(0.03, 0.03, max_failures=2, seed=trials),
        folder=tmp_path,
    )
    scheduler.use_clock(lambda: cluster.now)
    cluster.run()
    assert {trial.status for trial in cluster.trials} <= {"TERMINATED", "ERROR"}
    lines = check_journal(scheduler, tmp_path)
    if trials == 13:
        events = {line.get("event") for line in lines}
        assert {"started", "paused", "resumed", "given up"} <= events


class Draws(Searcher):
    """Suggests at random."""

    def __init__(self) -> None:
        super().__init__(metric="loss", mode="min")
        self.chance = np.random.default_rng(0)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"lr": self.chance.random()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Learns nothing."""


@pytest.mark.parametrize("limit", [None, 2, 4])
def test_beside_a_searcher_every_trial_is_suggested_and_ends(limit: int | None) -> None:
    """The paused count as unfinished: they go on, or make room."""
    steps = np.arange(1, 10)
    made = [
        Curve(f"t{n}", {"lr": n / 30}, steps, {"loss": (n / 30 - 0.5) ** 2 + 1 / steps})
        for n in range(30)
    ]
    searcher = Draws() if limit is None else ConcurrencyLimiter(Draws(), max_concurrent=limit)
    result = replay(
        Sweep(made, metric="loss", mode="min"), freeze_thaw(), searcher=searcher, workers=2
    )
    assert set(result.trials["status"]) == {"TERMINATED"}
    assert len(result.trials) == 30
    assert result.regret < 0.05
