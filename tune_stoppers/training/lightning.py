"""Any trial rule as an early-stopping callback of PyTorch Lightning; no Ray."""

from collections.abc import Mapping
from typing import Any, NamedTuple

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping
    from lightning.pytorch.strategies import (
        DeepSpeedStrategy,
        FSDPStrategy,
        ModelParallelStrategy,
    )
except ImportError as error:
    raise ImportError(
        "LightningRuleCallback needs Lightning: pip install 'tune_stoppers[lightning]'."
    ) from error

from tune_stoppers.core import (
    BaseRule,
    MissingMetricError,
    Mode,
    OnMissing,
    require,
    require_choice,
)
from tune_stoppers.metrics import MAY_SKIP, check_metric, logger
from tune_stoppers.training.given_rule import as_rule
from tune_stoppers.training.going_back import check_factor, rolls_back
from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.lightning_reports import LoggedMetrics, ReportHooks, numbers
from tune_stoppers.training.on_resume import OnResume, says_on_resume
from tune_stoppers.training.ranks import agreed
from tune_stoppers.training.session import RuleSession
from tune_stoppers.training.spending import TOTALS

_SPLIT_UP = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)  # no rank has all weights


class _Plan(NamedTuple):
    """What to do at the end of a validation or an epoch."""

    judges: bool
    absent: str | None = None  # about a metric that nothing has logged
    left_out: str | None = None  # about one that this validation has not logged


class LightningRuleCallback(ReportHooks, EarlyStopping):
    """Ends training when a rule says so; works on what a LightningModule logs.

    ::

        trainer = Trainer(callbacks=[LightningRuleCallback(3, "val_loss", "min")])
        # the best weights, however training ends
        keeper = BestStateKeeper()
        trainer = Trainer(callbacks=[LightningRuleCallback(3, "val_loss", "min", keeper=keeper)])
        with keeper.restoring(model):
            trainer.fit(model)

    A report is judged after each validation that logs the metric, several times an epoch or every
    few epochs, at the optimizer step where it is made. One at the end of an epoch is judged
    together with what training logs there. A metric that training logs is judged at the end of each
    epoch. An older value is not a new one: a validation that does not log the metric is none. What
    else the rule reads is the newest value, and no report is judged before there can be one; `lr`
    need not be logged. The sanity check is not judged, nor what is validated outside `fit`. One
    callback a metric: rules on the same one are combined, `a | b`.

    With data parallel, rank 0's values are judged and all ranks end at the same step; log with
    `sync_dist=True` for the mean over ranks. `min_epochs` and `min_steps` of the Trainer hold: a
    stop waits for them.

    The state travels in Lightning's checkpoints: a run that is resumed with `ckpt_path` decides as
    one that was not interrupted. One that the rule had stopped stops again at once and logs why;
    `on_resume` lets it train on.

    With `rules.Rollback` a run in trouble recovers, as in `RuleCallback`: right after the
    validation the best state goes back into model, optimizer, schedule and random generators, every
    learning rate is multiplied with `factor`, and training goes on. What does not go back: the step
    count, the order of the data, the scale of fp16's losses. A checkpoint that `ModelCheckpoint`
    writes at that validation holds the state gone back to. It needs a single optimizer, and a
    strategy that does not split the model up.

    Args:
        rule_or_patience: a rule of `tune_stoppers.rules` (thresholds in loss units: negated where
            `mode` is "max"), or the patience of `Patience`, in validations.
        metric: as the module logs it; None for a rule that reads no objective.
        mode: "min" or "max"; required with a metric.
        on_missing: "raise": a metric that nothing has logged by the end of the first epoch with a
            validation raises `MissingMetricError` with the names that are. "skip", and any later
            one: it is left out, with one warning.
        on_resume: what a checkpoint's state means, "restore", "continue" or "restart", as in
            `RuleCallback`.
        keeper: gets the weights at each report; they are not restored without being asked for.
        factor: of `Rollback`: what the learning rate is multiplied with each time, between 0 and
            1; None: 0.5.

    `reason`, `stopped`, `best_value`, `best_step` and `rollbacks` are as in `RuleCallback`.
    """

    # an EarlyStopping of Lightning's, as those are called after the module has logged its last

    def __init__(
        self,
        rule_or_patience: BaseRule | int,
        metric: str | None = None,
        mode: Mode | None = None,
        *,
        on_missing: OnMissing = "raise",
        on_resume: OnResume = "restore",
        keeper: BestStateKeeper | None = None,
        factor: float | None = None,
    ) -> None:
        self.rule = as_rule(rule_or_patience)
        if self.rule.needs_objective:
            check_metric("LightningRuleCallback", metric, mode)
        else:
            metric = None
        require_choice("LightningRuleCallback on_missing", on_missing, ("raise", "skip"))
        require_choice(
            "LightningRuleCallback on_resume", on_resume, ("restore", "continue", "restart")
        )
        super().__init__(monitor=metric or "", mode=mode or "min")
        self.metric, self.keeper = metric, keeper
        self.on_missing, self.on_resume = on_missing, on_resume
        self.factor = check_factor("LightningRuleCallback", factor, self.rule)
        self._on = self.rule.other_objectives
        reads = tuple(name for name in self.rule.reads if name not in TOTALS)
        self._watched = (
            (metric,) if metric is not None else tuple(n for n in reads if n not in self._on)
        )
        self._also = tuple(name for name in reads if name not in (*self._watched, *self._on))
        self._begin()

    def _begin(self) -> None:
        self._judge = RuleSession(
            "LightningRuleCallback",
            self.rule,
            self.metric,
            "max" if self.mode == "max" else "min",
            on_missing=self.on_missing,
            keeper=self.keeper,
            factor=self.factor if rolls_back(self.rule) else None,
        )
        if self._on:
            self._judge.expect((*self._watched, *self._on))
        self.logged = LoggedMetrics()
        self._warned = False
        self._ends_again = False  # a stopped run was resumed

    @property
    def reason(self) -> str:
        """Why the newest report ended training, or why not; in the metric's own units."""
        return self._judge.reason

    @property
    def stopped(self) -> bool:
        """Whether the rule has ended training, also before it was resumed."""
        return self._judge.stopped or self._ends_again

    @property
    def best_value(self) -> float | None:
        """The best value seen, in the metric's own units; None before the first finite one."""
        return self._judge.best_value

    @property
    def best_step(self) -> float | None:
        """The optimizer step of the best value."""
        return self._judge.best_step

    @property
    def rollbacks(self) -> int:
        """How often the run went back to its best state, since it began."""
        return self._judge.rollbacks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a checkpoint is loaded after this."""
        if stage == "fit":
            self._begin()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be done; a run that was stopped ends again."""
        self._check(trainer)
        self._judge.join()
        if self._ends_again:
            trainer.should_stop = True

    def _check(self, trainer: Trainer) -> None:
        """`ValueError` where the weights cannot be kept, or not be put back."""
        keeps = self.keeper is not None or rolls_back(self.rule)
        require(
            not (keeps and isinstance(trainer.strategy, _SPLIT_UP)),
            f"LightningRuleCallback keeps whole models, and {type(trainer.strategy).__name__} "
            "splits them up: take no keeper and no Rollback, but a ModelCheckpoint.",
        )
        require(
            not rolls_back(self.rule)
            or (len(trainer.optimizers) == 1 and len(trainer.lr_scheduler_configs) < 2),
            "LightningRuleCallback: a Rollback puts one optimizer and one schedule back, here are "
            f"{len(trainer.optimizers)} and {len(trainer.lr_scheduler_configs)}.",
        )

    # -- judging -------------------------------------------------------------------------------

    def report(self, trainer: Trainer, module: LightningModule, *, within_epoch: bool) -> None:
        """Judge what is logged, if that is a report; raise, or warn, if it lacks the metric."""
        plan = agreed(lambda: self._plan(trainer, within_epoch))
        if plan.absent is not None and self.on_missing == "raise":
            raise MissingMetricError(f"{plan.absent} {MAY_SKIP}")
        self._warn(plan.absent or plan.left_out)
        if not plan.judges:
            return
        logged = self.logged
        older = {name: logged.newest[name] for name in self._also if name in logged.newest}
        fresh = {
            name: value
            for name, value in logged.fresh.items()
            if logged.is_fresh(name, within_epoch=within_epoch)  # others are one batch's
        }
        parts = self._parts(trainer, module)
        stop = self._judge.judge(numbers(older | fresh), trainer.global_step, *parts)
        if self._judge.due:
            self._judge.go_back(*parts)
            parts[1].zero_grad()  # gradients that are accumulated are of the state given up
        if stop:
            trainer.should_stop = True
            self.stopped_epoch, self.stopping_reason_message = trainer.current_epoch, self.reason
            logger.info("Training ends at step %d: %s", trainer.global_step, self.reason)

    def _plan(self, trainer: Trainer, within_epoch: bool) -> _Plan:
        """Whether to judge now, and what is to be said of a metric that is not there."""
        logged = self.logged

        def fresh(name: str) -> bool:
            return logged.is_fresh(name, within_epoch=within_epoch)

        if any(map(fresh, self._on)):
            return _Plan(True)
        if all(map(fresh, self._watched)) and (self._watched or not self._on):
            # what else it reads may be training's, which comes at the end of the epoch
            return _Plan(not within_epoch or all(name in logged.newest for name in self._also))
        if not within_epoch and self.awaits_validation(trainer):
            return _Plan(False)
        for name in (*self._watched, *self._on):
            if logged.must_have_come(name, within_epoch=within_epoch):
                return _Plan(False, absent=f"LightningRuleCallback: {logged.missing(name)}")
        for name in self._watched:
            if self._validated and name in logged.of_validation and name not in logged.fresh:
                said = f"LightningRuleCallback: a validation has not logged {name!r}."
                return _Plan(False, left_out=said)
        return _Plan(False)

    def _warn(self, complaint: str | None) -> None:
        if complaint is not None and not self._warned:
            self._warned = True
            logger.warning("%s Such reports are left out.", complaint)

    def _parts(self, trainer: Trainer, module: LightningModule) -> tuple[Any, ...]:
        """What a keeper gets, and what goes back."""
        if not rolls_back(self.rule):
            return () if self.keeper is None else (module,)
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        return module, trainer.optimizers[0], *schedules

    # -- Lightning's checkpoints ---------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """By this name the state is in a checkpoint."""
        return f"tune_stoppers.LightningRuleCallback({', '.join((*self._watched, *self._on))})"

    def state_dict(self) -> dict[str, Any]:
        """What is saved with the Trainer's state: JSON data."""
        return {"judge": self._judge.state_dict(), "logged": self.logged.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint, as `on_resume` says."""
        judged: Mapping[str, Any] = state_dict["judge"]
        if self.on_resume != "restart":
            self._load(state_dict)
        if judged["stopped"]:
            logger.warning("%s", says_on_resume("LightningRuleCallback", judged, self.on_resume))
            self._ends_again = self.on_resume == "restore"

    def _load(self, saved: Mapping[str, Any]) -> None:
        try:
            self._judge.load_state_dict(saved["judge"])
        except ValueError as error:
            raise ValueError(
                f"LightningRuleCallback: {error} It is in the checkpoint; "
                'on_resume="restart" leaves it out.'
            ) from error
        self.logged.load_state_dict(saved["logged"])
