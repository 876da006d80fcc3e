"""A rule on another metric than the objective: `On("kl", Threshold(-0.5), "max")`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tune_stoppers.core.checks import require, require_choice
from tune_stoppers.core.combinators import _Combined
from tune_stoppers.core.decision import Decision, Mode, Report
from tune_stoppers.core.rule import Rule, State


@dataclass(frozen=True, init=False)
class On(_Combined):
    """`rule` with `metric` in the place of the objective.

    For several rules of one run, each on its own metric: patience on the reward, or an entropy
    below a floor, or a KL divergence that rises while the reward is flat::

        Patience(20) | On("entropy", Threshold(0.1), "min")
        Patience(5) & On("kl", Patience(5), "min")

    Formula: the rule sees loss = `metric` under mode "min", and -`metric` under "max".

    Args:
        metric: as it is reported, flat or nested ("eval/kl").
        rule: judges each trial by itself and reads the objective; combinations of such too. Its
            thresholds and limits are in loss units of `metric`: negated under "max".
        mode: "min" or "max": which direction of `metric` is good; required. The mode of the
            objective does not matter here.
        optional: a run that never reports `metric` is judged without this rule, with one warning;
            else it is an error, as a missing objective is (`on_missing`).

    A report without `metric` is neutral, as one without the objective is to other rules: not
    reported is not NaN. NaN and infinities follow the rule's own `on_nonfinite`. What the rule
    reads beside its objective keeps its name and meaning; an `On` within goes by its own metric.

    Reasons name the metric and show its own units: "kl: 0.6 is past the threshold 0.5, …".

    Raises `TypeError` for what is no rule, or a rule that looks across trials (give that to a
    stopper or scheduler of its own, whose metric this is); `ValueError` for a rule that reads no
    objective, and for a mode that is not given.

    Example: `On("entropy", Threshold(0.1), "min")`: entropy 0.4, not reported, 0.05 stops at the
    third report.
    """

    metric: str = ""
    mode: Mode = "min"
    optional: bool = False

    def __init__(self, metric: str, rule: Rule, mode: Mode, *, optional: bool = False) -> None:
        if not isinstance(metric, str):
            raise TypeError(f"On metric must be the name of a reported metric, got {metric!r}.")
        require(bool(metric), "On metric is empty; give the name of a reported metric.")
        if not isinstance(rule, Rule):
            raise TypeError(f"On takes a rule that judges each trial by itself, got {rule!r}.")
        require(
            rule.needs_objective,
            f"On puts {metric!r} in the place of the objective, which {rule.name} does not read: "
            f"use {rule.name} by itself.",
        )
        require_choice("On mode", mode, ("min", "max"))
        if not isinstance(optional, bool):
            raise TypeError(f"On optional must be True or False, got {optional!r}.")
        self._set((rule,))
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "optional", optional)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.metric, *super().reads)))

    @property
    def needs_objective(self) -> bool:
        return False

    @property
    def other_objectives(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.metric, *super().other_objectives)))

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        within = super().optional_metrics
        return tuple(dict.fromkeys((self.metric, *within))) if self.optional else within

    @property
    def signature(self) -> tuple[str, Any]:
        name, version = self.children[0].signature
        return f"On({self.metric!r}, {name}, {self.mode!r})", version

    def concerns(self, report: Report) -> bool:
        return self.children[0].concerns(self._shown(report))

    def observe(self, own: tuple[State, ...], report: Report) -> tuple[State, ...]:
        return super().observe(own, self._shown(report))

    def verdict(self, state: State) -> Decision:
        if state.step is None:
            return self.keep(f"{self.metric}: nothing to judge yet")
        return super().verdict(state)

    def _shown(self, report: Report) -> Report:
        value = report.metrics.get(self.metric)
        return report._replace(loss=None if value is None else self._sign * value)

    @property
    def _sign(self) -> int:
        return 1 if self.mode == "min" else -1

    def _combine(self, now: float | None, decided: list[Decision]) -> Decision:
        (decision,) = decided
        name = self.metric
        if decision.numbers and not decision.parts:  # the text is a format then
            name = name.replace("{", "{{").replace("}", "}}")
        sign = self._sign if decision.sign is None else decision.sign
        return replace(decision, text=f"{name}: {decision.text}", sign=sign)
