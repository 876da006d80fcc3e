"""Adaptive patience: more of it while the loss falls well, less while it hardly moves."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Decision, Report, require, require_choice, require_number
from tune_stoppers.rules.noise import deviation
from tune_stoppers.rules.schedule import LrAware
from tune_stoppers.rules.smoothing import LONGEST

NOISE_VALUES = 24  # the newest finite losses that the noise is taken from: the state stays small


class AdaptivePatienceState(NamedTuple):
    """What `AdaptivePatience` remembers."""

    patience: int  # in force at the newest evaluation
    best: float  # lowest finite loss; infinity: none yet
    best_step: float | None  # where that was
    bad: int  # evaluations in a row without improvement
    loss: float  # the newest loss
    finite: int  # finite losses seen
    recent: tuple[float, ...]  # the newest finite losses


@dataclass(frozen=True)
class AdaptivePatience(LrAware):
    """Patience that grows while the loss falls fast and shrinks while it falls slowly.

    Formula, in this order at each evaluation: once there are `history` values, this one included,
    g = mean of the last `window` differences (loss before - loss now), or of those there are;
    g > `grow_above`: patience + 1, at most `max_patience`; g < `shrink_below`: patience - 1, at
    least `min_patience`. Then the evaluation is compared: it improves iff loss < best, and the
    rule stops at the patience-th in a row that does not, by the patience now in force.

    Source: the plain form is folklore; noise from second differences is the estimator of Gasser,
    Sroka and Jennen-Steinmetz (1986) with a median instead of the mean.

    Args:
        initial_patience: evaluations, within the two bounds below.
        min_patience: evaluations, at least 1.
        max_patience: evaluations, at least `min_patience`.
        window: differences to average, 1 to 50; the state holds `window` + 1 losses.
        history: finite values before the patience moves at all, at least 2 ("noise": 3).
        grow_above: gain per evaluation, in loss units ("abs") or multiples of the noise.
        shrink_below: the same units, at most `grow_above`.
        scale: "noise" multiplies both with `rules.noise.deviation` of the newest 24 finite losses
            (more for a `window` over 23): one setting serves a loss near 0.01 and one near 10.
            On a flat curve the noise alone moves g by about sqrt(2)/`window` of it: 0.28 for 5.
            Without any noise a fall grows the patience, a rise shrinks it.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what does
            not count is no value to `history` and does not move the patience.

    A tie is no improvement. NaN and infinities ("worst") are evaluations without improvement, also
    the first; they are no values to `history`, do not move the patience, and the next difference
    is between the finite losses on either side. A report without the metric, or at a step already
    seen, changes nothing.

    Example: patience 3 within 1 and 5, window 2, history 3: losses 5, 4, 3, 3, 3, 3 have
    patience 3, 3, 4, 5, 4, 3 and stop at the sixth, the third without improvement.
    """

    initial_patience: int = 5
    min_patience: int = 2
    max_patience: int = 20
    window: int = 5
    history: int = 10
    grow_above: float = 0.01
    shrink_below: float = 0.001
    scale: Literal["abs", "noise"] = "abs"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("scale", self.scale, ("abs", "noise"))
        require_number("min_patience", self.min_patience, at_least=1, integer=True)
        require_number("max_patience", self.max_patience, at_least=1, integer=True)
        require_number("initial_patience", self.initial_patience, at_least=1, integer=True)
        require(
            self.min_patience <= self.initial_patience <= self.max_patience,
            "initial_patience must be within min_patience and max_patience, got "
            f"{self.initial_patience} for {self.min_patience} to {self.max_patience}.",
        )
        require_number("window", self.window, at_least=1, at_most=LONGEST, integer=True)
        fewest = 3 if self.scale == "noise" else 2
        require_number("history", self.history, at_least=fewest, integer=True)
        require_number("grow_above", self.grow_above)
        require_number("shrink_below", self.shrink_below)
        require(
            self.shrink_below <= self.grow_above,
            "shrink_below must be <= grow_above, got "
            f"{self.shrink_below!r} and {self.grow_above!r}.",
        )

    def start(self) -> AdaptivePatienceState:
        return AdaptivePatienceState(self.initial_patience, math.inf, None, 0, math.inf, 0, ())

    def observe(self, own: AdaptivePatienceState, report: Report) -> AdaptivePatienceState:
        assert report.loss is not None
        if not math.isfinite(report.loss):
            return own._replace(bad=own.bad + 1, loss=report.loss)
        recent = (*own.recent, report.loss)[-self._kept :]
        own = own._replace(loss=report.loss, finite=own.finite + 1, recent=recent)
        own = own._replace(patience=self._moved(own))
        if report.loss < own.best:
            return own._replace(best=report.loss, best_step=report.step, bad=0)
        return own._replace(bad=own.bad + 1)

    def uncounted(
        self, before: AdaptivePatienceState, after: AdaptivePatienceState
    ) -> AdaptivePatienceState:
        return before._replace(best=after.best, best_step=after.best_step)

    def decide(self, own: AdaptivePatienceState) -> Decision:
        numbers: dict[str, Any] = {"loss": own.loss, "bad": own.bad, "patience": own.patience}
        if own.bad == 0:
            text = "improved to {loss:loss}, patience {patience}"
        else:
            text = "{bad} of {patience} evaluations without improvement, value "
            text += "{loss:loss}" if math.isfinite(own.loss) else "not finite"
        if own.best_step is None:
            text += ", none finite yet"
        elif own.bad:
            text += ", best {best:loss} at step {best_step:g}"
            numbers |= {"best": own.best, "best_step": own.best_step}
        gain = self._gain(own)
        if gain is not None:
            text += (
                ", mean gain {gain:.3g} per evaluation: patience grows above {grow_above:.3g}, "
                "shrinks below {shrink_below:.3g}"
            )
            unit = self._unit(own)
            numbers |= {
                "gain": gain,
                "grow_above": self.grow_above * unit,
                "shrink_below": self.shrink_below * unit,
            }
        return (self.stop if own.bad >= own.patience else self.keep)(text, **numbers)

    @property
    def _kept(self) -> int:
        """How many finite losses later evaluations need."""
        return max(self.window + 1, NOISE_VALUES if self.scale == "noise" else 0)

    def _moved(self, own: AdaptivePatienceState) -> int:
        """The patience in force after the newest loss."""
        gain, unit = self._gain(own), self._unit(own)
        if gain is None:
            return own.patience
        if gain > self.grow_above * unit:
            return min(own.patience + 1, self.max_patience)
        if gain < self.shrink_below * unit:
            return max(own.patience - 1, self.min_patience)
        return own.patience

    def _gain(self, own: AdaptivePatienceState) -> float | None:
        """The mean of the last differences; None: too few values yet."""
        if own.finite < self.history:
            return None
        spanned = own.recent[-self.window - 1 :]
        return (spanned[0] - spanned[-1]) / (len(spanned) - 1)  # the terms between cancel out

    def _unit(self, own: AdaptivePatienceState) -> float:
        return deviation(own.recent) if self.scale == "noise" else 1.0
