"""Divergence: stop a trial that has blown up."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from tune_stoppers.core import Decision, Report, Rule, require, require_number


class DivergenceState(NamedTuple):
    """What `Divergence` remembers."""

    first: float  # the first finite loss; infinity: none yet
    best: float  # the lowest finite loss, the newest included
    finite: int  # finite losses seen
    loss: float  # the newest loss; infinity stands for any that was not finite
    strikes: int  # losses in a row that were not finite
    beyond: int  # finite losses in a row beyond the bound
    gradient: float  # the newest gradient norm reported


@dataclass(frozen=True)
class Divergence(Rule):
    """Stop on NaN or infinity, on a value beyond a limit, or on a loss far above its best.

    Formula: stop if `nonfinite_strikes` losses in a row are not finite; or loss > `limit`; or,
    from the third finite evaluation on, loss > best + `factor`·(first - best) `patience` times in
    a row (while the first is the best: > best + `factor`·|first|); or the gradient norm is above
    `gradient_limit`.

    Args:
        nonfinite_strikes: evaluations in a row, at least 1.
        factor: multiples of the trial's own progress so far, above 0; None: no such bound.
        limit: loss units; None: no limit.
        gradient_limit: units of the gradient norm, above 0; None: it is not read.
        patience: evaluations in a row beyond the bound, at least 1.
        gradient_metric: where the gradient norm is reported.

    `on_nonfinite="ignore"` leaves values that are not finite out, also from the strikes; a
    gradient norm that is not finite is above any limit. A report without the metric, or at a step
    already seen, changes nothing.

    Example: first 4, best 2, factor 3: a loss above 2 + 3·(4 - 2) = 8, twice in a row, stops.
    """

    nonfinite_strikes: int = 1
    factor: float | None = 3.0
    limit: float | None = None
    gradient_limit: float | None = None
    patience: int = 2
    gradient_metric: str = "grad_norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("nonfinite_strikes", self.nonfinite_strikes, at_least=1, integer=True)
        require_number("patience", self.patience, at_least=1, integer=True)
        if self.factor is not None:
            require_number("factor", self.factor, above=0)
        if self.limit is not None:
            require_number("limit", self.limit)
        if self.gradient_limit is not None:
            require_number("gradient_limit", self.gradient_limit, above=0)
        require(bool(self.gradient_metric), "gradient_metric is empty; give its name.")

    @property
    def reads(self) -> tuple[str, ...]:
        return () if self.gradient_limit is None else (self.gradient_metric,)

    def concerns(self, report: Report) -> bool:
        return report.loss is not None or any(key in report.metrics for key in self.reads)

    def start(self) -> DivergenceState:
        return DivergenceState(math.inf, math.inf, 0, math.inf, 0, 0, 0.0)

    def observe(self, own: DivergenceState, report: Report) -> DivergenceState:
        if self.gradient_limit is not None and self.gradient_metric in report.metrics:
            gradient = report.metrics[self.gradient_metric]
            own = own._replace(gradient=gradient if math.isfinite(gradient) else math.inf)
        if report.loss is None:
            return own
        if not math.isfinite(report.loss):
            return own._replace(loss=math.inf, strikes=own.strikes + 1)
        own = own._replace(
            first=own.first if own.finite else report.loss,
            best=min(own.best, report.loss),
            finite=own.finite + 1,
            loss=report.loss,
            strikes=0,
        )
        beyond = own.finite >= 3 and report.loss > self._bound(own)
        return own._replace(beyond=own.beyond + 1 if beyond else 0)

    def decide(self, own: DivergenceState) -> Decision:
        struck = "{strikes} of {allowed} evaluations in a row not finite"
        strikes = {"strikes": own.strikes, "allowed": self.nonfinite_strikes}
        if own.strikes >= self.nonfinite_strikes:
            return self.stop(struck, **strikes)
        if self.gradient_limit is not None and own.gradient > self.gradient_limit:
            text = "{metric} {gradient} is above its limit {limit}"
            numbers = {"gradient": own.gradient, "limit": self.gradient_limit}
            return self.stop(text, metric=self.gradient_metric, **numbers)
        if own.strikes:
            return self.keep(struck, **strikes)
        if self.limit is not None and own.finite and own.loss > self.limit:
            text = "{loss:loss} is beyond the limit {limit:loss}"
            return self.stop(text, loss=own.loss, limit=self.limit)
        if own.beyond == 0:
            return self.keep("{loss:loss} is within bounds", loss=own.loss)
        decide = self.stop if own.beyond >= self.patience else self.keep
        text = (
            "{loss:loss} is worse than the bound {bound:loss} (first {first:loss}, best "
            "{best:loss}, factor {factor}), {beyond} of {patience} in a row"
        )
        return decide(
            text,
            loss=own.loss,
            bound=self._bound(own),
            first=own.first,
            best=own.best,
            factor=self.factor,
            beyond=own.beyond,
            patience=self.patience,
        )

    def _bound(self, own: DivergenceState) -> float:
        if self.factor is None:
            return math.inf
        progress = own.first - own.best
        return own.best + self.factor * (progress if progress > 0 else abs(own.first))
