"""Any trial rule as an early-stopping callback of the Hugging Face Trainer; no Ray."""

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tune_stoppers.core import Action, Decision, MissingMetricError, Mode, Rule
from tune_stoppers.metrics import MetricReader, check_metric, closest, logger, sign_of
from tune_stoppers.rules import Patience
from tune_stoppers.track import Track


class RuleCallback(TrainerCallback):
    """Ends training when a rule says so; works on evaluation metrics and on training logs.

    ::

        trainer = Trainer(..., callbacks=[RuleCallback(3, "eval_loss", "min")])
        # the smoothed training loss of an SFTTrainer
        RuleCallback(Threshold(0.1, patience=3, smoothing={"ema": 0.9}), "loss", "min")

    A report is judged when the Trainer logs the metric ("eval_loss", …: an evaluation; "loss": a
    training log), at the optimizer step it is logged at; what else the rule reads is taken from
    the newest log that carries it. For one process; every rank would judge its own logs.

    Args:
        rule_or_patience: a rule of `tune_stoppers.rules` (thresholds in loss units: negated where
            `mode` is "max"), or the patience of `Patience`, in evaluations.
        metric: as the Trainer logs it; None for a rule that reads no objective.
        mode: "min" or "max"; required with a metric.

    `reason` says why the newest report ended training, or why not. `MissingMetricError`, with the
    names that are logged, at the first evaluation (or training log) without the metric.
    """

    def __init__(
        self, rule_or_patience: Rule | int, metric: str | None = None, mode: Mode | None = None
    ) -> None:
        if not isinstance(rule_or_patience, Rule):
            rule_or_patience = Patience(rule_or_patience)
        self.rule = rule_or_patience
        if self.rule.needs_objective:
            check_metric("RuleCallback", metric, mode)
        else:
            metric = None
        self.metric, self.mode = metric, mode or "min"
        self.stopped = False
        self._track = Track(self.rule)
        self._reader = MetricReader("RuleCallback", self.rule, metric, self.mode)
        self._needed = (metric,) if metric is not None else self.rule.reads
        self._logged: dict[str, Any] = {}  # the newest value of everything logged
        self._decision: Decision | None = None

    @property
    def reason(self) -> str:
        """Why the newest report ended training, or why not; in the metric's own units."""
        if self._decision is None:
            return "nothing judged yet"
        return f"{self._decision.rule}: {self._decision.say(sign_of(self.mode))}"

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
        self._logged |= logs
        if not all(name in logs for name in self._needed):
            self._complain(logs)
            return
        report = self._reader.read("this run", state.global_step, self._logged)
        self._decision = self._track.update(report, checkpoint=True).decision
        if self._decision.action is Action.STOP:
            self.stopped = True
            control.should_training_stop = True
            logger.info("Training ends at step %d: %s", state.global_step, self.reason)

    def _complain(self, logs: Mapping[str, Any]) -> None:
        """Raise if a log that should carry what the rule watches does not, before any has."""
        if self._decision is not None or "train_runtime" in logs:  # the summary at the end
            return
        evaluated = any(name.startswith("eval_") for name in logs)
        for name in self._needed:
            if name not in logs and name.startswith("eval_") == evaluated:
                raise MissingMetricError(
                    f"RuleCallback: {name!r} is not logged; this log has: "
                    f"{', '.join(sorted(logs))}.{closest(name, logs)}"
                )
