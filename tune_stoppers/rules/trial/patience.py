"""Patience: stop a trial that has not improved for some evaluations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Decision, Report, require, require_choice, require_number
from tune_stoppers.rules.schedule import LrAware
from tune_stoppers.rules.smoothing import Smoothing, check_smoothing, smooth


class PatienceState(NamedTuple):
    """What `Patience` remembers."""

    best: float  # lowest (smoothed) loss accepted as an improvement; infinity: none yet
    best_step: float | None  # where that was
    bad: int  # evaluations in a row without improvement
    loss: float  # the newest (smoothed) loss
    patience: int  # in force at the newest evaluation
    window: tuple[float, ...]  # what the smoothing needs


@dataclass(frozen=True)
class Patience(LrAware):
    """Stop at the `patience`-th evaluation in a row without improvement.

    Formula: an evaluation improves iff loss < best - d, with d = `min_delta` ("abs") or
    `min_delta`·|best| ("rel"); only then best moves and the count returns to 0. So a slow but
    steady gain adds up against the same best until it exceeds `min_delta` (as in Keras and
    Lightning; the Hugging Face callback moves its best at every gain instead). With a `baseline`,
    the count returns to 0 only if the loss also beats the baseline by as much.

    Args:
        patience: evaluations, at least 1; or a mapping {step: patience}, each in force from its
            step on (the lowest step's before that).
        min_delta: loss units ("abs") or a share of |best| ("rel"), at least 0. |best| makes the
            relative form right for negative values; at best = 0 any gain counts.
        min_delta_mode: "abs" or "rel": what `min_delta` is measured in.
        baseline: loss units; the count also runs while the loss is not better than this.
        smoothing: {"ema": 0.9}, {"mean": 5} or {"median": 5} over the evaluations; improvement
            is then judged on the smoothed value. Non-finite values are left out of it.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what does
            not count still enters the smoothing.

    A tie is no improvement. NaN and infinities ("worst") are evaluations without improvement, also
    the first; the first finite value always improves. A report without the metric, or at a step
    already seen, changes nothing.

    Example: patience 2, losses 3, 2, 2.5, 2 stop at the fourth: two evaluations not below 2.
    """

    patience: int | Mapping[float, int] = 5
    min_delta: float = 0.0
    min_delta_mode: Literal["abs", "rel"] = "abs"
    baseline: float | None = None
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.patience, Mapping):
            object.__setattr__(self, "patience", dict(self.patience))  # ours from here on
            require(bool(self.patience), "patience is an empty mapping; give {0: 5}, say.")
            for step, patience in self.patience.items():
                require_number("patience step", step)
                require_number(f"patience at step {step}", patience, at_least=1, integer=True)
        else:
            require_number("patience", self.patience, at_least=1, integer=True)
        require_number("min_delta", self.min_delta, at_least=0)
        require_choice("min_delta_mode", self.min_delta_mode, ("abs", "rel"))
        if self.baseline is not None:
            require_number("baseline", self.baseline)
        check_smoothing(self.smoothing)

    def start(self) -> PatienceState:
        return PatienceState(math.inf, None, 0, math.inf, self._patience_at(-math.inf), ())

    def observe(self, own: PatienceState, report: Report) -> PatienceState:
        assert report.loss is not None
        patience = self._patience_at(report.step)
        if not math.isfinite(report.loss):
            return own._replace(bad=own.bad + 1, loss=report.loss, patience=patience)
        window, loss = smooth(self.smoothing, own.window, report.loss)
        bad = own.bad + 1
        if not self._improves(loss, own.best):
            return PatienceState(own.best, own.best_step, bad, loss, patience, window)
        beaten = self.baseline is None or self._improves(loss, self.baseline)
        return PatienceState(loss, report.step, 0 if beaten else bad, loss, patience, window)

    def uncounted(self, before: PatienceState, after: PatienceState) -> PatienceState:
        return after._replace(bad=before.bad)

    def decide(self, own: PatienceState) -> Decision:
        if own.bad == 0:
            return self.keep("improved to {loss:loss}", loss=own.loss)
        patience = own.patience if isinstance(self.patience, Mapping) else self.patience
        numbers: dict[str, Any] = {"loss": own.loss, "bad": own.bad, "patience": patience}
        text = "{bad} of {patience} evaluations without improvement, value "
        text += "{loss:loss}" if math.isfinite(own.loss) else "not finite"
        if own.best_step is None:
            text += ", none finite yet"
        else:
            text += ", best {best:loss} at step {best_step:g}"
            numbers |= {"best": own.best, "best_step": own.best_step}
        if self.baseline is not None:
            text += ", baseline {baseline:loss}"
            numbers["baseline"] = self.baseline
        if self.min_delta:
            text += ", min_delta {min_delta}" + (" of |best|" if self._relative else "")
            numbers["min_delta"] = self.min_delta
        return (self.stop if own.bad >= patience else self.keep)(text, **numbers)

    @property
    def _relative(self) -> bool:
        return self.min_delta_mode == "rel"

    def _improves(self, loss: float, best: float) -> bool:
        if math.isinf(best):
            return True  # the first finite value; infinity - share·infinity would be NaN
        return loss < best - self.min_delta * (abs(best) if self._relative else 1.0)

    def _patience_at(self, step: float) -> int:
        if not isinstance(self.patience, Mapping):
            return self.patience
        begun = [start for start in self.patience if start <= step]
        return self.patience[max(begun) if begun else min(self.patience)]
