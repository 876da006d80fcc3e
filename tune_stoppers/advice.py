"""Advice: parameters and a metric to begin with, each with its mode and why.

Rules of thumb, not measurements: replay your own sweeps to see what suits them.
"""

from typing import Any, NamedTuple

from tune_stoppers.core import Mode, require_choice, require_number

PATIENCE = {"small": 3, "medium": 5, "large": 8}  # model complexity -> base patience

METRICS: dict[str, dict[str, tuple[str, Mode]]] = {
    "classification": {"transformer": ("accuracy", "max"), "rnn": ("accuracy", "max")},
    "generation": {"transformer": ("perplexity", "min"), "rnn": ("perplexity", "min")},
    "qa": {"transformer": ("f1_score", "max"), "rnn": ("exact_match", "max")},
    "summarization": {"transformer": ("rouge_l", "max"), "rnn": ("rouge_l", "max")},
}
MODEL_TYPES = tuple(dict.fromkeys(model for row in METRICS.values() for model in row))

FINE_TUNES: dict[str, tuple[str, Mode, str]] = {  # as TRL's trainers log them, and why
    "sft": (
        "eval_loss",
        "min",
        "the SFTTrainer logs eval_loss at each evaluation; without held-out data take "
        "recipes.sft(), which goes by the training loss",
    ),
    "dpo": (
        "eval_loss",
        "min",
        "the DPOTrainer logs eval_loss and eval_rewards/accuracies; recipes.dpo() stops once "
        "neither improves",
    ),
    "grpo": (
        "reward",
        "max",
        "the GRPOTrainer logs the mean reward of each batch; its loss says nothing of progress; "
        "recipes.grpo() smooths the reward, and limits kl and what else tells of a failing run",
    ),
    "rloo": (
        "reward",
        "max",
        "the RLOOTrainer logs what the GRPOTrainer does; recipes.rloo() goes by the same",
    ),
}
TASKS = (*METRICS, *FINE_TUNES)


class MetricAdvice(NamedTuple):
    """A metric to watch, its direction, and why this one."""

    metric: str
    mode: Mode
    why: str


def recommend_parameters(dataset_size: int, model_complexity: str) -> dict[str, Any]:
    """Parameters of `PatienceStopper` to begin with: `patience, min_delta, mode`, and `why`.

    Patience (evaluations): small 3, medium 5, large 8; +2 below 1,000 examples, -1 from 10,000
    on. `min_delta` (loss units): 0.005 below 1,000 examples, 0.001 below 10,000, else 0.0005.
    `mode` is "min": the advice is for a loss.

    Args:
        dataset_size: training examples, an integer of at least 1.
        model_complexity: "small", "medium" or "large"; anything else is a `ValueError`.

    Example: `recommend_parameters(500, "small")` advises patience 5 and min_delta 0.005.
    """
    require_number("dataset_size", dataset_size, at_least=1, integer=True)
    require_choice("model_complexity", model_complexity, tuple(PATIENCE))
    base = PATIENCE[model_complexity]
    extra, min_delta, because = _by_size(dataset_size)
    why = (
        f"a {model_complexity} model begins with patience {base}; {dataset_size:,} examples "
        f"{because}: patience {extra:+d}, min_delta {min_delta}"
    )
    return {"patience": base + extra, "min_delta": min_delta, "mode": "min", "why": why}


def recommend_metric(task_type: str, model_type: str) -> MetricAdvice:
    """The metric to watch for a task, with its mode.

    Classification: accuracy; generation: perplexity; qa: f1_score for a transformer, exact_match
    for an rnn; summarization: rouge_l. Fine-tunes with TRL, by the names that it logs: sft and
    dpo: eval_loss; grpo and rloo: reward. `why` says what the Hugging Face Trainer calls it. An
    unknown task or model gets `loss`, and `why` lists the known ones.

    Args:
        task_type: "classification", "generation", "qa", "summarization", "sft", "dpo",
            "grpo", "rloo".
        model_type: "transformer" or "rnn".

    Example: `recommend_metric("qa", "rnn")` advises exact_match, "max".
    """
    for name, value, known in (
        ("task", task_type, TASKS),
        ("model", model_type, MODEL_TYPES),
    ):
        if value not in known:
            why = f"no metric is known for {name} {value!r}; known are {', '.join(known)}"
            return MetricAdvice("loss", "min", why)
    if task_type in FINE_TUNES:
        return MetricAdvice(*FINE_TUNES[task_type])
    metric, mode = METRICS[task_type][model_type]
    better = "higher" if mode == "max" else "lower"
    why = (
        f"{metric} is the usual measure of {task_type} with a {model_type}; {better} is better; "
        f"{_logged(metric)}"
    )
    return MetricAdvice(metric, mode, why)


def _logged(metric: str) -> str:
    """What the Hugging Face Trainer calls a metric, in its logs and in what a trial reports."""
    if metric == "perplexity":
        return "the Trainer logs eval_loss, whose exponential it is: it stops alike"
    return f"the Trainer logs eval_{metric} where compute_metrics returns {metric}"


def _by_size(dataset_size: int) -> tuple[int, float, str]:
    """What a number of examples adds to the patience, its min_delta, and the reason."""
    if dataset_size < 1_000:
        return 2, 0.005, "make evaluations noisy"
    if dataset_size < 10_000:
        return 0, 0.001, "are the usual case"
    return -1, 0.0005, "make evaluations steady"
