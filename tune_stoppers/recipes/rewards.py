"""Recipes for training with rewards, as TRL logs it: GRPO, RLOO, DPO.

Each is a rule on the objective or limits on what else TRL logs, any of which ends the run; the
parts by themselves are in `Recipe.parts`. A limit whose metric is never logged is left out with a
warning that names the trainer's setting for it. None turns a limit off.

The metrics (TRL 1.16, on average since the last log): GRPOTrainer and RLOOTrainer log `reward`,
`entropy` (nats a token), `frac_reward_zero_std` (the share of prompts whose completions all got
the same reward), `completions/mean_length` (tokens), and with `beta` above 0 `kl` (nats a token);
in evaluations all of these with "eval_" before. DPOTrainer logs `loss` and `rewards/chosen`,
`rewards/rejected`, `rewards/margins` (units of the implicit reward, `beta` times nats) and
`rewards/accuracies`, likewise. TRL 1.16 has no PPO.
"""

from tune_stoppers.core import Rule, require_number
from tune_stoppers.recipes.recipe import NOISY, NOT_FINITE, Recipe
from tune_stoppers.rules import MultiMetric, On, Patience, Threshold
from tune_stoppers.rules.smoothing import Smoothing

_EVALUATED = "eval_"
_STEADY: Smoothing = {"median": 5}  # single logs of a batch jump


def grpo(
    patience: int | None = None,
    max_kl: float | None = 1.0,
    target: float | None = None,
    metric: str = "reward",
    *,
    min_entropy: float | None = 0.05,
    max_zero_std: float | None = 0.9,
    min_length: float | None = 2.0,
) -> Recipe:
    """Tuning by rewards (GRPO, RLOO): `Patience` on the reward, and limits on what else is logged.

    The loss of GRPO says nothing about progress: advantages are centred, so it stays near zero
    whatever the policy learns. The mean reward does, but is that of one batch of prompts, so it
    is smoothed and given long patience.

    Parts, each of which ends the run (reasons name the metric):

    - "reward": no improvement of the (smoothed) reward for `patience` values.
    - "not finite": NaN or infinity in the reward or the gradient norm.
    - "kl": the policy is far from its reference, whatever the reward does.
    - "entropy": the policy has become all but deterministic, and explores no more.
    - "zero std": nearly all groups have one reward throughout, so nothing is left to learn from:
      the reward is constant, or it is solved.
    - "length": completions are all but empty.
    - "target": the reward is good enough.

    Args:
        patience: values without improvement; None: 20 training logs, or 5 evaluations.
        max_kl: nats a token: the median of five logs above it, three times in a row. TRL logs
            "kl" only with a `beta` above 0.
        target: units of the reward; the run ends at the third smoothed value in a row above it.
        metric: "reward" of the training logs, smoothed over some ten of them, or "eval_reward" of
            evaluations, as it is. The limits go by the training logs in either case.
        min_entropy: nats a token: the median of five logs below it, three times in a row.
        max_zero_std: share of the groups, 0 to 1: "frac_reward_zero_std" above it in ten logs
            in a row.
        min_length: tokens: the median of five logs of the mean length below it, three times in a
            row.

    None turns a limit off. In a report of `TuneCallback` a log is the mean of the training logs
    since the last evaluation.
    """
    evaluated = metric.startswith(_EVALUATED)
    patience = (5 if evaluated else 20) if patience is None else patience
    smoothing = None if evaluated else NOISY
    parts: dict[str, Rule] = {
        "reward": Patience(patience, smoothing=smoothing),
        "not finite": NOT_FINITE | On("grad_norm", NOT_FINITE, "min", optional=True),
    }
    smoothed = metric if evaluated else f"the smoothed {metric}"
    why = [f"{smoothed} has not improved for {patience} values"]
    if max_kl is not None:
        parts["kl"] = _limit("kl", "max_kl", max_kl, above=True)
        why.append(f"kl is above {max_kl:g}")
    if min_entropy is not None:
        parts["entropy"] = _limit("entropy", "min_entropy", min_entropy)
        why.append(f"entropy is below {min_entropy:g}")
    if max_zero_std is not None:
        require_number("max_zero_std", max_zero_std, at_least=0, below=1)
        constant = Threshold(-max_zero_std, 10)
        parts["zero std"] = On("frac_reward_zero_std", constant, "max", optional=True)
        why.append(f"frac_reward_zero_std is above {max_zero_std:g}")
    if min_length is not None:
        parts["length"] = _limit("completions/mean_length", "min_length", min_length)
        why.append(f"completions/mean_length is below {min_length:g}")
    if target is not None:
        require_number("target", target)
        parts["target"] = Threshold(-target, 3, smoothing)
        why.append(f"{smoothed} is above {target:g}")
    return Recipe.any_of(parts, metric, "max", ", or ".join(why))


rloo = grpo  # TRL's RLOOTrainer logs the same metrics


def dpo(
    patience: int = 5,
    metric: str = "eval_loss",
    accuracy: str | None = None,
    *,
    max_loss: float | None = 0.75,
    max_displacement: float | None = 10.0,
) -> Recipe:
    """Preference tuning: once neither the loss nor the reward accuracy improves, or it fails.

    The accuracy (the share of pairs whose chosen answer has the higher implicit reward) is the
    aim, but coarse, and soon stands at a tie; the loss keeps falling as margins widen, or rises
    for a few pairs while the ranking still improves. Each alone stops too early.

    Parts, each of which ends the run:

    - "stalled": neither loss nor accuracy has improved for `patience` evaluations.
    - "not finite": NaN or infinity in the loss. A bound relative to the loss's own progress, as
      `Divergence` has, ends healthy runs, whose loss is flat at first.
    - "worse than untrained": the sigmoid loss begins at ln 2 = 0.693, that of a policy which has
      not moved; far above that, new pairs are ranked worse than by the reference.
    - "displacement": chosen and rejected answers have both become much less likely than under the
      reference; the margin may widen all the while (Razin et al. 2024, likelihood displacement).

    Args:
        patience: evaluations without improvement, of both at once.
        metric: the loss; its best evaluation is the best state. The other metrics are those of
            evaluations if its name begins with "eval_", else those of training logs.
        accuracy: None: TRL's name, "eval_rewards/accuracies" or "rewards/accuracies".
        max_loss: units of the loss, three evaluations in a row above it; for `loss_type="sigmoid"`,
            TRL's default, alone: None for others.
        max_displacement: units of the implicit reward, `beta` times nats a completion: both
            answers' rewards below minus this, three evaluations in a row.

    None turns a limit off.
    """
    prefix = _EVALUATED if metric.startswith(_EVALUATED) else ""
    accuracy = f"{prefix}rewards/accuracies" if accuracy is None else accuracy
    both = MultiMetric(
        {metric: {"mode": "min"}, accuracy: {"mode": "max"}}, patience, combine="vote"
    )
    parts: dict[str, Rule] = {"stalled": both, "not finite": NOT_FINITE}
    why = [f"neither {metric} nor {accuracy} has improved for {patience} evaluations"]
    if max_loss is not None:
        require_number("max_loss", max_loss, above=0)
        parts["worse than untrained"] = On(metric, Threshold(-max_loss, 3), "max")
        why.append(f"{metric} is above {max_loss:g}")
    if max_displacement is not None:
        require_number("max_displacement", max_displacement, above=0)
        chosen, rejected = (
            On(f"{prefix}rewards/{answer}", Threshold(-max_displacement, 3), "min", optional=True)
            for answer in ("chosen", "rejected")
        )
        parts["displacement"] = chosen & rejected
        why.append(f"both answers' rewards are below {-max_displacement:g}")
    return Recipe.any_of(parts, metric, "min", ", or ".join(why))


def _limit(metric: str, name: str, value: float, *, above: bool = False) -> Rule:
    """Stop where the median of five logs is past `value`, three times in a row."""
    require_number(name, value, above=0)
    rule = Threshold(-value if above else value, 3, _STEADY)
    return On(metric, rule, "max" if above else "min", optional=True)
