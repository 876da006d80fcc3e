"""`MultiMetric`: curves in, stopping evaluation out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves
from tune_stoppers.core import Action, MissingMetricError, Report
from tune_stoppers.rules.trial.multi_metric import MultiMetric
from tune_stoppers.testing import check_rule, run_rule
from tune_stoppers.tune.stoppers.named import RuleStopper

NAN, INF = math.nan, math.inf
LOSS = {"loss": {"mode": "min"}}
BOTH = {"loss": {"mode": "min"}, "acc": {"mode": "max"}}
THREE = {"a": {"mode": "min"}, "b": {"mode": "min"}, "c": {"mode": "max"}}
RELATIVE, VOTE = {"scaling": "relative"}, {"combine": "vote"}


def weighed(**weights):
    """Metrics to minimise with these weights."""
    return {name: {"mode": "min", "weight": weight} for name, weight in weights.items()}


def reports_of(metrics, rows):
    """One report for each row of values, in the order of `metrics`; None: not carried."""
    return [
        Report("t", i, None, {k: v for k, v in zip(metrics, row, strict=True) if v is not None})
        for i, row in enumerate(rows, start=1)
    ]


def stops_at(rule, reports):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    stops = [decision.action is Action.STOP for decision in run_rule(rule, reports)]
    return stops.index(True) + 1 if True in stops else None


RECIPROCAL_TABLE = [
    (
        "the example of the docstring",
        BOTH,
        {},
        [(1, 0.5), (0, 0.25), (1, 0.75), (3, 1)],
        4,
    ),
    ("a falling loss goes on", LOSS, {}, [(3,), (2,), (1,), (0,)], None),
    ("a tie does not rise", LOSS, {}, [(3,), (3,), (3,)], 3),
    ("one gain outweighs the other's loss", BOTH, {}, [(1, 0.0), (3, 0.5), (7, 1.0)], None),
    (
        "a weight turns that round",
        BOTH | {"loss": {"mode": "min", "weight": 4}},
        {},
        [(1, 0.0), (3, 0.5), (7, 1.0)],
        3,
    ),
    ("a loss far above 1 saturates the score", BOTH, {}, [(1e20, 0.5)] + [(1e18, 0.5)] * 3, 3),
    ("a loss just above -1 is allowed", LOSS, {}, [(0.0,), (-0.5,), (-0.99,)], None),
    ("a maximised metric may be far below", {"r": {"mode": "max"}}, {}, [(-9,), (-5,)], None),
    ("a rise sets the count back", LOSS, {}, [(3,), (4,), (2,), (4,), (1,), (4,)], None),
    ("patience 1 stops at the first", LOSS, {"patience": 1}, [(3,), (4,)], 2),
    (
        "NaN in one metric is an evaluation without a rise",
        BOTH,
        {},
        [(1, 1), (NAN, 9), (0.5, INF)],
        3,
    ),
    ("minus infinity is no gain and no error", LOSS, {}, [(1,), (-INF,), (-INF,)], 3),
    ("NaN first, then any score rises", BOTH, {}, [(NAN, 1), (1e9, -1e9), (1, 1)], None),
    (
        "a score beyond the floats is finite all the same",
        {"r": {"mode": "max", "weight": 9}, "s": {"mode": "max", "weight": 9}},
        {"patience": 1},
        [(-1.7e308, -1.7e308), (0, 0)],
        None,
    ),
    ("NaN alone stops", LOSS, {}, [(NAN,), (NAN,)], 2),
    (
        "ignored NaN leaves the report out",
        BOTH,
        {"on_nonfinite": "ignore"},
        [(1, 1), (NAN, 1), (1, NAN), (1, 1)],
        None,
    ),
    ("NaN stops at once under stop", BOTH, {"on_nonfinite": "stop"}, [(1, 1), (0, NAN)], 2),
    (
        "a report without one of them is neutral",
        BOTH,
        {},
        [(1, 1), (1, None), (None, 1), (1, 1)],
        None,
    ),
]

# these are symmetric: each mode turned round with its values decides alike
SIGNED_TABLE = [
    ("relative: a falling loss goes on", LOSS, RELATIVE, [(3,), (2,), (1,)], None),
    ("relative: a loss below -1 is fine", LOSS, RELATIVE, [(-3,), (-4,), (-5,)], None),
    ("relative: a rising negative loss stops", LOSS, RELATIVE, [(-3,), (-2,), (-1,)], 3),
    (
        "relative: shares of the first value, not amounts",
        BOTH,
        RELATIVE,
        [(100, 0.25), (102, 0.5), (104, 0.75)],
        None,
    ),
    ("relative: equal shares cancel out", BOTH, RELATIVE, [(4, 2), (5, 2.5), (6, 3)], 3),
    (
        "relative: unless weighed",
        BOTH | {"acc": {"mode": "max", "weight": 2}},
        RELATIVE,
        [(4, 2), (5, 2.5), (6, 3)],
        None,
    ),
    ("relative: a first value of zero", LOSS, RELATIVE, [(0,), (-1e-9,), (-1,)], None),
    (
        "relative: each metric's first finite value is its base",
        BOTH,
        RELATIVE,
        [(NAN, 1), (8, 2), (4, 1), (2, 1)],
        4,
    ),
    ("relative: NaN is no base", LOSS, RELATIVE, [(NAN,), (8,), (4,), (2,)], None),
    ("relative: NaN does not rise", LOSS, RELATIVE, [(1,), (NAN,), (1,)], 3),
    (
        "relative: huge values that cancel out",
        BOTH,
        RELATIVE,
        [(0, 0), (1.7e308, 1.7e308), (0, 1), (0, 2)],
        None,
    ),
    ("relative: as huge, and falling", LOSS, RELATIVE, [(1.7e308,), (0,), (-1.7e308,)], None),
    ("vote: one of three is not over half", THREE, VOTE, [(3, 1, 1), (2, 1, 2), (1, 1, 3)], None),
    ("vote: two of three are", THREE, VOTE, [(3, 1, 1), (2, 1, 1), (1, 1, 1)], 3),
    ("vote: one of two is exactly half, and goes on", BOTH, VOTE, [(1, 1), (1, 2), (1, 3)], None),
    (
        "vote: rounded weights of exactly half",
        weighed(a=0.3, b=0.4, c=0.1),
        VOTE,
        [(3, 1, 3), (2, 1, 2), (1, 1, 1)],
        None,
    ),
    ("vote: a heavy one alone is", weighed(a=2, b=1), VOTE, [(1, 3), (1, 2), (1, 1)], 3),
    ("vote: a light one alone is not", weighed(a=1, b=2), VOTE, [(1, 3), (1, 2), (1, 1)], None),
    (
        "vote: metrics that take turns go on",
        BOTH,
        VOTE,
        [(5, 1), (4, 1), (4, 2), (3, 2), (3, 3)],
        None,
    ),
    (
        "vote: stalled at the same time, not ever",
        BOTH,
        VOTE,
        [(5, 1), (5, 2), (5, 3), (4, 3), (3, 3), (2, 3)],
        None,
    ),
    ("vote: a tie is no improvement", LOSS, VOTE, [(1,), (1,), (1,)], 3),
    ("vote: NaN stalls that metric alone", BOTH, VOTE, [(9, 1), (8, NAN), (7, INF)], None),
    ("vote: NaN in both stalls both", BOTH, VOTE, [(9, 1), (NAN, INF), (-INF, NAN)], 3),
    ("vote: NaN first, then any value improves", LOSS, VOTE, [(NAN,), (9,), (8,)], None),
    ("vote: a loss below -1 is fine", LOSS, VOTE, [(-3,), (-4,), (-5,)], None),
    (
        "vote: a report without one of them is neutral",
        BOTH,
        VOTE,
        [(1, 1), (1, None), (None, 1), (1, 1)],
        None,
    ),
]


@pytest.mark.parametrize(
    ("metrics", "options", "rows", "expected"),
    [row[1:] for row in RECIPROCAL_TABLE + SIGNED_TABLE],
    ids=[row[0] for row in RECIPROCAL_TABLE + SIGNED_TABLE],
)
def test_where_it_stops(metrics, options, rows, expected):
    """The rule on its reports, and a stopper of it on Ray's nested results; patience 2."""
    rule = MultiMetric(metrics, **{"patience": 2} | options)
    reports = reports_of(metrics, rows)
    assert stops_at(rule, reports) == expected
    stopper = RuleStopper(rule, on_missing="skip")
    stops = [stopper("t", {"training_iteration": r.step, **r.metrics}) for r in reports]
    assert (stops.index(True) + 1 if True in stops else None) == expected


@pytest.mark.parametrize(
    ("metrics", "options", "rows", "expected"),
    [row[1:] for row in SIGNED_TABLE],
    ids=[row[0] for row in SIGNED_TABLE],
)
def test_maximising_is_minimising_the_opposite(metrics, options, rows, expected):
    """Each mode and value turned round; the reciprocal form alone has no such symmetry."""
    other = {"min": "max", "max": "min"}
    turned = {name: spec | {"mode": other[spec["mode"]]} for name, spec in metrics.items()}
    rows = [[None if value is None else -value for value in row] for row in rows]
    rule = MultiMetric(turned, **{"patience": 2} | options)
    assert stops_at(rule, reports_of(turned, rows)) == expected


@pytest.mark.parametrize("value", [-1.0, -1.5, -90.0])
def test_a_loss_at_or_below_minus_one_has_no_reciprocal(value):
    """The error names the metric, the trial and the way out; it ends the sweep."""
    rule = MultiMetric(BOTH)
    said = rf"'loss' is {value:g} in trial t at step 3, .*Use scaling=\"relative\""
    with pytest.raises(ValueError, match=said):
        rule.update(rule.init(), Report("t", 3, None, {"loss": value, "acc": 0.5}))


def test_the_order_of_the_metrics_does_not_matter():
    """Two rules that are equal load each other's states."""
    one, other = (MultiMetric(m, combine="vote") for m in (BOTH, dict(reversed(BOTH.items()))))
    reports = reports_of(BOTH, [(3, 1), (3, 2), (3, 3)])
    assert one == other
    state = one.init()
    for report in reports:
        state, decision = one.update(state, report)
    assert other.verdict(other.load(one.dump(state))).reason == decision.reason


def test_a_mapping_changed_afterwards_changes_no_rule():
    """The rule keeps a copy of its own."""
    metrics = {"loss": {"mode": "min"}}
    rule = MultiMetric(metrics)
    metrics["loss"]["mode"] = "max"
    assert rule == MultiMetric(LOSS)


def test_no_objective_is_asked_for():
    """A stopper takes neither metric nor mode, and misses any of the metrics by name."""
    stopper = RuleStopper(MultiMetric(BOTH))
    with pytest.raises(MissingMetricError, match=r"'acc' is missing.*Did you mean 'acc2'"):
        stopper("t", {"training_iteration": 1, "loss": 1.0, "acc2": 0.5})


def test_a_repeated_step_does_not_count():
    """Ray repeats the last report of a function."""
    reports = [report._replace(step=1) for report in reports_of(LOSS, [(1,), (1,), (1,)])]
    assert stops_at(MultiMetric(LOSS, 1), reports) is None


@pytest.mark.parametrize(
    ("metrics", "options", "rows", "said"),
    [
        (BOTH, {}, [(1, 0.5)], "the score rose to 1"),
        (
            BOTH,
            {},
            [(1, 0.5), (3, 0.5)],
            "1 of 5 evaluations without a rise of the score, now 0.75, best 1 at step 1",
        ),
        (LOSS, {}, [(NAN,)], "now not finite, none finite yet"),
        (
            BOTH | {"acc": {"mode": "max", "weight": 3}},
            VOTE | {"patience": 1},
            [(1, 0.5), (0.5, 0.5)],
            "stalled weight 3 of 4; evaluations without improvement, of 1: acc 1, loss 0",
        ),
    ],
)
def test_the_reason_names_the_numbers_compared(metrics, options, rows, said):
    """The score and its best, or each metric's count."""
    assert said in run_rule(MultiMetric(metrics, **options), reports_of(metrics, rows))[-1].reason


def test_braces_in_a_name_do_no_harm():
    """Reasons are format strings, names are not."""
    metrics = {"f1{macro}": {"mode": "max"}}
    decision = run_rule(MultiMetric(metrics, combine="vote"), reports_of(metrics, [(1,)]))[0]
    assert "f1{macro} 0" in decision.reason


@pytest.mark.parametrize(
    ("options", "least"),
    [({}, -0.99), (RELATIVE, -1e3), (VOTE, -1e3)],
    ids=["reciprocal", "relative", "vote"],
)
@given(data=st.data())
def test_it_agrees_with_the_definition(data, options, least):
    """From all the values, with no state carried along."""
    values = st.floats(least, 1e3)
    rows = data.draw(st.lists(st.tuples(values, values), min_size=1, max_size=20))
    metrics = {"a": {"mode": "min", "weight": 2}, "b": {"mode": "max", "weight": 0.5}}
    if options is VOTE:
        goods = [[-a for a, _ in rows]]  # a's weight decides
    elif options is RELATIVE:
        (a0, b0), tiny = rows[0], 1e-12
        bases = max(abs(a0), tiny), max(abs(b0), tiny)
        goods = [[-2 * ((a - a0) / bases[0]) + 0.5 * ((b - b0) / bases[1]) for a, b in rows]]
    else:
        goods = [[2 * (1 / (1 + a)) + 0.5 * b for a, b in rows]]
    expected = None
    for i in range(3, len(rows) + 1):
        if all(max(good[i - 3 : i]) <= max(good[: i - 3], default=-INF) for good in goods):
            expected = i
            break
    assert stops_at(MultiMetric(metrics, 3, **options), reports_of(metrics, rows)) == expected


@pytest.mark.parametrize("options", [RELATIVE, VOTE], ids=["relative", "vote"])
def test_it_holds_the_contract(options):
    """Each check of the suite, under each policy."""

    @given(curves(metrics=("loss", "acc")), st.sampled_from(["worst", "stop", "ignore"]))
    def holds(reports, policy):
        check_rule(MultiMetric(BOTH, 2, on_nonfinite=policy, **options), reports)

    holds()


@given(curves(metrics=("a", "b")))
def test_it_holds_the_contract_with_reciprocals(reports):
    """Of metrics to maximise, which may have any value."""
    check_rule(MultiMetric({name: {"mode": "max"} for name in "ab"}, 2), reports)


@pytest.mark.parametrize(
    ("metrics", "options", "error", "said"),
    [
        (None, {}, TypeError, "metrics must be a mapping such as .*, got None"),
        (["loss"], {}, TypeError, r"metrics must be a mapping such as .*, got \['loss'\]"),
        ({}, {}, ValueError, "metrics is empty; give, say"),
        ({1: {"mode": "min"}}, {}, TypeError, "metrics must map names of metrics, got 1"),
        ({"": {"mode": "min"}}, {}, TypeError, "metrics must map names of metrics, got ''"),
        ({"a": "min"}, {}, TypeError, r"metrics\['a'\] must be like .*, got 'min'"),
        ({"a": {}}, {}, ValueError, r"metrics\['a'\] needs \"mode\""),
        ({"a": {"mode": "low"}}, {}, ValueError, "mode must be one of min, max, got 'low'"),
        ({"a": {"mode": "min", "wieght": 2}}, {}, ValueError, "unknown key 'wieght'; known: mode"),
        (weighed(a=0), {}, ValueError, r"metrics\['a'\] weight must be > 0, got 0"),
        (weighed(a=-1), {}, ValueError, "weight must be > 0, got -1"),
        (weighed(a=INF), {}, ValueError, "weight must be finite, got inf"),
        (weighed(a="2"), {}, TypeError, "weight must be a number, got '2'"),
        (LOSS, {"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        (LOSS, {"scaling": "rel"}, ValueError, "one of reciprocal, relative, got 'rel'"),
        (LOSS, {"combine": "any"}, ValueError, "one of score, vote, got 'any'"),
    ],
)
def test_wrong_parameters_are_refused(metrics, options, error, said):
    """At construction, with the metric and the value got."""
    with pytest.raises(error, match=said):
        MultiMetric(metrics, **options)
