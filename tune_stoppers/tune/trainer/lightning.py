"""A Trainer of PyTorch Lightning inside a Tune trial: reports, checkpoints, resuming."""

import math
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Checkpoint
except ImportError as error:
    raise ImportError(
        "LightningTuneCallback needs Lightning: pip install 'tune_stoppers[lightning]'."
    ) from error

from tune_stoppers.core import MissingMetricError, Mode, require, require_number
from tune_stoppers.metrics import check_metric, logger, number, sign_of
from tune_stoppers.training.lightning_reports import LoggedMetrics, ReportHooks, numbers
from tune_stoppers.training.snapshot import rng_state, set_rng_state
from tune_stoppers.tune.trainer.checkpoint_note import rescale

FILE = "checkpoint.ckpt"  # Lightning's, in each checkpoint of Tune


class LightningTuneCallback(ReportHooks, Checkpoint):
    """Reports each validation of a Trainer to Tune, with a checkpoint when it is worth one.

    Use it in a function trainable::

        callback = LightningTuneCallback("val_loss", "min")
        trainer = Trainer(max_epochs=10, callbacks=[callback])
        trainer.fit(model, ckpt_path=callback.resume_from)

    A report carries everything that the module logs, by its newest value; `lr` (of the first
    parameter group), `step` (optimizer steps), `epoch`, `progress` (step / the trial's own number
    of steps, where that is known) and `best_<metric>` (best so far). There is one after each
    validation that logs the metric; one at the end of an epoch has what training logs there too. A
    metric that training logs is reported at the end of each epoch.

    A checkpoint goes with it when the metric improved, and at every `checkpoint_every`-th report.
    It is Lightning's own file, and holds the random state too, so that a trial which failed, was
    paused or rolled back continues at the right step. If the learning rate that
    `configure_optimizers` sets has been changed since, the schedule continues from the new one.
    Lightning writes no other checkpoints unless there is a `ModelCheckpoint`.

    The trial's best state is the one that goes to Tune: `best_state` finds it.
    One process a trial. The sanity check, and what is validated outside `fit`, is not reported.

    Args:
        metric: as the module logs it: "val_loss", "val_acc", …
        mode: "min" or "max"; required.
        checkpoint_every: reports; None: only when the metric improved. A scheduler can pause a
            trial only at a report with a checkpoint: 1 under those that pause.
        start_from: a checkpoint (folder or URI) of an older trial that a new one starts from;
            its own best begins afresh. A trial with a checkpoint of its own continues from that.

    Raises `ValueError` at the start of training, with the line to change, for a Trainer that does
    not fit; `MissingMetricError` with the names that are logged if the metric is not.
    """

    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        checkpoint_every: int | None = None,
        start_from: str | os.PathLike[str] | None = None,
    ) -> None:
        check_metric("LightningTuneCallback", metric, mode)
        if checkpoint_every is not None:
            require_number("checkpoint_every", checkpoint_every, at_least=1, integer=True)
        self.metric, self.mode, self.checkpoint_every = metric, mode, checkpoint_every
        self.start_from = None if start_from is None else os.fspath(start_from)
        self.logged = LoggedMetrics()
        self.best = math.inf  # lowest loss so far
        self._evaluations = 0
        self._reported_step: int | None = None  # of the checkpoint that the trial resumed from
        self._rates: list[float] = []  # that `configure_optimizers` sets, by parameter group
        self._loaded: dict[str, Any] | None = None  # the state in the checkpoint
        self._resumed: str | None = None  # the file that `fit` resumes from
        self._anew = False  # that file is in `start_from`
        self._opened = ExitStack()  # holds its folder until it is loaded

    @property
    def resume_from(self) -> str | None:
        """The file to resume from, or None: what `Trainer.fit` takes as `ckpt_path`."""
        if self._resumed is None:
            checkpoint = tune.get_checkpoint()
            self._anew = checkpoint is None
            if checkpoint is None:
                if self.start_from is None:
                    return None
                checkpoint = tune.Checkpoint(self.start_from)
            folder = Path(self._opened.enter_context(checkpoint.as_directory()))
            found = sorted(folder.glob("*.ckpt"))
            require(
                len(found) == 1,
                f"{checkpoint.path} has {len(found) or 'no'} files of Lightning (.ckpt), and a "
                "Trainer resumes from one; to start from weights alone: "
                "best_state(...).restore(model).",
            )
            self._resumed = str(found[0])
        return self._resumed

    # -- taking up a checkpoint ----------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the Trainer; what it has loaded of its checkpoint is here, the rest follows."""
        require(
            trainer.world_size == 1,
            f"LightningTuneCallback runs one process a trial, here are {trainer.world_size}: "
            "launch a ray.train TorchTrainer in the Tune function, with "
            "callbacks=[TuneReportCallback()], or set Trainer(devices=1).",
        )
        require(
            self.resume_from is None or trainer.ckpt_path is not None,
            "This trial has a checkpoint, but starts from zero: "
            "trainer.fit(model, ckpt_path=callback.resume_from).",
        )
        self._rates = [
            group.get("initial_lr", group["lr"])
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
        ]
        if self._loaded is not None:
            set_rng_state(_from_plain(self._loaded["random_state"]))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up best and learning rate where the checkpoint left them."""
        self._opened.close()
        saved, self._loaded = self._loaded, None
        if saved is None:
            if self._resumed is not None:
                logger.warning(
                    "%s is not LightningTuneCallback's: it keeps its own learning rate.",
                    self._resumed,
                )
            return
        self._change_rates(trainer, saved["rates"])
        if self._anew:
            return
        self.logged.load_state_dict(saved["logged"])
        self._reported_step, self._evaluations = trainer.global_step, saved["evaluations"]
        if (saved["metric"], saved["mode"]) == (self.metric, self.mode):
            self.best = saved["best"]

    def _change_rates(self, trainer: Trainer, before: list[float]) -> None:
        """Let what was loaded continue at the rates that `configure_optimizers` sets now."""
        if self._rates == before:
            return
        factors = {new / old for new, old in zip(self._rates, before, strict=False) if old > 0}
        if len(self._rates) != len(before) or max(factors) > (1 + 1e-9) * min(factors):
            logger.warning(
                "The learning rates of the checkpoint's %d parameter groups are not those of "
                "the module's %d times one factor: the checkpoint's are kept.",
                *(len(before), len(self._rates)),
            )
            return
        schedules = {id(c.scheduler.optimizer): c.scheduler for c in trainer.lr_scheduler_configs}
        for optimizer in trainer.optimizers:
            rescale(self._rates[0], before[0], optimizer, schedules.get(id(optimizer)))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new trial that starts from the end of another would train nothing."""
        require(
            not self._anew or self._resumed is None or self._evaluations > 0,
            f"start_from is at epoch {trainer.current_epoch}, step {trainer.global_step}, and "
            "training ends before the next report: raise Trainer(max_epochs=…) or max_steps.",
        )

    # -- reporting -----------------------------------------------------------------------------

    def report(self, trainer: Trainer, module: LightningModule, *, within_epoch: bool) -> None:
        """Report what is logged, if the metric is; raise if it never was."""
        if not self.logged.is_fresh(self.metric, within_epoch=within_epoch):
            may_come = not within_epoch and self.awaits_validation(trainer)
            if not may_come and self.logged.must_have_come(self.metric, within_epoch=within_epoch):
                raise MissingMetricError(
                    f"LightningTuneCallback: {self.logged.missing(self.metric)}"
                )
            return
        if trainer.global_step == self._reported_step:
            return
        self._evaluations += 1
        value = number(self.logged.fresh[self.metric])
        value = math.nan if value is None else value
        self.logged.fresh = {}  # nothing in the checkpoint is still to be reported
        loss = sign_of(self.mode) * value
        improved = loss < self.best  # never for NaN
        self.best = loss if improved else self.best
        due = self.checkpoint_every and self._evaluations % self.checkpoint_every == 0
        report = self._row(trainer, value, within_epoch)
        if not (improved or due):
            tune.report(report)
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save_checkpoint(Path(folder, FILE))
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))

    def _row(self, trainer: Trainer, value: float, within_epoch: bool) -> dict[str, Any]:
        done = (trainer.fit_loop.batch_idx + 1) / trainer.num_training_batches
        if math.isinf(trainer.num_training_batches):
            done = 0.0 if within_epoch else 1.0
        best = sign_of(self.mode) * self.best
        row = {
            **numbers(self.logged.newest),
            self.metric: value,
            "step": trainer.global_step,
            "epoch": trainer.current_epoch + done,
            f"best_{self.metric}": best if math.isfinite(best) else value,
        }
        planned = trainer.estimated_stepping_batches
        if 0 < planned < math.inf:
            row["progress"] = min(trainer.global_step / planned, 1.0)
        if self._evaluations == 1 and row.get("progress") == 1.0:
            logger.warning(
                "The only report comes at the end: nothing can be stopped early. "
                "Set Trainer(val_check_interval=0.1)."
            )
        return row

    # -- Lightning's checkpoints ---------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """By this name the state is in a checkpoint."""
        return "tune_stoppers.LightningTuneCallback"

    def state_dict(self) -> dict[str, Any]:
        """What is saved with the Trainer's state: numbers, strings, containers and tensors."""
        return {
            "metric": self.metric,
            "mode": self.mode,
            "best": self.best,
            "evaluations": self._evaluations,
            "rates": self._rates,
            "logged": self.logged.state_dict(),
            "random_state": _as_plain(rng_state()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint holds until all of it is loaded."""
        self._loaded = state_dict


def _as_plain(state: dict[str, Any]) -> dict[str, Any]:
    """The state of the generators without numpy's arrays, which need a pickle."""
    name, keys, *rest = state["numpy"]
    return {**state, "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest)}


def _from_plain(state: dict[str, Any]) -> dict[str, Any]:
    name, keys, *rest = state["numpy"]
    return {**state, "numpy": (name, keys.numpy().astype(np.uint32), *rest)}
