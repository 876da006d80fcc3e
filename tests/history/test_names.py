"""Hyperparameters of one sweep found in another: aliases, paths, values as files write them."""

import math

import numpy as np
import pytest

from tune_stoppers.history.names import flat_values, matches


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("lr", "learning_rate"),
        ("lr", "learningRate"),
        ("optimizer/lr", "optimizer/learning_rate"),
        ("lr", "training_args/learning-rate"),
        ("lora_r", "r"),
        ("peft/r", "lora_rank"),
        ("bs", "per_device_train_batch_size"),
        ("epochs", "num_train_epochs"),
        ("wd", "optim.weight_decay"),
        ("warmup", "warmup_ratio"),
    ],
)
def test_usual_names_mean_the_same(mine, theirs):
    """In either direction, beside a hyperparameter that neither means."""
    assert matches([mine, "a"], [theirs, "b"]) == {mine: theirs}
    assert matches([theirs, "a"], [mine, "b"]) == {theirs: mine}


def test_the_same_name_comes_before_an_alias():
    """And one of theirs is one of mine only."""
    assert matches(["lr", "learning_rate"], ["learning_rate"]) == {"learning_rate": "learning_rate"}
    assert matches(["a/lr"], ["a/lr", "b/lr"]) == {"a/lr": "a/lr"}


def test_what_may_be_two_things_is_neither():
    """Two learning rates there, one here."""
    assert matches(["lr"], ["generator/lr", "critic/lr"]) == {}
    pairs = {"generator/lr": "generator/learning_rate", "critic/lr": "critic/learning_rate"}
    assert matches(pairs, pairs.values()) == pairs


def test_values_are_as_files_tell_them():
    """A bool is written as a number, a list as text; seeds and empty cells are left out."""
    config = {
        "opt": {"lr": np.float32(0.5), "nesterov": True, "none": None},
        "targets": ["q_proj", "v_proj"],
        "rank": " 8 ",
        "schedule": "cosine",
        "bad": math.nan,
        "seed": 3,
        "data": {"random_state": 1},
        "long": "x" * 1000,
    }
    assert flat_values(config) == {
        "opt/lr": 0.5,
        "opt/nesterov": 1.0,
        "targets": '["q_proj", "v_proj"]',
        "rank": 8.0,
        "schedule": "cosine",
        "long": "x" * 200,
    }
