"""Overfit: stop a trial whose validation loss rises, by the criteria of Prechelt (1998)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Decision, Report, require, require_choice, require_number
from tune_stoppers.rules.schedule import LrAware


class OverfitState(NamedTuple):
    """What `Overfit` remembers; losses are of validation unless they say train."""

    best: float  # lowest finite loss, the newest included; infinity: none yet
    best_step: float | None  # where that was
    loss: float  # the newest loss; infinity stands for any that was not finite
    in_strip: int  # evaluations in the strip so far: `strip` at its end
    end: float  # finite loss at the newest strip end that had one; infinity: none yet
    rises: int  # strips in a row that ended worse than the one before ("up")
    train_sum: float  # of the strip's finite train losses ("pq"), as the next two
    train_min: float
    train_count: int


@dataclass(frozen=True)
class Overfit(LrAware):
    """Stop on a loss of generalisation: GL, PQ or UP of Prechelt.

    Source: L. Prechelt, "Early stopping - but when?", in Neural Networks: Tricks of the Trade,
    Springer 1998. Symbols: E_va = loss, E_opt = best, E_tr = train loss, k = `strip`,
    s = `strips`. A strip is k evaluations; strips end at evaluations k, 2k, 3k, and so on.

    - "gl", at every evaluation: GL = 100·(loss - best)/|best| > `alpha`.
    - "pq", at each strip end: GL/P > `alpha`, where P = 1000·(mean - min)/|min| of the strip's k
      train losses: a fall of validation matters less while training still moves.
    - "up", at each strip end: the loss is above that of the strip end before, strictly, for the
      s-th strip in a row, so not before evaluation (s + 1)·k. A strip end that is not finite is
      worse than any, the first one too.

    For positive losses these are the paper's 100·(E_va/E_opt - 1) and
    1000·(Σ E_tr/(k·min E_tr) - 1); |best| and |min| make them right for negative ones (likelihoods,
    maximised metrics). A best of zero is no base for per cent: GL is then 0 at the best and
    infinite above it, and P likewise. Between strip ends "pq" and "up" do not stop.

    Args:
        train_metric: name of the train loss, read by "pq" alone, which needs it.
        criterion: "gl", "pq" or "up".
        alpha: "gl": per cent; "pq": GL per cent for each per mille of P; at least 0. The paper
            tries 1 to 5 for GL, 0.5 to 3 for PQ.
        strip: evaluations, at least 1 ("pq": 2).
        strips: strips in a row, at least 1 ("up").
        train_sign: what the train metric is multiplied with to be a loss: 1, or -1 if it is
            maximised as the objective is.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what does
            not count is in no strip.

    Exactly `alpha`, and a tie for "up", do not stop; P = 0 (training stands still) with GL above
    0 does. NaN and infinities ("worst"): a validation loss is then infinitely above its best, if
    there is one: "gl" stops, "pq" at a strip end; for "up" that strip is worse, and the next
    is compared with the last finite end. A train loss that is not finite is left out of P;
    P = 0 for a strip of nothing else. A report that lacks what is read, or at a step already
    seen, changes nothing.

    Example: "gl" with alpha 5: losses 2, 1, 1.03, 1.06 stop at the fourth, 6 % above the best.
    """

    train_metric: str | None = None
    criterion: Literal["gl", "pq", "up"] = "gl"
    alpha: float = 5.0
    strip: int = 5
    strips: int = 3
    train_sign: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("criterion", self.criterion, ("gl", "pq", "up"))
        if self.train_metric is not None and not isinstance(self.train_metric, str):
            raise TypeError(f"train_metric must be a name, got {self.train_metric!r}.")
        require(self.train_metric != "", "train_metric is empty; give its name.")
        require(
            self.train_metric is not None or self.criterion != "pq",
            'criterion="pq" compares with the train loss: give train_metric, its name.',
        )
        require_number("alpha", self.alpha, at_least=0)
        shortest = 2 if self.criterion == "pq" else 1  # one train loss makes no progress
        require_number("strip", self.strip, at_least=shortest, integer=True)
        require_number("strips", self.strips, at_least=1, integer=True)
        require(self.train_sign in (1, -1), f"train_sign must be 1 or -1, got {self.train_sign!r}.")

    @property
    def reads(self) -> tuple[str, ...]:
        train = (self.train_metric,) if self.train_metric and self.criterion == "pq" else ()
        return (*train, *super().reads)

    def start(self) -> OverfitState:
        return OverfitState(math.inf, None, math.inf, 0, math.inf, 0, 0.0, math.inf, 0)

    def observe(self, own: OverfitState, report: Report) -> OverfitState:
        assert report.loss is not None
        if own.in_strip == self.strip:
            own = own._replace(in_strip=0, train_sum=0.0, train_min=math.inf, train_count=0)
        loss = report.loss if math.isfinite(report.loss) else math.inf
        own = own._replace(loss=loss, in_strip=own.in_strip + 1)
        if loss < own.best:
            own = own._replace(best=loss, best_step=report.step)
        if self.criterion == "pq":
            return self._with_train(own, report)
        return self._with_end(own) if own.in_strip == self.strip else own

    def _with_train(self, own: OverfitState, report: Report) -> OverfitState:
        assert self.train_metric is not None
        train = self.train_sign * report.metrics[self.train_metric]
        if not math.isfinite(train):
            return own
        return own._replace(
            train_sum=own.train_sum + train,
            train_min=min(own.train_min, train),
            train_count=own.train_count + 1,
        )

    def _with_end(self, own: OverfitState) -> OverfitState:
        if not math.isfinite(own.loss):
            return own._replace(rises=own.rises + 1)
        return own._replace(end=own.loss, rises=own.rises + 1 if own.loss > own.end else 0)

    def uncounted(self, before: OverfitState, after: OverfitState) -> OverfitState:
        return before._replace(best=after.best, best_step=after.best_step)

    def decide(self, own: OverfitState) -> Decision:
        if self.criterion != "gl" and own.in_strip < self.strip:
            text = "evaluation {in_strip} of {strip} in the strip, judged at its end"
            return self.keep(text, in_strip=own.in_strip, strip=self.strip)
        if self.criterion == "up":
            return self._decide_up(own)
        if own.best_step is None:
            return self.keep("the value is not finite, and no other to compare with yet")
        loss, best = own.loss, own.best
        numbers: dict[str, Any] = {"loss": loss, "best": best, "best_step": own.best_step}
        gl, allowed = _above(own.loss, own.best, 100), self.alpha
        text = "{loss:loss} is {gl:.4g} % worse than the best {best:loss} at step {best_step:g}"
        numbers |= {"gl": gl, "alpha": self.alpha}
        if self.criterion == "gl":
            text += ", alpha {alpha} %"
        else:
            progress = _progress(own)
            allowed *= progress
            text += ", training moved by {progress:.4g} per mille, alpha {alpha} % for each"
            numbers["progress"] = progress
        return (self.stop if gl > allowed else self.keep)(text, **numbers)

    def _decide_up(self, own: OverfitState) -> Decision:
        text = "{loss:loss} ends the strip, {rises} of {strips} strips in a row worse than before"
        done = own.rises >= self.strips
        decide = self.stop if done else self.keep
        return decide(text, loss=own.loss, rises=own.rises, strips=self.strips)


def _above(value: float, base: float, parts: float) -> float:
    """How far `value` is above `base`, in `parts` of |base|; infinite for any rise above zero."""
    if value <= base:
        return 0.0
    return parts * (value - base) / abs(base) if base else math.inf


def _progress(own: OverfitState) -> float:
    """P: how far the strip's mean train loss is above its minimum, in per mille."""
    if own.train_count == 0:
        return 0.0
    return _above(own.train_sum / own.train_count, own.train_min, 1000)
