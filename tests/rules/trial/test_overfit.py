"""`Overfit`: curves in, stopping evaluation out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves
from tune_stoppers.core import Action, Report
from tune_stoppers.rules.trial.overfit import Overfit
from tune_stoppers.testing import check_rule, check_symmetry, run_rule
from tune_stoppers.tune.stoppers.named import RuleStopper

NAN, INF = math.nan, math.inf
UP = {"criterion": "up", "strip": 2, "strips": 2}


def first_stop(stops):
    """The number, from 1, of the first True; None: none."""
    return stops.index(True) + 1 if True in stops else None


def stops_at(rule, reports):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    return first_stop([decision.action is Action.STOP for decision in run_rule(rule, reports)])


TABLE = [
    ("gl: the example of the docstring", {}, [2, 1, 1.03, 1.06], 4),
    ("gl: a falling loss goes on", {}, [4, 3, 2, 1], None),
    ("gl: exactly alpha does not stop", {}, [100, 105, 105], None),
    ("gl: just over alpha does", {}, [100, 105, 105.001], 3),
    ("gl: small rises add up against the best", {}, [100, 102, 104, 106], 4),
    ("gl: a new best is the new base", {}, [200, 100, 104, 98, 104], 5),
    ("gl: of |best|, so right below zero", {}, [-100, -96, -94], 3),
    ("gl: below zero a fall goes on", {}, [-1, -2, -3], None),
    ("gl: a best of zero allows no rise", {}, [1, 0, 0, 1e-9], 4),
    ("gl: from a first value of zero down", {}, [0, -1, -2], None),
    ("gl: one evaluation stops nothing", {"alpha": 0}, [1], None),
    ("gl: alpha 0 allows a tie", {"alpha": 0}, [1, 1, 1.5], 3),
    ("gl: a larger alpha", {"alpha": 100.0}, [1, 1.9, 2.1], 3),
    ("gl: NaN is infinitely above the best", {}, [1, NAN], 2),
    ("gl: minus infinity is no best", {}, [1, -INF], 2),
    ("gl: NaN first has no best to be above", {}, [NAN, NAN, 5, 4], None),
    ("gl: ignored NaN is neutral", {"on_nonfinite": "ignore"}, [1, NAN, 1.04, 1.06], 4),
    ("gl: NaN first stops under stop", {"on_nonfinite": "stop"}, [NAN], 1),
    ("gl: a report without the metric is neutral", {}, [1, None, 1.06], 3),
    ("gl: huge values overflow nothing", {}, [1.7e308, -1.7e308, 1.7e308], 3),
    ("up: two strips in a row, judged at their ends", UP, [1, 1, 9, 2, 0, 3], 6),
    ("up: not before the third end", UP, [1, 2, 3, 4, 5, 6], 6),
    ("up: what is within a strip does not count", UP, [9, 3, 9, 2, 9, 1, 9, 1], None),
    ("up: a fall between sets it back", UP, [0, 1, 0, 2, 0, 1, 0, 2, 0, 3], 10),
    ("up: a tie is no rise", UP, [0, 1, 0, 2, 0, 2, 0, 3], None),
    ("up: one strip of one", {**UP, "strip": 1, "strips": 1}, [1, 1, 2], 3),
    ("up: the defaults", {"criterion": "up"}, range(30), 20),
    ("up: a rise from any level, not from the best", UP, [0, 9, 0, 1, 0, 2, 0, 3], 8),
    ("up: below zero", UP, [0, -3, 0, -2, 0, -1], 6),
    ("up: NaN at an end is worse", UP, [0, 1, 0, NAN, 0, NAN], 6),
    ("up: NaN within a strip is not seen", UP, [0, 1, NAN, 1, NAN, 1], None),
    ("up: after a NaN the last finite end counts", UP, [0, 1, 0, NAN, 0, 2], 6),
    ("up: and is not risen from below it", UP, [0, 3, 0, NAN, 0, 2, 0, 3], None),
    ("up: NaN is worse at first too", UP, [0, NAN, 0, NAN], 4),
    ("up: a first finite end is no rise", UP, [0, NAN, 0, 9, 0, 10], None),
    ("up: ignored NaN fills no strip", UP | {"on_nonfinite": "ignore"}, [1, 1, NAN, 2, 2, 3, 3], 7),
    ("up: a report without the metric fills none", UP, [1, 1, None, 2, 2, 3, 3], 7),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops_by_the_validation_loss(options, losses, expected):
    """The rule, and a stopper of it in both modes; these criteria read no train metric."""
    rule = Overfit("train", **options)
    reports = [Report("t", step, loss) for step, loss in enumerate(losses, start=1)]
    assert stops_at(rule, reports) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        stopper = RuleStopper(rule, "m", mode, on_missing="skip")
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert first_stop(stops) == expected


# strips of 2; rows are (validation, train)
PQ_TABLE = [
    # GL 10 %, train 1.01 and 1: P = 5 per mille, GL/P = 2
    ("the quotient is over alpha", {}, [(10, 5), (10, 5), (10, 1.01), (11, 1)], 4),
    ("the quotient is not", {"alpha": 2.1}, [(10, 5), (10, 5), (10, 1.01), (11, 1)], None),
    # train 1.5 and 1: P = 250 per mille
    ("training that moves allows more", {}, [(10, 5), (10, 5), (10, 1.5), (50, 1)], None),
    ("though not everything", {}, [(10, 5), (10, 5), (10, 1.5), (100, 1)], 4),
    ("it does so in either direction", {}, [(10, 5), (10, 5), (10, 1), (30, 1.5)], None),
    ("training that stands still allows nothing", {}, [(10, 1), (10, 1), (10, 1), (10.001, 1)], 4),
    ("standing still at the best goes on", {}, [(10, 1), (10, 1), (10, 1), (10, 1)], None),
    ("not within a strip", {}, [(10, 1), (10, 1), (99, 1), (10, 1), (99, 1), (10, 1)], None),
    ("the best may be within a strip", {}, [(10, 1), (20, 1)], 2),
    ("only this strip's training counts", {}, [(1, 9), (1, 4), (1, 1), (2, 1)], 4),
    ("train below zero", {}, [(10, -1), (10, -1), (10, -0.99), (11, -1)], 4),
    # min 0: P is infinite
    ("train down to zero allows all", {}, [(10, 1), (10, 1), (10, 1), (99, 0)], None),
    ("train at zero stands still", {}, [(10, 0), (10, 0), (10, 0), (11, 0)], 4),
    ("NaN at a strip's end stops", {}, [(10, 2), (NAN, 1)], 2),
    ("NaN within a strip does not", {}, [(10, 2), (10, 1), (NAN, 2), (10, 1)], None),
    ("NaN of both first", {}, [(NAN, NAN), (NAN, NAN)], None),
    ("a NaN in training is left out", {}, [(10, 5), (10, NAN), (10, 1), (10.1, NAN)], 4),
    ("a strip of NaN stands still", {}, [(10, 5), (10, 5), (10, INF), (10.1, NAN)], 4),
    (
        "a report without one of them fills no strip",
        {},
        [(10, 1), (10, 1), (99, None), (None, 1), (10, 1), (99, None), (11, 1)],
        7,
    ),
    (
        "ignored NaN in either is neutral",
        {"on_nonfinite": "ignore"},
        [(10, 1), (10, 1), (NAN, 1), (99, NAN), (10, 1), (11, 1)],
        6,
    ),
    ("NaN in training stops at once under stop", {"on_nonfinite": "stop"}, [(10, NAN)], 1),
]


@pytest.mark.parametrize(
    ("options", "rows", "expected"),
    [row[1:] for row in PQ_TABLE],
    ids=[row[0] for row in PQ_TABLE],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_where_it_stops_by_the_quotient(options, rows, expected, mode):
    """A stopper of the rule, with both metrics to minimise or both to maximise."""
    sign = 1 if mode == "min" else -1
    rule = Overfit("train", "pq", **{"alpha": 1.9, "strip": 2} | options, train_sign=sign)
    stopper, stops = RuleStopper(rule, "val", mode, on_missing="skip"), []
    for i, (loss, train) in enumerate(rows, start=1):
        values = {"val": loss, "train": train}
        carried = {key: sign * value for key, value in values.items() if value is not None}
        stops.append(stopper("t", {"training_iteration": i} | carried))
    assert first_stop(stops) == expected


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=24),
    st.integers(2, 4),
    st.sampled_from([0.05, 0.3]),
)
def test_the_criteria_agree_with_the_paper(rows, k, alpha):
    """Its formulas for positive errors, written with all the values at hand."""
    reports = [Report("t", i, va, {"train": tr}) for i, (va, tr) in enumerate(rows, start=1)]
    va, tr = [row[0] for row in rows], [row[1] for row in rows]

    def gl(t):
        return 100 * (va[t - 1] / min(va[:t]) - 1)

    def progress(t):
        return 1000 * (sum(tr[t - k : t]) / (k * min(tr[t - k : t])) - 1)

    def up(t, s):
        if s == 0:
            return True
        return t - k >= 1 and up(t - k, s - 1) and va[t - 1] > va[t - k - 1]

    times = range(1, len(rows) + 1)
    ends = [t for t in times if t % k == 0]
    close = 1e-9  # equal to alpha but for rounding
    by_gl = next((t for t in times if gl(t) > 7.5 + close), None)
    by_pq = next((t for t in ends if gl(t) > alpha * progress(t) + close), None)
    by_up = next((t for t in ends if up(t, 2)), None)
    assert stops_at(Overfit("train", "gl", alpha=7.5), reports) == by_gl
    assert stops_at(Overfit("train", "pq", alpha=alpha + 1e-12, strip=k), reports) == by_pq
    assert stops_at(Overfit("train", "up", strip=k, strips=2), reports) == by_up


def test_a_decision_at_a_strips_end_does_not_last():
    """In shadow mode the run goes on; the next evaluation is judged at the next end."""
    rule = Overfit("train", "up", strip=2, strips=1)
    reports = [Report("t", i, loss) for i, loss in enumerate([1, 1, 1, 2, 2])]
    actions = [decision.action.value for decision in run_rule(rule, reports)]
    assert actions == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP", "CONTINUE"]


def test_a_repeated_step_does_not_count():
    """It fills no strip, and a stop at a strip's end stays one."""
    rule = Overfit(criterion="up", strip=1, strips=1)
    reports = [Report("t", step, loss) for step, loss in [(1, 1), (1, 2), (2, 2), (2, 0)]]
    stops = [decision.action is Action.STOP for decision in run_rule(rule, reports)]
    assert stops == [False, False, True, True]


@pytest.mark.parametrize(
    ("options", "rows", "said"),
    [
        ({}, [(2.0, 1)], "2 is 0 % worse than the best 2 at step 1, alpha 5 %"),
        ({}, [(2.0, 1), (2.5, 1)], "2.5 is 25 % worse than the best 2 at step 1, alpha 5 %"),
        ({}, [(NAN, 1)], "not finite, and no other to compare with yet"),
        (
            {"criterion": "pq", "strip": 2},
            [(2.0, 1.5), (2.5, 1.0)],
            "25 % worse than the best 2 at step 1, training moved by 250 per mille, alpha 5 %",
        ),
        (
            {"criterion": "pq"},
            [(2.0, 1.5)],
            "evaluation 1 of 5 in the strip, judged at its end",
        ),
        (UP, [(1, 1)] * 2 + [(2, 1)] * 2, "2 ends the strip, 1 of 2 strips in a row worse"),
    ],
)
def test_the_reason_names_the_numbers_compared(options, rows, said):
    """Also those of a decision to go on."""
    rule = Overfit("train", **options)
    reports = [Report("t", i, va, {"train": tr}) for i, (va, tr) in enumerate(rows, start=1)]
    assert said in run_rule(rule, reports)[-1].reason


def test_the_reason_speaks_in_the_metrics_own_units():
    """Under max the values are not shown negated."""
    stopper = RuleStopper(Overfit(), "accuracy", "max")
    for step, value in enumerate([0.8, 0.6], start=1):
        decision = stopper.judge("t", {"training_iteration": step, "accuracy": value})
    said = "0.6 is 25 % worse than the best 0.8 at step 1, alpha 5 %"
    assert stopper.describe(decision) == f"RuleStopper: {said}"


RULES = {
    "gl": Overfit("train"),
    "pq": Overfit("train", "pq", 0.1, strip=2),
    "pq with a train metric to maximise": Overfit("train", "pq", 0.1, strip=2, train_sign=-1),
    "up": Overfit("train", **UP),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_holds_the_contract(rule):
    """Each check of the suite, under each policy."""

    @given(curves(metrics=("train",)), st.sampled_from(["worst", "stop", "ignore"]))
    def holds(reports, policy):
        check_rule(rule.with_policy(policy), reports)

    holds()


@pytest.mark.parametrize("rule", [RULES["gl"], RULES["up"]], ids=["gl", "up"])
def test_maximising_is_minimising_the_opposite(rule):
    """Per cent of |best| are the same on either side of zero."""

    @given(st.lists(st.one_of(st.none(), st.floats()), max_size=25))
    def holds(values):
        check_symmetry(lambda mode: RuleStopper(rule, "loss", mode), [1.0, *values])

    holds()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"criterion": "GL"}, ValueError, "criterion must be one of gl, pq, up, got 'GL'"),
        ({"criterion": "pq"}, ValueError, "give train_metric, its name"),
        ({"train_metric": ""}, ValueError, "train_metric is empty"),
        ({"train_metric": 3}, TypeError, "train_metric must be a name, got 3"),
        ({"alpha": -1}, ValueError, "alpha must be >= 0, got -1"),
        ({"alpha": NAN}, ValueError, "alpha must be finite, got nan"),
        ({"alpha": "5"}, TypeError, "alpha must be a number, got '5'"),
        ({"strip": 0}, ValueError, "strip must be >= 1, got 0"),
        ({"strip": 1, "criterion": "pq", "train_metric": "a"}, ValueError, "strip must be >= 2"),
        ({"strip": 2.0}, TypeError, r"strip must be an integer, got 2\.0"),
        ({"strips": 0}, ValueError, "strips must be >= 1, got 0"),
        ({"train_sign": 0}, ValueError, "train_sign must be 1 or -1, got 0"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction, with the value got."""
    with pytest.raises(error, match=said):
        Overfit(**options)
