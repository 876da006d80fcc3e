"""Recipes: each decides on a curve, alone and in the places where a rule runs."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from tune_stoppers import EarlyStopping, RuleStopper, recipes
from tune_stoppers.core import Report
from tune_stoppers.recipes import Recipe
from tune_stoppers.testing import check_rule

NAN = math.nan
TASKS = {"f1": {"mode": "max", "weight": 2}, "loss": {"mode": "min"}, "bleu": {"mode": "max"}}
RISING = [0.1 * step for step in range(1, 30)]


def dpo_curve(losses: Sequence[float], accuracies: Sequence[float]) -> dict[str, Sequence[float]]:
    return {"eval_loss": losses, "eval_rewards/accuracies": accuracies}


CASES: dict[str, tuple[Recipe, dict[str, Sequence[float]], int | None, str]] = {
    "validation loss: flat": (
        recipes.validation_loss(3),
        {"eval_loss": [3, 2, 2.1, 2, 2.05]},
        5,
        "3 of 3 evaluations without improvement",
    ),
    "validation loss: blown up before patience is spent": (
        recipes.validation_loss(),
        {"eval_loss": [3, 2, 1.9, 7, 8, 1]},
        5,
        "worse than the bound",
    ),
    "validation loss: NaN": (
        recipes.validation_loss(), {"eval_loss": [3, 2, NAN]}, 3, "not finite",
    ),
    "validation loss: falling": (
        recipes.validation_loss(2), {"eval_loss": [1 / x for x in RISING]}, None, "",
    ),
    "validation loss: a fall within min_delta": (
        recipes.validation_loss(2, 0.1), {"eval_loss": [3, 2.95, 2.92, 2]}, 3, "min_delta 0.1",
    ),
    "validation loss: under another name": (
        recipes.validation_loss(1, metric="val/loss"), {"val/loss": [1, 1]}, 2, "best 1 at step 1",
    ),
    "accuracy: flat": (
        recipes.validation_accuracy(2), {"eval_accuracy": [0.5, 0.7, 0.7, 0.6]}, 4, "best 0.7",
    ),
    "accuracy: rising": (recipes.validation_accuracy(2), {"eval_accuracy": RISING}, None, ""),
    "accuracy: good enough": (
        recipes.validation_accuracy(target=0.9),
        {"eval_accuracy": [0.5, 0.9, 0.95]},
        3,
        "0.95 is past the threshold 0.9",
    ),
    "accuracy: a jump down is no divergence": (
        recipes.validation_accuracy(4),
        {"eval_accuracy": [0.5, 0.51, 0.4, 0.4, 0.52]},
        None,
        "",
    ),
    "tasks: half of the weight is not enough": (
        recipes.multi_task(TASKS, 2),
        {"f1": [0.5] * 9, "loss": [1 / x for x in RISING[:9]], "bleu": RISING[:9]},
        None,
        "",
    ),
    "tasks: more than half": (
        recipes.multi_task(TASKS, 2),
        {"f1": [0.5] * 9, "loss": [1.0] * 9, "bleu": RISING[:9]},
        3,
        "stalled weight 3 of 4",
    ),
    "tasks: NaN in the heaviest": (
        recipes.multi_task(TASKS, 5),
        {"f1": [0.5, NAN], "loss": [1.0] * 2, "bleu": RISING[:2]},
        2,
        "not finite",
    ),
    "sft: below its target, smoothed, three times": (
        recipes.sft(0.5), {"loss": [0.6, *[0.0] * 9]}, 5, "3 of 3 in a row",
    ),
    "sft: one lucky batch": (recipes.sft(0.5), {"loss": [2.0, 0.1, 2.0, 0.1] * 5}, None, ""),
    "sft: noise far above the best is no divergence": (
        recipes.sft(), {"loss": [2.0, 1.99, *[2.6] * 9]}, None, "",
    ),
    "sft: NaN": (recipes.sft(), {"loss": [2.0, NAN]}, 2, "not finite"),
    "dpo: a perfect accuracy alone": (
        recipes.dpo(2), dpo_curve([0.7 * 0.9**n for n in range(29)], [1.0] * 29), None, "",
    ),
    "dpo: a rising loss alone": (
        recipes.dpo(2), dpo_curve([0.7, 0.6, 0.61, 0.62, 0.63], RISING[:5]), None, "",
    ),
    "dpo: neither improves": (
        recipes.dpo(2),
        dpo_curve([0.7, 0.6, 0.61, 0.62, 0.63], [0.5, 0.6, 0.7, 0.7, 0.7]),
        5,
        "eval_loss 3, eval_rewards/accuracies 2",
    ),
    "dpo: flat at first, and no worse than untrained": (
        recipes.dpo(), dpo_curve([0.691, 0.689, 0.696, 0.698, 0.68], RISING[:5]), None, "",
    ),
    "dpo: neither improves, in training logs": (
        recipes.dpo(2, "loss"),
        {"loss": [0.6, 0.61, 0.62], "rewards/accuracies": [0.7, 0.7, 0.6]},
        3,
        "loss 2, rewards/accuracies 2",
    ),
    "dpo: NaN": (recipes.dpo(), dpo_curve([0.7, 0.6, NAN], RISING[:3]), 3, "not finite"),
    "grpo: a rising reward": (recipes.grpo(), {"reward": RISING}, None, ""),
    "grpo: a flat one": (recipes.grpo(4), {"reward": [1, 2, *[1] * 40]}, 6, "4 of 4"),
    "grpo: one log with a high KL": (
        recipes.grpo(max_kl=0.5),
        {"reward": RISING[:9], "kl": [0, 0.1, *[9, 0.2] * 3, 0]},
        None,
        "",
    ),
    "grpo: a KL that stays high, though the reward rises": (
        recipes.grpo(max_kl=0.5),
        {"reward": RISING[:9], "kl": [0, 0.1, *[0.6] * 7]},
        7,
        "kl: 0.6 is past the threshold 0.5, 3 of 3",
    ),
    "grpo: an entropy near zero": (
        recipes.grpo(),
        {"reward": RISING[:9], "entropy": [1, 0.5, *[0.01] * 7]},
        7,
        "entropy: 0.01 is past the threshold 0.05, 3 of 3",
    ),
    "grpo: ten logs without any spread": (
        recipes.grpo(),
        {"reward": [1] * 12, "frac_reward_zero_std": [0.5, *[1] * 11]},
        11,
        "frac_reward_zero_std: 1 is past the threshold 0.9, 10 of 10",
    ),
    "grpo: most groups without spread": (
        recipes.grpo(), {"reward": RISING, "frac_reward_zero_std": [0.9] * 29}, None, "",
    ),
    "grpo: empty completions": (
        recipes.grpo(),
        {"reward": RISING[:9], "completions/mean_length": [90, 9, *[1] * 7]},
        7,
        "completions/mean_length: 1 is past the threshold 2",
    ),
    "grpo: a gradient that is not finite": (
        recipes.grpo(), {"reward": RISING[:3], "grad_norm": [1, 1, NAN]}, 3, "grad_norm: 1 of 1",
    ),
    "grpo: every limit off": (
        recipes.grpo(max_kl=None, min_entropy=None, max_zero_std=None, min_length=None),
        {"reward": RISING, "kl": [99] * 29, "entropy": [0] * 29},
        None,
        "",
    ),
    "grpo: evaluations, of which five are patience": (
        recipes.grpo(metric="eval_reward"), {"eval_reward": [1, 2, *[1] * 9]}, 7, "5 of 5",
    ),
    "rloo: a flat reward": (recipes.rloo(4), {"reward": [1, 2, *[1] * 40]}, 6, "4 of 4"),
    "dpo: worse than untrained": (
        recipes.dpo(),
        dpo_curve([0.69, 0.8, 0.79, 0.78, 0.7], RISING[:5]),
        4,
        "eval_loss: 0.78 is past the threshold 0.75, 3 of 3",
    ),
    "dpo: both answers' rewards fall away": (
        recipes.dpo(),
        {
            **dpo_curve([0.7 * 0.9**n for n in range(5)], RISING[:5]),
            "eval_rewards/chosen": [0, -11, -12, -13, -14],
            "eval_rewards/rejected": [0, -5, -19, -20, -25],
        },
        5,
        "2 of 2 rules",
    ),
    "dpo: only the rejected answer's does": (
        recipes.dpo(),
        {
            **dpo_curve([0.7 * 0.9**n for n in range(9)], RISING[:9]),
            "eval_rewards/chosen": [-5] * 9,
            "eval_rewards/rejected": [-50] * 9,
        },
        None,
        "",
    ),
    "grpo: the highest reward there is": (
        recipes.grpo(target=0.9), {"reward": [0.95] * 9}, 3, "past the threshold 0.9",
    ),
}  # fmt: skip
PICKED = pytest.mark.parametrize(
    ("recipe", "curves", "stop", "said"), CASES.values(), ids=list(CASES)
)


def rows_of(curves: dict[str, Sequence[float]]) -> list[dict[str, float]]:
    return [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]


@PICKED
def test_a_recipe_decides_on_a_curve(
    recipe: Recipe, curves: dict[str, Sequence[float]], stop: int | None, said: str
) -> None:
    """The evaluation at which a Ray stopper made of it ends a trial, and why."""
    stopper = RuleStopper(recipe.rule, **recipe.objective)
    found, reason = None, ""
    for step, row in enumerate(rows_of(curves), start=1):
        result: dict[str, Any] = {"training_iteration": step, **row}
        if stopper("trial", result):
            found, reason = step, result["stop_reason"]
            break
    assert found == stop
    assert said in reason


@PICKED
def test_a_plain_loop_decides_the_same(
    recipe: Recipe, curves: dict[str, Sequence[float]], stop: int | None, said: str
) -> None:
    """With the same two keywords."""
    stopping = EarlyStopping(recipe.rule, **recipe.objective)
    rows = enumerate(rows_of(curves), start=1)
    assert next((step for step, row in rows if stopping(row)), None) == stop
    if stop is not None:
        assert said in stopping.reason


@PICKED
def test_a_recipe_holds_the_contract(
    recipe: Recipe, curves: dict[str, Sequence[float]], stop: int | None, said: str
) -> None:
    """Made of rules that do, it does."""
    sign = 1 if recipe.mode == "min" else -1
    reports = [
        Report("trial", step, sign * row[recipe.metric], row)
        for step, row in enumerate(rows_of(curves))
    ]
    check_rule(recipe.rule, reports)


def test_the_objective_of_several_tasks_is_the_heaviest() -> None:
    """The best state is chosen by it; the first of equals."""
    assert recipes.multi_task(TASKS).objective == {"metric": "f1", "mode": "max"}
    equals = {"b": {"mode": "min"}, "a": {"mode": "max"}}
    assert recipes.multi_task(equals).objective == {"metric": "b", "mode": "min"}


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        (recipes.validation_loss(3), ("eval_loss", "3 evaluations")),
        (recipes.validation_accuracy(target=0.9), ("eval_accuracy", "above 0.9")),
        (recipes.multi_task(TASKS), ("f1, loss, bleu", "5 evaluations")),
        (recipes.sft(0.2), ("smoothed loss", "below 0.2")),
        (recipes.dpo(), ("eval_loss", "eval_rewards/accuracies")),
        (recipes.grpo(max_kl=1.5, target=2), ("reward", "kl is above 1.5", "above 2")),
    ],
)
def test_why_names_what_is_compared(recipe: Recipe, parts: tuple[str, ...]) -> None:
    """A sentence for a log or a report."""
    assert all(part in recipe.why for part in parts)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: recipes.validation_loss(0), ValueError, "patience must be >= 1, got 0"),
        (lambda: recipes.validation_accuracy(target="high"), TypeError, "target must be a number"),
        (lambda: recipes.multi_task({}), ValueError, "metrics is empty"),
        (lambda: recipes.multi_task({"f1": {"mode": "up"}}), ValueError, "min, max, got 'up'"),
        (lambda: recipes.sft(target=NAN), ValueError, "threshold must be finite"),
        (lambda: recipes.grpo(max_kl=0), ValueError, "max_kl must be > 0"),
        (lambda: recipes.grpo(max_zero_std=1), ValueError, "max_zero_std must be < 1"),
        (lambda: recipes.dpo(max_displacement=-1), ValueError, "max_displacement must be > 0"),
        (lambda: recipes.grpo(target=NAN), ValueError, "target must be finite"),
    ],
)
def test_a_bad_setting_is_refused(make: Any, error: type[Exception], said: str) -> None:
    """As the rule itself refuses it."""
    with pytest.raises(error, match=said):
        make()


def replayed(config: dict[str, Any]) -> None:
    """Reports the curve of a case."""
    for row in config["rows"]:
        tune.report(row)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_recipe_in_a_real_sweep(tmp_path: Any) -> None:
    """Rule, objective and all: for the stopper, and for the scheduler's `TuneConfig`."""
    recipe, curves, stop, said = CASES["dpo: neither improves"]
    results = tune.Tuner(
        replayed,
        param_space={"rows": rows_of(curves) * 2},
        tune_config=tune.TuneConfig(**recipe.objective, scheduler=FIFOScheduler()),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(tmp_path),
            stop=RuleStopper(recipe.rule, **recipe.objective),
            verbose=0,
        ),
    ).fit()
    best = results.get_best_result()
    assert best.metrics is not None
    assert best.metrics["training_iteration"] == stop
    assert said in best.metrics["stop_reason"]
