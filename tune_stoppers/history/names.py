"""Which hyperparameter of one sweep is which of another: by name, path and the field's aliases."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tune_stoppers.experiment.configs import flat
from tune_stoppers.metrics import number

ALIASES = {  # a name that is much used, and what else it is called; dashes and capitals aside
    "learning_rate": "lr opt_lr peak_lr max_lr base_lr lr_max init_lr initial_lr lrate",
    "lora_rank": "r lora_r rank lora_dim",
    "lora_alpha": "alpha",
    "lora_dropout": "",
    "batch_size": (
        "bs train_batch_size per_device_train_batch_size per_device_batch_size "
        "train_micro_batch_size_per_gpu micro_batch_size batchsize"
    ),
    "gradient_accumulation_steps": "grad_accum grad_accum_steps accumulate_grad_batches",
    "num_train_epochs": "epochs num_epochs n_epochs max_epochs total_epochs",
    "max_steps": "total_steps num_steps train_steps max_train_steps total_model_steps",
    "weight_decay": "wd opt_weight_decay",
    "warmup_ratio": "warmup warmup_fraction warmup_frac warmup_proportion",
    "warmup_steps": "num_warmup_steps lr_warmup_steps",
    "lr_scheduler_type": "schedule scheduler lr_schedule lr_scheduler scheduler_type",
    "max_grad_norm": "grad_norm_clip grad_clip gradient_clip clip_grad_norm gradient_clip_val",
    "beta1": "adam_beta1 b1",
    "beta2": "adam_beta2 b2",
    "adam_epsilon": "epsilon eps adam_eps",
    "dropout": "dropout_rate drop_out p_dropout hidden_dropout_prob",
    "optimizer": "optim optimizer_type opt optimizer_name",
    "target_modules": "targets lora_target_modules",
    "label_smoothing": "label_smoothing_factor",
}
SEEDS = frozenset({"seed", "random_seed", "random_state", "data_seed", "trial_seed"})
_CANONICAL = {
    alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases.split())
}
_NUMERAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
LONGEST_NUMERAL, LONGEST_TEXT = 40, 200  # characters; of a longer text the beginning counts


def flat_values(config: Mapping[str, Any]) -> dict[str, float | str]:
    """The hyperparameters by path ("optimizer/lr"), each a number or a text; without what is empty.

    A bool is 0 or 1, a text that is a number is that number: files do not tell these apart. Lists
    become the JSON that they are written as. Seeds are left out.
    """
    values = {}
    for name, value in flat(config).items():
        plain = _plain(value)
        if plain is not None and _simple(_leaf(name)) not in SEEDS:
            values[name] = plain
    return values


def _plain(value: Any) -> float | str | None:
    if isinstance(value, str):
        if len(value) > LONGEST_NUMERAL or not _NUMERAL.fullmatch(value.strip()):
            return value[:LONGEST_TEXT]
        value = float(value)
    if value is None or isinstance(value, Mapping):
        return None
    known = number(value)
    if known is not None:
        return known if math.isfinite(known) else None
    text = json.dumps(value, default=str) if isinstance(value, (list, tuple)) else str(value)
    return text[:LONGEST_TEXT]


def matches(mine: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """For each of my names that means one of theirs: which.

    The same name is the same thing; else the same path but for aliases and spelling; else the
    same last part of the path, if in both only one name ends so.
    """
    left, free = list(dict.fromkeys(mine)), list(dict.fromkeys(theirs))
    found: dict[str, str] = {}
    for said in (str, _path, _end):
        here, there = _by(said, left), _by(said, free)
        for meaning, names in here.items():
            others = there.get(meaning, [])
            if len(names) == len(others) == 1:
                found[names[0]] = others[0]
        left = [name for name in left if name not in found]
        taken = set(found.values())
        free = [name for name in free if name not in taken]
    return found


def _by(said: Any, names: Iterable[str]) -> dict[str, list[str]]:
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(said(name), []).append(name)
    return of


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/.]", name) if part] or [name]


def _leaf(name: str) -> str:
    return _parts(name)[-1]


def _simple(part: str) -> str:
    """In small letters, with "_" for what parts the words: "learningRate" and "learning-rate"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part.strip())
    return re.sub(r"[\s-]+", "_", words).lower()


def _end(name: str) -> str:
    simple = _simple(_leaf(name))
    return _CANONICAL.get(simple, simple)


def _path(name: str) -> str:
    *above, _ = map(_simple, _parts(name))
    return "/".join([*above, _end(name)])
