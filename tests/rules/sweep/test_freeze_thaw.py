"""FreezeThaw: who is paused, what is recorded, and what is remembered."""

import json
import math
import random

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.journal.lines import plain
from tune_stoppers.rules.sweep.freeze_thaw import FreezeThaw
from tune_stoppers.rules.sweep.pausing import PausingRecord

C, P, S = Action.CONTINUE, Action.PAUSE, Action.STOP
RULE = FreezeThaw(max_t=9, grace_period=1)  # rungs 1 and 3


def tell(
    rule: FreezeThaw,
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


def resume(record: PausingRecord, *trials: str) -> None:
    for trial in trials:
        RULE.note(record, trial, "resumed", {})


def test_every_trial_is_paused_at_every_rung() -> None:
    """The best too: who goes on is not the rule's to say."""
    record = RULE.init()
    assert [tell(RULE, record, "a", time, 1.0) for time in (0.5, 1)] == [C, P]
    assert tell(RULE, record, "b", 1, 2.0) is P
    assert record.paused == [[(1.0, "a"), (2.0, "b")], []]
    resume(record, "a")
    assert record.paused == [[(2.0, "b")], []]
    assert [tell(RULE, record, "a", time, 1.0) for time in (2, 3)] == [C, P]
    resume(record, "a")
    assert [tell(RULE, record, "a", time, 1.0) for time in (4, 8, 9)] == [C, C, S]


def test_the_reason_says_how_it_stands() -> None:
    """Its loss at the rung, its rank, and that this is not the end of it."""
    record = RULE.init()
    tell(RULE, record, "a", 1, 1.0)
    decision = RULE.update(record, Report("b", 1, 2.0), checkpoint="c")
    assert decision.say(-1) == "-2 is rank 2 of 2 at rung 1: it is to be compared with all others"
    assert decision.rule == "FreezeThaw"
    later = RULE.update(record, Report("c", 2, 3.0))
    assert later.say() == "3 is rank 3 of 3 at rung 1: no pause without a checkpoint"


def test_a_trial_that_goes_on_at_once_was_not_paused() -> None:
    """It is noted as resumed right away; a repeated report, after a kill, lets it go on too."""
    record = RULE.init()
    assert RULE.update(record, Report("a", 1, 1.0), checkpoint="c").action is P
    resume(record, "a")
    assert not RULE.is_paused(record, "a")
    again = RULE.update(record, Report("a", 1, 1.0), checkpoint="c")
    assert (again.action, again.say()) == (C, "it was resumed")
    assert tell(RULE, record, "a", 2, 1.0) is C


def test_a_kill_before_that_note_leaves_the_trial_due() -> None:
    """It is paused at its next checkpoint, wherever Ray goes on."""
    record = RULE.init()
    RULE.update(record, Report("a", 1, 1.0), checkpoint="c")
    assert RULE.is_due(record, "a")
    assert tell(RULE, record, "a", 2, 1.0, saved=False) is C
    assert tell(RULE, record, "a", 2.5, 1.0) is P
    assert record.paused == [[(1.0, "a")], []]


def test_without_a_checkpoint_a_trial_goes_on_to_the_horizon() -> None:
    """It is recorded at every rung, and never paused."""
    record = RULE.init()
    actions = [tell(RULE, record, "t", t, 1.0, saved=False) for t in range(1, 10)]
    assert actions == [C] * 8 + [S]
    assert [len(rung.losses) for rung in record.rungs] == [1, 1]


def test_of_several_rungs_passed_at_once_it_waits_at_the_last() -> None:
    """The earlier ones get the loss it had when it passed them."""
    rule = FreezeThaw(max_t=81, grace_period=2)
    record = rule.init()
    tell(rule, record, "t", 1, 7.0)
    assert tell(rule, record, "t", 20, 3.0) is P
    assert [rung.of_trial["t"] for rung in record.rungs[:3]] == [7.0, 7.0, 3.0]
    assert [len(waiting) for waiting in record.paused] == [0, 0, 1, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops_the_trial(value: float) -> None:
    """Also as its first; it is recorded as worst at the next rung."""
    record = RULE.init()
    assert tell(RULE, record, "t", 1, value) is S
    assert record.rungs[0].of_trial == {"t": math.inf}
    assert record.courses["t"].best == math.inf


def test_a_trial_that_went_back_is_not_paused_again_where_it_was_resumed() -> None:
    """It records its new loss there, and is paused at the next rung."""
    record = RULE.init()
    tell(RULE, record, "a", 1, 1.0)
    resume(record, "a")
    tell(RULE, record, "a", 2, 0.9)
    assert tell(RULE, record, "a", 1, 5.0) is C
    assert record.rungs[0].of_trial == {"a": 5.0}
    assert record.rungs[0].losses == [5.0]
    assert tell(RULE, record, "a", 3, 0.8) is P


def test_a_repeated_report_changes_nothing() -> None:
    """It gets the same decision, with the reason, and waits where it waited."""
    record = RULE.init()
    first = RULE.update(record, Report("a", 1, 2.0), checkpoint="c")
    RULE.note(record, "a", "paused", {})
    before = RULE.dump(record)
    assert RULE.update(record, Report("a", 1, 2.0), checkpoint="c") == first
    assert RULE.dump(record) == before
    assert RULE.is_paused(record, "a")


def test_a_given_up_trial_does_not_count_as_run() -> None:
    """Not even when Ray, restored, shows it as terminated."""
    record = RULE.init()
    tell(RULE, record, "a", 1, 1.0)
    RULE.note(record, "a", "given up", {})
    RULE.ended(record, Report("a", 1, 1.0))
    assert (record.ended, record.paused) == ({}, [[], []])


def test_the_best_at_a_rung_makes_no_room() -> None:
    """Where a searcher wants a place, it costs the worst that waits, and never the best alone."""
    record = RULE.init()
    for trial, loss in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        tell(RULE, record, trial, 1, loss)
    choice = RULE.worst(record)
    assert choice is not None
    assert choice.trial_id == "c"
    resume(record, "b", "c")
    assert RULE.worst(record) is None
    resume(record, "a")
    tell(RULE, record, "d", 1, 4.0)
    alone = RULE.worst(record)
    assert alone is not None
    assert alone.trial_id == "d"


def test_a_forgotten_trial_leaves_nothing() -> None:
    """As if it had never been."""
    record = RULE.init()
    tell(RULE, record, "a", 1, 1.0)
    RULE.note(record, "a", "given up", {})
    tell(RULE, record, "b", 3, 2.0)
    RULE.forget(record, ["a", "b", "unknown"])
    assert RULE.dump(record) == RULE.dump(RULE.init())


def play(rule: FreezeThaw, record: PausingRecord, seed: int, steps: int) -> list[object]:
    """What the rule says in a made-up sweep; all that happens is drawn from `seed`."""
    dice = random.Random(seed)
    said: list[object] = []
    now = dict.fromkeys((f"t{i}" for i in range(12)), 0)
    for _ in range(steps):
        trial = dice.choice(sorted(now))
        if rule.is_paused(record, trial):
            event = dice.choice(["resumed", "resumed", "given up"])
            rule.note(record, trial, event, {})
            rule.note(record, trial, "cost", {"cost": dice.random()})
            said.append((rule.worst(record), rule.resume_cost(record)))
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
    rule = FreezeThaw(max_t=30, grace_period=1)
    record = rule.init()
    play(rule, record, seed, 150)
    copy = rule.load(json.loads(json.dumps(plain(rule.dump(record)))))
    assert plain(rule.dump(copy)) == plain(rule.dump(record))
    assert play(rule, copy, seed + 100, 150) == play(rule, record, seed + 100, 150)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_t": 0}, "max_t must be > 0"),
        ({"grace_period": 101}, "grace_period must be <= max_t = 100, got 101"),
        ({"reduction_factor": 1}, "reduction_factor must be > 1"),
        ({"least_chance": -0.1}, "least_chance must be >= 0, got -0.1"),
        ({"least_chance": 1.1}, "least_chance must be <= 1, got 1.1"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, float], message: str) -> None:
    """A parameter out of range is one clear error at construction."""
    with pytest.raises(ValueError, match=message):
        FreezeThaw(**{"max_t": 100} | changes)  # type: ignore[arg-type]
