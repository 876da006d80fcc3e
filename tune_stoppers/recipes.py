"""Recipes: the metric, its mode and a rule for the common jobs, put together from `rules`.

Metrics are named as the Hugging Face Trainer and TRL log them; `TuneCallback` reports the training
loss, "loss" to the Trainer, as "train_loss". A recipe is used in the same way everywhere::

    recipe = recipes.validation_loss(patience=3)
    RuleStopper(recipe.rule, **recipe.objective)  # tune.RunConfig(stop=…)
    EarlyStopping(recipe.rule, **recipe.objective)  # a plain loop
    RuleCallback(recipe.rule, **recipe.objective)  # a Trainer

They are where to begin, and no measurements: replay your own sweeps to see what suits them.
"""

from typing import NamedTuple, TypedDict

from tune_stoppers.core import Mode, Rule, require_number
from tune_stoppers.rules import Divergence, MultiMetric, Patience, Threshold
from tune_stoppers.rules.trial.multi_metric import Metrics

NOISY = {"ema": 0.9}  # smooths over some ten logs of single batches
NOT_FINITE = Divergence(factor=None)  # NaN and infinity alone: no bound that noise might cross


class Objective(TypedDict):
    """The keywords `metric` and `mode`."""

    metric: str
    mode: Mode


class Recipe(NamedTuple):
    """A rule, the metric to judge by with its mode, and why these."""

    rule: Rule  # thresholds in loss units
    metric: str
    mode: Mode
    why: str

    @property
    def objective(self) -> Objective:
        """`metric` and `mode` as keywords, of a stopper, a callback, a loop or `TuneConfig`."""
        return {"metric": self.metric, "mode": self.mode}


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


def dpo(
    patience: int = 5,
    metric: str = "eval_loss",
    accuracy: str = "eval_rewards/accuracies",
) -> Recipe:
    """Preference tuning: once neither the loss nor the reward accuracy improves, or `Divergence`.

    The accuracy (the share of pairs whose chosen answer has the higher implicit reward) is the
    aim, but coarse, and soon stands at a tie; the loss keeps falling as margins widen, or rises
    for a few pairs while the ranking still improves. Each alone stops too early.

    Args:
        patience: evaluations without improvement, of both at once.
        metric: the loss; its best evaluation is the best state.
        accuracy: TRL's name in evaluations; in training logs it is "rewards/accuracies".
    """
    both = MultiMetric(
        {metric: {"mode": "min"}, accuracy: {"mode": "max"}}, patience, combine="vote"
    )
    why = f"neither {metric} nor {accuracy} has improved for {patience} evaluations, or diverged"
    return Recipe(both | Divergence(), metric, "min", why)


def grpo(
    patience: int = 20,
    max_kl: float | None = None,
    target: float | None = None,
    metric: str = "reward",
) -> Recipe:
    """Tuning by rewards: `Patience` on the smoothed reward, with a limit on the KL divergence.

    The loss of GRPO says nothing about progress: advantages are centred, so it stays near zero
    whatever the policy learns. The mean reward does, but is that of one batch of prompts, so it
    is smoothed and given long patience. A policy far from its reference has begun to exploit the
    reward: that is what the limit is for.

    Args:
        patience: training logs without improvement of the smoothed reward.
        max_kl: nats, as logged under "kl", which TRL does only with a `beta` above 0; a single
            log above it ends the run. None: no limit.
        target: units of the reward; the run ends at the third smoothed log in a row above it.
    """
    why = f"the smoothed {metric} has not improved for {patience} logs"
    limits = NOT_FINITE
    if max_kl is not None:
        limits = Divergence(factor=None, gradient_limit=max_kl, gradient_metric="kl")
        why += f", or kl is above {max_kl}"
    rule = Patience(patience, smoothing=NOISY) | limits
    if target is not None:
        require_number("target", target)
        rule, why = rule | Threshold(-target, 3, NOISY), f"{why}, or it is above {target}"
    return Recipe(rule, metric, "max", why)
