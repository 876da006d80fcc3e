"""`Rollback`: curve in, rollbacks and stop out."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import losses as any_losses
from tune_stoppers.core import Action, Decision, Report
from tune_stoppers.journal.lines import plain
from tune_stoppers.rules import Divergence
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK, Rollback

NAN, INF = math.nan, math.inf
TWO: dict[str, Any] = {"patience": 2, "recovery_patience": 2, "divergence": None}
BACK, STOP = "back", "stop"


class Drive:
    """One trial under the rule, which goes back as soon as that is asked for."""

    def __init__(self, rule: Rollback, *, goes_back: bool = True) -> None:
        self.rule, self.goes_back = rule, goes_back
        self.record = rule.init()
        self.step = 0
        self.decisions: list[Decision] = []

    def report(self, loss: float, *, saves: bool = True, step: int | None = None) -> str:
        self.step = self.step + 1 if step is None else step
        name = f"at {self.step}" if saves else None
        decision = self.rule.update(self.record, Report("t", self.step, loss), checkpoint=name)
        self.decisions.append(decision)
        if decision.action is Action.PAUSE and self.goes_back:
            anchor = self.rule.asks(self.record, "t")
            assert anchor is not None
            self.step = int(anchor.step)
            self.rule.note(self.record, "t", WENT_BACK, {})
        words = {Action.PAUSE: f"{BACK} to {self.step}", Action.STOP: STOP, Action.CONTINUE: ""}
        return words[decision.action]


def outcome(options: dict[str, Any], losses: list[float], *, saves: bool = True) -> dict[int, str]:
    """Which report, counted from 1, led to what; all else went on. Nothing comes after a stop."""
    drive = Drive(Rollback(**options))
    found = {}
    for place, loss in enumerate(losses, start=1):
        word = drive.report(loss, saves=saves)
        if word:
            found[place] = word
        if word == STOP:
            break
    return found


NO_CHECKPOINT = [
    ("divergences begin it once", TWO | {"divergence": Divergence()}, [1, *[NAN] * 3], {4: STOP}),
    ("nothing in trouble", TWO, [3, 2, 1], {}),
    ("patience, then the recovery", TWO, [1, 2, 2, 2, 2], {5: STOP}),
    ("an improvement ends it", TWO, [1, 2, 2, 0.5, 2, 2, 2, 2], {8: STOP}),
    (
        "a divergence begins it at once",
        TWO | {"divergence": Divergence()},
        [1, NAN, 2, 2],
        {4: STOP},
    ),
]

TABLE = [
    ("a falling loss goes on", TWO, [5, 4, 3, 2, 1], {}),
    ("bad ones short of patience", TWO, [1, 2], {}),
    ("patience bad ones lead back to the best", TWO, [3, 1, 2, 2], {4: "back to 2"}),
    ("a tie is no improvement", TWO, [1, 1, 1], {3: "back to 1"}),
    ("the first of equal ones is the best", TWO, [1, 2, 1], {3: "back to 1"}),
    ("beating the best ends the recovery", TWO, [2, 3, 3, 3, 1, 3], {3: "back to 1"}),
    ("and patience begins anew", TWO, [2, 3, 3, 1, 3, 3], {3: "back to 1", 6: "back to 2"}),
    ("no better in the recovery: it stops", TWO, [2, 3, 3, 3, 3], {3: "back to 1", 5: STOP}),
    ("better than before is not beating the best", TWO, [1, 9, 9, 3, 2], {3: "back to 1", 5: STOP}),
    (
        "after the last rollback the next trouble stops",
        TWO | {"max_rollbacks": 1},
        [3, 4, 4, 2, 3, 3],
        {3: "back to 1", 6: STOP},
    ),
    ("none allowed: plain patience", TWO | {"max_rollbacks": 0}, [1, 2, 2], {3: STOP}),
    ("without divergence NaN is a bad one", TWO, [1, NAN, INF], {3: "back to 1"}),
    ("NaN leads back at once", {}, [2, 1, NAN], {3: "back to 2"}),
    ("infinity too", {}, [2, 1, INF], {3: "back to 2"}),
    ("within the cooldown not again", {}, [2, 1, NAN, NAN], {3: "back to 2"}),
    ("after it again", {}, [2, 1, NAN, NAN, NAN], {3: "back to 2", 5: "back to 2"}),
    ("no cooldown", {"cooldown": 0}, [1, NAN, NAN], {2: "back to 1", 3: "back to 1"}),
    (
        "a cooldown as long as the recovery",
        {"cooldown": 3},
        [1, NAN, NAN, NAN, NAN],
        {2: "back to 1", 5: STOP},
    ),
    (
        "three times, then it stops",
        {},
        [1, *[NAN] * 9],
        {2: "back to 1", 4: "back to 1", 6: "back to 1", 8: STOP},
    ),
    (
        "far above the best, twice in a row",
        {},
        [4, 3, 2, 9, 9],
        {5: "back to 3"},
    ),
    (
        "what diverged before counts no more",
        {},
        [4, 3, 2, 9, 9, 9, 3],
        {5: "back to 3"},
    ),
    ("one's own divergence", {"divergence": Divergence(limit=5.0)}, [4, 6], {2: "back to 1"}),
    ("stop policy", {"on_nonfinite": "stop"}, [1, NAN], {2: STOP}),
    ("ignore policy", {"on_nonfinite": "ignore"} | TWO, [1, 2, NAN, 2], {4: "back to 1"}),
    ("a best that diverges is none", {"divergence": Divergence(limit=5.0)}, [9, 8, 7], {}),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_goes_back_and_stops(
    options: dict[str, Any], losses: list[float], expected: dict[int, str]
) -> None:
    """A trial that saves at each report."""
    assert outcome(options, losses) == expected


@pytest.mark.parametrize(
    ("options", "losses", "expected"),
    [row[1:] for row in NO_CHECKPOINT],
    ids=[row[0] for row in NO_CHECKPOINT],
)
def test_without_a_checkpoint_it_only_waits(
    options: dict[str, Any], losses: list[float], expected: dict[int, str]
) -> None:
    """The recovery of `rules.Recovery`, and the reason says why."""
    assert outcome(options, losses, saves=False) == expected
    drive = Drive(Rollback(**options))
    for loss in losses:
        drive.report(loss, saves=False)
    said = [decision.reason for decision in drive.decisions]
    stranded = any("no checkpoint to go back to" in reason for reason in said)
    assert stranded is any("recovery" in reason for reason in said)


def test_the_best_checkpoint_is_the_best_report_that_saved() -> None:
    """A better loss that was not saved cannot be gone back to; it is still to be beaten there."""
    drive = Drive(Rollback(**TWO | {"patience": 3}))
    words = [drive.report(x, saves=s) for x, s in [(3, True), (2, False), (2.5, True), (4, True)]]
    assert words == [""] * 4
    assert drive.report(4) == "back to 3"
    assert drive.report(2.2) == ""
    assert drive.report(2.1) == STOP  # the best there was 2


def test_a_report_after_a_rollback_is_no_repeat() -> None:
    """Where trials report seldom, the first step after a rollback may be the last one before."""
    drive = Drive(Rollback(**TWO | {"patience": 1}))
    drive.report(1, step=2)
    assert drive.report(5, step=4) == "back to 2"
    assert drive.report(5, step=4) == ""
    assert drive.report(5, step=6) == STOP


def test_a_repeated_step_changes_nothing() -> None:
    """Ray repeats the last report of a function."""
    drive = Drive(Rollback(**TWO), goes_back=False)
    assert [drive.report(x, step=s) for x, s in [(1, 1), (2, 2), (2, 2), (2, 2)]] == [""] * 4
    assert drive.report(2, step=3) == "back to 3"
    assert drive.decisions[-1] == drive.rule.update(drive.record, Report("t", 3, 0.0))


def test_counts_go_back_with_a_crashed_trial_and_rollbacks_do_not() -> None:
    """A crash repeats what was counted before; what was spent is spent."""
    drive = Drive(Rollback(**TWO | {"max_rollbacks": 1}))
    losses = [3, 4, 4, 2, 3]
    assert [drive.report(x) for x in losses] == ["", "", "back to 1", "", ""]
    assert drive.report(3, step=3) == ""  # it crashed after step 3, saved at 2
    assert drive.report(3) == STOP
    assert drive.decisions[-1].numbers["bad"] == 2
    assert "no rollback left of 1" in drive.decisions[-1].reason


def test_a_crash_in_the_recovery_does_not_begin_it_anew() -> None:
    """The trial resumes from the checkpoint that it went back to, and is as it was then."""
    drive = Drive(Rollback(**TWO | {"recovery_patience": 3}))
    for loss in (1, 2, 2):
        drive.report(loss)
    assert [drive.report(2, saves=False) for _ in range(2)] == ["", ""]
    assert drive.report(2, saves=False, step=2) == ""  # it crashed after step 3
    assert [drive.report(2, saves=False) for _ in range(2)] == ["", STOP]


def test_a_crash_back_to_before_a_checkpoint_counts_that_report_once() -> None:
    """It is reported again."""
    drive = Drive(Rollback(**TWO | {"patience": 3}))
    assert [drive.report(x) for x in (1, 2, 2)] == [""] * 3
    assert drive.report(2, step=2) == ""
    assert drive.decisions[-1].numbers["bad"] == 1


def test_a_crash_back_to_the_start_begins_anew() -> None:
    """Nothing was saved, so the best is gone as well."""
    drive = Drive(Rollback(**TWO))
    drive.report(1, saves=False)
    drive.report(2, saves=False)
    assert drive.report(5, saves=False, step=1) == ""
    assert drive.decisions[-1].reason == "improved to 5"


def test_until_it_has_gone_back_it_asks_again() -> None:
    """A scheduler that cannot act at once (a save is under way) is asked at each report."""
    drive = Drive(Rollback(**TWO), goes_back=False)
    assert [drive.report(x) for x in (1, 2, 2, 2)] == ["", "", "back to 3", "back to 4"]
    assert drive.report(0.5) == ""


def test_a_checkpoint_that_is_gone_leaves_the_recovery_alone() -> None:
    """Noted by the scheduler, which looks before it goes back."""
    drive = Drive(Rollback(**TWO), goes_back=False)
    for loss in (1, 2, 2):
        drive.report(loss)
    drive.rule.note(drive.record, "t", GONE, {})
    assert drive.rule.is_stranded(drive.record, "t")
    assert [drive.report(2, saves=False), drive.report(2, saves=False)] == ["", STOP]


def test_reasons_name_the_numbers_compared() -> None:
    """In the metric's own units."""
    drive = Drive(Rollback(**TWO))
    for loss in (-1, -0.5, -0.5, -0.5, -0.5):
        drive.report(loss)
    assert [decision.say(-1) for decision in drive.decisions] == [
        "improved to 1",
        "1 of 2 evaluations without improvement, value 0.5, best 1 at step 1",
        "2 evaluations without improvement, value 0.5, best 1 at step 1; back to 1 at step 1, "
        "rollback 1 of 3",
        "1 of 2 evaluations of recovery without improvement, value 0.5, best 1 at step 1",
        "2 of 2 evaluations of recovery without improvement, value 0.5, best 1 at step 1",
    ]
    nan = Drive(Rollback())
    for loss in (1, NAN, NAN):
        nan.report(loss)
    once = "1 of 1 evaluations in a row not finite"
    assert [decision.reason for decision in nan.decisions[1:]] == [
        f"{once}; back to 1 at step 1, rollback 1 of 3",
        f"{once}; 1 of 1 evaluations of cooldown since the last rollback",
    ]
    gone_back = nan.rule.init()
    nan.rule.update(gone_back, Report("t", 1, 1.0), checkpoint="c")
    nan.rule.update(gone_back, Report("t", 2, NAN))
    nan.rule.note(gone_back, "t", WENT_BACK, {})
    said = nan.rule.update(gone_back, Report("t", 1, 1.0)).reason
    assert said == "went back to 1 at step 1, rollback 1 of 3"


def test_trials_know_nothing_of_each_other() -> None:
    """And those that never were are forgotten."""
    rule = Rollback(**TWO)
    record = rule.init()
    for step in (1, 2, 3):
        rule.update(record, Report("a", step, 1.0), checkpoint="c")
        rule.update(record, Report("b", step, 1.0 / step), checkpoint="c")
    assert rule.asks(record, "a") and not rule.asks(record, "b")
    assert not rule.asks(record, "c") and not rule.is_stranded(record, "c")
    rule.lost(record, "a")
    rule.ended(record, Report("b", 3, 1.0))
    rule.forget(record, ["a", "c"])
    assert set(record) == {"b"}


@given(
    st.lists(
        st.tuples(st.integers(1, 3), any_losses, st.sampled_from([True, False, "crash"])),
        max_size=25,
    ),
    st.integers(0, 25),
)
def test_the_record_survives_json(rows: list[tuple[int, float, Any]], cut: int) -> None:
    """Loaded mid-way it decides as the one that was never dumped."""
    rule = Rollback(patience=2, recovery_patience=2, divergence=Divergence(patience=1))

    def run(reload_at: int) -> list[Decision]:
        drive = Drive(rule)
        for place, (ahead, loss, saves) in enumerate(rows):
            if place == reload_at:
                text = json.dumps(plain(rule.dump(drive.record)), allow_nan=False)
                drive.record = rule.load(json.loads(text))
            step = drive.step - ahead if saves == "crash" else drive.step + ahead
            drive.report(loss, saves=bool(saves), step=max(step, 0))
        return drive.decisions

    assert repr(run(cut)) == repr(run(-1))


@given(st.lists(any_losses, max_size=40), st.integers(0, 3))
def test_rollbacks_are_bounded(losses: list[float], allowed: int) -> None:
    """Whatever comes, and every decision has a reason that can be said."""
    drive = Drive(Rollback(patience=2, recovery_patience=2, max_rollbacks=allowed))
    words = [drive.report(loss) for loss in losses]
    assert sum(word.startswith(BACK) for word in words) <= allowed
    assert all(decision.reason for decision in drive.decisions)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"recovery_patience": 0}, ValueError, "recovery_patience must be >= 1, got 0"),
        ({"max_rollbacks": -1}, ValueError, "max_rollbacks must be >= 0, got -1"),
        ({"cooldown": 0.5}, TypeError, "cooldown must be an integer, got 0.5"),
        ({"divergence": True}, TypeError, "divergence must be a rules.Divergence, or None"),
        ({"on_nonfinite": "x"}, ValueError, "on_nonfinite must be one of"),
    ],
)
def test_wrong_parameters_are_refused(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    """At construction."""
    with pytest.raises(error, match=said):
        Rollback(**options)


def test_it_reads_what_its_divergence_reads() -> None:
    """A gradient norm, if there is a limit to it."""
    rule = Rollback(divergence=Divergence(gradient_limit=10.0))
    assert rule.reads == ("grad_norm",)
    assert Rollback(divergence=None).reads == ()
    record = rule.init()
    rule.update(record, Report("t", 1, 1.0, {"grad_norm": 1.0}), checkpoint="c")
    decision = rule.update(record, Report("t", 2, 0.9, {"grad_norm": 99.0}), checkpoint="d")
    assert decision.action is Action.PAUSE
    anchor = rule.asks(record, "t")
    assert anchor is not None and anchor.name == "c"
