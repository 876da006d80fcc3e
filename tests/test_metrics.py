"""From what frameworks log to what a rule sees."""

import json
import logging
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from ray.tune.utils.util import SafeFallbackEncoder

from tune_stoppers.core import MissingMetricError, Report
from tune_stoppers.metrics import MetricReader, closest, flat_keys, lookup, number, recorded
from tune_stoppers.rules import Divergence, On, Patience


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.5, 0.5),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(0.5), 0.5),
        (np.array([[0.5]]), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([2], dtype=torch.int64), 2.0),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (math.inf, math.inf),
        (torch.tensor(-math.inf), -math.inf),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (None, None),
        ("0.5", None),
        (b"0.5", None),
        (1j, None),
        (np.complex64(1), None),
        ([0.5], None),
        ({"a": 0.5}, None),
        (np.array([1.0, 2.0]), None),
        (np.array([]), None),
        (np.array("0.5"), None),
        (torch.tensor([1.0, 2.0]), None),
        (torch.empty(1, device="meta"), None),
    ],
    ids=repr,
)
def test_one_real_number_is_a_number_and_nothing_else(value, expected):
    """numpy and torch scalars count; strings, None and larger tensors are missing."""
    assert number(value) == expected


def written(value: object) -> object:
    """What is read of a value that Ray's JSON logger wrote."""
    return json.loads(json.dumps(value, cls=SafeFallbackEncoder))


@pytest.mark.parametrize(
    "value",
    [
        *(1, 0.5, True, 10**400, -(10**400), math.inf, -math.inf),
        *(Decimal("0.5"), Decimal("-1E+3"), Fraction(1, 2), Fraction(3), Fraction(-2, 3)),
        *(np.float32(0.5), np.int64(3), np.bool_(True), np.array(0.5), np.array([[0.5]])),
        *(torch.tensor(0.5), torch.tensor([2]), torch.tensor([[-1.5e-7]], dtype=torch.float64)),
        torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True),
        *(None, "abc", "", "1/0", "0.5.1", "tensor", "9" * 5000, b"0.5", 1j, {"a": 0.5}),
        *(np.array([1.0, 2.0]), np.array([]), np.array("x"), torch.tensor([1.0, 2.0])),
    ],
    ids=repr,
)
def test_a_number_is_the_same_live_and_out_of_a_file(value):
    """However Ray wrote it: as a list, or as a text."""
    assert recorded(written(value)) == number(value)


@pytest.mark.parametrize("value", [np.float32("nan"), np.array([math.nan]), torch.tensor(math.nan)])
def test_nan_is_nan_out_of_a_file(value):
    """Diverged, not missing."""
    assert math.isnan(recorded(written(value)))


@pytest.mark.parametrize("value", [math.nan, np.float64("nan"), torch.tensor(math.nan)])
def test_nan_is_a_number_that_is_there(value):
    """A loss of NaN is not a missing loss."""
    assert math.isnan(number(value))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"eval/loss": 1}, 1),
        ({"eval": {"loss": 1}}, 1),
        ({"eval": {"loss": 1}, "eval/loss": 2}, 2),
        ({"eval": {"sub": {"x": 1}}}, None),
        ({"eval": 3}, None),
        ({"eval": [{"loss": 1}]}, None),
        ({"loss": 1}, None),
        ({}, None),
    ],
)
def test_a_slashed_name_reads_nested_and_flat_results(result, expected):
    """Ray hands stoppers the nested form and schedulers the flat one."""
    assert lookup(result, "eval/loss") == expected


def test_a_nested_key_may_hold_a_slash_itself():
    """Every cut of the name is tried."""
    assert lookup({"a/b": {"c": 1}}, "a/b/c") == 1
    assert lookup({"a": {"b/c": 2}}, "a/b/c") == 2


@pytest.mark.parametrize(
    ("result", "key", "expected"),
    [
        ({"report": [{"f1": 0.5}, {"f1": 0.25}]}, "report/1/f1", 0.25),
        ({"report": [0.5, 0.25]}, "report/1", 0.25),
        ({"report": {1: {"f1": 0.25}}}, "report/1/f1", 0.25),
        ({"report": {"1": {"f1": 0.25}}}, "report/1/f1", 0.25),
        ({"eval/report": [{"f1": 0.5}]}, "eval/report/0/f1", 0.5),
        ({"report": [{"f1": 0.5}]}, "report/1/f1", None),
        ({"report": [{"f1": 0.5}]}, "report/-1/f1", None),
        ({"report": "0.5"}, "report/0", None),
    ],
)
def test_lists_are_entered_by_index(result, key, expected):
    """And keys that are integers by their digits, as JSON would write them."""
    assert lookup(result, key) == expected


def test_flat_keys_enters_lists_if_asked():
    """For messages; a configuration's list is one value."""
    result = {"a": [{"b": 1}, 2], "c": []}
    assert flat_keys(result) == ["a", "c"]
    assert flat_keys(result, lists=True) == ["a/0/b", "a/1", "c"]


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("f1", ["eval_f1", "epoch", "f"], " Did you mean 'eval_f1'?"),
        ("eval_f1", ["f1", "loss"], " Did you mean 'f1'?"),
        ("f1", ["eval_b_f1", "eval_a_f1"], " Did you mean 'eval_a_f1' or 'eval_b_f1'?"),
        ("f1", ["eval_report/0/f1", "x"], " Did you mean 'eval_report/0/f1'?"),
        ("eval_f1", ["eval_report/0/f1", "eval_loss"], " Did you mean 'eval_report/0/f1'?"),
        ("eval_loss", ["eval_a_loss", "epoch"], " Did you mean 'eval_a_loss'?"),
        ("F1", ["eval_f1"], " Did you mean 'eval_f1'?"),
        ("F1", ["f1", "eval_f1"], " Did you mean 'f1'?"),
        ("eval_los", ["eval_loss", "loss"], " Did you mean 'eval_loss'?"),
        ("f1", ["precision"], ""),
        ("", ["a_"], ""),
    ],
)
def test_the_closest_name(name, known, said):
    """One that ends as the name does, else one that looks like it."""
    assert closest(name, known) == said


def test_flat_keys_joins_what_is_nested():
    """As Ray's loggers show them; an empty folder keeps its name."""
    assert flat_keys({"a": {"b": 1, "c": {"d": 2}}, "e": {}, "f": 3}) == ["a/b", "a/c/d", "e", "f"]


def reader(rule=None, **options):
    options = {"metric": "loss", "mode": "min"} | options
    return MetricReader("Stopper", rule or Patience(), **options)


def test_the_objective_is_a_loss_under_either_mode():
    """Lower is better for a rule, whatever the user maximises."""
    assert reader().read("t", 3, {"loss": 0.5}) == Report("t", 3, 0.5)
    assert reader(mode="max").read("t", 3, {"loss": 0.5}) == Report("t", 3, -0.5)


def test_the_metrics_that_a_rule_reads_keep_their_sign():
    """Only the objective is turned round, and nothing else is handed over."""
    rule = Divergence(gradient_limit=1.0, gradient_metric="train/norm")
    result = {"loss": 0.5, "train": {"norm": 2}, "other": 1}
    assert reader(rule, mode="max").read("t", 1, result).metrics == {"train/norm": 2.0}


def test_a_metric_that_was_never_reported_names_those_that_were():
    """The owner, the trial, the names present and the closest of them; none of the framework's."""
    hidden = reader(hidden=frozenset({"pid", "config"}))
    result = {"eval": {"loss": 1.0}, "los": 2.0, "pid": 7, "config": {"lr": 0.1}}
    with pytest.raises(MissingMetricError) as raised:
        hidden.read("t7", 1, result)
    assert str(raised.value) == (
        "Stopper: 'loss' is missing in the report of trial t7. It has: eval/loss, los. "
        "Did you mean 'eval/loss'? If it comes later, or not from all: on_missing=\"skip\"."
    )


def test_a_metric_that_is_no_number_says_what_it_is():
    """A string is missing, and the message shows it."""
    with pytest.raises(MissingMetricError, match=r"'loss' is no number but str '0\.5 nats'"):
        reader().read("t", 1, {"loss": "0.5 nats"})


def test_a_long_list_of_names_is_cut():
    """Twenty names at most."""
    with pytest.raises(MissingMetricError, match=r"m19, …\."):
        reader().read("t", 1, {f"m{i:02}": 1.0 for i in range(30)})


def test_once_seen_a_metric_may_be_absent_with_one_warning_a_trial(caplog):
    """Training logs between evaluations, and broken trials, end no sweep."""
    one = reader()
    one.read("a", 1, {"loss": 1.0})
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        found = [one.read(trial, step, {"x": 1}).loss for trial in "ab" for step in (2, 3)]
    assert found == [None] * 4
    assert [record.args[0].count("of trial a") for record in caplog.records] == [1, 0]


def test_an_optional_metric_never_raises_and_warns_once(caplog):
    """It may come later; the warning names the trainer's setting, in an evaluation's name too."""
    kl, loss = (On(name, Patience(1), "min", optional=True) for name in ("eval_kl", "m"))
    reader = MetricReader("R", kl | loss, None)
    assert reader.read("a", 1, {"m": 1.0}).metrics == {"m": 1.0}
    assert reader.read("b", 1, {}).metrics == {}
    (said,) = (record.getMessage() for record in caplog.records)
    assert "'eval_kl' is missing" in said and "beta above 0: GRPOConfig(beta=0.04)" in said
    assert reader.read("b", 2, {"eval_kl": 0.5, "m": 1.0}).metrics == {"eval_kl": 0.5, "m": 1.0}


def test_a_missing_metric_of_trl_says_what_logs_it():
    """A rule that needs it fails, with the setting to change."""
    reader = MetricReader("R", On("kl", Patience(1), "min"), None)
    with pytest.raises(MissingMetricError, match=r"'kl' is missing.*with beta above 0"):
        reader.read("a", 1, {"reward": 1.0})


def test_skip_never_raises_and_warns_once(caplog):
    """Under "skip" a metric may come late, or never."""
    one = reader(on_missing="skip")
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert one.read("a", 1, {"x": 1}).loss is None
        assert one.read("a", 2, {"x": 1}).loss is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"mode": None}, ValueError, "Stopper mode must be one of min, max, got None."),
        ({"mode": "auto"}, ValueError, "Stopper mode must be one of min, max, got 'auto'."),
        ({"metric": None}, TypeError, "Stopper needs metric, the name of what trials report"),
        ({"metric": ""}, ValueError, "got ''"),
        ({"metric": 3}, TypeError, "got 3"),
        ({"on_missing": "warn"}, ValueError, "on_missing must be one of raise, skip, got 'warn'"),
    ],
)
def test_bad_options_are_refused_at_once(options, error, said):
    """The mode is required and never guessed."""
    with pytest.raises(error, match=said):
        reader(**options)
