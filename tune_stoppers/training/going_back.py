"""Going back in a run that is not Tune's: the rule `Rollback` at work on live objects.

The rule says when; here is how: the best state into the model, the optimizer and the schedule, and
a lower learning rate. `RollbackScheduler` does the same to a trial of Tune.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tune_stoppers.core import BaseRule, Rule, SweepRule, require_number
from tune_stoppers.core.combinators import SweepCombination
from tune_stoppers.rules.sweep.rollback import Rollback, RollbackTrial

if TYPE_CHECKING:
    from transformers import TrainingArguments

RUN = "this run"  # the only trial there is


def rolls_back(rule: BaseRule) -> bool:
    """Whether there is a `Rollback` in the rule, beside rules for one trial only."""
    if isinstance(rule, SweepCombination):
        return any(map(rolls_back, rule.children)) and all(
            isinstance(child, Rule) or rolls_back(child) for child in rule.children
        )
    return isinstance(rule, Rollback)


def course_of(rule: SweepRule[Any], record: Any) -> RollbackTrial | None:
    """What the `Rollback` in the rule remembers of the run; None before its first report."""
    if isinstance(rule, Rollback):
        course: RollbackTrial | None = record.get(RUN)
        return course
    if isinstance(rule, SweepCombination):
        found = (course_of(part, own) for part, own in zip(rule.parts, record, strict=True))
        return next((course for course in found if course is not None), None)
    return None


def check_factor(owner: str, factor: object, rule: BaseRule) -> float:
    """`factor`, or 0.5 where none is given; an error where nothing would be multiplied with it."""
    if factor is None:
        return 0.5
    require_number(f"{owner} factor", factor, above=0, below=1)
    if not rolls_back(rule):
        raise ValueError(
            f"{owner} factor cuts the learning rate where a rule goes back: give it a Rollback, "
            f"rules.Rollback(patience=3), got {rule!r}."
        )
    assert isinstance(factor, (int, float))
    return factor


def check_can_go_back(args: TrainingArguments, metric: str | None) -> None:
    """Raise for arguments under which a state cannot be put back in place."""
    split = [name for name in ("deepspeed", "fsdp") if getattr(args, name, None)]
    if split:
        raise ValueError(
            f"RuleCallback: a Rollback cannot put back a model that {split[0]} splits up; leave "
            "the rollback to Ray Tune's RollbackScheduler, which restarts the trial."
        )
    if metric == "loss" and not args.logging_nan_inf_filter:
        raise ValueError(
            "RuleCallback: with logging_nan_inf_filter=False a NaN stays in the Trainer's training "
            'loss after a rollback; leave it out, or judge by "eval_loss".'
        )


def scale_rates(optimizer: Any, schedule: Any, factor: float) -> None:
    """Multiply every learning rate with `factor`: of each group, and those a schedule starts from.

    The position in the schedule stays, and so do the ratios between groups.
    """
    assert math.isfinite(factor)
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr", "max_lr", "min_lr"):  # the latter two of a OneCycleLR
            if key in group:
                group[key] *= factor  # in place where it is a tensor
    _scale_schedule(schedule, factor)


def _scale_schedule(schedule: Any, factor: float) -> None:
    for name in ("base_lrs", "_last_lr", "max_lrs"):  # the last of a CyclicLR
        if hasattr(schedule, name):
            setattr(schedule, name, [rate * factor for rate in getattr(schedule, name)])
    for part in getattr(schedule, "_schedulers", ()):  # of a SequentialLR or ChainedScheduler
        _scale_schedule(part, factor)
    if hasattr(schedule, "scheduler"):  # Accelerate's wrapper
        _scale_schedule(schedule.scheduler, factor)
