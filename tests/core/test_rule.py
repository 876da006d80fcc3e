"""Decisions and their reasons, parameter checks, and what every rule has in common."""

import math
from dataclasses import dataclass

import pytest

from tune_stoppers.core import Action, Decision, Report, Rule, require_number
from tune_stoppers.rules import AnyOf, Divergence, Patience, Threshold


def test_a_decision_needs_a_reason():
    """Deciding without a reason is an error, also deciding to go on."""
    with pytest.raises(ValueError, match="needs a reason"):
        Decision(Action.CONTINUE, "")


def test_stop_beats_pause_beats_continue():
    """The actions have an order."""
    ordered = sorted(Action, key=lambda action: action.severity)
    assert ordered == [Action.CONTINUE, Action.PAUSE, Action.STOP]


@pytest.mark.parametrize(
    ("sign", "said"), [(1, "0.5 after 3 steps"), (-1, "-0.5 after 3 steps")], ids=["min", "max"]
)
def test_a_reason_speaks_in_the_metrics_own_units(sign, said):
    """Losses change their sign back under max; counts and other numbers do not."""
    decision = Decision(
        Action.STOP, "{loss:loss} after {steps} steps", "r", {"loss": 0.5, "steps": 3}
    )
    assert decision.say(sign) == said


def test_a_maximised_zero_is_not_shown_as_minus_zero():
    """A best accuracy of 0 reads "0"."""
    assert Decision(Action.STOP, "{x:loss}", "r", {"x": 0.0}).say(-1) == "0"


def test_a_reason_with_braces_of_its_own_is_left_alone():
    """A text without numbers is no template: keys of a user's may have braces."""
    assert Decision(Action.STOP, "{odd} key", "r").reason == "{odd} key"


def test_a_combined_reason_lists_its_parts():
    """Who asked, and why, in the user's units too."""
    part = Decision(Action.STOP, "{x:loss}", "A", {"x": 2.0})
    assert Decision(Action.STOP, "both", "AllOf", parts=(part, part)).say(-1) == (
        "both (A: -2; A: -2)"
    )


def test_the_numbers_of_two_parts_of_one_kind_are_both_kept():
    """A combination of two rules of one kind loses no numbers in the journal."""
    rule = Patience(1) & Patience(1, 0.7)
    state = rule.init()
    for step in (1, 2):
        state, decision = rule.update(state, Report("t", step, 1.0))
    assert decision.action is Action.STOP
    assert "0.7" in str(decision.plain_numbers())
    assert str(decision.plain_numbers()).count("'bad': 1") == 2


@pytest.mark.parametrize(
    ("value", "bounds", "error", "said"),
    [
        ("3", {}, TypeError, "x must be a number, got '3'."),
        (True, {}, TypeError, "x must be a number, got True."),
        (None, {}, TypeError, "x must be a number, got None."),
        (2.0, {"integer": True}, TypeError, "x must be an integer, got 2.0."),
        (math.nan, {}, ValueError, "x must be finite, got nan."),
        (math.inf, {}, ValueError, "x must be finite, got inf."),
        (10**400, {}, ValueError, f"x must be finite, got {10**400}."),
        (0, {"at_least": 1}, ValueError, "x must be >= 1, got 0."),
        (0, {"above": 0}, ValueError, "x must be > 0, got 0."),
        (1.0, {"below": 1}, ValueError, "x must be < 1, got 1.0."),
    ],
)
def test_a_wrong_number_is_named_with_its_rule(value, bounds, error, said):
    """The message has the parameter, the rule broken and the value got."""
    with pytest.raises(error) as raised:
        require_number("x", value, **bounds)
    assert str(raised.value) == said


# -- what every rule has in common ---------------------------------------------------------------


@dataclass(frozen=True)
class Count(Rule):
    """Stops at the third report that it is shown; counts the infinities."""

    def start(self):
        return (0, 0)

    def observe(self, own, report):
        return own[0] + 1, own[1] + (report.loss == math.inf)

    def decide(self, own):
        shown, infinite = own
        text = "{shown} shown, {infinite} infinite"
        return (self.stop if shown >= 3 else self.keep)(text, shown=shown, infinite=infinite)


def last(rule, *reports):
    """The decision on the last of (step, loss)."""
    state = rule.init()
    for step, loss in reports:
        state, decision = rule.update(state, Report("t", step, loss))
    return decision


@pytest.mark.parametrize(
    ("policy", "reports", "said"),
    [
        ("worst", [(1, 1.0), (2, 1.0)], "2 shown, 0 infinite"),
        ("worst", [(1, 1.0), (1, 2.0)], "1 shown, 0 infinite"),
        ("worst", [(2, 1.0), (1, 2.0)], "1 shown, 0 infinite"),
        ("worst", [(1, 1.0), (2, None)], "1 shown, 0 infinite"),
        ("worst", [(1, None), (1, 1.0)], "1 shown, 0 infinite"),
        ("worst", [(1, None)], "nothing to judge yet"),
        ("worst", [(1, math.nan), (2, -math.inf)], "2 shown, 2 infinite"),
        ("ignore", [(1, math.nan), (2, 1.0)], "1 shown, 0 infinite"),
        ("ignore", [(1, math.nan), (1, 1.0)], "1 shown, 0 infinite"),
        ("ignore", [(1, -math.inf)], "nothing to judge yet"),
        ("stop", [(1, 1.0), (2, math.nan)], "the value is nan, which is not finite"),
        ("stop", [(1, -math.inf)], "the value is -inf, which is not finite"),
        ("stop", [(1, math.nan), (1, 1.0)], "the value is nan, which is not finite"),
        ("stop", [(1, math.nan), (2, 1.0)], "1 shown, 0 infinite"),
    ],
)
def test_which_reports_a_rule_is_shown(policy, reports, said):
    """Repeats, earlier steps and empty reports change nothing; non-finite ones by policy."""
    assert last(Count(on_nonfinite=policy), *reports).reason == said


def test_an_unknown_policy_lists_the_known_ones():
    """A typo is caught at construction."""
    with pytest.raises(ValueError, match=r"one of worst, stop, ignore, got 'drop'"):
        Patience(on_nonfinite="drop")


def test_a_rule_is_frozen():
    """Configuration cannot change under a running sweep."""
    with pytest.raises(AttributeError):
        Patience(3).patience = 4


def test_a_sweep_wide_stop_says_so():
    """Scope "sweep" ends every trial; going on ends nothing."""
    rule = Threshold(0.5, scope="sweep")
    assert last(rule, (1, 0.4)).ends_sweep
    assert not last(rule, (1, 0.6)).ends_sweep
    assert not last(Threshold(0.5), (1, 0.4)).ends_sweep


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Threshold(1.0), r"\('Patience', 1\), expected \('Threshold', 1\)"),
        (AnyOf(Patience()), r"\('Patience', 1\), expected \('AnyOf\(Patience\)', \[1\]\)"),
    ],
    ids=["another rule", "a combination of it"],
)
def test_the_state_of_another_rule_is_refused(other, said):
    """Both names are given."""
    with pytest.raises(ValueError, match=said):
        other.load(Patience().dump(Patience().init()))


class Newer(Patience):
    """Patience whose state means something else."""

    version = 2


def test_the_state_of_another_version_is_refused():
    """A rule whose state changed its meaning counts its version up."""
    old = Patience().dump(Patience().init()) | {"rule": "Newer"}
    with pytest.raises(ValueError, match=r"\('Newer', 1\), expected \('Newer', 2\)"):
        Newer().load(old)


@pytest.mark.parametrize(
    "other", [AnyOf(Newer(2)), AnyOf(Threshold(1.0)), AnyOf(Patience(2), Divergence())]
)
def test_a_combination_refuses_the_states_of_other_members(other):
    """Members have versions too, and their states do not pass for each other."""
    with pytest.raises(ValueError, match="expected"):
        other.load(AnyOf(Patience(2)).dump(AnyOf(Patience(2)).init()))
