"""Where rungs are: rounded up where time comes in whole steps, whatever the type of `max_t`."""

import json
import math
from typing import Any

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.journal.lines import plain
from tune_stoppers.rules.sweep.bound_asha import BoundASHA
from tune_stoppers.rules.sweep.freeze_thaw import FreezeThaw
from tune_stoppers.rules.sweep.promotion import Promotion
from tune_stoppers.rules.sweep.rung import rungs_of

RULES = (BoundASHA, Promotion, FreezeThaw)


def actions(rule: Any, times: list[float], trials: int = 12) -> list[Action]:
    """What is decided on trials that report side by side, the first being the best."""
    record, found = rule.init(), []
    for time in times:
        for trial in range(trials):
            report = Report(f"t{trial}", time, trial + 1 / time)
            found.append(rule.update(record, report, checkpoint="saved").action)
            if found[-1] is Action.PAUSE:
                rule.note(record, f"t{trial}", "paused", {})
                rule.note(record, f"t{trial}", "resumed", {})
    return found


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("max_t", [1, 3, 27])
def test_fractional_time_is_not_rounded_for_an_int(kind: type, max_t: int) -> None:
    """An int horizon over fractions of it decides as the float does, and not never."""
    times = [max_t * n / 12 for n in range(1, 13)]
    got = actions(kind(max_t=max_t), times)
    assert got == actions(kind(max_t=float(max_t)), times)
    acted = set(got[: 12 * 11]) - {Action.CONTINUE}  # before the horizon
    assert acted


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("max_t", [10, 27, 100])
def test_whole_steps_are_rounded_for_a_float(kind: type, max_t: int) -> None:
    """100.0 whole steps are 100 whole steps: rungs 1, 3 and 9 for ten, not 0.4, 1.2 and 3.6."""
    times = [float(n) for n in range(1, max_t + 1)]
    given = kind(max_t=max_t, grace_period=math.ceil(0.04 * max_t))
    assert actions(kind(max_t=float(max_t)), times) == actions(given, times)
    assert kind(max_t=float(max_t)).rungs == given.rungs


@pytest.mark.parametrize("kind", RULES)
def test_a_first_rung_that_is_given_is_left_as_it_is(kind: type) -> None:
    """By the user, or by a journal of an earlier version, which always names it."""
    rule = kind(max_t=12, grace_period=2)
    record = rule.init()
    rule.update(record, Report("a", 1.5, 1.0), checkpoint="saved")
    assert record.times == rule.rungs == (2, 6)
    assert kind(max_t=12.0, grace_period=2.5).rungs == (2.5, 7.5)


@pytest.mark.parametrize("kind", RULES)
def test_the_first_fraction_moves_what_was_recorded(kind: type) -> None:
    """One trial reports after each epoch, the next four times in it: their losses are compared."""
    rule = kind(max_t=3)
    record = rule.init()
    for time, loss in ((1, 0.5), (2, 0.4)):
        rule.update(record, Report("whole", time, loss), checkpoint="saved")
    rule.update(record, Report("nan", 1, math.nan))
    assert [list(rung.of_trial) for rung in record.rungs] == [["whole", "nan"]]  # at 1
    rule.update(record, Report("quarters", 0.25, 0.9), checkpoint="saved")
    assert record.times == pytest.approx((0.12, 0.36, 1.08))
    seen = [rung.of_trial for rung in record.rungs]
    assert seen == [
        {"whole": 0.5, "nan": math.inf, "quarters": 0.9},
        {"whole": 0.5, "nan": math.inf},
        {"whole": 0.4},
    ]
    loaded = rule.load(json.loads(json.dumps(plain(rule.dump(record)))))
    assert loaded.times == record.times
    assert [rung.of_trial for rung in loaded.rungs] == seen


def test_a_trial_that_waits_still_waits() -> None:
    """When the rungs move, at the last of them that it has reached; a promoted one stays so."""
    rule = Promotion(max_t=30, pen=1)  # rungs 2, 6, 18; 1.2, 3.6, 10.8 in fractions
    record = rule.init()
    for trial, loss in (("first", 1.0), ("waits", 3.0), ("promoted", 2.0)):
        said = rule.update(record, Report(trial, 2, loss), checkpoint="saved")
        assert said.action is Action.PAUSE
        rule.note(record, trial, "paused", {})
    rule.note(record, "promoted", "resumed", {})
    rule.update(record, Report("new", 0.5, 9.0))
    waiting = [[trial for _, trial in at] for at in record.paused]
    assert waiting == [["first", "waits"], [], []]
    assert rule.is_paused(record, "waits")
    assert not rule.is_due(record, "promoted")


@pytest.mark.parametrize(
    ("max_t", "whole", "fine"),
    [
        (81, (4, 12, 36), (3.24, 9.72, 29.16)),
        (1, (0.04, 0.12, 0.36), (0.04, 0.12, 0.36)),  # whole steps leave no rung below 1
        (0.5, (0.02, 0.06, 0.18), (0.02, 0.06, 0.18)),
    ],
)
def test_rungs_of_both_kinds(max_t: float, whole: tuple[float, ...], fine: tuple[float, ...]):
    """4 % of the horizon, rounded up or not, and its multiples."""
    got = rungs_of(max_t, None, 3)
    assert got[0] == pytest.approx(whole)
    assert got[1] == pytest.approx(fine)
