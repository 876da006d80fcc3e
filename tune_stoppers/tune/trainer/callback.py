"""A Hugging Face Trainer inside a Tune trial: reports, checkpoints, resuming."""

import logging
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
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
from tune_stoppers.metrics import check_metric, closest, flat_keys, lookup, number, sign_of
from tune_stoppers.tune.trainer.arguments import check_arguments
from tune_stoppers.tune.trainer.checkpoint_note import Note, rescale
from tune_stoppers.tune.trainer.log_means import LOGGED, LogMeans

logger = logging.getLogger("tune_stoppers")

TRAINER_STATE = "trainer_state.json"


class TuneCallback(TrainerCallback):
    """Reports each evaluation of a Trainer to Tune, with a checkpoint when it is worth one.

    Use it in a function trainable::

        callback = TuneCallback("eval_loss", "min")
        trainer = Trainer(..., callbacks=[callback])
        trainer.train(resume_from_checkpoint=callback.resume_from)

    A report carries the evaluation's metrics (of all evaluation sets); `train_loss`, `grad_norm`
    and `lr` of a training log that is asked for at each evaluation; the mean since the last
    evaluation of whatever else training logs have (TRL's `kl`, `entropy`, `reward`,
    `frac_reward_zero_std`, …), under its own name; `step` (optimizer steps),
    `epoch`, `progress` (step / the trial's own number of steps), `tokens` where the Trainer counts
    them (`include_num_input_tokens_seen`), and `best_<metric>` (best so far). A checkpoint goes
    with it when the metric improved, and at every `checkpoint_every`-th evaluation; it is the
    Trainer's own, so that a trial which failed, was paused or rolled back continues at the right
    step with model, optimizer, schedule and random state. If the trial's learning rate
    (`TrainingArguments.learning_rate`) has been changed since the checkpoint, the schedule
    continues from the new one.

    The trial's best state is the one that goes to Tune: `best_state` finds it, whatever is in
    memory in the end. Under `load_best_model_at_end` the Trainer must go by the same metric, and
    loads that same state when training ends by itself.

    Evaluations outside `train()` are not reported, nor is one that `eval_on_start` repeats after a
    resume. One process a trial.

    Args:
        metric: as the Trainer names it: "eval_loss", "eval_accuracy", …; one inside of others
            with slashes, "eval_report/0/f1", is reported at the top under that name too.
        mode: "min" or "max"; required.
        checkpoint_every: evaluations; None: only when the metric improved. A scheduler can pause
            a trial only at a report with a checkpoint: 1 under those that pause.
        start_from: a checkpoint (folder or URI) of an older trial that a new one starts from;
            its own best begins afresh. A trial with a checkpoint of its own continues from that.

    Raises `ValueError` at the start of training, with the line to change, for arguments that do
    not fit; `MissingMetricError` at the first evaluation without the metric.
    """

    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        checkpoint_every: int | None = None,
        start_from: str | os.PathLike[str] | None = None,
    ) -> None:
        check_metric("TuneCallback", metric, mode)
        if checkpoint_every is not None:
            require_number("checkpoint_every", checkpoint_every, at_least=1, integer=True)
        self.metric, self.mode, self.checkpoint_every = metric, mode, checkpoint_every
        self.start_from = None if start_from is None else os.fspath(start_from)
        self.best = math.inf  # lowest loss so far
        self._training = False
        self._evaluations = 0
        self._logged: dict[str, float] = {}  # the newest training log
        self._since = LogMeans()  # of the other metrics, since the last report
        self._evaluated: dict[str, Any] = {}  # an evaluation that waits to be reported
        self._worth = False  # a checkpoint goes with it
        self._reported_step: int | None = None  # of the checkpoint that the trial resumed from
        self._resumed: str | None = None  # the folder that `train` resumes from
        self._anew = False  # that folder is `start_from`
        self._opened = ExitStack()  # holds that folder until all of it is loaded

    @property
    def resume_from(self) -> str | None:
        """The folder to resume from, or None: what `Trainer.train` takes."""
        if self._resumed is None:
            checkpoint = tune.get_checkpoint()
            self._anew = checkpoint is None
            if checkpoint is None:
                if self.start_from is None:
                    return None
                checkpoint = tune.Checkpoint(self.start_from)
            folder = self._opened.enter_context(checkpoint.as_directory())
            require(
                Path(folder, TRAINER_STATE).exists(),
                f"{checkpoint.path} has no {TRAINER_STATE}, so no Trainer can resume from it; "
                "to start from its weights alone: best_state(...).restore(model).",
            )
            self._resumed = str(folder)
        return self._resumed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the arguments; take up best and learning rate where the checkpoint left them."""
        source = self.resume_from
        check_arguments(args, state, self.metric, self.mode, anew=self._anew and source is not None)
        require(
            source is None or state.global_step > 0,
            "This trial has a checkpoint, but starts from zero: "
            "trainer.train(resume_from_checkpoint=callback.resume_from).",
        )
        self._training = True
        if source is not None:
            self._take_up(Path(source), args, state, kwargs)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what came without a checkpoint."""
        self._close()  # the random state was the last to be loaded
        self._report(args, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a training log before the evaluation."""
        control.should_log |= control.should_evaluate

    on_epoch_end = on_step_end

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember what a training log has."""
        for key, name in LOGGED.items():
            value = number((logs or {}).get(key))
            if value is not None:
                self._logged[name] = value
        if self._training:
            self._since.take(logs or {})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the metrics until all sets are evaluated; ask for a checkpoint if it is worth it."""
        if not self._training or state.global_step == self._reported_step:
            return
        self._evaluated |= metrics or {}
        if lookup(metrics or {}, self.metric) is not None:
            control.should_save |= self._judge()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what waits, with the checkpoint just written if it is worth it."""
        if not self._evaluated:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._report(args, state, folder)
        if self._worth and args.save_strategy == "no":
            shutil.rmtree(folder, ignore_errors=True)  # Tune has its copy; nobody else asked

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what still waits; later evaluations are the user's own."""
        self._close()
        self._report(args, state)
        self._training = False

    def _take_up(
        self,
        source: Path,
        args: TrainingArguments,
        state: TrainerState,
        parts: Mapping[str, Any],
    ) -> None:
        note = Note.read(source)
        if note is None:
            logger.warning("%s is not TuneCallback's: it keeps its own learning rate.", source)
        else:
            rescale(
                args.learning_rate, note.learning_rate, parts["optimizer"], parts["lr_scheduler"]
            )
        if self._anew:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
            return
        self._reported_step = state.global_step
        if note is not None:
            self._evaluations = note.evaluations
            if note.metric == self.metric and note.best is not None:
                self.best = sign_of(self.mode) * note.best
        if args.load_best_model_at_end and state.best_model_checkpoint is None:
            _bring_best(source, args, state)

    def _close(self) -> None:
        self._resumed = None
        self._opened.close()

    def _judge(self) -> bool:
        """Count the evaluation in; whether it is worth a checkpoint."""
        self._evaluations += 1
        value = number(lookup(self._evaluated, self.metric))
        loss = math.nan if value is None else sign_of(self.mode) * value
        improved = loss < self.best  # never for NaN
        self.best = loss if improved else self.best
        due = self.checkpoint_every and self._evaluations % self.checkpoint_every == 0
        self._worth = improved or bool(due)
        return self._worth

    def _report(
        self, args: TrainingArguments, state: TrainerState, folder: Path | None = None
    ) -> None:
        """Send the evaluation that waits, if any, with the checkpoint in `folder`."""
        if not self._evaluated:
            return
        metrics, self._evaluated = self._evaluated, {}
        value = number(lookup(metrics, self.metric))
        if value is None:
            present = sorted(flat_keys(metrics, lists=True))
            raise MissingMetricError(
                f"TuneCallback: the evaluation has no {self.metric!r}; it has: "
                f"{', '.join(present[:30])}{', …' if len(present) > 30 else ''}."
                f"{closest(self.metric, present)}"
            )
        best = sign_of(self.mode) * self.best
        report = {
            **self._since.taken(),
            **metrics,
            **self._logged,
            self.metric: value,
            "step": state.global_step,
            "epoch": state.epoch,
            "progress": state.global_step / state.max_steps,
            f"best_{self.metric}": best if math.isfinite(best) else value,
        }
        if args.include_num_input_tokens_seen != "no":
            report["tokens"] = int(state.num_input_tokens_seen)
        if folder is None or not self._worth:
            tune.report(report)
            return
        note = Note(
            metric=self.metric,
            value=_finite(value),
            best=_finite(best),
            step=state.global_step,
            evaluations=self._evaluations,
            learning_rate=args.learning_rate,
        )
        note.write(folder)
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(folder)))


def _finite(value: float) -> float | None:
    """`value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


def _bring_best(source: Path, args: TrainingArguments, state: TrainerState) -> None:
    """Give the Trainer its best state back, if that is the one resumed from.

    Its own folder of it stayed behind with the process, or the machine, that the trial lost.
    """
    if state.best_global_step is None:
        return
    if state.best_global_step != state.global_step:
        logger.warning(
            "The Trainer's best state, of step %d, is not on this machine: unless a better one "
            "comes, load_best_model_at_end leaves the last in memory. best_state finds the best.",
            state.best_global_step,
        )
        return
    target = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    shutil.copytree(source, target, dirs_exist_ok=True)
    state.best_model_checkpoint = str(target)
