"""Any trial rule as an early-stopping callback of the Hugging Face Trainer; no Ray."""

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tune_stoppers.core import BaseRule, MissingMetricError, Mode, OnMissing, require_choice
from tune_stoppers.metrics import MAY_SKIP, check_metric, logger
from tune_stoppers.training.given_rule import as_rule
from tune_stoppers.training.going_back import check_can_go_back, check_factor, rolls_back
from tune_stoppers.training.hf_logs import StepLogs
from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.on_resume import OnResume, says_on_resume
from tune_stoppers.training.ranks import agreed
from tune_stoppers.training.session import RuleSession


class RuleCallback(TrainerCallback):
    """Ends training when a rule says so; works on evaluation metrics and on training logs.

    ::

        trainer = Trainer(..., callbacks=[RuleCallback(3, "eval_loss", "min")])
        # the smoothed training loss of an SFTTrainer
        RuleCallback(Threshold(0.1, patience=3, smoothing={"ema": 0.9}), "loss", "min")
        # the best weights, however training ends
        keeper = BestStateKeeper()
        trainer = Trainer(..., callbacks=[RuleCallback(3, "eval_loss", "min", keeper=keeper)])
        with keeper.restoring(trainer.model):
            trainer.train()

    A report is judged when the Trainer logs the metric ("eval_loss", …: an evaluation; "loss": a
    training log), at the optimizer step it is logged at. With several evaluation sets, which the
    Trainer logs one by one, it is judged once all metrics of evaluations that the rule reads are
    in, "eval_a_loss" and "eval_b_loss". What else it reads is taken from the newest log that
    carries it, and no report is judged before there can be one. A rule `On` another metric is
    judged whenever that one is logged, together with what else is logged at the same step, and
    only then: an older value is not a new one. Nested metrics are named with slashes:
    "eval_report/0/f1". Evaluations outside `train()` are not judged. One callback a metric: rules
    on the same one are combined, `a | b`. A stop is saved as the Trainer saves its last step,
    where it saves by steps.

    With `rules.Rollback` a run in trouble recovers, as a trial does under `RollbackScheduler`:
    before the next step the best state goes back into model, optimizer, schedule and random
    generators, every learning rate is multiplied with `factor`, and training goes on. What does
    not go back: the step count, the order of the data (what was passed is not seen again), the
    scale of fp16's losses, and rollouts that a trainer of TRL has already generated. So the run
    ends at the step planned, with its schedule short of its end by the steps given up. No
    checkpoint is saved at an evaluation after which the run goes back. In memory the best state
    does not survive a resume; `keeper=BestStateKeeper(folder)` does. DeepSpeed and FSDP, which
    split a model up, are refused.

    With data parallel, rank 0's logs are judged and all ranks end at the same step; a metric of
    your own, logged by itself, must then be logged on every rank.

    The state travels in the Trainer's checkpoints. A run that the rule had stopped, and that is
    resumed, stops again at once and logs why: weights and step count stay as they are (the
    Trainer insists on one batch, whose gradients are dropped). `on_resume` lets it train on.

    Args:
        rule_or_patience: a rule of `tune_stoppers.rules` (thresholds in loss units: negated where
            `mode` is "max"), or the patience of `Patience`, in evaluations.
        metric: as the Trainer logs it; None for a rule that reads no objective.
        mode: "min" or "max"; required with a metric.
        on_missing: "raise": an evaluation step (or training log) without the metric, before any
            had it, raises `MissingMetricError` with the names that are logged. "skip", and any
            later one: it is left out, with one warning.
        on_resume: what a checkpoint's state means. "restore": the rule continues from it, and a
            stopped run stops. "continue": likewise, but the run trains on and is judged at its
            next report (by more patience, say). "restart": the rule begins anew.
        keeper: gets the weights at each report; they are not restored without being asked for.
            Each call of `train` is a run of its own to it, unless it resumes a checkpoint. Under
            a `Rollback` it keeps what that goes back to; None: one in memory.
        factor: of `Rollback`: what the learning rate is multiplied with each time, between 0 and
            1; None: 0.5.

    `reason` says why the newest report ended training, or why not; `stopped`, `best_value` and
    `best_step` are as in `EarlyStopping`.
    """

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
            check_metric("RuleCallback", metric, mode)
        else:
            metric = None
        require_choice("RuleCallback on_resume", on_resume, ("restore", "continue", "restart"))
        self.metric, self.mode, self.keeper = metric, mode or "min", keeper
        self.on_missing, self.on_resume = on_missing, on_resume
        self.factor = check_factor("RuleCallback", factor, self.rule)
        self._name = StepLogs(self.rule, metric).name
        self._begin()

    def _begin(self) -> None:
        self._judge = RuleSession(
            "RuleCallback",
            self.rule,
            self.metric,
            self.mode,
            on_missing=self.on_missing,
            keeper=self.keeper,
            factor=self.factor if rolls_back(self.rule) else None,
        )
        self._training = False
        self._logs = StepLogs(self.rule, self.metric)
        self._evaluates = False  # the Trainer will
        self._found = False  # some log has carried what is watched
        self._warned = False
        self._gone_without: set[str] = set()  # optional metrics warned about
        self._complaint: str | None = None  # about the logs since the newest step began
        self._awaited: str | None = None  # likewise, but it may still come
        self._unjudged = False  # more of this step is awaited
        self._ended_at: tuple[int, float | None] | None = None  # step, epoch of a run resumed

    @property
    def reason(self) -> str:
        """Why the newest report ended training, or why not; in the metric's own units."""
        return self._judge.reason

    @property
    def stopped(self) -> bool:
        """Whether the rule has ended training, also before it was resumed."""
        return self._judge.stopped or self._ended_at is not None

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

    # -- judging -------------------------------------------------------------------------------

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Judge what is logged, once it carries what the rule watches."""
        logs = logs or {}
        self._logs.take(logs)
        if not (self._training and self._logs.concern(logs)):
            return
        self._unjudged = self._logs.await_more(logs, self._evaluates_yet(args, state, control))
        if not self._unjudged:
            self._decide(args, state, control, kwargs)

    def _evaluates_yet(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl
    ) -> bool:
        """Whether an evaluation of this very step follows: that of an epoch is asked for later."""
        if control.should_evaluate or _strategy(args.eval_strategy) != "epoch":
            return bool(control.should_evaluate)
        whole = state.epoch is not None and float(state.epoch).is_integer()
        return whole or state.global_step >= state.max_steps or bool(control.should_training_stop)

    def _decide(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        parts: Mapping[str, Any],
    ) -> None:
        """Judge what has been logged at this step, unless it lacks what is watched."""
        self._unjudged, logs = False, self._logs
        if logs.concerned:
            self._complaint, self._awaited = agreed(lambda: logs.absent(self._evaluates))
            if self._complaint is not None or self._awaited is not None:
                return
            self._found = True
        self._judge.expect((*logs.needed, *logs.on) if logs.on else ())
        back = rolls_back(self.rule)
        model = None if self.keeper is None and not back else parts.get("model")  # to be copied
        more = (parts.get("optimizer"), parts.get("lr_scheduler")) if back else ()
        stop = self._judge.judge(logs.metrics, state.global_step, model, *more)
        self._save(state)
        if self._judge.due:
            control.should_save = False  # a state that is about to be given up
        if stop:
            control.should_training_stop = True
            if _strategy(args.save_strategy) == "steps":
                control.should_save = True
            logger.info("Training ends at step %d: %s", state.global_step, self.reason)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise, or warn, if the evaluations of the last step all lacked the metric; go back."""
        self._end_step(args, state, control, kwargs)

    def _end_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        parts: Mapping[str, Any],
    ) -> None:
        """All logs of the newest step are in by now, and all evaluations made."""
        if self._unjudged:
            self._decide(args, state, control, parts)
        if self._judge.due:
            self._judge.go_back(parts["model"], parts["optimizer"], parts["lr_scheduler"])
            self._save(state)
        self._logs.end_step()
        complaint, self._complaint = self._complaint, None
        if complaint is not None:
            self._object(complaint, found=self._found)
        for name, never in self._logs.never_logged.items():
            if name not in self.rule.optional_metrics:
                self._object(never)
            elif name not in self._gone_without:
                self._gone_without.add(name)
                logger.warning("%s Rules on it judge nothing until it is logged.", never)

    def _object(self, complaint: str, *, found: bool = False) -> None:
        """Raise for a metric that no log has carried, or warn once."""
        if self.on_missing == "raise" and not found:
            raise MissingMetricError(f"{complaint} {MAY_SKIP}")
        if not self._warned:
            self._warned = True
            logger.warning("%s Such logs are left out.", complaint)

    # -- the Trainer's checkpoints -------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"tune_stoppers.RuleCallback({self._name})"

    def _save(self, state: TrainerState) -> None:
        state.stateful_callbacks[self._key] = self._judge.state_dict()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin anew, or continue from the checkpoint; a run that was stopped is to end again."""
        if rolls_back(self.rule):
            check_can_go_back(args, self.metric)
        self._begin()
        self._training = True
        self._evaluates = _strategy(args.eval_strategy) != "no"
        saved = state.stateful_callbacks.get(self._key)
        if saved is not None and state.global_step == 0:
            raise ValueError(
                f"two callbacks are named {self._key}: give the rules to one, RuleCallback(a | b)"
            )
        if saved is not None:
            self._resume(saved, state)
        self._judge.join()
        self._save(state)

    def _resume(self, saved: Mapping[str, Any], state: TrainerState) -> None:
        if self.on_resume != "restart":
            self._load(saved)
        if not saved["stopped"]:
            return
        logger.warning("%s", says_on_resume("RuleCallback", saved, self.on_resume))
        if self.on_resume == "restore":
            self._ended_at = (state.global_step, state.epoch)

    def _load(self, saved: Mapping[str, Any]) -> None:
        try:
            self._judge.load_state_dict(saved)
        except ValueError as error:
            raise ValueError(
                f'RuleCallback: {error} It is in the checkpoint; on_resume="restart" leaves it out.'
            ) from error
        self._found = saved["step"] is not None

    # -- ending a resumed run ------------------------------------------------------------------

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Without gradients, the optimizer's step changes nothing."""
        if self._ended_at is not None:
            kwargs["optimizer"].zero_grad()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The Trainer looks here for the first time whether to end."""
        if self._ended_at is not None:
            control.should_training_stop = True
            self._leave_out(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Nothing has been trained, so there is nothing to log, evaluate or save."""
        if self._ended_at is not None:
            self._leave_out(control)

    def _leave_out(self, control: TrainerControl) -> None:
        control.should_log = control.should_evaluate = control.should_save = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Complain if need be; count the step that changed nothing out again.

        A state that the Trainer has loaded as its best stays: there is no step to go back for.
        """
        if args.load_best_model_at_end:
            self._judge.stay()
        self._complaint = self._complaint or self._awaited
        self._end_step(args, state, control, kwargs)
        self._training = False
        if self._ended_at is not None:
            state.global_step, state.epoch = self._ended_at


def _strategy(value: Any) -> str:
    """A strategy's name, an enumeration in some versions of transformers."""
    return str(getattr(value, "value", value))
