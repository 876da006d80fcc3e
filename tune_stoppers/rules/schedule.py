"""Learning-rate awareness: a plateau in warm-up, or before an anneal, says nothing of a trial."""

import math
from abc import ABC
from dataclasses import dataclass
from typing import Any, NamedTuple

from tune_stoppers.core import Decision, Report, Rule, State, require, require_number

NEAR_MAXIMUM = 0.95  # of the highest learning rate so far: the anneal has not begun


class LearningRate(NamedTuple):
    """A trial's learning rate, as reported so far."""

    newest: float = -math.inf  # minus infinity: none yet
    highest: float = -math.inf  # before the newest

    def then(self, lr: float) -> "LearningRate":
        """After one more report; a learning rate that is not finite changes nothing."""
        if not math.isfinite(lr):
            return self
        return LearningRate(lr, max(self))

    def holds(self, step: float, schedule_end: float | None) -> str | None:
        """Why a plateau at `step` does not count; None: it does.

        Warm-up: newest > highest, the learning rate still rises. One value alone does not rise.
        Anneal ahead: newest >= 95 % of the maximum so far and step < `schedule_end`.
        """
        if self.newest == -math.inf:
            return None
        if -math.inf < self.highest < self.newest:
            risen = f"{self.newest:.6g} after {self.highest:.6g}"
            return f"lr still in warm-up: not counted, {risen} at most"
        if schedule_end is None or step >= schedule_end:
            return None
        if self.newest < NEAR_MAXIMUM * max(self):
            return None
        near = f"lr {self.newest:.6g} is within 5 % of its maximum {max(self):.6g}"
        return f"an anneal lies ahead until step {schedule_end:g}: not counted, {near}"


class WithRate(NamedTuple):
    """The state of a rule that watches the learning rate."""

    rate: LearningRate
    own: Any  # what the rule itself remembers


def check_schedule(lr_metric: object, schedule_end: object) -> None:
    """Raise unless both are None or `lr_metric` is a name, with or without a step for the end."""
    if lr_metric is not None and not isinstance(lr_metric, str):
        raise TypeError(f"lr_metric must be a name, got {lr_metric!r}.")
    require(lr_metric != "", "lr_metric is empty; give the name of the learning rate, 'lr' say.")
    if schedule_end is not None:
        require_number("schedule_end", schedule_end, above=0)
        require(
            lr_metric is not None,
            f'schedule_end = {schedule_end:g} needs the learning rate: give lr_metric="lr", say.',
        )


@dataclass(frozen=True, kw_only=True)
class LrAware(Rule, ABC):
    """A rule that can be told the learning rate, and then counts no plateau that it explains.

    Args:
        lr_metric: where the learning rate is reported, "lr" say; None: it plays no part.
        schedule_end: the step (`time_attr`) at which the schedule ends; needs `lr_metric`.

    Warm-up: the learning rate is above all those before. Anneal ahead: it is within 5 % of its
    maximum so far, and `schedule_end` is set and not reached. In both, an evaluation neither
    counts as bad nor resets a count, and the rule does not stop; improvements still move the best.
    Once the learning rate has begun to fall, evaluations count again. A rise back towards an
    earlier maximum (a restart) is no warm-up.

    The first learning rate alone does not rise, so a constant one counts from the first evaluation
    on, unless `schedule_end` lies ahead. A report without the learning rate is one without a
    metric that the rule reads: neutral. One that is not finite ("worst") changes nothing: the
    newest before it holds on.
    """

    lr_metric: str | None = None
    schedule_end: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_schedule(self.lr_metric, self.schedule_end)

    @property
    def reads(self) -> tuple[str, ...]:
        return () if self.lr_metric is None else (self.lr_metric,)

    def uncounted(self, before: Any, after: Any) -> Any:
        """What an evaluation that took `before` to `after` leaves where it does not count."""
        return before

    def init(self) -> State:
        state = super().init()
        if self.lr_metric is None:
            return state
        return state._replace(own=WithRate(LearningRate(), state.own))

    def _advance(self, state: State, report: Report) -> State:
        if self.lr_metric is None:
            return super()._advance(state, report)
        rate, before = state.own
        after = super()._advance(state._replace(own=before), report)
        if after.step == state.step:
            return state  # the report was neutral
        rate = rate.then(report.metrics[self.lr_metric])
        held = rate.holds(report.step, self.schedule_end) is not None
        own = self.uncounted(before, after.own) if held else after.own
        return after._replace(own=WithRate(rate, own))

    def verdict(self, state: State) -> Decision:
        if self.lr_metric is None:
            return super().verdict(state)
        rate, own = state.own
        holds = None
        if state.step is not None and state.nonfinite is None:
            holds = rate.holds(state.step, self.schedule_end)
        if holds is None:
            return super().verdict(state._replace(own=own))
        return self.keep(holds, lr=rate.newest, highest=max(rate))
