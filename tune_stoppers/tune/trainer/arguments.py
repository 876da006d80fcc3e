"""Whether a Trainer's arguments fit `TuneCallback`; if not, the line to change."""

import logging

from transformers import TrainerState, TrainingArguments

from tune_stoppers.core import Mode, require

logger = logging.getLogger("tune_stoppers")


def check_arguments(
    args: TrainingArguments, state: TrainerState, metric: str, mode: Mode, *, anew: bool
) -> None:
    """`ValueError` with the line to change, for arguments under which a trial would go wrong.

    `anew`: this is a new trial that starts from another one's checkpoint.
    """
    require(
        args.world_size == 1,
        f"TuneCallback runs one process a trial, here are {args.world_size}: launch a "
        "ray.train TorchTrainer in the Tune function, with callbacks=[TuneReportCallback()].",
    )
    require(
        args.eval_strategy != "no",
        "TuneCallback reports evaluations, but there are none: "
        'set TrainingArguments(eval_strategy="steps", eval_steps=…).',
    )
    _check_horizon(args, state, anew)
    require(
        args.save_strategy != "best",
        "TuneCallback decides when to save: "
        'set TrainingArguments(save_strategy="no") instead of "best".',
    )
    require(
        not args.save_only_model,
        "A trial that is retried, paused or rolled back needs its optimizer again: "
        "set TrainingArguments(save_only_model=False).",
    )
    if args.load_best_model_at_end:
        _check_best(args, metric, mode)


def _check_horizon(args: TrainingArguments, state: TrainerState, anew: bool) -> None:
    by_steps = args.eval_strategy == "steps"
    end = state.max_steps if by_steps else state.num_train_epochs
    unit = "steps" if by_steps else "epochs"
    require(
        args.eval_delay <= end,
        f"The first evaluation would come after {args.eval_delay:g} {unit}, but training ends "
        f"after {end}: set TrainingArguments(eval_delay=0).",
    )
    require(
        not anew or state.global_step < state.max_steps,
        f"start_from is at step {state.global_step}, and training ends at step "
        f"{state.max_steps}: raise TrainingArguments(num_train_epochs=…) or max_steps.",
    )
    if by_steps and state.eval_steps >= state.max_steps > 1:
        logger.warning(
            "The only evaluation comes at the end: nothing can be stopped early. "
            "Set TrainingArguments(eval_steps=%d) or less.",
            max(1, state.max_steps // 10),
        )


def _check_best(args: TrainingArguments, metric: str, mode: Mode) -> None:
    """With `load_best_model_at_end`, the Trainer's idea of the best must be ours."""
    theirs = str(args.metric_for_best_model)
    theirs = theirs if theirs.startswith("eval_") else f"eval_{theirs}"
    greater = bool(args.greater_is_better)
    require(
        theirs == metric and greater == (mode == "max"),
        f"load_best_model_at_end goes by the {'highest' if greater else 'lowest'} {theirs!r}, "
        f"TuneCallback by the {'lowest' if mode == 'min' else 'highest'} {metric!r}: set "
        f"TrainingArguments(metric_for_best_model={metric!r}, greater_is_better={mode == 'max'}).",
    )
