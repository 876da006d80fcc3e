"""The search spaces of recorded LoRA sweeps, by name: different enough to learn across them."""

import math
import random
from collections.abc import Callable
from typing import Any

Config = dict[str, Any]
Draw = Callable[[random.Random], Any]


def log_uniform(low: float, high: float) -> Draw:
    """A number whose logarithm is uniform, to four digits."""
    return lambda rng: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.4g}")


def uniform(low: float, high: float) -> Draw:
    """A number between the two, to three digits after the point."""
    return lambda rng: round(rng.uniform(low, high), 3)


def choice(*values: Any) -> Draw:
    """One of the values."""
    return lambda rng: rng.choice(values)


STANDARD: dict[str, Draw] = {  # that of the first recordings
    "learning_rate": log_uniform(1e-5, 3e-2),
    "lora_rank": choice(2, 4, 8, 16, 32),
    "alpha_ratio": choice(0.5, 1.0, 2.0, 4.0),
    "targets": choice("qv", "attention", "all"),
    "batch_size": choice(8, 16, 32),
    "schedule": choice("constant", "linear", "cosine", "wsd"),
    "warmup": choice(0.0, 0.03, 0.1),
    "weight_decay": log_uniform(1e-4, 0.3),
    "beta2": choice(0.95, 0.99, 0.999),
    "max_grad_norm": choice(0.0, 0.3, 1.0),
    "lr_ratio_b": choice(1.0, 4.0, 16.0),
}

SPACES: dict[str, dict[str, Draw]] = {
    "standard": STANDARD,
    "short": {  # what most people vary, and no more
        "learning_rate": log_uniform(1e-5, 1e-2),
        "lora_rank": choice(4, 8, 16, 32),
        "batch_size": choice(8, 16, 32),
        "schedule": choice("constant", "linear", "cosine"),
        "warmup": choice(0.0, 0.1),
    },
    "wide": {  # to rates that diverge; other ranges, three new, four missing
        "learning_rate": log_uniform(3e-6, 1e-1),
        "lora_rank": choice(1, 4, 16),
        "alpha_ratio": log_uniform(0.25, 8.0),
        "targets": choice("qv", "mlp", "all"),
        "layers": choice("all", "upper"),
        "batch_size": choice(8, 32),
        "schedule": choice("linear", "cosine", "wsd"),
        "warmup": uniform(0.0, 0.3),
        "min_lr_ratio": choice(0.0, 0.1, 0.3),
        "init_scale": log_uniform(0.1, 3.0),
    },
    "narrow": {  # a second sweep around good values: small differences
        "learning_rate": log_uniform(3e-4, 6e-3),
        "lora_rank": choice(8, 16, 32),
        "alpha_ratio": choice(1.0, 2.0),
        "targets": choice("attention", "all"),
        "batch_size": choice(8, 16),
        "schedule": choice("linear", "cosine", "wsd"),
        "warmup": choice(0.03, 0.1),
        "weight_decay": choice(0.0, 0.01, 0.1),
        "beta1": choice(0.8, 0.9, 0.95),
        "beta2": choice(0.95, 0.999),
    },
}


def configuration(space: str, seed: int, index: int) -> Config:
    """The configuration of trial `index`, whatever the number of trials."""
    rng = random.Random(f"{space}/{seed}/{index}")
    return {name: draw(rng) for name, draw in SPACES[space].items()}
