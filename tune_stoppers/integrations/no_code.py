"""A Trainer callback out of a line of text, or out of YAML."""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tune_stoppers import recipes
from tune_stoppers.core import BaseRule, Mode, OnMissing
from tune_stoppers.expressions import ExpressionError, Maker, parse
from tune_stoppers.metrics import closest
from tune_stoppers.rule_texts import rule_names, rule_of
from tune_stoppers.training.hf import RuleCallback
from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.on_resume import OnResume

KEY = "tune_stoppers"  # in a configuration that has other things in it
VARIABLE = "TUNE_STOPPERS"  # of the environment
_FILES = (".yaml", ".yml", ".json")


def callback_from(given: str | os.PathLike[str] | Mapping[str, Any]) -> RuleCallback:
    """The `RuleCallback` that a line, a mapping or a file describes.

    ::

        callback_from('RuleCallback(Patience(3) | Divergence(), "eval_loss", "min")')
        callback_from({"rule": "Patience(3) | Divergence()", "metric": "eval_loss", "mode": "min"})
        callback_from({"recipe": "sft(target=0.2)"})
        callback_from("early_stopping.yaml")  # with such a mapping in it

    A line is what one would write in Python, with calls of known names and literals alone; nothing
    is evaluated. `tune_stoppers.rule_texts` says in whose units its numbers are.

    Args:
        given: a line; a mapping; or the path of a YAML or JSON file, whose mapping may be under
            the key `tune_stoppers`. A mapping has `rule` (a text, or a patience) with `metric` and
            `mode`, or `recipe`, one of `tune_stoppers.recipes`; and, if wanted, `on_missing`,
            `on_resume` and `factor` as in `RuleCallback`, and `keep`, a folder in which the best
            state is kept.

    Raises `ValueError` (`ExpressionError` is one) or `TypeError` that says what was not understood
    and what to write; `FileNotFoundError` for a file that is not there.
    """
    if isinstance(given, Mapping):
        return _from_mapping(given)
    if isinstance(given, os.PathLike) or str(given).strip().endswith(_FILES):
        return _from_mapping(_read(Path(str(given).strip())))
    if not isinstance(given, str):
        raise TypeError(f"callback_from takes a line, a mapping or a path, got {given!r}.")
    made = parse(given, {**rule_names(), "RuleCallback": Maker(_callback)}, mode=None)
    if isinstance(made, BaseRule):
        raise ExpressionError(
            f"{given.strip()} is a rule, which needs its metric: write RuleCallback({given.strip()}"
            ', "eval_loss", "min").'
        )
    assert isinstance(made, RuleCallback)
    return made


def from_environment() -> RuleCallback | None:
    """What the environment variable TUNE_STOPPERS describes; None if it is not set."""
    given = os.environ.get(VARIABLE, "").strip()
    return callback_from(given) if given else None


def _callback(
    rule: BaseRule | int,
    metric: str | None = None,
    mode: Mode | None = None,
    *,
    on_missing: OnMissing = "raise",
    on_resume: OnResume = "restore",
    factor: float | None = None,
    keep: str | None = None,
) -> RuleCallback:
    """A `RuleCallback`; `keep` is the folder of its keeper."""
    return RuleCallback(
        rule,
        metric,
        mode,
        on_missing=on_missing,
        on_resume=on_resume,
        factor=factor,
        keeper=None if keep is None else BestStateKeeper(keep),
    )


def _from_mapping(given: Mapping[str, Any]) -> RuleCallback:
    named = dict(given)
    known = [*inspect.signature(_callback).parameters, "recipe"]
    for name in named:
        if name not in known:
            raise ValueError(
                f"{KEY} has no key {name!r}.{closest(str(name), known)} It takes: "
                f"{', '.join(known)}."
            )
    if ("rule" in named) == ("recipe" in named):
        raise ValueError(f"{KEY} needs one of rule and recipe, got {named or 'nothing'}.")
    if "recipe" in named:
        if "mode" in named:
            raise ValueError(f"{KEY}: a recipe has its mode; leave mode={named['mode']!r} out.")
        metric = {"metric": named.pop("metric")} if "metric" in named else {}
        recipe = parse(str(named.pop("recipe")), _recipes(), **metric)
        named |= {**recipe.objective, "rule": recipe.rule}
    elif isinstance(named["rule"], str):
        named["rule"] = rule_of(named["rule"], named.get("mode"))
    return _callback(**named)


def _recipes() -> dict[str, Callable[..., Any]]:
    """The recipes by name."""
    return {
        name: make
        for name, make in vars(recipes).items()
        if inspect.isfunction(make) and make.__annotations__.get("return") is recipes.Recipe
    }


def _read(path: Path) -> Mapping[str, Any]:
    """The mapping in a file."""
    data = read_config(path)
    return data[KEY] if isinstance(data.get(KEY), Mapping) else data


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; `ValueError` if there is none."""
    import yaml  # comes with transformers

    text = Path(path).read_text(encoding="utf-8")
    try:
        data = json.loads(text) if str(path).endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} needs keys and values, got {type(data).__name__}.")
    return data


def taken_out(config: dict[str, Any]) -> RuleCallback | None:
    """The callback that `config` describes under `tune_stoppers`, which is taken out of it.

    Else the one of the environment; None if there is neither.
    """
    if KEY not in config:
        return from_environment()
    return callback_from(config.pop(KEY))
