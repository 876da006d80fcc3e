"""Advice: what to begin with, and why."""

import subprocess
import sys

import pytest

from tune_stoppers import recipes
from tune_stoppers.advice import MetricAdvice, recommend_metric, recommend_parameters
from tune_stoppers.rules import Patience

PARAMETERS = [
    ("a small model on little data, as documented", 500, "small", 5, 0.005),
    ("a medium model on little data", 500, "medium", 7, 0.005),
    ("a large model on little data", 500, "large", 10, 0.005),
    ("one example is little data", 1, "small", 5, 0.005),
    ("just below a thousand", 999, "medium", 7, 0.005),
    ("a thousand is the usual case", 1_000, "medium", 5, 0.001),
    ("a small model on usual data", 5_000, "small", 3, 0.001),
    ("just below ten thousand", 9_999, "large", 8, 0.001),
    ("ten thousand is much data", 10_000, "large", 7, 0.0005),
    ("a small model on much data", 10**6, "small", 2, 0.0005),
    ("a medium model on much data", 10**9, "medium", 4, 0.0005),
]


@pytest.mark.parametrize(
    ("size", "model", "patience", "min_delta"),
    [row[1:] for row in PARAMETERS],
    ids=[row[0] for row in PARAMETERS],
)
def test_parameters_by_size_and_model(size, model, patience, min_delta):
    """The table, with both numbers and what they come from in `why`."""
    advice = recommend_parameters(size, model)
    why = advice.pop("why")
    assert advice == {"patience": patience, "min_delta": min_delta, "mode": "min"}
    assert model in why and f"{size:,}" in why and str(min_delta) in why


def test_the_reason_adds_up():
    """From the base of the model to the patience advised."""
    assert recommend_parameters(500, "small")["why"] == (
        "a small model begins with patience 3; 500 examples make evaluations noisy: "
        "patience +2, min_delta 0.005"
    )


def test_the_parameters_are_those_of_the_rule():
    """They can be handed over by name."""
    advice = recommend_parameters(20_000, "large")
    rule = Patience(advice["patience"], advice["min_delta"])
    assert (rule.patience, rule.min_delta) == (7, 0.0005)


@pytest.mark.parametrize(
    ("size", "model", "error", "said"),
    [
        (0, "small", ValueError, "dataset_size must be >= 1, got 0"),
        (-5, "small", ValueError, "dataset_size must be >= 1, got -5"),
        (1e4, "small", TypeError, r"dataset_size must be an integer, got 10000\.0"),
        ("many", "small", TypeError, "dataset_size must be an integer, got 'many'"),
        (None, "small", TypeError, "dataset_size must be an integer, got None"),
        (10, "huge", ValueError, "one of small, medium, large, got 'huge'"),
        (10, "", ValueError, "one of small, medium, large, got ''"),
        (10, None, ValueError, "one of small, medium, large, got None"),
    ],
)
def test_what_is_unknown_is_refused(size, model, error, said):
    """A bad size, and a complexity that is none of those listed."""
    with pytest.raises(error, match=said):
        recommend_parameters(size, model)


METRICS = [
    ("classification", "transformer", "accuracy", "max"),
    ("classification", "rnn", "accuracy", "max"),
    ("generation", "transformer", "perplexity", "min"),
    ("generation", "rnn", "perplexity", "min"),
    ("qa", "transformer", "f1_score", "max"),
    ("qa", "rnn", "exact_match", "max"),
    ("summarization", "transformer", "rouge_l", "max"),
    ("summarization", "rnn", "rouge_l", "max"),
    ("sft", "transformer", "eval_loss", "min"),
    ("dpo", "transformer", "eval_loss", "min"),
    ("grpo", "transformer", "reward", "max"),
    ("regression", "transformer", "loss", "min"),
    ("sft", "cnn", "loss", "min"),
    ("qa", "cnn", "loss", "min"),
    ("", "", "loss", "min"),
]


@pytest.mark.parametrize(("task", "model", "metric", "mode"), METRICS)
def test_metric_by_task_and_model(task, model, metric, mode):
    """With its direction; anything unknown gets the loss."""
    advice = recommend_metric(task, model)
    assert isinstance(advice, MetricAdvice)
    assert (advice.metric, advice.mode) == (metric, mode)
    assert advice.why


def test_the_reason_lists_what_is_known():
    """So that a typo shows."""
    task = recommend_metric("summarisation", "transformer").why
    assert "'summarisation'" in task
    assert "classification, generation, qa, summarization, sft, dpo, grpo, rloo" in task
    model = recommend_metric("qa", "lstm").why
    assert "'lstm'" in model and "transformer, rnn" in model


def test_the_metric_is_one_that_trainers_log() -> None:
    """By their names: what compute_metrics returns gets a prefix, and perplexity is not logged."""
    assert "logs eval_rouge_l" in recommend_metric("summarization", "transformer").why
    assert "logs eval_loss" in recommend_metric("generation", "transformer").why
    assert recommend_metric("dpo", "transformer").metric == recipes.dpo().metric
    for task in ("grpo", "rloo"):
        assert recommend_metric(task, "transformer").metric == recipes.grpo().metric
    assert recommend_metric("sft", "transformer").metric == recipes.validation_loss().metric


def test_advice_needs_no_heavy_import():
    """It answers in a shell at once."""
    code = (
        "import sys, tune_stoppers.advice; "
        "print({'ray', 'torch', 'pandas', 'numpy', 'scipy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
