"""Promotion: who is paused, who goes on, who is promoted, and what is given up."""

import json
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.journal.lines import plain
from tune_stoppers.rules.sweep.promotion import Choice, PausingRecord, Promotion

C, P, S = Action.CONTINUE, Action.PAUSE, Action.STOP


def tell(
    rule: Promotion,
    record: PausingRecord,
    trial: str,
    time: float,
    loss: float,
    *,
    saved: bool = True,
) -> Action:
    """Report, and pause the trial where the rule asks for it, as a scheduler does."""
    checkpoint = "checkpoint_000000" if saved else None
    action = rule.update(record, Report(trial, time, loss), checkpoint=checkpoint).action
    if action is P:
        rule.note(record, trial, "paused", {})
    return action


def at_first_rung(rule: Promotion, losses: Iterable[float]) -> PausingRecord:
    """A record of trials "t0", "t1", … that have come to rung 1 with these losses."""
    record = rule.init()
    for i, loss in enumerate(losses):
        tell(rule, record, f"t{i}", 1, loss)
    return record


def choose(
    rule: Promotion,
    record: PausingRecord,
    *,
    fresh: bool = True,
    over: bool = False,
    idle: bool = False,
) -> tuple[str, str] | None:
    choice = rule.choose(record, fresh=fresh, over=over, idle=idle)
    return None if choice is None else (choice.move, choice.trial_id)


@pytest.mark.parametrize(
    ("losses", "actions"),
    [
        ([1.0, 2.0], [P, P]),  # the pen: nobody passes free
        ([1.0, 2.0, 3.0], [P, P, P]),  # the third fills it, and is not in the best third
        ([3.0, 2.0, 1.0], [P, P, C]),  # rank 1 of 3 goes on at once
        ([3.0, 2.0, 1.0, 0.5], [P, P, C, C]),
        ([3.0, 2.0, 1.0, 1.5], [P, P, C, P]),  # rank 2 of 4: 2·3 > 4
        ([3.0, 4.0, 5.0, 6.0, 1.0, 2.0], [P, P, P, P, C, C]),  # rank 2 of 6: 2·3 <= 6
        ([1.0, 1.0, 1.0], [P, P, C]),  # a tie is in the trial's favour
        ([math.nan, 2.0, 1.0], [S, P, C]),  # recorded as worst
    ],
)
def test_who_is_paused_at_a_rung(losses: list[float], actions: list[Action]) -> None:
    """All in the pen, then those outside the best 1/η."""
    rule = Promotion(max_t=9, grace_period=1, pen=3)
    record = rule.init()
    assert [tell(rule, record, f"t{i}", 1, v) for i, v in enumerate(losses)] == actions


def test_the_pen_is_of_the_first_rung() -> None:
    """Above it the trials were chosen: the quota counts from the first on."""
    rule = Promotion(max_t=27, grace_period=1, pen=9)
    record = rule.init()
    for i, loss in enumerate([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]):
        assert tell(rule, record, f"t{i}", 1, loss) is P
        assert choose(rule, record) == ("start", "")
    assert tell(rule, record, "t8", 1, 1.0) is C
    assert choose(rule, record) == ("resume", "t7")
    for i, action in ((8, P), (7, P), (6, C)):
        rule.note(record, f"t{i}", "resumed", {})
        assert tell(rule, record, f"t{i}", 3, float(i)) is action


def test_promotions_come_from_the_top_rung_down() -> None:
    """A paused trial higher up goes before a better one below."""
    rule = Promotion(max_t=27, grace_period=1, pen=1)
    record = at_first_rung(rule, [5.0, 5.1, 5.2, 5.3, 5.4, 5.5, 5.6, 5.7, 5.8])
    for trial, loss in (("t0", 4.0), ("t1", 3.0), ("t2", 4.5)):
        rule.note(record, trial, "resumed", {})
        tell(rule, record, trial, 3, loss)
    tell(rule, record, "new", 1, 6.0)
    tell(rule, record, "last", 1, 6.0)
    tell(rule, record, "best", 1, 6.0)
    assert choose(rule, record) == ("resume", "t1")
    rule.note(record, "t1", "resumed", {})
    assert choose(rule, record) == ("resume", "t3")
    rule.note(record, "t3", "resumed", {})
    assert choose(rule, record) == ("start", "")


def test_a_trial_is_promoted_from_a_rung_once() -> None:
    """One that goes back and comes to the rung again is not paused there again."""
    rule = Promotion(max_t=9, grace_period=2, pen=2)
    record = rule.init()
    tell(rule, record, "a", 2, 1.0)
    rule.note(record, "a", "resumed", {})
    assert tell(rule, record, "a", 3, 0.9) is C
    assert tell(rule, record, "a", 2, 5.0) is C  # from an earlier checkpoint
    assert record.rungs[0].of_trial == {"a": 5.0}  # its entry is replaced


def test_a_resumed_trial_is_not_paused_by_a_repeated_report() -> None:
    """Ray may show the report again at which it was paused."""
    rule = Promotion(max_t=9, grace_period=2, pen=2)
    record = rule.init()
    tell(rule, record, "a", 2, 1.0)
    rule.note(record, "a", "resumed", {})
    assert tell(rule, record, "a", 2, 1.0) is C


def test_without_a_checkpoint_a_trial_goes_on_until_it_has_one() -> None:
    """It is paused at its first report with a checkpoint, or goes on if the quota lets it now."""
    rule = Promotion(max_t=30, grace_period=2, pen=2)
    record = rule.init()
    assert tell(rule, record, "late", 2, 5.0, saved=False) is C
    assert rule.is_due(record, "late")
    assert tell(rule, record, "late", 3, 4.0, saved=False) is C
    assert tell(rule, record, "late", 4, 4.0) is P
    assert not rule.is_due(record, "late")
    assert record.paused[0] == [(5.0, "late")]  # ranked by what it had at the rung
    assert tell(rule, record, "good", 2, 1.0, saved=False) is C
    for i in range(2):
        tell(rule, record, f"t{i}", 2, 9.0)
    assert tell(rule, record, "good", 3, 1.0) is C  # best of four by now: promoted
    assert not rule.is_due(record, "good")


def test_a_trial_that_never_saves_runs_to_the_horizon() -> None:
    """It is recorded at every rung and never paused."""
    rule = Promotion(max_t=9, grace_period=1)
    record = rule.init()
    actions = [tell(rule, record, "t", t, 1.0, saved=False) for t in range(1, 10)]
    assert actions == [C] * 8 + [S]
    assert [len(rung.losses) for rung in record.rungs] == [1, 1]


def test_of_several_rungs_passed_at_once_it_waits_at_the_last() -> None:
    """The earlier ones get the loss it had when it passed them."""
    rule = Promotion(max_t=81, grace_period=2, pen=1)
    record = rule.init()
    tell(rule, record, "t", 1, 7.0)
    assert tell(rule, record, "t", 20, 3.0) is P
    assert [rung.of_trial["t"] for rung in record.rungs[:3]] == [7.0, 7.0, 3.0]
    assert [len(waiting) for waiting in record.paused] == [0, 0, 1, 0]


def test_the_pen_is_void_when_no_trial_will_come() -> None:
    """Nobody waits for trials that will never be."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [3.0, 2.0, 1.0])
    assert choose(rule, record, fresh=False, over=False) is None
    assert choose(rule, record, fresh=True, over=True) == ("start", "")
    assert choose(rule, record, fresh=False, over=True) == ("resume", "t2")


@pytest.mark.parametrize("over", [True, False])
def test_when_nothing_runs_the_best_resumes(over: bool) -> None:
    """Never are all trials left paused, whatever the quota says."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [2.0, 1.0])
    assert choose(rule, record, fresh=False, over=over) is None
    assert choose(rule, record, fresh=False, over=over, idle=True) == ("resume", "t1")


def test_at_the_end_the_paused_are_given_up() -> None:
    """Unless one is better than all that have run: that one goes on."""
    rule = Promotion(max_t=9, grace_period=1, pen=1)
    record = at_first_rung(rule, [5.0, 3.0])
    rule.ended(record, Report("done", 9, 4.0))
    assert choose(rule, record, fresh=False, over=True, idle=True) == ("resume", "t1")
    rule.note(record, "t1", "resumed", {})
    rule.ended(record, Report("t1", 9, 2.0))
    choice = rule.choose(record, fresh=False, over=True, idle=True)
    assert isinstance(choice, Choice)
    assert (choice.move, choice.trial_id) == ("give up", "t0")
    assert choice.decision.say(-1) == (
        "nothing else is left to run, and -5 at rung 1 is no better than the -3 there of t1, the "
        "best that ran to its end"
    )
    rule.note(record, "t0", "given up", {})
    assert choose(rule, record, fresh=False, over=True, idle=True) is None


def test_what_ended_early_ends_nobody_else() -> None:
    """Like is compared with like: all that wait go on in turn until one has run to its end."""
    rule = Promotion(max_t=30, grace_period=1, pen=9)
    record = at_first_rung(rule, [5.0, 4.0, 3.0])
    tell(rule, record, "short", 1, 2.0)
    rule.ended(record, Report("short", 20, 0.5))
    rest: dict[str, Any] = {"fresh": False, "over": True, "idle": True}
    assert choose(rule, record, **rest) == ("resume", "t2")
    rule.note(record, "t2", "resumed", {})
    rule.ended(record, Report("t2", 23, 0.9))  # it ends early, too
    assert choose(rule, record, **rest) == ("resume", "t1")
    rule.note(record, "t1", "resumed", {})
    rule.ended(record, Report("t1", 24, 1.0))  # four fifths of the horizon
    assert choose(rule, record, **rest) == ("give up", "t0")


def test_the_leader_is_met_at_the_rung_where_a_trial_waits() -> None:
    """One that was better there may yet win, though the leader's end is better than its present."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [5.0, 3.0, 7.0])
    rule.note(record, "t0", "resumed", {})
    rule.ended(record, Report("t0", 9, 0.1))
    rest: dict[str, Any] = {"fresh": False, "over": True, "idle": True}
    assert choose(rule, record, **rest) == ("resume", "t1")  # 3 against 5, not against 0.1
    rule.note(record, "t1", "resumed", {})
    rule.ended(record, Report("t1", 9, 0.2))
    assert choose(rule, record, **rest) == ("give up", "t2")


@pytest.mark.parametrize("step", [9, None])
def test_one_whose_last_report_tells_nothing_ends_with_the_one_before(step: Any) -> None:
    """It has run to its end, and those that wait are compared with it."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [5.0, 3.0])
    tell(rule, record, "t1", 8, 1.0)
    rule.unjudged(record, "t1", step)
    for known in (record, rule.load(json.loads(json.dumps(rule.dump(record))))):
        assert known.ended == {"t1": 1.0}
        assert choose(rule, known, fresh=False, over=True, idle=True) == ("give up", "t0")
    rule.unjudged(record, "stranger", step)  # it never told anything
    assert record.ended == {"t1": 1.0}
    rule.forget(record, ["t1"])
    assert record.leader == ""


def test_a_record_without_ends_is_refused() -> None:
    """The first versions wrote none; who leads would be a guess, and the journal knows."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [5.0, 3.0, 4.0])
    rule.ended(record, Report("t1", 9, 1.0))
    rule.ended(record, Report("t2", 3, 0.5))
    dumped = json.loads(json.dumps(rule.dump(record)))
    del dumped["ends"]
    with pytest.raises(ValueError, match="'ends'"):
        rule.load(dumped)


def test_a_given_up_trial_does_not_count_as_run() -> None:
    """Not even when Ray, restored, shows it as terminated."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [5.0, 3.0])
    rule.note(record, "t1", "given up", {})
    rule.ended(record, Report("t1", 1, 3.0))
    assert record.ended == {}
    assert choose(rule, record, fresh=False, over=True, idle=True) == ("resume", "t0")


def test_a_forgotten_trial_keeps_no_other_from_going_on() -> None:
    """The best of those that have run is that of the others then, also after a restore."""
    rule = Promotion(max_t=9, grace_period=1, pen=1)
    record = at_first_rung(rule, [5.0, 3.0])
    rule.ended(record, Report("best", 9, 1.0))
    rule.ended(record, Report("next", 9, 4.0))
    record = rule.load(rule.dump(record))
    assert choose(rule, record, fresh=False, over=True, idle=True) == ("give up", "t1")
    rule.forget(record, ["best"])
    assert choose(rule, record, fresh=False, over=True, idle=True) == ("resume", "t1")


@pytest.mark.parametrize(("loss", "counts"), [(1.0, True), (math.nan, False)])
def test_a_diverged_trial_is_no_result(loss: float, counts: bool) -> None:
    """What it had before does not keep the paused from going on."""
    rule = Promotion(max_t=9, grace_period=4, pen=9)
    record = rule.init()
    tell(rule, record, "d", 1, 1.0)
    rule.ended(record, Report("d", 2, loss))
    assert ("d" in record.ended) is counts


@pytest.mark.parametrize(
    ("cost", "chosen"), [(0.0, "t0"), (0.5, "t0"), (0.51, ""), (1.4, ""), (1.6, "")]
)
def test_a_dear_resume_waits_until_there_is_nothing_else(cost: float, chosen: str) -> None:
    """More than a quarter of the way from rung 1 to rung 3: first the new trials."""
    rule = Promotion(max_t=9, grace_period=1, pen=1)
    record = at_first_rung(rule, [1.0, 2.0, 3.0])
    rule.note(record, "x", "cost", {"cost": cost})
    assert choose(rule, record) == (("resume", chosen) if chosen else ("start", ""))
    assert choose(rule, record, fresh=False) == ("resume", "t0")


def test_the_cost_is_weighed_rung_by_rung() -> None:
    """What is too dear for the way from 1 to 3 is not for that from 3 to 9; the mean counts."""
    rule = Promotion(max_t=27, grace_period=1, pen=1)
    record = at_first_rung(rule, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    for trial in ("t0", "t1", "t2"):
        rule.note(record, trial, "resumed", {})
        tell(rule, record, trial, 3, 1.0 if trial == "t1" else 2.0)
    for cost in (0.5, 1.5):
        rule.note(record, "x", "cost", {"cost": cost})
    assert rule.resume_cost(record) == 1.0
    assert choose(rule, record) == ("resume", "t1")
    rule.note(record, "t1", "resumed", {})
    assert choose(rule, record) == ("start", "")


def test_where_a_resume_is_dear_arrivals_are_spared_the_pause() -> None:
    """There is no pen, and the quota is that of the stopping form: rounded up."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = rule.init()
    rule.note(record, "x", "cost", {"cost": 1.0})
    got = [tell(rule, record, f"t{i}", 1, loss) for i, loss in enumerate([1.0, 2.0, 3.0, 1.5])]
    assert got == [C, P, P, C]


@pytest.mark.parametrize(
    ("losses", "pen", "given_up"),
    [
        ([], 9, None),
        ([1.0], 9, None),  # nobody to compare it with
        ([1.0, 3.0, 2.0], 9, "t1"),
        ([1.0, 3.0, 2.0], 3, "t1"),
    ],
)
def test_whom_a_full_searcher_costs_its_place(
    losses: list[float], pen: int, given_up: str | None
) -> None:
    """The worst of those that wait, where there is a better one."""
    rule = Promotion(max_t=9, grace_period=1, pen=pen)
    choice = rule.worst(at_first_rung(rule, losses))
    assert (choice.trial_id if choice else None) == given_up


def test_one_outside_a_full_quota_can_always_go() -> None:
    """Even if no other waits."""
    rule = Promotion(max_t=9, grace_period=1, pen=3)
    record = at_first_rung(rule, [1.0, 2.0, 3.0])
    for trial in ("t0", "t1"):
        rule.note(record, trial, "given up", {})
    choice = rule.worst(record)
    assert choice is not None
    assert choice.trial_id == "t2"


def test_a_lost_trial_waits_no_more_and_its_record_stays() -> None:
    """A paused trial that is dropped cannot be chosen."""
    rule = Promotion(max_t=9, grace_period=1, pen=1)
    record = at_first_rung(rule, [1.0, 2.0, 3.0])
    rule.lost(record, "t0")
    assert record.rungs[0].losses == [1.0, 2.0, 3.0]
    assert choose(rule, record) == ("start", "")


def test_a_forgotten_trial_leaves_nothing() -> None:
    """As if it had never been."""
    rule = Promotion(max_t=9, grace_period=1, pen=1)
    record = at_first_rung(rule, [1.0, 2.0])
    rule.forget(record, ["t0", "t1", "unknown"])
    assert rule.dump(record) == rule.dump(rule.init())


def test_a_report_of_a_paused_trial_takes_it_out() -> None:
    """It runs after all, so it does not wait."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = at_first_rung(rule, [1.0])
    assert rule.is_paused(record, "t0")
    rule.update(record, Report("t0", 2, 1.0))
    assert not rule.is_paused(record, "t0")
    assert record.paused == [[], []]


def play(rule: Promotion, record: PausingRecord, seed: int, steps: int) -> list[object]:
    """What the rule says in a made-up sweep; all that happens is drawn from `seed`."""
    dice = random.Random(seed)
    said: list[object] = []
    now = dict.fromkeys((f"t{i}" for i in range(12)), 0)
    for _ in range(steps):
        trial = dice.choice(sorted(now))
        if rule.is_paused(record, trial):
            choice = rule.choose(record, fresh=dice.random() < 0.5, over=False, idle=False)
            said.append(choice and (choice.move, choice.trial_id, choice.decision.reason))
            if choice and choice.move == "resume":
                rule.note(record, choice.trial_id, "resumed", {})
                rule.note(record, choice.trial_id, "cost", {"cost": dice.random()})
            continue
        now[trial] = max(1, now[trial] + dice.choice([1, 1, 1, 2, -2]))
        loss = math.nan if dice.random() < 0.01 else dice.random() / now[trial]
        said.append(tell(rule, record, trial, now[trial], loss, saved=dice.random() < 0.8))
        if said[-1] is S:
            rule.ended(record, Report(trial, now[trial], loss))
    return said


@pytest.mark.parametrize("seed", range(5))
def test_the_record_goes_to_json_and_back(seed: int) -> None:
    """Without changing a later decision."""
    rule = Promotion(max_t=30, grace_period=1, pen=3)
    record = rule.init()
    play(rule, record, seed, 150)
    copy = rule.load(json.loads(json.dumps(plain(rule.dump(record)))))
    assert rule.dump(copy) == rule.dump(record)
    assert play(rule, copy, seed + 100, 150) == play(rule, record, seed + 100, 150)


def test_a_repeated_report_changes_nothing() -> None:
    """It gets the same decision, with the reason."""
    rule = Promotion(max_t=9, grace_period=1, pen=9)
    record = rule.init()
    first = rule.update(record, Report("a", 1, 2.0), checkpoint="c")
    before = rule.dump(record)
    assert rule.update(record, Report("a", 1, 2.0), checkpoint="c") == first
    assert rule.dump(record) == before
    assert first.say(-1) == "-2 is rank 1 of 1 at rung 1: the first 9 wait for each other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_t": 0}, "max_t must be > 0"),
        ({"grace_period": 101}, "grace_period must be <= max_t = 100, got 101"),
        ({"reduction_factor": 1}, "reduction_factor must be > 1"),
        ({"pen": 0}, "pen must be >= 1"),
        ({"resume_share": 0}, "resume_share must be > 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, float], message: str) -> None:
    """A parameter out of range is one clear error at construction."""
    with pytest.raises(ValueError, match=message):
        Promotion(**{"max_t": 100} | changes)  # type: ignore[arg-type]
