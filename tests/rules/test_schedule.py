"""Learning-rate awareness: curve and learning rate in, stopping evaluation out."""

import math

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules import AdaptivePatience, GradientNorm, Overfit, Patience, Slope
from tune_stoppers.rules.schedule import LearningRate
from tune_stoppers.testing import run_rule
from tune_stoppers.tune.stoppers.named import (
    AdaptivePatienceStopper,
    GradientStopper,
    OverfitStopper,
    PatienceStopper,
)

NAN = math.nan
WARM = [1, 2, 3, 4, 4, 4, 4, 4]  # rises at the evaluations 2, 3 and 4
FLAT = [5, 5, 5, 5, 5, 5, 5, 5]
COSINE = [4, 3.9, 3.5, 3, 2, 1, 1, 1]  # the third is below 95 % of 4

TABLE = [
    # warm-up: the first evaluation counts, 2 to 4 do not
    ("patience: not in warm-up", Patience, {"patience": 2}, FLAT, WARM, 6),
    ("patience: without lr it stops", Patience, {"patience": 2}, FLAT, None, 3),
    ("patience: a constant lr counts at once", Patience, {"patience": 2}, FLAT, [1] * 8, 3),
    ("patience: a falling lr counts at once", Patience, {"patience": 2}, FLAT, COSINE, 3),
    (
        "patience: a NaN in warm-up is not bad",
        Patience,
        {"patience": 1},
        [5, NAN, 4, 3],
        WARM,
        None,
    ),
    ("patience: a NaN at first is, as ever", Patience, {"patience": 1}, [NAN, 5], WARM, 1),
    ("patience: best moves in warm-up", Patience, {"patience": 1}, [5, 4, 1, 9, 2], WARM, 5),
    (
        "patience: warm-up resets nothing",
        Patience,
        {"patience": 2},
        [5, 6, 4, 6],
        [1, 1, 2, 2],
        4,
    ),
    ("patience: lr that jumps to zero counts", Patience, {"patience": 1}, [5, 5], [1, 0], 2),
    ("patience: from zero", Patience, {"patience": 1}, [5, 5, 5, 5], [0, 0.5, 1, 1], 4),
    ("patience: a NaN lr changes nothing", Patience, {"patience": 1}, FLAT, [1, 2, NAN, 2], 4),
    (
        "patience: what is ignored has no lr",
        Patience,
        {"patience": 1, "on_nonfinite": "ignore"},
        [5, NAN, 5, 5],
        [1, 3, 2, 2],
        4,
    ),
    ("patience: no lr, no evaluation", Patience, {"patience": 1}, FLAT, [1, None, None, 1], 4),
    ("patience: a restart is no warm-up", Patience, {"patience": 3}, FLAT, [4, 1, 2, 3, 5], 4),
    ("patience: a new maximum is", Patience, {"patience": 2}, FLAT, [4, 3, 5, 5, 5], 4),
    # an anneal ahead: the learning rate within 5 % of its maximum before schedule_end
    ("anneal ahead", Patience, {"patience": 2, "schedule_end": 7}, FLAT, [1] * 8, 8),
    ("anneal begun", Patience, {"patience": 2, "schedule_end": 99}, FLAT, COSINE, 4),
    ("exactly 95 %", Patience, {"patience": 1, "schedule_end": 99}, FLAT, [100, 95, 94.9], 3),
    ("from the end on", Patience, {"patience": 1, "schedule_end": 3}, FLAT, [1] * 8, 3),
    (
        "warm-up, stable, decay",
        Patience,
        {"patience": 2, "schedule_end": 8},
        FLAT,
        [1, 2, 2, 2, 2, 1, 0.5, 0.1],
        7,
    ),
    (
        "best moves before the anneal",
        Patience,
        {"patience": 1, "schedule_end": 9},
        [5, 2, 3],
        [*(1, 1, 0.5)],
        3,
    ),
    # the other rules
    (
        "adaptive: not in warm-up",
        AdaptivePatience,
        {"initial_patience": 2, "history": 9},
        FLAT,
        WARM,
        6,
    ),
    (
        "adaptive: flat warm-up shrinks no patience",
        AdaptivePatience,
        {"initial_patience": 3, "min_patience": 1, "window": 2, "history": 3},
        FLAT,
        WARM,
        6,  # its third value is the sixth, where patience becomes 2
    ),
    (
        "adaptive: anneal ahead",
        AdaptivePatience,
        {"initial_patience": 2, "history": 9, "schedule_end": 5},
        FLAT,
        [1] * 8,
        6,
    ),
    ("slope: not in warm-up", Slope, {"patience": 2}, FLAT, WARM, 6),
    ("slope: without lr it stops", Slope, {"patience": 2}, FLAT, None, 3),
    ("slope: anneal ahead", Slope, {"patience": 2, "schedule_end": 4}, FLAT, [1] * 8, 6),
    ("slope: warm-up is in no window", Slope, {"window": 3, "patience": 1}, FLAT, WARM, 6),
    ("GL: a rise in warm-up", Overfit, {}, [5, 6, 7, 6, 5], WARM, None),
    ("GL: compared with the best of warm-up", Overfit, {}, [5, 4, 4, 4, 5], WARM, 5),
    ("GL: anneal ahead", Overfit, {"schedule_end": 3}, [5, 6, 6, 6], [1] * 4, 3),
    (
        "UP: warm-up is in no strip",
        Overfit,
        {"criterion": "up", "strip": 1, "strips": 2},
        [1, 2, 3, 4, 5, 6, 7],
        WARM,
        6,
    ),
]


def reports_of(losses, rates):
    rates = rates or [None] * len(losses)
    return [
        Report("t", step, float(loss), {} if lr is None else {"lr": float(lr)})
        for step, (loss, lr) in enumerate(zip(losses, rates, strict=False), start=1)
    ]


def first(stops):
    return stops.index(True) + 1 if True in stops else None


def stopper_of(rule, mode, **options):
    if rule is Slope:
        return GradientStopper("m", mode, on_missing="skip", **options)
    named = {
        Patience: PatienceStopper,
        AdaptivePatience: AdaptivePatienceStopper,
        Overfit: OverfitStopper,
    }
    return named[rule]("m", mode, on_missing="skip", **options)


@pytest.mark.parametrize(
    ("rule", "options", "losses", "rates", "expected"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_where_it_stops(rule, options, losses, rates, expected):
    """The rule, and the stopper in both modes."""
    if rates:
        options = options | {"lr_metric": "lr"}
    reports = reports_of(losses, rates)
    decided = run_rule(rule(**options), reports)
    assert first([decision.action is Action.STOP for decision in decided]) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        stopper = stopper_of(rule, mode, **options)
        stops = [
            stopper("t", {"training_iteration": r.step, "m": sign * r.loss, **r.metrics})
            for r in reports
        ]
        assert first(stops) == expected


def test_the_gradient_norm_is_judged_once_warm_up_is_over():
    """Small norms, and the early norm that others are measured by, are those after it."""
    norms = [9, 9, 9, 9, 1, 1, 1, 0.05, 0.05]
    rates = [1, 2, 3, 4, 4, 4, 4, 4, 4]
    rule = GradientNorm(0.1, 2, relative=True, lr_metric="lr")
    decided = run_rule(
        rule,
        [
            Report("t", step, None, {"grad_norm": float(n), "lr": float(lr)})
            for step, (n, lr) in enumerate(zip(norms, rates, strict=True), start=1)
        ],
    )
    assert first([decision.action is Action.STOP for decision in decided]) == 9
    assert "of its early norm 1)" in decided[-1].reason
    stopper = GradientStopper(source="grad_norm", threshold=0.1, patience=1, lr_metric="lr")
    told = [{"training_iteration": i, "grad_norm": 0.01, "lr": i} for i in (1, 2, 3)]
    assert not any(stopper("t", result) for result in told)


def test_the_reason_names_the_phase_and_the_numbers():
    """Why a flat curve goes on."""
    rule = Patience(1, lr_metric="lr", schedule_end=20)
    warm, ahead, fallen = run_rule(rule, reports_of([5, 5, 5, 5], [1, 2, 1.95, 1]))[1:]
    assert warm.reason == "lr still in warm-up: not counted, 2 after 1 at most"
    assert warm.numbers == {"lr": 2.0, "highest": 2.0}
    assert ahead.reason == (
        "an anneal lies ahead until step 20: not counted, lr 1.95 is within 5 % of its maximum 2"
    )
    assert fallen.reason.startswith("1 of 1 evaluations without improvement")


def test_an_evaluation_that_does_not_count_undoes_a_stop_only_while_it_lasts():
    """In shadow mode, say: the count of bad ones is where it was."""
    rule = Patience(2, lr_metric="lr")
    decided = run_rule(rule, reports_of([5] * 5, [1, 1, 1, 2, 2]))
    actions = [decision.action.value for decision in decided]
    assert actions == ["CONTINUE", "CONTINUE", "STOP", "CONTINUE", "STOP"]


def test_a_value_that_is_not_finite_follows_its_policy_in_warm_up_too():
    """Awareness is about plateaus."""
    rule = Patience(9, lr_metric="lr", on_nonfinite="stop")
    assert run_rule(rule, reports_of([5, NAN], [1, 2]))[-1].action is Action.STOP


def test_a_trial_that_goes_back_goes_back_in_its_schedule():
    """The learning rate before the rewind is forgotten with the rest."""
    stopper = PatienceStopper("m", "min", patience=1, lr_metric="lr")
    told = [(1, 1.0), (2, 3.0), (1, 1.0), (2, 2.0), (3, 2.0)]
    stops = [stopper("t", {"training_iteration": s, "m": 5.0, "lr": lr}) for s, lr in told]
    assert stops == [False, False, False, False, True]


def test_states_without_a_learning_rate_are_as_they_were():
    """What an earlier version dumped loads, and a state of the other kind is refused."""
    rule = Patience(2)
    state, _ = rule.update(rule.init(), Report("t", 1, 5.0))
    data = rule.dump(state)
    assert set(data["state"]["own"]) == {"best", "best_step", "bad", "loss", "patience", "window"}
    with pytest.raises(ValueError, match="expected"):
        Patience(2, lr_metric="lr").load(data)


@pytest.mark.parametrize(
    ("rates", "step", "end", "said"),
    [
        ([], 1, 9, None),
        ([1.0], 1, None, None),
        ([1.0], 1, 9, "anneal"),
        ([1.0, 2.0], 2, None, "warm-up"),
        ([1.0, 2.0], 2, 9, "warm-up"),
        ([1.0, 2.0, 2.0], 3, None, None),
        ([1.0, 2.0, 1.9], 3, 9, "anneal"),
        ([1.0, 2.0, 1.89], 3, 9, None),
        ([1.0, 2.0, 2.0], 9, 9, None),
        ([0.0, 0.0], 2, None, None),
        ([1.0, 2.0, NAN], 3, None, "warm-up"),
        ([NAN], 1, None, None),
    ],
)
def test_the_phase_of_a_schedule(rates, step, end, said):
    """As any rule or scheduler asks it: learning rates in, phase out."""
    rate = LearningRate()
    for lr in rates:
        rate = rate.then(lr)
    holds = rate.holds(step, end)
    assert holds is None if said is None else said in holds


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"lr_metric": ""}, ValueError, "lr_metric is empty"),
        ({"lr_metric": 3}, TypeError, "lr_metric must be a name, got 3"),
        ({"schedule_end": 9}, ValueError, "schedule_end = 9 needs the learning rate: give lr_m"),
        ({"lr_metric": "lr", "schedule_end": 0}, ValueError, "schedule_end must be > 0, got 0"),
        ({"lr_metric": "lr", "schedule_end": NAN}, ValueError, "schedule_end must be finite"),
        ({"lr_metric": "lr", "schedule_end": "9"}, TypeError, "schedule_end must be a number"),
    ],
)
@pytest.mark.parametrize("rule", [Patience, AdaptivePatience, Slope, Overfit])
def test_wrong_parameters_are_refused(rule, options, error, said):
    """At construction, by the rule and by the stopper."""
    with pytest.raises(error, match=said):
        rule(**options)
    with pytest.raises(error, match=said):
        stopper_of(rule, "min", **options)
