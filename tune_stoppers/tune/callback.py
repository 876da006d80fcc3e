"""A Hugging Face Trainer inside a Tune trial: reports, checkpoints, resuming."""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from tune_stoppers.core import MissingMetricError, Mode, require, require_number
from tune_stoppers.metrics import check_metric, closest, number, sign_of

logger = logging.getLogger("tune_stoppers")

NOTE = "tune_stoppers.json"  # beside the Trainer's files in each checkpoint


class TuneCallback(TrainerCallback):
    """Reports each evaluation of a Trainer to Tune, with a checkpoint when it is worth one.

    Use it in a function trainable::

        callback = TuneCallback("eval_loss", "min")
        trainer = Trainer(..., callbacks=[callback])
        trainer.train(resume_from_checkpoint=callback.resume_from)

    A report carries the evaluation's metrics; `train_loss`, `grad_norm` and `lr`, as last logged;
    `step` (optimizer steps), `epoch`, `progress` (step / the trial's own number of steps) and
    `best_<metric>` (best so far). A checkpoint goes with it when the metric improved, and at
    every `checkpoint_every`-th evaluation; it is the Trainer's own, so that a trial which failed,
    was paused or rolled back goes on at the right step with model, optimizer, schedule and random
    state. If the trial's learning rate (`TrainingArguments.learning_rate`) has been changed since
    the checkpoint, the rate goes on from the new one.

    Evaluations outside `train()` are not reported. Only the first rank reports.

    Args:
        metric: as the Trainer names it: "eval_loss", "eval_accuracy", …
        mode: "min" or "max"; required.
        checkpoint_every: evaluations; None: only when the metric improved.

    Raises at the start of training, with the line to change: if there are no evaluations, or if
    the Trainer decides itself when to save ("best"). `MissingMetricError` at the first evaluation
    without the metric.
    """

    def __init__(self, metric: str, mode: Mode, *, checkpoint_every: int | None = None) -> None:
        check_metric("TuneCallback", metric, mode)
        if checkpoint_every is not None:
            require_number("checkpoint_every", checkpoint_every, at_least=1, integer=True)
        self.metric, self.mode, self.checkpoint_every = metric, mode, checkpoint_every
        self.best = math.inf  # lowest loss so far
        self._training = False
        self._evaluations = 0
        self._logged: dict[str, float] = {}  # the newest training log
        self._pending: dict[str, Any] | None = None  # a report that waits for its checkpoint
        self._resume_from: Path | None = None

    @property
    def resume_from(self) -> str | None:
        """The folder to resume from, or None: what `Trainer.train` takes."""
        if self._resume_from is None:
            checkpoint = tune.get_checkpoint()
            if checkpoint is None:
                return None
            folder = Path(tempfile.mkdtemp(prefix="tune_stoppers-resume-"))
            self._resume_from = Path(checkpoint.to_directory(str(folder)))
        return str(self._resume_from)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the arguments; take up best and learning rate where the checkpoint left them."""
        require(
            str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no",
            "TuneCallback reports evaluations, but there are none: "
            'set TrainingArguments(eval_strategy="steps", eval_steps=…).',
        )
        require(
            str(getattr(args.save_strategy, "value", args.save_strategy)) != "best",
            "TuneCallback decides when to save: "
            'set TrainingArguments(save_strategy="no") instead of "best".',
        )
        self._training = True
        if self._resume_from is None:
            return
        note = self._resume_from / NOTE
        if note.exists():
            kept = json.loads(note.read_text())
            self._evaluations = int(kept["evaluations"])
            if kept["metric"] == self.metric and kept["best"] is not None:
                self.best = sign_of(self.mode) * float(kept["best"])
            _rescale(args.learning_rate, float(kept["learning_rate"]), kwargs)
        shutil.rmtree(self._resume_from, ignore_errors=True)  # our copy; all of it is loaded
        self._resume_from = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the training loss, gradient norm and learning rate."""
        names = {"loss": "train_loss", "grad_norm": "grad_norm", "learning_rate": "lr"}
        for key, name in names.items():
            value = number((logs or {}).get(key))
            if value is not None:
                self._logged[name] = value

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report, at once or with the checkpoint that is asked for here."""
        if not self._training or not state.is_world_process_zero:
            return
        report = self._report(state, metrics or {})
        if self._wants_checkpoint(report):
            self._pending = report
            control.should_save = True
        else:
            tune.report(report)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what waits, with the checkpoint just written."""
        if self._pending is None:
            return
        report, self._pending = self._pending, None
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        note = {
            "metric": self.metric,
            "value": _finite(report[self.metric]),
            "best": _finite(report[f"best_{self.metric}"]),
            "step": state.global_step,
            "evaluations": self._evaluations,
            "learning_rate": args.learning_rate,
        }
        (folder / NOTE).write_text(json.dumps(note))
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(folder)))
        if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
            shutil.rmtree(folder, ignore_errors=True)  # Tune has its copy; nobody else asked

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what waits for a checkpoint that never came."""
        self._flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what still waits; later evaluations are the user's own."""
        self._flush()
        self._training = False

    def _flush(self) -> None:
        if self._pending is not None:
            report, self._pending = self._pending, None
            tune.report(report)

    def _report(self, state: TrainerState, metrics: Mapping[str, Any]) -> dict[str, Any]:
        value = number(metrics.get(self.metric))
        if value is None:
            raise MissingMetricError(
                f"TuneCallback: the evaluation has no {self.metric!r}; it has: "
                f"{', '.join(sorted(metrics))}.{closest(self.metric, metrics)}"
            )
        self._evaluations += 1
        loss = sign_of(self.mode) * value
        self._improved = loss < self.best  # never for NaN
        if self._improved:
            self.best = loss
        best = sign_of(self.mode) * self.best
        return {
            **metrics,
            **self._logged,
            self.metric: value,
            "step": state.global_step,
            "epoch": state.epoch,
            "progress": state.global_step / state.max_steps if state.max_steps > 0 else None,
            f"best_{self.metric}": best if math.isfinite(best) else value,
        }

    def _wants_checkpoint(self, report: Mapping[str, Any]) -> bool:
        due = self.checkpoint_every and self._evaluations % self.checkpoint_every == 0
        return self._improved or bool(due)


def _finite(value: float) -> float | None:
    """`value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


def _rescale(new: float, old: float, parts: Mapping[str, Any]) -> None:
    """Let the loaded optimizer and schedule go on from the learning rate `new` instead of `old`.

    The state of both was saved under `old` and would bring it back.
    """
    if new == old or old == 0:
        return
    optimizer, schedule, factor = parts["optimizer"], parts["lr_scheduler"], new / old
    for group in optimizer.param_groups:
        group["lr"] *= factor
        if "initial_lr" in group:
            group["initial_lr"] *= factor
    schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
    logger.info("The learning rate goes on at %g times what the checkpoint had.", factor)
