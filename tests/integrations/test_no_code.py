"""A callback out of a line, a mapping or a file; and a Trainer that it ends."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.training.test_hf import train
from tune_stoppers import RuleCallback, callback_from, recipes
from tune_stoppers.integrations.no_code import from_environment, taken_out
from tune_stoppers.rules import Divergence, On, Patience, Rollback, Threshold

MAPPING = {"rule": "Patience(2) | Divergence()", "metric": "eval_loss", "mode": "max"}
LINE = 'RuleCallback(Patience(2) | Divergence(), "eval_loss", "max")'


def said(callback: RuleCallback) -> tuple[object, ...]:
    return callback.rule, callback.metric, callback.mode, callback.on_missing, callback.factor


@pytest.mark.parametrize("given", [LINE, MAPPING], ids=["a line", "a mapping"])
def test_it_ends_a_trainer(tmp_path: Path, given: object) -> None:
    """As the callback written in Python does."""
    callback = callback_from(given)
    assert said(callback) == said(RuleCallback(Patience(2) | Divergence(), "eval_loss", "max"))
    assert train(tmp_path, callback).state.global_step == 6
    assert callback.reason.startswith("Patience: 2 of 2 evaluations without improvement")


@pytest.mark.parametrize(
    ("line", "callback"),
    [
        ("RuleCallback(3, 'eval_loss', 'min')", RuleCallback(3, "eval_loss", "min")),
        (
            "RuleCallback(ThresholdStopper(threshold=0.9), 'eval_f1', mode='max')",
            RuleCallback(Threshold(-0.9), "eval_f1", "max"),
        ),
        (
            "RuleCallback(On('kl', ThresholdStopper(threshold=0.5), 'max') | Patience(9), 'reward',"
            " 'max', on_missing='skip')",
            RuleCallback(
                On("kl", Threshold(-0.5), "max") | Patience(9), "reward", "max", on_missing="skip"
            ),
        ),
        (
            " RuleCallback(Rollback(patience=3), 'eval_loss', 'min', factor=0.1)\n",
            RuleCallback(Rollback(patience=3), "eval_loss", "min", factor=0.1),
        ),
    ],
)
def test_a_line_is_what_one_would_write_in_python(line: str, callback: RuleCallback) -> None:
    """A stopper's name takes its numbers as the metric is."""
    assert said(callback_from(line)) == said(callback)


def test_a_file_has_the_mapping_or_has_it_among_others(tmp_path: Path) -> None:
    """YAML or JSON; with a folder that keeps the best state."""
    text = "rule: Patience(2) | Divergence()\nmetric: eval_loss\nmode: max\n"
    alone, among = tmp_path / "stop.yaml", tmp_path / "train.yml"
    alone.write_text(text + f"keep: {tmp_path / 'best'}\n")
    among.write_text("learning_rate: 0.1\ntune_stoppers:\n  " + text.replace("\n", "\n  "))
    (tmp_path / "stop.json").write_text(json.dumps(MAPPING))
    for path in (alone, among, tmp_path / "stop.json"):
        assert (
            said(callback_from(path)) == said(callback_from(str(path))) == said(callback_from(LINE))
        )
    assert callback_from(alone).keeper.directory == tmp_path / "best"


def test_a_recipe_by_its_name() -> None:
    """With its own metric and mode, and its parameters."""
    found = callback_from({"recipe": "sft(target=0.2)", "on_missing": "skip"})
    recipe = recipes.sft(0.2)
    assert (found.rule, found.metric, found.mode) == (recipe.rule, "loss", "min")
    other = callback_from({"recipe": "validation_loss", "metric": "eval_b_loss"})
    assert (other.metric, other.rule) == ("eval_b_loss", recipes.validation_loss().rule)
    rewarded = callback_from({"recipe": "grpo(max_kl=0.2)", "metric": "eval_reward"})
    assert rewarded.rule == recipes.grpo(max_kl=0.2, metric="eval_reward").rule
    assert (rewarded.metric, rewarded.mode) == ("eval_reward", "max")


def test_the_environment_and_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a configuration comes first and is taken out of it."""
    monkeypatch.delenv("TUNE_STOPPERS", raising=False)
    assert from_environment() is None
    assert taken_out({"lr": 1}) is None
    monkeypatch.setenv("TUNE_STOPPERS", LINE)
    assert said(from_environment()) == said(taken_out({"lr": 1})) == said(callback_from(LINE))
    config = {"lr": 1, "tune_stoppers": {"rule": 4, "metric": "loss", "mode": "min"}}
    assert taken_out(config).rule == Patience(4)
    assert config == {"lr": 1}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("Patience(3)", ValueError, r'write RuleCallback\(Patience\(3\), "eval_loss", "min"\)'),
        ("RuleCallback(Patienc(3), 'x', 'min')", ValueError, "'Patienc.*' is no literal"),
        ("RuleCallback(3, 'x')", ValueError, "mode must be one of min, max"),
        ("__import__('os')", ValueError, "Unknown name '__import__'"),
        ("", ValueError, "is no expression"),
        ({}, ValueError, "needs one of rule and recipe, got nothing"),
        ({"rule": 3, "recipe": "sft"}, ValueError, "needs one of rule and recipe"),
        ({"rul": 3}, ValueError, "no key 'rul'. Did you mean 'rule'"),
        ({"rule": 3, "metric": "x"}, ValueError, "mode must be one of min, max"),
        ({"rule": "Threshold(0.9)", "metric": "x", "mode": "max"}, ValueError, "ThresholdStopper"),
        ({"recipe": "stf"}, ValueError, "Did you mean 'sft'"),
        ({"recipe": "sft", "mode": "max"}, ValueError, "a recipe has its mode"),
        ({"rule": 3.5, "metric": "x", "mode": "min"}, TypeError, "patience"),
        (3, TypeError, "takes a line, a mapping or a path, got 3"),
        ("not_there.yaml", FileNotFoundError, r"not_there\.yaml"),
    ],
)
def test_what_is_not_understood(given: object, error: type[Exception], message: str) -> None:
    """One error, with what to write."""
    with pytest.raises(error, match=message):
        callback_from(given)


@pytest.mark.parametrize("text", ["- a list", "a: [", "3"])
def test_a_file_without_keys(tmp_path: Path, text: str) -> None:
    """Its path is in the error."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml (cannot be read|needs keys and values)"):
        callback_from(tmp_path / "a.yaml")


DOCS = (Path(__file__).parents[2] / "docs" / "no_code.md").read_text(encoding="utf-8")


def test_the_lines_to_paste_are_understood() -> None:
    """Each block of YAML on the page, and each line for the environment."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCS, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        assert taken_out(yaml.safe_load(block)) is not None
    (line,) = re.findall(r"^export TUNE_STOPPERS='(.*)'$", DOCS, flags=re.MULTILINE)
    assert callback_from(line).metric == "eval_loss"
    for module in re.findall(r"-m (tune_stoppers\.integrations\.\w+)", DOCS):
        assert find_spec(module) is not None
