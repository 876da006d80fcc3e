"""ExpectedImprovement: where trials are compared, and what is kept of their curves."""

import math
from itertools import pairwise

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules import ExpectedImprovement
from tune_stoppers.rules.sweep.expected_improvement import MOST_POINTS

RULE = ExpectedImprovement(max_t=24)


def told(rule: ExpectedImprovement, *reports: tuple[str, float, float]):
    record = rule.init()
    for trial_id, time, loss in reports:
        decision = rule.update(record, Report(trial_id, time, loss, {}), checkpoint="c")
        if decision.action is Action.PAUSE:
            rule.note(record, trial_id, "paused", {})
            rule.note(record, trial_id, "resumed", {})
    return record


def test_rungs_are_close_at_first_and_fit_the_horizon():
    """In twenty-fourths of it; whole where time is, and never none."""
    assert RULE.rungs == (1, 2, 3, 4, 6, 8, 12, 16, 20)
    assert ExpectedImprovement(max_t=8).rungs == (1, 2, 3, 4, 6, 7)
    assert ExpectedImprovement(max_t=24, grace_period=5).rungs == (5, 6, 8, 12, 16, 20)
    assert ExpectedImprovement(max_t=1).rungs == ExpectedImprovement(max_t=1).fine_rungs
    assert ExpectedImprovement(max_t=1).rungs[0] == pytest.approx(1 / 24)
    assert ExpectedImprovement(max_t=9, grace_period=9).rungs == ()  # nothing is compared


@pytest.mark.parametrize(("name", "value"), [("least_gain", -1), ("floor", 1.5), ("max_t", 0)])
def test_parameters_out_of_range_are_refused(name: str, value: float):
    """By name, with what was given."""
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        ExpectedImprovement(**{"max_t": 24, name: value})


def test_a_trial_is_compared_at_each_rung_once_and_stopped_at_the_horizon():
    """Between rungs it goes on; a report that comes again changes nothing."""
    record, actions = RULE.init(), []
    for time in (1, 2, 3, 4, 5, 5, 6, 24):
        decision = RULE.update(record, Report("a", time, 1.0, {}), checkpoint="c")
        actions.append(decision.action.name)
        RULE.note(record, "a", "resumed", {})
    assert actions == [*["PAUSE"] * 4, "CONTINUE", "CONTINUE", "PAUSE", "STOP"]


def test_the_curve_keeps_each_report_with_the_best_so_far():
    """As long as it is short."""
    record = told(RULE, ("a", 1, 3.0), ("a", 2, 2.0), ("a", 3, 2.5))
    assert record.curves["a"] == [(1, 3.0, 3.0), (2, 2.0, 2.0), (3, 2.5, 2.0)]
    assert record.saves


def test_a_long_curve_is_thinned_and_loses_neither_its_ends_nor_its_best():
    """The state of a trial stays small however often it reports."""
    rule = ExpectedImprovement(max_t=1000)
    losses = [abs(500 - time) + 1.0 for time in range(1, 1000)]
    record = told(rule, *(("a", time, loss) for time, loss in enumerate(losses, 1)))
    curve = record.curves["a"]
    assert len(curve) <= MOST_POINTS
    assert (curve[0].time, curve[-1].time) == (1, 999)
    assert curve[-1].best == 1.0
    assert max(later.time - point.time for point, later in pairwise(curve)) <= 128


def test_a_first_loss_that_is_not_finite_counts_as_the_worst_a_later_one_is_left_out():
    """Either ends the trial; what it had reached before stays."""
    record = told(RULE, ("a", 1, math.nan), ("b", 1, 2.0), ("b", 2, math.nan))
    assert record.curves["a"] == [(1, math.inf, math.inf)]
    assert record.curves["b"] == [(1, 2.0, 2.0)]


def test_a_trial_that_went_back_loses_what_it_takes_back():
    """The reports after the checkpoint that it was restored from have not been."""
    record = told(RULE, ("a", 1, 3.0), ("a", 2, 1.0), ("a", 3, 1.0), ("a", 2, 2.0))
    assert record.curves["a"] == [(1, 3.0, 3.0), (2, 2.0, 2.0)] or record.curves["a"] == [
        (1, 3.0, 3.0),
        (2, 1.0, 1.0),
        (2, 2.0, 1.0),
    ]


def test_the_record_comes_back_from_json_and_can_forget():
    """As a restored sweep reads it."""
    record = told(RULE, ("a", 1, 3.0), ("a", 2, math.nan), ("b", 1, 2.0))
    again = RULE.load(RULE.dump(record))
    assert again == record
    RULE.forget(again, ["a"])
    assert set(again.curves) == {"b"}


def test_careful_halving_begins_at_a_quarter_and_keeps_the_better_half():
    """At a quarter and at half of the horizon; before, all go on."""
    record = told(RULE, *((name, 3.0, float(place)) for place, name in enumerate("abcd")))
    assert all(RULE.halve(record, name, 2.0).action is Action.CONTINUE for name in "abcd")
    record = told(RULE, *((name, t, float(p)) for t in (6, 8) for p, name in enumerate("abcd")))
    kept = [RULE.halve(record, name, 2.0).action is Action.CONTINUE for name in "abcd"]
    assert kept == [True, True, False, False]
    for name in "ab":
        RULE.update(record, Report(name, 12, 1.0 if name == "a" else 0.5, {}), checkpoint="c")
    decision = RULE.halve(record, "a", 2.0)
    assert decision.action is Action.PAUSE
    assert decision.reason == (
        "trials end 2.0 times as far from where they were expected as believed: halving; "
        "1 at rung 12 is rank 2 of 2"
    )


def test_the_first_signal_that_is_reported_is_kept_beside_the_curve():
    """It goes back with the trial; a report may have none."""
    rule = ExpectedImprovement(max_t=24, signals=("a", "b"))
    assert rule.reads == rule.may_lack == ("a", "b")
    record = rule.init()
    for time, metrics in ((1, {"a": 5.0, "b": 1.0}), (2, {"b": 4.0}), (3, {}), (2.5, {"a": 6.0})):
        rule.update(record, Report("t", time, 1.0, metrics), checkpoint="c")
        rule.note(record, "t", "resumed", {})
    assert record.signals["t"] == [(1, 5.0, 5.0), (2, 4.0, 4.0), (2.5, 6.0, 4.0)]
    rule.forget(record, ["t"])
    assert not record.signals
