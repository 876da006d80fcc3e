"""`AdaptivePatience`: curve in, stopping evaluation out."""

import json
import math
import pickle
import random
from itertools import pairwise
from statistics import pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves
from tune_stoppers.core import Action, Report
from tune_stoppers.rules.noise import deviation
from tune_stoppers.rules.trial.adaptive_patience import AdaptivePatience
from tune_stoppers.testing import check_rule, check_symmetry, run_rule
from tune_stoppers.tune.stoppers.named import RuleStopper

NAN, INF = math.nan, math.inf
SMALL = {
    "initial_patience": 3,
    "min_patience": 1,
    "max_patience": 5,
    "window": 2,
    "history": 3,
}


def reports_of(losses):
    """One report for each loss, at steps from 1."""
    return [Report("t", step, loss) for step, loss in enumerate(losses, start=1)]


def stops_at(rule, losses):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    stops = [decision.action is Action.STOP for decision in run_rule(rule, reports_of(losses))]
    return stops.index(True) + 1 if True in stops else None


def patience_after(rule, losses):
    """The patience in force after each loss."""
    state, found = rule.init(), []
    for report in reports_of(losses):
        state, _ = rule.update(state, report)
        found.append(state.own.patience)
    return found


TABLE = [
    ("the example of the docstring", SMALL, [5, 4, 3, 3, 3, 3], 6),
    ("before history it is plain patience", {"initial_patience": 2}, [3, 2, 2, 2], 4),
    ("the defaults on a flat curve", {}, [1.0] * 9, 6),
    ("a fall that goes on never stops", {}, [50 - x for x in range(40)], None),
    (
        "patience gained in a fall is spent on a plateau, which shrinks it on the way",
        {"initial_patience": 3, "max_patience": 8, "window": 2, "history": 3},
        [9, 8, 7, 6, 5, 4, 4, 4, 4, 4, 4],
        11,
    ),
    ("an improvement sets the count back", SMALL, [5, 4, 3, 3, 3, 2, 2, 2, 2], 9),
    ("a tie is no improvement", {**SMALL, "history": 99}, [1, 1, 1, 1], 4),
    (
        "the patience shrinks before this evaluation is compared",
        {**SMALL, "history": 4, "grow_above": 9.0},
        [1, 2, 2, 2],
        4,
    ),
    (
        "a patience that shrinks to the count stops early",
        {**SMALL, "initial_patience": 4, "grow_above": 9.0},
        [1, 2, 3, 4, 5],
        4,
    ),
    (
        "the patience grows before this evaluation is compared",
        {**SMALL, "initial_patience": 1},
        [9, 0, 1],
        None,
    ),
    ("not without that growth", {**SMALL, "initial_patience": 1, "history": 4}, [9, 0, 1], 3),
    ("it never shrinks below the minimum", {**SMALL, "min_patience": 3}, [1, 1, 1, 1], 4),
    (
        "it never grows above the maximum",
        {**SMALL, "max_patience": 3},
        [99, 90, 80, 70, 60, 60, 61, 62],
        7,
    ),
    ("the direction: a rising loss shrinks it", {**SMALL, "initial_patience": 5}, range(9), 4),
    ("a negative loss that falls goes on", SMALL, [-x for x in range(20)], None),
    ("NaN is a bad evaluation", {"initial_patience": 2}, [1, NAN, INF], 3),
    ("NaN first, then any value improves", {"initial_patience": 2}, [NAN, 9, 8], None),
    ("NaN alone stops at the initial patience", {**SMALL, "window": 1}, [NAN] * 4, 3),
    ("a NaN is no value to history", SMALL, [5, 4, NAN, NAN, NAN], 5),
    ("ignored NaN counts nothing", {**SMALL, "on_nonfinite": "ignore"}, [5, NAN, NAN, NAN], None),
    ("NaN stops at once under stop", {**SMALL, "on_nonfinite": "stop"}, [5, NAN], 2),
    ("a report without the metric is neutral", {"initial_patience": 2}, [1, 1, None, 1], 4),
    (
        "abs: small losses shrink it, however well they fall",
        {**SMALL, "max_patience": 4},
        [x / 1e4 for x in (9, 8, 7, 6, 8)],
        5,
    ),
    (
        "noise: the same curve in any unit grows it",
        {**SMALL, "max_patience": 4, "scale": "noise"},
        [x / 1e4 for x in (9, 8, 7, 6, 8)],
        None,
    ),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, losses, expected):
    """The rule, and a stopper of it in both modes."""
    rule = AdaptivePatience(**options)
    assert stops_at(rule, losses) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        stopper = RuleStopper(rule, "m", mode, on_missing="skip")
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected


MOVES = [
    ("the example of the docstring", SMALL, [5, 4, 3, 3, 3, 3], [3, 3, 4, 5, 4, 3]),
    ("by default from the tenth value on", {}, [20 - x for x in range(12)], [5] * 9 + [6, 7, 8]),
    ("down to the minimum", {}, [1.0] * 14, [5] * 9 + [4, 3, 2, 2, 2]),
    ("up to the maximum", SMALL, [9 - x for x in range(7)], [3, 3, 4, 5, 5, 5, 5]),
    ("a gain of exactly grow_above leaves it", {**SMALL, "grow_above": 1}, [3, 2, 1], [3] * 3),
    (
        "a gain of exactly shrink_below leaves it",
        {**SMALL, "grow_above": 2, "shrink_below": 1},
        [3, 2, 1],
        [3] * 3,
    ),
    ("a NaN moves nothing", SMALL, [5, 4, 3, NAN, NAN, 3], [3, 3, 4, 4, 4, 5]),
    (
        "a difference reaches over a NaN",
        {**SMALL, "window": 1, "grow_above": 2},
        [6, 4, NAN, 1],
        [3, 3, 3, 4],
    ),
    ("a window longer than the history", {**SMALL, "window": 9}, [3, 2, 1], [3, 3, 4]),
    (
        "only the window counts",
        {**SMALL, "window": 1, "history": 2},
        [9, 1, 1, 1],
        [3, 4, 3, 2],
    ),
    ("noise: a straight fall has none", {**SMALL, "scale": "noise"}, [3, 2, 1], [3, 3, 4]),
    ("noise: a flat curve stays", {**SMALL, "scale": "noise"}, [1, 1, 1, 1], [3] * 4),
    (
        "noise: a gain within it shrinks",
        {**SMALL, "window": 4, "history": 5, "scale": "noise"}
        | {"shrink_below": 0.5, "grow_above": 1.0},
        [4, 6, 4, 6, 3.9],
        [3, 3, 3, 3, 2],
    ),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in MOVES], ids=[row[0] for row in MOVES]
)
def test_how_the_patience_moves(options, losses, expected):
    """The patience in force at each evaluation."""
    assert patience_after(AdaptivePatience(**options), losses) == expected


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=40), st.integers(1, 6))
def test_it_agrees_with_the_definition(losses, window):
    """Step by step from all the losses, in the order that the design fixes."""
    rule = AdaptivePatience(3, 2, 6, window=window, history=window + 1, grow_above=0.5)
    patience, best, bad, expected = 3, INF, 0, None
    for i, loss in enumerate(losses):
        if i + 1 >= window + 1:
            last = losses[i - window : i + 1]
            gains = [a - b for a, b in pairwise(last)]
            mean = sum(gains) / window
            if mean > 0.5:
                patience = min(patience + 1, 6)
            elif mean < 0.001:
                patience = max(patience - 1, 2)
        bad = 0 if loss < best else bad + 1
        best = min(best, loss)
        if bad >= patience:
            expected = i + 1
            break
    assert stops_at(rule, losses) == expected


@given(st.lists(st.integers(-50, 50), max_size=30), st.sampled_from([2.0**-9, 2.0, 1024.0]))
def test_noise_scale_knows_no_unit(losses, unit):
    """A curve in another unit moves the patience alike."""
    rule = AdaptivePatience(window=2, history=4, grow_above=0.5, shrink_below=0.1, scale="noise")
    assert patience_after(rule, losses) == patience_after(rule, [unit * x for x in losses])


def test_the_noise_is_a_standard_deviation():
    """Of Gaussian noise, whatever the trend under it and a few outliers."""
    rng = random.Random(0)
    noise = [rng.gauss(0, 0.2) for _ in range(4000)]
    curve = [30 - 0.01 * i + x + (50 if i % 400 == 7 else 0) for i, x in enumerate(noise)]
    assert deviation(curve) == pytest.approx(pstdev(noise), rel=0.05)
    assert deviation([3, 1]) == 0


def test_a_repeated_step_does_not_count():
    """Neither as a bad evaluation nor as a difference."""
    rule = AdaptivePatience(**SMALL)
    reports = [Report("t", step, loss) for step, loss in [(1, 5), (2, 4), (2, 4), (2, 4), (3, 4)]]
    assert run_rule(rule, reports)[-1].reason.startswith("1 of 4")


@pytest.mark.parametrize(
    ("options", "losses", "said"),
    [
        ({}, [2.0], "improved to 2, patience 5"),
        ({}, [NAN], "1 of 5 evaluations without improvement, value not finite, none finite yet"),
        (
            SMALL,
            [2.0, 1.0, 3.0],
            "1 of 2 evaluations without improvement, value 3, best 1 at step 2, mean gain -0.5 "
            "per evaluation: patience grows above 0.01, shrinks below 0.001",
        ),
        (SMALL, [5, 4, 3], "improved to 3, patience 4, mean gain 1 per evaluation"),
        ({**SMALL, "scale": "noise"}, [5, 4, 3.5], "grows above 0.00303, shrinks below 0.000303"),
    ],
)
def test_the_reason_names_the_patience_and_why_it_moved(options, losses, said):
    """Also that of a decision to go on; the journal has the patience too."""
    decision = run_rule(AdaptivePatience(**options), reports_of(losses))[-1]
    assert said in decision.reason
    assert isinstance(decision.plain_numbers()["patience"], int)


@pytest.mark.parametrize("scale", ["abs", "noise"])
def test_it_holds_the_contract(scale):
    """Each check of the suite, under each policy."""

    @given(curves(max_size=30), st.sampled_from(["worst", "stop", "ignore"]))
    def holds(reports, policy):
        rule = AdaptivePatience(**SMALL, scale=scale, on_nonfinite=policy)
        check_rule(rule, reports)

    holds()


@pytest.mark.parametrize("scale", ["abs", "noise"])
def test_maximising_is_minimising_the_opposite(scale):
    """A gain is a gain in either mode, and the thresholds are not turned round."""

    @given(st.lists(st.one_of(st.none(), st.floats()), max_size=25))
    def holds(values):
        rule = AdaptivePatience(**SMALL, scale=scale)
        check_symmetry(lambda mode: RuleStopper(rule, "loss", mode), [1.0, *values])

    holds()


@pytest.mark.parametrize("scale", ["abs", "noise"])
def test_the_state_stays_under_a_kilobyte(scale):
    """On a long curve of numbers with many digits."""
    rule = AdaptivePatience(scale=scale)
    state = rule.init()
    for i in range(200):
        state, _ = rule.update(state, Report("t", i, -math.pi * 1.1e-101 * (1 + i % 7 / 3)))
    assert max(len(pickle.dumps(state)), len(json.dumps(rule.dump(state)))) < 1024


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"initial_patience": 0}, ValueError, "initial_patience must be >= 1, got 0"),
        ({"initial_patience": 5.0}, TypeError, r"initial_patience must be an integer, got 5\.0"),
        ({"initial_patience": 1}, ValueError, "must be within .* got 1 for 2 to 20"),
        ({"initial_patience": 21}, ValueError, "must be within .* got 21 for 2 to 20"),
        ({"min_patience": 0}, ValueError, "min_patience must be >= 1, got 0"),
        ({"max_patience": 4}, ValueError, "must be within .* got 5 for 2 to 4"),
        ({"window": 0}, ValueError, "window must be >= 1, got 0"),
        ({"history": 1}, ValueError, "history must be >= 2, got 1"),
        ({"history": 2, "scale": "noise"}, ValueError, "history must be >= 3, got 2"),
        ({"grow_above": NAN}, ValueError, "grow_above must be finite, got nan"),
        ({"shrink_below": "0"}, TypeError, "shrink_below must be a number, got '0'"),
        ({"shrink_below": 0.02}, ValueError, r"shrink_below must be <= grow_above, got 0\.02 and"),
        ({"scale": "rel"}, ValueError, "scale must be one of abs, noise, got 'rel'"),
        ({"on_nonfinite": "raise"}, ValueError, "on_nonfinite must be one of"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction, with the value got."""
    with pytest.raises(error, match=said):
        AdaptivePatience(**options)
