"""`On`: a rule on another metric than the objective."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves, maybe_losses
from tune_stoppers.core import Action, Report
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.core.track import Sessions, Track
from tune_stoppers.journal.spec import from_spec, in_words, to_spec
from tune_stoppers.rules import (
    AnyOf,
    Budget,
    Divergence,
    Forecast,
    Not,
    On,
    Patience,
    Recovery,
    Threshold,
)
from tune_stoppers.testing import run_rule


def reports(losses, **metrics):
    """A curve; None in a metric: that report does not carry it."""
    rows = [dict(zip(metrics, row, strict=True)) for row in zip(*metrics.values(), strict=True)]
    return [
        Report("t", step, loss, {k: v for k, v in row.items() if v is not None})
        for step, (loss, row) in enumerate(zip(losses, rows, strict=True), start=1)
    ]


def stops(rule, curve):
    return [i for i, d in enumerate(run_rule(rule, curve), start=1) if d.action is Action.STOP]


@given(curves(), st.sampled_from(["min", "max"]), st.sampled_from(["worst", "stop", "ignore"]))
def test_it_decides_on_its_metric_as_the_rule_on_an_objective(curve, mode, policy):
    """Step for step and word for word, NaN and gaps included; the objective does not matter."""
    rule = (Patience(2) | Divergence() | Recovery(1, 1)).with_policy(policy)
    sign = 1 if mode == "min" else -1
    moved = [r._replace(loss=7.0, metrics={} if r.loss is None else {"m": r.loss}) for r in curve]
    flipped = [r._replace(loss=None if r.loss is None else sign * r.loss) for r in curve]
    on = run_rule(On("m", rule, mode), moved)
    for expected, got in zip(run_rule(rule, flipped), on, strict=True):
        assert got.action is expected.action
        for of_objective in (1, -1):
            assert got.say(of_objective) == f"m: {expected.say(sign)}"


@given(st.lists(maybe_losses, max_size=12))
def test_symmetry(values):
    """-x under "max" is x under "min"."""
    rule = Patience(2) | Divergence()
    one = reports([0.0] * len(values), m=values)
    other = reports([0.0] * len(values), m=[None if v is None else -v for v in values])
    assert stops(On("m", rule, "min"), one) == stops(On("m", rule, "max"), other)


def test_a_metric_that_a_report_lacks_is_neutral_and_nan_is_not():
    """Not reported changes nothing; NaN is an evaluation without improvement, or a divergence."""
    nan = math.nan
    assert stops(On("m", Patience(2), "min"), reports([1] * 5, m=[1, None, None, None, 2])) == []
    assert stops(On("m", Patience(2), "min"), reports([1] * 3, m=[1, nan, nan])) == [3]
    assert stops(On("m", Divergence(), "min"), reports([1] * 4, m=[None, None, 1, nan])) == [4]
    ignoring = On("m", Patience(2, on_nonfinite="ignore"), "min")
    assert stops(ignoring, reports([1] * 4, m=[1, nan, nan, nan])) == []
    (decision,) = run_rule(On("m", Patience(2), "min"), reports([1], m=[None]))
    assert decision.reason == "m: nothing to judge yet"


def test_in_or_and_and_each_goes_by_its_own_metric():
    """Patience on the reward, or an entropy below a floor; or both at once."""
    rewards, entropy = [-1, -2, -2, -2, -2], [0.9, 0.5, 0.05, 0.5, 0.05]
    either = Patience(3) | On("entropy", Threshold(0.1), "min")
    both = Patience(3) & On("entropy", Threshold(0.1), "min")
    curve = reports(rewards, entropy=entropy)
    assert stops(either, curve) == [3, 5]
    assert stops(both, curve) == [5]
    assert run_rule(either, curve)[2].reason == (
        "entropy: 0.05 is past the threshold 0.1, 1 of 1 in a row"
    )


def test_the_other_direction_is_a_ceiling():
    """Under "max" a threshold is negated; the reason shows the metric's own units."""
    rule = On("kl", Threshold(-0.5), "max")
    decisions = run_rule(rule, reports([1, 1], kl=[0.4, 0.6]))
    assert [d.action for d in decisions] == [Action.CONTINUE, Action.STOP]
    for sign in (1, -1):
        assert decisions[1].say(sign) == "kl: 0.6 is past the threshold 0.5, 1 of 1 in a row"


def test_reasons_of_several_show_each_in_its_own_units():
    """The objective's in the objective's, whichever way that goes."""
    rule = Threshold(-0.8) & On("kl", Threshold(0.5) & Threshold(0.6), "min")
    (decision,) = run_rule(rule, reports([-0.9], kl=[0.4]))
    assert "Threshold: 0.9 is past the threshold 0.8" in decision.say(-1)
    assert "kl: 2 of 2 rules ask to end or pause, 2 needed (Threshold: 0.4 is" in decision.say(-1)


def test_braces_in_a_name_are_just_letters():
    """A reason is a format string inside."""
    (decision,) = run_rule(On("{x}", Threshold(0.5), "min"), reports([1], **{"{x}": [0.1]}))
    assert decision.reason.startswith("{x}: 0.1 is past")


def test_a_sweep_wide_rule_still_ends_the_sweep():
    """A target on another metric."""
    rule = On("f1", Threshold(-0.9, scope="sweep"), "max")
    assert run_rule(rule, reports([1], f1=[0.95]))[0].ends_sweep


def test_a_rewind_puts_it_back():
    """As any rule: a trial that restarts at a checkpoint counts on from there."""
    track = Track(On("m", Patience(2), "min"))
    for step, value in ((1, 1.0), (2, 2.0)):
        track.update(Report("t", step, None, {"m": value}), checkpoint=step == 1)
    again = track.update(Report("t", 2, None, {"m": 2.0})).decision
    assert "1 of 2 evaluations" in again.reason
    assert track.update(Report("t", 3, None, {"m": 2.0})).decision.action is Action.STOP


def test_beside_a_rule_that_looks_across_trials():
    """The combination does too, and each trial has its own state of `On`."""
    rule = On("m", Patience(1), "min") | Forecast(max_t=10)
    sessions = Sessions(rule)
    for trial in ("a", "b"):
        sessions.of(trial).update(Report(trial, 1, 1.0, {"m": 1.0}))
    worse = sessions.of("a").update(Report("a", 2, None, {"m": 2.0})).decision
    assert (worse.action, worse.reason[:2]) == (Action.STOP, "m:")
    better = sessions.of("b").update(Report("b", 2, None, {"m": 0.5})).decision
    assert better.action is Action.CONTINUE
    assert PerTrial(On("m", Patience(1), "min")).reads == ("m",)


def test_what_it_reads():
    """Its metric, and what the rule reads besides; the objective only if another rule does."""
    rule = On("m", Divergence(gradient_limit=1.0), "min")
    assert (rule.reads, rule.needs_objective) == (("m", "grad_norm"), False)
    nested = Patience(2) | Not(On("n", Patience(1) & On("m", Patience(1), "max"), "min"))
    assert nested.other_objectives == ("n", "m")
    assert Patience(2).other_objectives == ()
    across = PerTrial(rule) | Forecast(max_t=9)
    assert (across.other_objectives, Forecast(max_t=9).other_objectives) == (("m",), ())


def test_a_spec_comes_back_and_reads_well():
    """In the journal, and in words as one would type it."""
    rule = Patience(3) | On("eval/kl", Threshold(-0.5, 2), "max")
    assert from_spec(to_spec(rule)) == rule
    words = "AnyOf(Patience(patience=3), On('eval/kl', Threshold(threshold=-0.5, patience=2), 'max'"
    assert in_words(to_spec(rule)) == words + "))"


def test_a_state_of_another_metric_is_refused():
    """What was counted of one metric says nothing of another."""
    kept = On("kl", Patience(3), "min")
    dumped = kept.dump(kept.init())
    assert kept.load(dumped) == kept.init()
    for other in (On("entropy", Patience(3), "min"), On("kl", Patience(3), "max")):
        with pytest.raises(ValueError, match=r"of rule and version \(\"On\('kl'"):
            other.load(dumped)


def test_an_optional_one_says_so_wherever_it_is_nested():
    """To whoever reads the reports; its written form builds it again, its state is the same."""
    rule = Patience(3) | Not(On("kl", Patience(1), "min", optional=True))
    across = AnyOf(Forecast(max_t=10), PerTrial(rule))
    assert rule.optional_metrics == across.optional_metrics == ("kl",)
    assert On("kl", Patience(1), "min").optional_metrics == ()
    assert from_spec(to_spec(rule)) == rule
    assert "'min', optional=True)" in in_words(to_spec(rule))
    required = On("kl", Patience(1), "min")
    assert rule.children[1].children[0].signature == required.signature


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: On(3, Patience(), "min"), TypeError, "On metric must be the name .* got 3"),
        (lambda: On("", Patience(), "min"), ValueError, "On metric is empty"),
        (lambda: On("kl", 3, "min"), TypeError, "judges each trial by itself, got 3"),
        (lambda: On("kl", Forecast(max_t=5), "min"), TypeError, "by itself, got Forecast"),
        (lambda: On("kl", Patience(), None), ValueError, "On mode must be one of min, max"),
        (lambda: On("kl", Patience()), TypeError, "mode"),
        (lambda: On("kl", Patience(), "min", optional=1), TypeError, "optional .* got 1"),
        (
            lambda: On("kl", On("m", Patience(), "min"), "min"),
            ValueError,
            "which On does not read",
        ),
        (
            lambda: On("kl", Budget(trial_seconds=1), "min"),
            ValueError,
            "which Budget does not read: use Budget by itself",
        ),
    ],
)
def test_wrong_ones_are_refused(make, error, said):
    """At construction, with what to do."""
    with pytest.raises(error, match=said):
        make()
