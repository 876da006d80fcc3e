"""`Slope`: curve in, stopping evaluation out."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from tests.stand_ins.strategies import curves
from tune_stoppers import RuleStopper
from tune_stoppers.core import Action, Report
from tune_stoppers.rules.trial.slope import Slope, least_squares, student_t, theil_sen
from tune_stoppers.testing import check_rule, run_rule

NAN, INF = math.nan, math.inf
WIDE = {"threshold": 0.1, "patience": 2}
SURE = {"threshold": 0.1, "patience": 1, "window": 5, "confidence": 0.95}
DIP = [5, 5, 5, 5, 4]  # one outlier at the end


def stops_at(rule, losses, steps=None):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    steps = steps or range(1, len(losses) + 1)
    reports = [Report("t", step, loss) for step, loss in zip(steps, losses, strict=True)]
    stops = [decision.action is Action.STOP for decision in run_rule(rule, reports)]
    return stops.index(True) + 1 if True in stops else None


TABLE = [
    ("the documented example", WIDE, [3, 2, 1.95, 1.5, 1.45, 1.45], 6),
    ("a falling loss goes on", WIDE, [5, 4, 3, 2, 1], None),
    ("a rising loss is not flat", WIDE, [1, 2, 3, 4, 5], None),
    ("equal losses are flat from the second on", WIDE, [1, 1, 1], 3),
    ("the first observation never counts", {"patience": 1}, [0], None),
    ("patience 1 stops at the first flat one", {"patience": 1}, [2, 1, 1], 3),
    ("a slow rise is flat", WIDE, [1, 1.05, 1.1], 3),
    ("exactly the threshold is not flat", {"threshold": 0.5, "patience": 1}, [3, 2.5, 2], None),
    ("a step down between flat ones ends the row", WIDE, [2, 2, 1, 1, 0, 0], None),
    ("NaN ends the row", WIDE, [1, 1, NAN, 1, 1], 5),
    ("NaN alone never stops", {"patience": 1}, [NAN, NAN, INF, -INF], None),
    ("a first NaN is no observation", {"patience": 1}, [NAN, 1, 1], 3),
    ("NaN is left out of the window", {"patience": 1, "window": 3}, [1, NAN, 1, 1], 4),
    ("stop policy: at once", WIDE | {"on_nonfinite": "stop"}, [3, 2, NAN], 3),
    ("ignore policy: neutral", WIDE | {"on_nonfinite": "ignore"}, [1, 1, NAN, 1], 4),
    ("reports without the metric do not count", WIDE, [1, None, 1, None, 1], 5),
    ("a window of 3 needs three values", {"patience": 1, "window": 3}, [1, 1, 1], 3),
    ("one outlier does not tilt the median slope", {"patience": 1, "window": 5}, DIP, 5),
    ("nor hides a fall", WIDE | {"window": 5}, [5, 4, 3, 2, 9, 0, -1, -2], None),
    ("noise around a level is flat over 4", {"window": 4, **WIDE}, [2, 1, 2, 1, 2, 1, 2, 1], None),
    ("and over 5", {"window": 5, **WIDE}, [2, 1, 2, 1, 2, 1], 6),
    ("confident of a constant", SURE, [1, 1, 1, 1, 1], 5),
    ("confident of little noise", SURE, [1, 1.01, 0.99, 1, 1.01], 5),
    ("much noise is undecidable", SURE, [2, 1, 2, 1, 2, 1, 2, 1, 2], None),
    ("one outlier is undecidable", SURE, DIP, None),
    ("a steady fall is still moving", SURE, [5, 4, 3, 2, 1, 0], None),
    ("less confidence decides sooner", SURE | {"confidence": 0.1}, [2, 1.9, 2, 1.9, 2], 5),
    ("an undecidable one ends the row", SURE | {"patience": 2}, [1] * 5 + [9] * 5 + [9], 11),
    ("huge values overflow nothing", SURE, [1.7e308, -1.7e308] * 5, None),
    ("nor in pairs", {"window": 4}, [1.7e308, -1.7e308] * 5, None),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, losses, expected):
    """The rule, and a stopper of it in both modes."""
    assert stops_at(Slope(**options), losses) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        stopper = RuleStopper(Slope(**options), "m", mode, on_missing="skip")
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected


@pytest.mark.parametrize(
    ("per", "expected"), [("evaluation", None), ("step", 3)], ids=["per evaluation", "per step"]
)
@pytest.mark.parametrize("window", [2, 3])
def test_a_slope_per_step_is_measured_over_the_steps(per, expected, window):
    """A fall of 1 in 1,000 steps is flat per step, steep per evaluation."""
    rule = Slope(0.01, patience=3 - window + 1, window=window, per=per)
    assert stops_at(rule, [3, 2, 1], steps=[1000, 2000, 3000]) == expected


def test_steps_with_gaps_count_as_evaluations():
    """Without per="step" it does not matter how far apart they are."""
    assert stops_at(Slope(0.1, 2), [1, 1.05, 1.1], steps=[10, 11, 5000]) == 3


def test_uneven_steps_weigh_in_the_interval():
    """Points on a line are on it wherever they are: the interval has no width."""
    rule = Slope(0.1, 1, window=3, per="step", confidence=0.99)
    assert stops_at(rule, [1, 1.05, 1.5], steps=[0, 1, 10]) == 3


def test_a_repeated_step_does_not_count():
    """Ray repeats the last report of a function, which would look flat."""
    assert stops_at(Slope(0.1, 2), [3, 1, 1, 1, 1], steps=[1, 2, 2, 3, 4]) == 5


def test_the_decision_to_stop_lasts_no_longer_than_the_row():
    """In shadow mode the run goes on, and so do the decisions."""
    decisions = run_rule(Slope(0.1, 1), [Report("t", i, x) for i, x in enumerate([1, 1, 1, 0])])
    actions = [decision.action.value for decision in decisions]
    assert actions == ["CONTINUE", "STOP", "STOP", "CONTINUE"]


@pytest.mark.parametrize(
    ("options", "losses", "said"),
    [
        ({"window": 3}, [2.0], "1 of the 3 evaluations that a slope needs"),
        (WIDE, [2.0, 1.0], "slope -1 per evaluation is not within ±0.1: still moving"),
        (WIDE, [2.0, 2.0, 2.0], "slope 0 per evaluation is within ±0.1: flat, 2 of 2 in a row"),
        (WIDE | {"per": "step"}, [2.0, 2.0], "slope 0 per step is"),
        (WIDE, [2.0, NAN], "value not finite, which is not flat"),
        (
            SURE,
            [2.0, 1.0, 2.0, 1.0, 2.0],
            "slope 0 ± 0.636489 (confidence 0.95) per evaluation may be within ±0.1 or not: "
            "undecidable",
        ),
    ],
)
def test_the_reason_names_the_numbers_compared(options, losses, said):
    """Also those of a decision to go on."""
    reports = [Report("t", step, loss) for step, loss in enumerate(losses)]
    assert said in run_rule(Slope(**options), reports)[-1].reason


def test_the_reason_is_in_the_metrics_own_direction():
    """An accuracy that rises has a rising slope."""
    decision = run_rule(Slope(), [Report("t", i, -x) for i, x in enumerate([0.5, 0.75])])[-1]
    assert decision.say(-1).startswith("slope 0.25 per evaluation")


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 13, 28])
@pytest.mark.parametrize("confidence", [0.001, 0.1, 0.5, 0.9, 0.95, 0.99, 0.9999])
def test_the_t_quantile_is_scipys(confidence, freedom):
    """To nine digits, over all the windows allowed."""
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert student_t(confidence, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(-100, 100)), min_size=3, max_size=12))
def test_the_two_fits_are_scipys(points):
    """Least squares with its standard error, and Theil-Sen, on uneven steps."""
    xs = tuple(float(sum(gap for gap, _ in points[: i + 1])) for i in range(len(points)))
    ys = tuple(float(y) for _, y in points)
    assume(len(set(ys)) > 1)  # scipy divides by the spread of the ys
    line = stats.linregress(xs, ys)
    near = {"rel": 1e-6, "abs": 1e-5}  # scipy rounds 1 - r² where r is close to 1
    assert least_squares(xs, ys) == pytest.approx((line.slope, line.stderr), **near)
    assert theil_sen(xs, ys) == pytest.approx(stats.theilslopes(ys, xs).slope, **near)


RULES = {
    "plain": Slope(0.5, 2),
    "over a window": Slope(0.5, 2, window=4),
    "per step": Slope(0.5, 2, window=3, per="step"),
    "with confidence": Slope(0.5, 1, window=3, per="step", confidence=0.5),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_holds_the_contract(rule):
    """On curves with gaps, ties, NaN, repeats and absent metrics, under each policy."""

    @given(curves(), st.sampled_from(["worst", "stop", "ignore"]))
    def holds(reports, policy):
        check_rule(rule.with_policy(policy), reports)

    holds()


def test_the_longest_window_fits_into_the_state_allowed():
    """Thirty losses of full length, with the steps that they came at."""
    rule = Slope(window=30, per="step", confidence=0.9)
    check_rule(rule, [Report("t", float(50 * i), 1 / i) for i in range(1, 40)])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"threshold": 0}, ValueError, "threshold must be > 0, got 0"),
        ({"threshold": -1e-3}, ValueError, "threshold must be > 0"),
        ({"threshold": NAN}, ValueError, "threshold must be finite, got nan"),
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"patience": 2.0}, TypeError, r"patience must be an integer, got 2\.0"),
        ({"window": 1}, ValueError, "window must be >= 2, got 1"),
        ({"window": 31}, ValueError, "window must be <= 30, got 31"),
        ({"per": "epoch"}, ValueError, "one of evaluation, step, got 'epoch'"),
        ({"confidence": 0.95}, ValueError, "confidence needs window >= 3, got 2"),
        ({"confidence": 1, "window": 5}, ValueError, "confidence must be < 1, got 1"),
        ({"confidence": 95, "window": 5}, ValueError, "confidence must be < 1, got 95"),
        ({"confidence": 0, "window": 5}, ValueError, "confidence must be > 0, got 0"),
        ({"confidence": "95%", "window": 5}, TypeError, "confidence must be a number"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction."""
    with pytest.raises(error, match=said):
        Slope(**options)
