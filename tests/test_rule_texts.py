"""Rules as text: which rule a text makes, and in whose units its numbers are."""

import pytest

from tune_stoppers import rules
from tune_stoppers.expressions import ExpressionError
from tune_stoppers.rule_texts import LOSS_UNITS, rule_of
from tune_stoppers.rules import (
    After,
    AllOf,
    AnyOf,
    AtLeast,
    Budget,
    Divergence,
    Forecast,
    Not,
    On,
    Patience,
    Rollback,
    Threshold,
)
from tune_stoppers.tune.stoppers import named


@pytest.mark.parametrize(
    ("text", "mode", "rule"),
    [
        ("Patience(3)", "min", Patience(3)),
        ("Patience", "max", Patience()),
        ("Patience(3) | Divergence()", "max", Patience(3) | Divergence()),
        ("AllOf(Patience(3), Threshold(0.1))", "min", AllOf(Patience(3), Threshold(0.1))),
        ("AtLeast(2, Patience, Divergence)", "min", AtLeast(2, Patience(), Divergence())),
        ("After(10, Not(Patience(3)))", "max", After(10, Not(Patience(3)))),
        ("AnyOf(Patience(3))", "min", AnyOf(Patience(3))),
        ("Budget(trial_seconds=60)", None, Budget(60)),
        ("BudgetStopper(trial_seconds=60)", None, Budget(60)),
        ("Rollback(patience=2) | Patience", "min", Rollback(patience=2) | Patience()),
        ("Threshold(0.1, smoothing={'ema': 0.9})", "min", Threshold(0.1, smoothing={"ema": 0.9})),
        (
            "On('kl', Patience(2), 'min', optional=True)",
            None,
            On("kl", Patience(2), "min", optional=True),
        ),
        (
            "PatienceStopper(patience=3) | On('acc', ThresholdStopper(threshold=0.9), mode='max')",
            "min",
            Patience(3) | On("acc", Threshold(-0.9), "max"),
        ),
        ("ThresholdStopper(threshold=0.9)", "min", Threshold(0.9)),
        ("ThresholdStopper(threshold=0.9)", "max", Threshold(-0.9)),
        ("On('kl', Threshold(0.1), 'min')", "max", On("kl", Threshold(0.1), "min")),
        ("DivergenceStopper(limit=-50)", "max", Divergence(limit=50)),
    ],
)
def test_a_text_makes_the_rule(text, mode, rule):
    """As in Python; a stopper's name takes numbers as the metric is, also within `On`."""
    assert rule_of(text, mode) == rule


@pytest.mark.parametrize(
    ("text", "mode", "error", "said"),
    [
        ("Threshold(0.9)", "max", ExpressionError, r"write ThresholdStopper\(threshold=…\)"),
        ("On('acc', Threshold(0.9), 'max')", "min", ExpressionError, "got 0.9"),
        ("Patience(3, baseline=0.5)", "max", ExpressionError, r"write PatienceStopper\(baseline"),
        ("Patience(3, mode='max')", "min", ExpressionError, "mode='max' has no place"),
        ("PatienceStopper('eval_loss')", "min", ExpressionError, "by name here, got 'eval_loss'"),
        ("Patienc(3)", "min", ExpressionError, "Did you mean 'Patience'"),
        ("Patience(0)", "min", ValueError, "patience must be >= 1, got 0"),
        ("On('kl', Patience)", "min", TypeError, "mode"),
        ("Patience(3)", "up", ValueError, "mode must be one of min, max, got 'up'"),
        ("'Patience(3)'", "min", ExpressionError, "is not understood"),
        ("", "min", ExpressionError, "is no expression"),
    ],
)
def test_what_a_text_cannot_say(text, mode, error, said):
    """One error that says what to write."""
    with pytest.raises(error, match=said):
        rule_of(text, mode)


def test_the_units_are_those_of_the_stoppers():
    """Which parameters are turned into losses is written in both places."""
    for kind in (*LOSS_UNITS, "AdaptivePatience", "Recovery", "MultiMetric"):
        stopper = getattr(named, f"{kind}Stopper")
        assert stopper.in_metric_units == LOSS_UNITS.get(kind, ())
        assert stopper.rule_class is getattr(rules, kind)
    assert rule_of("Forecast(max_t=9)", "max") == Forecast(max_t=9)
