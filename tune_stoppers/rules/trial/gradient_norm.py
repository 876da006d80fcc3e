"""Gradient norm: stop a trial whose gradient has all but vanished."""

import math
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from tune_stoppers.core import Decision, Report, require, require_number
from tune_stoppers.rules.schedule import LrAware

EARLY = 3  # norms whose median is the trial's own early norm


class GradientNormState(NamedTuple):
    """What `GradientNorm` remembers."""

    early: tuple[float, ...]  # the first sound norms, which do not count
    seen: int  # sound norms from the end of warm-up on, those included
    norm: float  # the newest, sound or not
    small: int  # norms in a row below the bound


@dataclass(frozen=True)
class GradientNorm(LrAware):
    """Stop at the `patience`-th reported gradient norm in a row that is small.

    Formula: small iff norm < bound, strictly, with bound = `threshold`, or `threshold`·early if
    `relative`. Let n₁, n₂, … be the sound norms at steps >= `warmup`. The first is never small.
    early = median(n₂, n₃, n₄), and then n₅ is the first that counts; otherwise n₂ is. The rule
    judges norms, where gradients averaged with their signs would cancel.

    Args:
        threshold: units of the norm, or a share of the early norm; above 0.
        patience: reports with a norm in a row, at least 1.
        gradient_metric: where the norm is reported; the objective is not read.
        relative: measure by the trial's own early norm, whatever the model's size.
        warmup: units of `time_attr`, at least 0; norms before this step are left out of all, as
            they reflect the rising learning rate.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; norms that
            do not count are left out of all, too.

    NaN and infinities ("worst") are not sound, nor is a negative value: DeepSpeed reports -1 for a
    norm that overflowed. They end the row and are left out of the early norm. A tie with the bound
    is not small, so an early norm of 0 never stops. A report without the norm, or at a step
    already seen, changes nothing. A norm taken after clipping is never above the limit it was
    clipped to, so report the one before.

    Example: threshold 0.1, patience 2: norms 0.05, 2, 0.05, 0.3, 0.09, 0.08 stop at the sixth.
    """

    threshold: float = 1e-3
    patience: int = 5
    gradient_metric: str = "grad_norm"
    relative: bool = False
    warmup: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("threshold", self.threshold, above=0)
        require_number("patience", self.patience, at_least=1, integer=True)
        require(bool(self.gradient_metric), "gradient_metric is empty; give its name.")
        if not isinstance(self.relative, bool):
            raise TypeError(f"relative must be True or False, got {self.relative!r}.")
        require_number("warmup", self.warmup, at_least=0)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.gradient_metric, *super().reads)

    @property
    def needs_objective(self) -> bool:
        return False

    def start(self) -> GradientNormState:
        return GradientNormState((), 0, math.inf, 0)

    def observe(self, own: GradientNormState, report: Report) -> GradientNormState:
        norm = report.metrics[self.gradient_metric]
        own = own._replace(norm=norm)
        if not _sound(norm):
            return own._replace(small=0)
        if report.step < self.warmup:
            return own
        own = own._replace(seen=own.seen + 1)
        if own.seen <= self._set_aside:
            return own._replace(early=(*own.early, norm))
        return own._replace(small=own.small + 1 if norm < self._bound(own) else 0)

    def decide(self, own: GradientNormState) -> Decision:
        if not _sound(own.norm):
            return self.keep("gradient norm {norm} is no finite size", norm=own.norm)
        if own.seen == 0:
            text = "gradient norm {norm} is of the warm-up before step {warmup:g}"
            return self.keep(text, norm=own.norm, warmup=self.warmup)
        if own.seen <= self._set_aside:
            text = "gradient norm {norm} is number {seen} of the {aside} that do not count"
            return self.keep(text, norm=own.norm, seen=own.seen, aside=self._set_aside)
        numbers = {"norm": own.norm, "bound": self._bound(own)}
        shown = "{bound}"
        if self.relative:
            shown += " ({threshold} of its early norm {early})"
            numbers |= {"threshold": self.threshold, "early": median(own.early[1:])}
        if own.small == 0:
            return self.keep("gradient norm {norm} is not below " + shown, **numbers)
        text = "gradient norm {norm} is below " + shown + ", {small} of {patience} in a row"
        decide = self.stop if own.small >= self.patience else self.keep
        return decide(text, small=own.small, patience=self.patience, **numbers)

    @property
    def _set_aside(self) -> int:
        """How many norms come before the first that counts."""
        return 1 + EARLY if self.relative else 1

    def _bound(self, own: GradientNormState) -> float:
        return self.threshold * median(own.early[1:]) if self.relative else self.threshold


def _sound(norm: float) -> bool:
    return math.isfinite(norm) and norm >= 0
