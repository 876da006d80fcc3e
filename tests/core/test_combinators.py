"""`AnyOf`, `AllOf`, `AtLeast`, `Not`, `After`, `|` and `&`."""

import math
from dataclasses import dataclass, replace

import pytest

from tune_stoppers.core import Action, Report, Rule
from tune_stoppers.rules import After, AllOf, AnyOf, AtLeast, Divergence, Not, Patience, Threshold
from tune_stoppers.testing import run_rule


@dataclass(frozen=True)
class Script(Rule):
    """Does what it is told: one letter a report; c, p or s."""

    actions: str = ""

    def start(self):
        return 0

    def observe(self, own, report):
        return own + 1

    def decide(self, own):
        letter = self.actions[own - 1]
        if letter == "c":
            return self.keep("told to go on")
        decision = self.stop("told to end")
        return decision if letter == "s" else replace(decision, action=Action.PAUSE)


def script(actions):
    return Script(actions=actions)


def acted(rule, count, losses=None):
    """The first letters of the actions on `count` reports."""
    losses = losses or [1.0] * count
    reports = [Report("t", step, loss) for step, loss in enumerate(losses, start=1)]
    return "".join(d.action.value[0].lower() for d in run_rule(rule, reports))


@pytest.mark.parametrize(
    ("combine", "first", "second", "expected"),
    [
        (AnyOf, "ccss", "cscs", "csss"),
        (AllOf, "ccss", "cscs", "cccs"),
        (AnyOf, "cpps", "ccss", "cpss"),
        (AllOf, "cpps", "ppss", "cpps"),
        (AllOf, "s", "p", "p"),
        (AnyOf, "s", "p", "s"),
        (AllOf, "sc", "cs", "cc"),
        (AnyOf, "sc", "cc", "sc"),
    ],
    ids=[
        "any of two stops where one does",
        "all of two stops where both do",
        "stop beats pause",
        "all of stop and pause is pause",
        "all: the weaker action",
        "any: the stronger action",
        "all latches nothing",
        "any latches nothing",
    ],
)
def test_two_rules(combine, first, second, expected):
    """In either order."""
    assert acted(combine(script(first), script(second)), len(first)) == expected
    assert acted(combine(script(second), script(first)), len(first)) == expected


@pytest.mark.parametrize(
    ("k", "expected"), [(1, "scsps"), (2, "ccpps"), (3, "ccccs")], ids=["one", "two", "three"]
)
def test_at_least_k_of_three(k, expected):
    """The strongest action that at least k ask for, or something stronger."""
    rules = script("scsps"), script("ccpps"), script("ccccs")
    assert acted(AtLeast(k, *rules), 5) == expected


def test_not_turns_round_what_it_has_seen():
    """It never stops before the rule could judge anything, and a pause is no reason to stop."""
    assert acted(Not(script("csp")), 3) == "scc"
    assert acted(Not(Patience(1)), 3, [None, 1.0, 2.0]) == "csc"


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0, "scss"), (1, "scss"), (2, "ccss"), (2.5, "ccss"), (4, "cccs"), (9, "cccc")],
)
def test_after_decides_from_its_step_on(start, expected):
    """Step `start` itself decides."""
    assert acted(After(start, script("scss")), 4) == expected


def test_after_lets_the_rule_count_from_the_start():
    """Evaluations before the step are evaluations."""
    assert acted(After(4, Patience(2)), 5, [1.0, 1.0, 1.0, 1.0, 1.0]) == "cccss"


def test_after_holds_a_pause_back_too():
    """It decides nothing before its step."""
    assert acted(After(2, script("pp")), 2) == "cp"


@pytest.mark.parametrize("combine", [AnyOf, AllOf])
def test_every_member_sees_every_report(combine):
    """Also one on which another member fires: no short circuit."""
    rule = combine(Threshold(0.5), Patience(3))
    state = rule.init()
    for step, loss in enumerate([0.4, 0.4, 0.4], start=1):
        state, _ = rule.update(state, Report("t", step, loss))
    assert state.own[0].own.past == 3
    assert state.own[1].own.bad == 2


def test_a_member_whose_metric_is_absent_does_not_stop_the_others():
    """Reports without the gradient norm still count for patience."""
    rule = AnyOf(Divergence(gradient_limit=1.0), Patience(2))
    assert acted(rule, 3, [1.0, 1.0, 1.0]) == "ccs"


def test_operators_combine():
    """`|` is AnyOf, `&` is AllOf."""
    a, b = Patience(1), Threshold(0.5)
    assert a | b == AnyOf(a, b)
    assert a & b == AllOf(a, b)
    with pytest.raises(TypeError, match="unsupported operand"):
        a | 3


def test_the_reason_of_one_that_fires_is_its_own():
    """A combination of which one member fires says what that member says."""
    (decision,) = run_rule(AnyOf(Threshold(0.5), Patience(9)), [Report("t", 1, 0.4)])
    assert (decision.rule, decision.reason) == (
        "Threshold",
        "0.4 is past the threshold 0.5, 1 of 1 in a row",
    )


def test_the_reason_of_several_lists_them():
    """Who asks, how many were needed, and what each says."""
    reports = [Report("t", 1, 0.4), Report("t", 2, 0.4)]
    reason = run_rule(AllOf(Threshold(0.5), Patience(1)), reports)[-1].reason
    assert reason.startswith("2 of 2 rules ask to end or pause, 2 needed (Threshold: 0.4 is past")
    assert "; Patience: 1 of 1 evaluations" in reason


def test_a_sweep_wide_member_ends_the_sweep_only_when_the_combination_stops():
    """A member that asks alone in vain ends nothing."""
    target = Threshold(0.5, scope="sweep")
    reports = [Report("t", 1, 0.4), Report("t", 2, 0.4)]
    assert [d.ends_sweep for d in run_rule(AllOf(target, Patience(1)), reports)] == [False, True]
    assert run_rule(AnyOf(target, Patience(1)), reports)[0].ends_sweep
    assert not run_rule(After(9, target), reports)[0].ends_sweep


def test_a_policy_reaches_every_member():
    """`on_nonfinite` of a stopper changes the rules inside."""
    rule = After(0, AllOf(Patience(5), Not(Threshold(0.5)))).with_policy("ignore")
    (both,) = rule.children
    assert [child.on_nonfinite for child in (both.children[0], both.children[1].children[0])] == [
        "ignore",
        "ignore",
    ]
    assert acted(AllOf(Patience(1), Divergence()).with_policy("stop"), 1, [math.nan]) == "s"


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: AnyOf(), ValueError, "AnyOf needs at least one rule, got none"),
        (lambda: AllOf(), ValueError, "AllOf needs at least one rule, got none"),
        (lambda: AnyOf(3), TypeError, "AnyOf combines rules, got 3"),
        (lambda: AtLeast(0, Patience()), ValueError, "AtLeast k must be >= 1, got 0"),
        (lambda: AtLeast(2, Patience()), ValueError, "k <= the number of rules, 1, got 2"),
        (lambda: AtLeast(1.5, Patience()), TypeError, r"k must be an integer, got 1\.5"),
        (lambda: Not("x"), TypeError, "Not combines rules, got 'x'"),
        (lambda: After(-1, Patience()), ValueError, "After step must be >= 0, got -1"),
        (lambda: After("5", Patience()), TypeError, "After step must be a number, got '5'"),
    ],
)
def test_wrong_combinations_are_refused(make, error, said):
    """At construction."""
    with pytest.raises(error, match=said):
        make()
