"""Forecast: stop a trial whose future best will hardly beat the target."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from tune_stoppers.core import (
    Decision,
    OnNonfinite,
    Report,
    SweepRule,
    require_choice,
    require_number,
)
from tune_stoppers.rules.schedule import LearningRate, check_schedule
from tune_stoppers.rules.sweep.bound_asha import NOBODY, Incumbent

if TYPE_CHECKING:
    from tune_stoppers.forecast import Forecaster
else:
    Forecaster = Any  # numpy comes with the first record

UNKNOWN_RATE = LearningRate()


@dataclass(slots=True)
class ForecastRecord:
    """The mutable state of a sweep."""

    forecaster: Forecaster
    judged: dict[str, tuple[float, Decision]] = field(default_factory=dict)  # each trial's newest
    bests: dict[str, Incumbent] = field(default_factory=dict)
    rates: dict[str, LearningRate] = field(default_factory=dict)
    incumbent: Incumbent = NOBODY


@dataclass(frozen=True, kw_only=True)
class Forecast(SweepRule[ForecastRecord]):
    """Stop once P(best loss in (t, `max_t`] < `target`) < `probability`.

    The probability is that of `tune_stoppers.forecast.Forecaster`, learnt from the sweep's own
    trials. Nothing is stopped where that is not calibrated: until four trials have been seen to
    the end, and wherever, each forecast from the others, they were not forecast better than by
    "the last value persists". With the sweep's best as the target its holder is exempt. At
    `max_t` nothing is left to forecast, and the trial stops.

    Args:
        max_t: the horizon, in units of the time.
        probability: below which a trial stops; above 0, below 1.
        target: loss units (for a maximised metric: negated); None: the sweep's best so far.
        history: earlier sweeps (`Sweep`), part of the prior; on recorded fine-tunes they did not
            help (docs/history.md).
        start_after: everything is seen and counted, and nothing stopped before this time.
        lr_metric: where the learning rate is reported: trials are compared at equal shares of
            their maximum, and none is stopped while it still rises.
        schedule_end: nor while it is within 5 % of its maximum and this time lies ahead
            (`rules.schedule`).

    A loss that is not finite: "worst" counts as the trial's worst so far, "stop" stops, "ignore"
    is neutral. A report at the time last judged gets the same decision and changes nothing; one
    at an earlier time means that the trial went back.
    """

    max_t: float
    probability: float = 0.05
    target: float | None = None
    history: tuple[Any, ...] = field(default=(), repr=False)
    start_after: float = 0
    lr_metric: str | None = None
    schedule_end: float | None = None
    on_nonfinite: OnNonfinite = "worst"

    def __post_init__(self) -> None:
        require_number("max_t", self.max_t, above=0)
        require_number("probability", self.probability, above=0, below=1)
        require_number("start_after", self.start_after, at_least=0)
        if self.target is not None:
            require_number("target", self.target)
        check_schedule(self.lr_metric, self.schedule_end)
        require_choice("on_nonfinite", self.on_nonfinite, ("worst", "stop", "ignore"))
        object.__setattr__(self, "history", tuple(self.history))
        if self.history:
            self.init()  # which refuses what is no sweep

    @property
    def reads(self) -> tuple[str, ...]:
        """The learning rate, where the rule is told of it."""
        return () if self.lr_metric is None else (self.lr_metric,)

    @property
    def signature(self) -> str:
        """As any rule's, with the number of earlier sweeps."""
        return f"{self!r} with {len(self.history)} earlier sweeps, version {self.version}"

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
        """The same rule under another policy for values that are not finite."""
        return replace(self, on_nonfinite=on_nonfinite)

    @property
    def record_type(self) -> type[ForecastRecord]:
        """The record's, without one made of all earlier sweeps."""
        return ForecastRecord

    def init(self) -> ForecastRecord:
        """The record before the first report."""
        from tune_stoppers.forecast import Forecaster

        return ForecastRecord(Forecaster(self.max_t, self.history))

    def update(
        self,
        record: ForecastRecord,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; `record` is changed. Checkpoints play no part."""
        trial_id, time, loss, _ = report
        before = record.judged.get(trial_id)
        if before is not None and before[0] == time:
            return before[1]
        if loss is None or (self.on_nonfinite == "ignore" and not math.isfinite(loss)):
            return self.keep("nothing to judge") if before is None else before[1]
        if before is not None and time < before[0]:
            record.rates.pop(trial_id, None)
        decision = self._judge(record, report, loss)
        record.judged[trial_id] = time, decision
        return decision

    def ended(self, record: ForecastRecord, report: Report) -> None:
        """The trial is over, with this last report; before `max_t` it was cut short."""
        if report.loss is not None:
            self.update(record, report)
        self._close(record, report.trial_id, None)

    def finished(self, record: ForecastRecord, trial_id: str) -> None:
        """The trial has come to its own end, also if that is before `max_t`."""
        self._close(record, trial_id, True)

    def lost(self, record: ForecastRecord, trial_id: str) -> None:
        """The trial's process died: it may come back, so nothing goes."""

    def forget(self, record: ForecastRecord, trial_ids: Iterable[str]) -> None:
        """Drop these trials; the incumbent is the best of the others."""
        for trial_id in trial_ids:
            record.forecaster.forget(trial_id)
            for known in (record.judged, record.bests, record.rates):
                known.pop(trial_id, None)
        record.incumbent = min(record.bests.values(), default=NOBODY, key=lambda best: best.loss)

    def dump(self, record: ForecastRecord) -> dict[str, Any]:
        """`record` as JSON data."""
        data: dict[str, Any] = super().dump(record)
        return data | {"forecaster": record.forecaster.dump()}

    def load(self, data: dict[str, Any]) -> ForecastRecord:
        """The record that `dump` wrote; the forecaster needs the earlier sweeps too."""
        from tune_stoppers.forecast import Forecaster

        record = super().load(data)
        record.forecaster = Forecaster.load(self.max_t, data["forecaster"], self.history)
        return record

    def _close(self, record: ForecastRecord, trial_id: str, whole: bool | None) -> None:
        record.forecaster.ended(trial_id, whole)
        record.rates.pop(trial_id, None)

    def _judge(self, record: ForecastRecord, report: Report, loss: float) -> Decision:
        trial_id, time, _, metrics = report
        lr = metrics.get(self.lr_metric) if self.lr_metric is not None else None
        rate = record.rates.get(trial_id, UNKNOWN_RATE)
        if lr is not None:
            rate = record.rates[trial_id] = rate.then(lr)
        record.forecaster.observe(trial_id, time, loss, lr)
        if not math.isfinite(loss) and self.on_nonfinite == "stop":
            return self.stop("the value is {value}, which is not finite", value=loss)
        if math.isfinite(loss) and loss < record.bests.get(trial_id, NOBODY).loss:
            best = record.bests[trial_id] = Incumbent(loss, trial_id, time)
            if loss < record.incumbent.loss:
                record.incumbent = best
        if time >= self.max_t:
            return self.stop("the horizon {max_t:g} is reached", max_t=self.max_t)
        if time < self.start_after:
            return self.keep("{loss:loss}: not before {start:g}", loss=loss, start=self.start_after)
        if held := self.lr_metric and rate.holds(time, self.schedule_end):
            return self.keep("{loss:loss}; no forecast, {held}", loss=loss, held=held)
        if trial_id not in record.bests:
            return self.keep("no finite value yet")
        return self._by_forecast(record, trial_id, loss)

    def _by_forecast(self, record: ForecastRecord, trial_id: str, loss: float) -> Decision:
        target = record.incumbent.loss if self.target is None else self.target
        if self.target is None and trial_id == record.incumbent.trial_id:
            return self.keep("the incumbent, {best:loss}", best=target)
        forecast = record.forecaster.forecast(trial_id)
        skill, tested = record.forecaster.skill(trial_id)
        if not forecast.calibrated:
            text = (
                "{loss:loss}: the forecasts are not calibrated here (better than persistence by "
                "{skill:.2f} nats, on {tested} trials)"
            )
            return self.keep(text, loss=loss, skill=skill, tested=tested)
        below = forecast.probability_below(target)
        low, high = forecast.quantile(0.05), forecast.quantile(0.95)
        decide = self.stop if below < self.probability else self.keep
        return decide(
            "{loss:loss}; its best to come is forecast between {low:loss} and {high:loss} (90 %), "
            "with probability {chance:.3f} past the target {target:loss}, {probability:g} needed",
            loss=loss,
            low=low,
            high=high,
            chance=below,
            target=target,
            probability=self.probability,
            skill=skill,
            tested=tested,
        )
