"""`BoundASHAScheduler`: the rule `BoundASHA` under Ray Tune."""

import math
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_stoppers.core import (
    Action,
    Decision,
    Mode,
    OnMissing,
    OnNonfinite,
    require_choice,
    require_number,
)
from tune_stoppers.metrics import check_metric
from tune_stoppers.rules.bound_asha import BoundASHA
from tune_stoppers.tune.reader import STOP_REASON, Reading, ResultReader


class BoundASHAScheduler(FIFOScheduler):
    """ASHA's quota, or an optimistic bound that cannot reach the incumbent: whichever comes first.

    `rules.bound_asha.BoundASHA` says exactly when a trial stops. Needs no checkpoints.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        metric, mode: here or in `TuneConfig`; different ones in both are an error.
        time_attr: anything that grows: iterations, steps, tokens, seconds; or "progress" with
            max_t=1.0, to compare trials of different length at equal progress.
        grace_period: the first rung; None: 4 % of `max_t`, rounded up if that is an int.
        reduction_factor: 1/`reduction_factor` of the trials survive a rung.
        optimism: the larger, the later the bound stops a trial.
        noise: how many median second differences the bound allows.
        bound_after: the share of `max_t` from which the bound acts.
        window: keep only the newest N entries of each rung, for searchers that improve.
        on_nonfinite: "worst" and "stop" stop such a trial at once and count it as worst at its
            next rung; "ignore" leaves the report out.
        on_missing: "raise": Ray itself ends the sweep at a report without the metric; "skip":
            such reports are left out (give the metric here then, not to `TuneConfig`).
        start_after: nothing is stopped before this time; everything is recorded.
        dry_run: nothing is stopped; `decisions` tells what would have been.

    `decisions` maps each trial to its newest decision, with the reason. The last result of a
    trial that it stopped, and so the `ResultGrid`, carries `stop_reason`; `result.json` does not.
    """

    def __init__(
        self,
        max_t: float,
        grace_period: float | None = None,
        reduction_factor: float = 3,
        optimism: float = 4.0,
        bound_after: float = 0.2,
        *,
        metric: str | None = None,
        mode: Mode | None = None,
        time_attr: str = "training_iteration",
        noise: float = 0.6,
        window: int | None = None,
        on_nonfinite: OnNonfinite = "worst",
        on_missing: OnMissing = "raise",
        start_after: float = 0,
        dry_run: bool = False,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.rule = BoundASHA(
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            optimism=optimism,
            noise=noise,
            bound_after=bound_after,
            window=window,
        )
        require_choice("on_nonfinite", on_nonfinite, ("worst", "stop", "ignore"))
        require_choice("on_missing", on_missing, ("raise", "skip"))
        require_number("start_after", start_after, at_least=0)
        if mode is not None:
            require_choice(f"{self.name} mode", mode, ("min", "max"))
        self._metric, self._mode = metric, mode
        self.time_attr, self.on_missing, self.on_nonfinite = time_attr, on_missing, on_nonfinite
        self.start_after, self.dry_run = start_after, dry_run
        self.decisions: dict[str, Decision] = {}
        self._reasons: dict[str, str] = {}  # of the trials being stopped
        self._record = self.rule.init()
        self._reader: ResultReader | None = None

    @property
    def metric(self) -> str | None:
        """What Ray insists on finding in every report; None under on_missing="skip"."""
        return self._metric if self.on_missing == "raise" else None

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from `TuneConfig`; `ValueError` if others were given here."""
        for name, mine, theirs in (
            ("metric", self._metric, metric),
            ("mode", self._mode, mode),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                raise ValueError(
                    f"{self.name} has {name}={mine!r} and TuneConfig {name}={theirs!r}: "
                    "give it in one place."
                )
        self._metric = self._metric or metric
        self._mode = self._mode or mode  # type: ignore[assignment]  # checked by the reader
        check_metric(self.name, self._metric, self._mode)
        return True

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a report; Ray's name for the action."""
        reading = self._read(trial.trial_id, result)
        if reading is None:
            return str(TrialScheduler.CONTINUE)
        report = reading.report
        assert report.loss is not None
        decision = self.rule.update(self._record, trial.trial_id, report.step, report.loss)
        self.decisions[trial.trial_id] = decision
        if decision.action is not Action.STOP or self.dry_run or report.step < self.start_after:
            return str(TrialScheduler.CONTINUE)
        result[STOP_REASON] = self._reasons[trial.trial_id] = self.explain(trial.trial_id)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Record the last report of a trial that ended by itself or by a stopper.

        Of one that this scheduler stopped, the last result gets the reason: what was set on the
        flat result in `on_trial_result` was a copy.
        """
        if trial.trial_id in self._reasons:
            trial.last_result[STOP_REASON] = self._reasons.pop(trial.trial_id)
        reading = self._read(trial.trial_id, result)
        if reading is None:
            self.rule.lost(self._record, trial.trial_id)
            return
        report = reading.report
        assert report.loss is not None
        self.rule.ended(self._record, trial.trial_id, report.step, report.loss)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """A crash or a lost node is no evidence against a trial."""
        self.rule.lost(self._record, trial.trial_id)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """A trial that was never run, or is paused, is dropped."""
        self.rule.lost(self._record, trial.trial_id)

    def explain(self, trial_id: str) -> str:
        """The newest decision on a trial in words, in the metric's own units."""
        decision = self.decisions.get(trial_id)
        if decision is None:
            return f"{self.name}: nothing judged yet"
        sign = -1 if self._mode == "max" else 1
        return f"{self.name}: {decision.say(sign)}"

    def debug_string(self) -> str:
        """One line: rungs with their entries, and the incumbent."""
        rungs = ", ".join(
            f"{time:g}: {len(rung.losses)}"
            for time, rung in zip(self.rule.rungs, self._record.rungs, strict=True)
        )
        best = self._record.incumbent
        sign = -1 if self._mode == "max" else 1
        value = f"{sign * best.loss:.6g} by {best.trial_id}" if best.trial_id else "none yet"
        return f"{self.name}: trials recorded at rungs {{{rungs}}}; best {value}"

    def _read(self, trial_id: str, result: dict[str, Any]) -> Reading | None:
        """The report, or None if there is nothing to judge."""
        if self._reader is None:
            check_metric(self.name, self._metric, self._mode)
            assert self._mode is not None
            self._reader = ResultReader(
                self.name,
                self.rule,
                metric=self._metric,
                mode=self._mode,
                time_attr=self.time_attr,
                on_missing=self.on_missing,
            )
        reading = self._reader.read(trial_id, result)
        if reading is None or reading.report.loss is None:
            return None
        if self.on_nonfinite == "ignore" and not math.isfinite(reading.report.loss):
            return None
        return reading
