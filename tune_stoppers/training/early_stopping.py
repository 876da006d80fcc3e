"""Early stopping in a plain training loop: any trial rule, and the best state kept."""

import math
from collections.abc import Mapping
from typing import Any

from tune_stoppers.core import Action, Decision, Mode, Rule, require_number
from tune_stoppers.metrics import MetricReader, check_metric, lookup, number, sign_of
from tune_stoppers.rules import Patience
from tune_stoppers.track import Track
from tune_stoppers.training.keeper import BestStateKeeper


class EarlyStopping:
    """Asks a rule after each evaluation whether to go on, and keeps the best state.

    ::

        stop = EarlyStopping(5, mode="min")
        for epoch in range(100):
            ...
            if stop(validation_loss, model, optimizer):
                break
        stop.restore_best(model, optimizer)

    Args:
        rule_or_patience: a rule of `tune_stoppers.rules` (thresholds in loss units: negated where
            `mode` is "max"), or the patience of `Patience`, in evaluations.
        metric: its name where a mapping of metrics is passed.
        mode: "min" or "max"; required.
        min_delta: of `Patience`, where a number was given.
        keeper: a `BestStateKeeper` (on disk, say); None: one in memory, once a model is passed.

    Attributes: `reason` of the newest decision; `best_value` and `best_step` of the best value
    seen, None before the first finite one. A call at a step already seen changes nothing; at an
    earlier step, the rule goes back to where it was before that step.
    """

    def __init__(
        self,
        rule_or_patience: Rule | int,
        *,
        metric: str = "value",
        mode: Mode,
        min_delta: float = 0.0,
        keeper: BestStateKeeper | None = None,
    ) -> None:
        check_metric("EarlyStopping", metric, mode)  # also where the rule reads others
        if isinstance(rule_or_patience, Rule):
            if min_delta:
                raise ValueError(
                    f"min_delta belongs to a patience; give it to the rule, got {min_delta} "
                    f"beside {rule_or_patience!r}."
                )
            self.rule = rule_or_patience
        else:
            self.rule = Patience(rule_or_patience, min_delta)
        self.metric, self.mode, self.keeper = metric, mode, keeper
        self.best_value: float | None = None
        self.best_step: float | None = None
        self.stopped = False
        self._track = Track(self.rule)
        objective = metric if self.rule.needs_objective else None
        self._reader = MetricReader("EarlyStopping", self.rule, objective, mode)
        self._decision: Decision | None = None

    def __call__(
        self,
        value_or_metrics: Any,
        model: Any = None,
        optimizer: Any = None,
        step: float | None = None,
    ) -> bool:
        """Judge one evaluation; True: stop now. Without a step it is the next one: 1, 2, …"""
        if step is None:
            step = (self._track.step or 0) + 1
        require_number("EarlyStopping step", step)
        fresh = step != self._track.step
        metrics = value_or_metrics
        if not isinstance(metrics, Mapping):
            metrics = {self.metric: metrics}
        report = self._reader.read("this run", step, metrics)
        value = number(lookup(metrics, self.metric))
        improved = fresh and value is not None and self._improves(value)
        if improved:
            self.best_value, self.best_step = value, step
        if improved and model is not None:
            self.keeper = self.keeper or BestStateKeeper()
            assert value is not None
            self.keeper.offer(step, sign_of(self.mode) * value, model, optimizer)
        self._decision = self._track.update(report, checkpoint=True).decision
        self.stopped = self._decision.action is Action.STOP
        return self.stopped

    @property
    def reason(self) -> str:
        """Why the newest evaluation ended the run, or why not; in the metric's own units."""
        if self._decision is None:
            return "nothing judged yet"
        return f"{self._decision.rule}: {self._decision.say(sign_of(self.mode))}"

    def restore_best(self, model: Any, optimizer: Any = None) -> float:
        """Put the best state back, however the loop ended; returns its step.

        `NoBestStateError` if none was kept: no finite value, or no model was passed.
        """
        self.keeper = self.keeper or BestStateKeeper()
        return self.keeper.restore(model, optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The state of the rule as JSON data; the best weights stay with the keeper."""
        return {
            "rule": self.rule.dump(self._track.state),
            "step": self._track.step,
            "best_value": self.best_value,
            "best_step": self.best_step,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`. `ValueError` if it is another rule's."""
        self._track = Track(self.rule)
        self._track.state = self.rule.load(state["rule"])
        self._track.step = state["step"]
        self.best_value, self.best_step = state["best_value"], state["best_step"]
        self.stopped = state["stopped"]
        if self._track.step is not None:
            self._decision = self.rule.verdict(self._track.state)

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        sign = sign_of(self.mode)
        return self.best_value is None or sign * value < sign * self.best_value
