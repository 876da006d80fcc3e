"""Written by `python -m tune_stoppers.tune.stoppers.signatures`: change the rules, not it."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, Literal

from tune_stoppers.tune.stoppers.base import RuleStopper as RuleStopper
from tune_stoppers.tune.stoppers.combinators import AllOf as AllOf
from tune_stoppers.tune.stoppers.combinators import AnyOf as AnyOf
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule

class AdaptivePatienceStopper(StopperOfRule):
    """Patience that grows while a trial improves quickly and shrinks while it hardly does.

    ::

        AdaptivePatienceStopper("loss", "min", initial_patience=2)  # loss 1, 1, 1: report 3

    With `scale="noise"`, one setting serves a loss near 0.01 and one near 10.
    `rules.AdaptivePatience` has the formulas.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        initial_patience: evaluations, within the two bounds below.
        min_patience: evaluations, at least 1.
        max_patience: evaluations, at least `min_patience`.
        window: differences to average, 1 to 50; the state holds `window` + 1 losses.
        history: finite values before the patience moves at all, at least 2 ("noise": 3).
        grow_above: gain per evaluation, in units of the metric ("abs") or multiples of the
            noise.
        shrink_below: the same units, at most `grow_above`.
        scale: "noise" multiplies both with `rules.noise.deviation` of the newest 24 finite
            losses (more for a `window` over 23): one setting serves a loss near 0.01 and one
            near 10. On a flat curve the noise alone moves g by about sqrt(2)/`window` of it:
            0.28 for 5. Without any noise a fall grows the patience, a rise shrinks it.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what
            does not count is no value to `history` and does not move the patience.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        initial_patience: int = 5,
        min_patience: int = 2,
        max_patience: int = 20,
        window: int = 5,
        history: int = 10,
        grow_above: float = 0.01,
        shrink_below: float = 0.001,
        scale: Literal["abs", "noise"] = "abs",
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class BudgetStopper(StopperOfRule):
    """Ends a trial, or the sweep, when what it was given is spent; needs no metric and no mode.

    ::

        BudgetStopper(trial_seconds=60)  # time_this_iter_s 25, 25, 25: stops at report 3
        BudgetStopper(gpu_hours=100, gpus_per_trial=2)  # of all trials together
        BudgetStopper(sweep_seconds=8 * 3600, on_end="drain")
        BudgetStopper(money=250, gpu_hour_price=2.5, currency="EUR")  # 100 GPU-hours
        BudgetStopper(kwh=20)  # of this machine, where its counters can be read

    Active time, of `trial_seconds`, `gpu_hours` and `money`, is the sum of `time_this_iter_s` over
    a trial's reports: work that a restart lost and did again counts twice, waiting in a queue,
    paused or between a crash and `Tuner.restore` not at all. `sweep_seconds` is by a clock that
    does not run between a crash and `Tuner.restore`, nor does the meter of `kwh`. All are kept with
    the experiment.

    At the end of a sweep's budget, "kill" ends every trial at once; `sweep_seconds` and `kwh` do so
    also while no trial reports. "drain" ends each trial at its next report. A stopper cannot keep
    Ray from starting trials: those that start after that end at their first report. `rules.Budget`
    has the formula.

    Args:
        trial_seconds: active seconds of one trial, above 0; None: no such budget. Ends that
            trial.
        sweep_seconds: seconds since the sweep began, above 0; None: no such budget.
        gpu_hours: of all trials together, above 0; None: no such budget.
        gpus_per_trial: GPUs that one trial holds, above 0; a share of one is fine.
        on_end: when a budget of the sweep is spent, "kill" ends the sweep, "drain" each trial
            at its next report.
        money: that all trials together may cost, in any currency, above 0; None: no such
            budget.
        gpu_hour_price: of a GPU for an hour, in that currency, above 0; money needs it.
        currency: what the reasons call it, "EUR" for instance.
        kwh: energy that the machine may use in the sweep, above 0; None: no such budget. Of all
            of its GPUs and CPUs that have a counter (NVML, RAPL), whoever uses them. For one
            machine; without a counter that can be read, making a stopper or scheduler of it is
            an error.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        trial_seconds: float | None = None,
        sweep_seconds: float | None = None,
        gpu_hours: float | None = None,
        gpus_per_trial: float = 1,
        on_end: Literal["kill", "drain"] = "kill",
        *,
        money: float | None = None,
        gpu_hour_price: float | None = None,
        currency: str = "",
        kwh: float | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class DiminishingReturnsStopper(StopperOfRule):
    """Ends the whole sweep once continuing it is expected to gain too little.

    ::

        DiminishingReturnsStopper("eval_loss", "min")  # no more than the noise of an evaluation
        DiminishingReturnsStopper("accuracy", "max", worth=0.002)  # or under 0.002 an hour
        DiminishingReturnsStopper(
            "accuracy", "max", worth=0.0005, gpu_hour_price=2.5, currency="EUR"
        )  # or under 0.0005 a euro

    Never before `min_trials` have reported and one has come to its end: by itself, or at `max_t`,
    to be given where a scheduler ends trials there. The reason says what is expected to be left on
    the table. `rules.DiminishingReturns` has the formula. `worth` is per hour of the sweep, by a
    clock that does not run between a crash and `Tuner.restore`, or, with `gpu_hour_price`, per unit
    of money. With a searcher that improves
    over the sweep, more may be left than is said.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        patience: checks in a row, at least 1.
        min_trials: that have reported, at least 4, before the sweep may end; and at least one
            has come to its end.
        ahead: how far to look, in units of the sweep's length so far.
        noise: factor on the deviation; 0: only a sweep with nothing to gain ends.
        worth: what an hour of the sweep has to gain, in units of the metric, or, with
            `gpu_hour_price`, what a unit of money has to; None: it costs nothing.
        max_t: the time at which a trial is at its end also if it does not end by itself (a
            scheduler ends it there); None: the longest time a trial has reached.
        start_after: everything is seen and counted, and nothing ended by a report before it.
        gpu_hour_price: of a GPU for an hour, in any currency, above 0; None: the reasons say
            nothing of money.
        gpus_per_trial: GPUs that one trial holds, above 0; a share of one is fine.
        currency: what the reasons call it, "EUR" for instance.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        patience: int = 5,
        min_trials: int = 30,
        ahead: float = 1.0,
        noise: float = 1.0,
        worth: float | None = None,
        max_t: float | None = None,
        start_after: float = 0,
        gpu_hour_price: float | None = None,
        gpus_per_trial: float = 1,
        currency: str = "",
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class DivergenceStopper(StopperOfRule):
    """Stops a trial that has blown up: NaN, infinity, a value beyond `limit` or far off its best.

    ::

        DivergenceStopper("loss", "min")  # loss 4, 2, 9, 9: stops at report 4
        DivergenceStopper("loss", "min")  # loss 4, nan: stops at report 2
        DivergenceStopper("reward", "max", limit=-50)  # reward 1, -60: stops at report 2

    `rules.Divergence` has the formula.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        nonfinite_strikes: evaluations in a row, at least 1.
        factor: multiples of the trial's own progress so far, above 0; None: no such bound.
        limit: units of the metric; None: no limit.
        gradient_limit: units of the gradient norm, above 0; None: it is not read.
        patience: evaluations in a row beyond the bound, at least 1.
        gradient_metric: where the gradient norm is reported.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        nonfinite_strikes: int = 1,
        factor: float | None = 3.0,
        limit: float | None = None,
        gradient_limit: float | None = None,
        patience: int = 2,
        gradient_metric: str = "grad_norm",
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class ForecastStopper(StopperOfRule):
    """Stops a trial once its future best will hardly beat the target.

    ::

        ForecastStopper("eval_loss", "min", max_t=100)  # P(beats the sweep's best) < 0.05
        ForecastStopper("accuracy", "max", max_t=100, probability=0.01, target=0.9)

    The forecast is learnt from the sweep's own trials: it needs some that have run to the end,
    and decides only where, on those, it has done better than "the last value persists".
    `rules.Forecast` has the formula, `tune_stoppers.forecast.Forecaster` the forecast. Of trials
    that a scheduler stops it never learns the end: to prune by rank and by forecast at once, use a
    scheduler that does both.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        max_t: the horizon, in units of the time.
        probability: below which a trial stops; above 0, below 1.
        target: units of the metric; None: the sweep's best so far.
        history: earlier sweeps (`Sweep`), part of the prior; on recorded fine-tunes they did
            not help (docs/history.md).
        start_after: everything is seen and counted, and nothing stopped before this time.
        lr_metric: where the learning rate is reported: trials are compared at equal shares of
            their maximum, and none is stopped while it still rises.
        schedule_end: nor while it is within 5 % of its maximum and this time lies ahead
            (`rules.schedule`).
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        max_t: float,
        probability: float = 0.05,
        target: float | None = None,
        history: Iterable[Any] = (),
        start_after: float = 0,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class GradientStopper(StopperOfRule):
    """Stops a trial whose curve is flat, or whose reported gradient norm has become small.

    ::

        GradientStopper("loss", "min", patience=2)  # loss 3, 1, 1, 1: stops at report 4
        norm = {"source": "grad_norm", "threshold": 0.5}
        GradientStopper(patience=1, **norm)  # grad_norm 0.1, 0.6, 0.4: stops at report 3

    `source="metric"`: `rules.Slope` over the last `window` evaluations, with `confidence` only
    where the slope's interval lies inside ± `threshold`. `source="grad_norm"`:
    `rules.GradientNorm`, which needs neither metric nor mode; `relative` to the trial's own early
    norms, ignoring the first `warmup` units of `time_attr`.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        threshold: units of the metric per `per`, or units of the norm (a share of the early
            norm if `relative`); above 0.
        patience: evaluations in a row, at least 1.
        window: finite evaluations, 2 to 30; at least 3 with `confidence`.
        per: "evaluation", or "step" for slopes per unit of `time_attr`.
        confidence: of the interval, between 0 and 1; None: no interval.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what
            does not count is left out of the window.
        gradient_metric: where the norm is reported; the objective is not read.
        relative: measure by the trial's own early norm, whatever the model's size.
        warmup: units of `time_attr`, at least 0; norms before this step are left out of all, as
            they reflect the rising learning rate.
        source: "metric", the slope of the metric, or "grad_norm", a gradient norm that trials
            report.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: Literal["min", "max"] | None = None,
        *,
        threshold: float = 0.001,
        patience: int = 5,
        window: int = 2,
        per: Literal["evaluation", "step"] = "evaluation",
        confidence: float | None = None,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        gradient_metric: str = "grad_norm",
        relative: bool = False,
        warmup: float = 0.0,
        source: Literal["metric", "grad_norm"] = "metric",
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class MultiMetricStopper(StopperOfRule):
    """Stops a trial whose composite of several metrics has not risen for `patience` evaluations.

    ::

        both = {"loss": {"mode": "min"}, "acc": {"mode": "max", "weight": 2}}
        MultiMetricStopper(both, patience=1)  # loss 1, 0.5, 0.6; acc 0.1, 0.2, 0.2: report 3

    `combine="vote"` asks each metric apart: a weighted majority must have stalled.
    `rules.MultiMetric` has the formulas.

    Args:
        metrics: {name: {"mode": "min" or "max", "weight": 1}}; weights above 0, 1 where left
            out. Values are read in their own units; there is no other objective.
        patience: evaluations, at least 1.
        scaling: "reciprocal" or "relative"; a vote needs none.
        combine: "score" or "vote".
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Any]],
        *,
        patience: int = 5,
        scaling: Literal["reciprocal", "relative"] = "reciprocal",
        combine: Literal["score", "vote"] = "score",
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class OverfitStopper(StopperOfRule):
    """Stops a trial that overfits, by Prechelt's (1998) criteria GL, PQ or UP.

    ::

        OverfitStopper("loss", "min", alpha=5)  # loss 1, 1.04, 1.06: stops at report 3
        OverfitStopper("acc", "max", alpha=5)  # acc 1, 0.96, 0.94: stops at report 3

    `mode` holds for `metric` and `train_metric`. `rules.Overfit` has the formulas.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        train_metric: name of the train loss, read by "pq" alone, which needs it.
        criterion: "gl", "pq" or "up".
        alpha: "gl": per cent; "pq": GL per cent for each per mille of P; at least 0. The paper
            tries 1 to 5 for GL, 0.5 to 3 for PQ.
        strip: evaluations, at least 1 ("pq": 2).
        strips: strips in a row, at least 1 ("up").
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what
            does not count is in no strip.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        train_metric: str | None = None,
        criterion: Literal["gl", "pq", "up"] = "gl",
        alpha: float = 5.0,
        strip: int = 5,
        strips: int = 3,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class PatienceStopper(StopperOfRule):
    """Stops a trial at the `patience`-th evaluation in a row without improvement.

    ::

        PatienceStopper("loss", "min", patience=2)  # loss 3, 2, 2.5, 2: stops at report 4
        PatienceStopper("acc", "max", patience=2, baseline=0.5)  # acc 0.3, 0.4: report 2

    `rules.Patience` says what an improvement is. With `lr_metric` and `schedule_end`, plateaus that
    the learning rate explains do not count (`rules.schedule.LrAware`).

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        patience: evaluations, at least 1; or a mapping {step: patience}, each in force from its
            step on (the lowest step's before that).
        min_delta: units of the metric ("abs") or a share of |best| ("rel"), at least 0. |best|
            makes the relative form right for negative values; at best = 0 any gain counts.
        min_delta_mode: "abs" or "rel": what `min_delta` is measured in.
        baseline: units of the metric; the count also runs while the loss is not better than
            this.
        smoothing: {"ema": 0.9}, {"mean": 5} or {"median": 5} over the evaluations; improvement
            is then judged on the smoothed value. Non-finite values are left out of it.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what
            does not count still enters the smoothing.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        patience: int | Mapping[float, int] = 5,
        min_delta: float = 0.0,
        min_delta_mode: Literal["abs", "rel"] = "abs",
        baseline: float | None = None,
        smoothing: Mapping[str, float] | None = None,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class RecoveryStopper(StopperOfRule):
    """Gives a trial that stopped improving `recovery_patience` more evaluations to come back.

    ::

        RecoveryStopper("loss", "min", patience=1, recovery_patience=1)  # loss 1, 1, 1: report 3

    It only decides: nothing is rolled back. `rules.Recovery` has the formula.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        patience: evaluations, at least 1.
        recovery_patience: further evaluations, at least 1.
        max_recoveries: recoveries after which no further phase is granted, at least 0 (plain
            patience); None: any number.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        patience: int = 5,
        recovery_patience: int = 3,
        max_recoveries: int | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...

class ThresholdStopper(StopperOfRule):
    """Stops a trial, or the sweep, once the metric is past its target `patience` times in a row.

    ::

        ThresholdStopper("loss", "min", threshold=0.1)  # loss 0.2, 0.1, 0.09: stops at report 3
        ThresholdStopper("acc", "max", threshold=0.9, scope="sweep")  # acc 0.8, 0.95: report 2

    Past means strictly better: below the threshold for "min", above it for "max".
    `rules.Threshold` has the details.

    Args:
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        threshold: units of the metric.
        patience: evaluations in a row, at least 1.
        smoothing: {"ema": 0.9}, {"mean": 5} or {"median": 5}, for noisy training losses.
        scope: "trial" ends this trial; "sweep" ends every trial once one has reached the
            target.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at
            an earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue;
            by default they are written, and then off the controller's thread, to
            `tune_stoppers/` in the experiment's folder, where `best_states` looks for what the
            results do not say.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"],
        *,
        threshold: float,
        patience: int = 1,
        smoothing: Mapping[str, float] | None = None,
        scope: Literal["trial", "sweep"] = "trial",
        time_attr: str = "training_iteration",
        on_nonfinite: Literal["worst", "stop", "ignore"] | None = None,
        on_missing: Literal["raise", "skip"] = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | PathLike[str] | None = None,
    ) -> None: ...
