"""Recipes for training on examples: a loss, an accuracy, several tasks, supervised fine-tuning."""

from tune_stoppers.core import Rule, require_number
from tune_stoppers.recipes.recipe import NOISY, NOT_FINITE, Recipe
from tune_stoppers.rules import Divergence, MultiMetric, Patience, Threshold
from tune_stoppers.rules.trial.multi_metric import Metrics


def validation_loss(patience: int = 5, min_delta: float = 0.0, metric: str = "eval_loss") -> Recipe:
    """A model judged by its loss on held-out data: `Patience`, or `Divergence` before that.

    The loss falls, then flattens or rises as the model overfits, which patience sees; a learning
    rate too high shows in a few evaluations, long before patience is spent.

    Args:
        patience: evaluations without improvement.
        min_delta: loss units; a fall of no more than this is no improvement.
    """
    rule = Patience(patience, min_delta) | Divergence()
    why = f"{metric} has not improved for {patience} evaluations, or has blown up"
    return Recipe(rule, metric, "min", why)


def validation_accuracy(
    patience: int = 5,
    min_delta: float = 0.0,
    target: float | None = None,
    metric: str = "eval_accuracy",
) -> Recipe:
    """A classifier judged by its accuracy: `Patience`, or a target that is good enough.

    Accuracy often keeps rising where the loss no longer falls, as few confident mistakes
    dominate that. It moves in jumps of one example, so a bound on how far it falls would be
    crossed by chance: there is none.

    Args:
        patience: evaluations without improvement.
        min_delta: units of the metric: 0.01 is one point of accuracy.
        target: units of the metric; the run ends at the first evaluation above it.
    """
    rule: Rule = Patience(patience, min_delta)
    why = f"{metric} has not improved for {patience} evaluations"
    if target is not None:
        require_number("target", target)
        rule, why = rule | Threshold(-target), f"{why}, or is above {target}"
    return Recipe(rule, metric, "max", why)


def multi_task(metrics: Metrics, patience: int = 5) -> Recipe:
    """Several tasks at once: `MultiMetric` by vote, once those with most of the weight stalled.

    Tasks differ in scale and finish at different times, so each is asked apart, where a weighted
    sum would be ruled by the largest. The objective is the task of the most weight (the first of
    several): the best state is chosen by it, and NaN in it ends the run.

    Args:
        metrics: {name: {"mode": "min" or "max", "weight": 1}}, as `MultiMetric` takes them.
        patience: evaluations without improvement of a task's own.
    """
    vote = MultiMetric(metrics, patience, combine="vote")
    metric = max(metrics, key=lambda name: vote.metrics[name]["weight"])
    why = f"over half of {', '.join(metrics)} have not improved for {patience} evaluations"
    return Recipe(vote | NOT_FINITE, metric, vote.metrics[metric]["mode"], why)


def sft(target: float = 0.1, patience: int = 3, metric: str = "loss") -> Recipe:
    """Supervised fine-tuning until it fits its data: `Threshold` on the smoothed training loss.

    For the usual fine-tune of a few epochs with no evaluations: a training loss near zero means
    that examples are learnt by heart, and further steps cost generality. The loss of single
    batches is noisy, so it is smoothed, and only NaN and infinity count as divergence. With
    held-out data, `validation_loss` sees the same earlier.

    Args:
        target: loss units; a rule of thumb, which depends on the data.
        patience: training logs in a row below the target.
    """
    rule = Threshold(target, patience, NOISY) | NOT_FINITE
    why = f"the smoothed {metric} is below {target}, {patience} logs in a row"
    return Recipe(rule, metric, "min", why)
