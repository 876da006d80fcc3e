"""Any Optuna pruner as a Ray scheduler, so that it can be replayed beside the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_stoppers.core import Mode, require_choice
from tune_stoppers.metrics import check_metric
from tune_stoppers.tune.ray_internals.types import Controller, Trial

if TYPE_CHECKING:
    import optuna


class OptunaPrunerScheduler(FIFOScheduler):
    """Stops the trials that an Optuna pruner would prune.

    Each Tune trial is a trial of an in-memory study without parameters. A report is Optuna's
    `trial.report(value, step)`, then `should_prune()`. A trial that ends by itself or by a stopper
    is told to the study as complete, with its last value; one that crashed as failed. Infinite
    and NaN values reach the pruner as they are; as the last value of a trial they count as worst.

    Args:
        pruner: an `optuna.pruners.BasePruner`.
        metric, mode: here or in `TuneConfig`.
        time_attr: gives Optuna's step; whole numbers only, as Optuna has it.
    """

    def __init__(
        self,
        pruner: optuna.pruners.BasePruner,
        *,
        metric: str | None = None,
        mode: Mode | None = None,
        time_attr: str = "training_iteration",
    ) -> None:
        import optuna  # an extra

        super().__init__()
        if not isinstance(pruner, optuna.pruners.BasePruner):
            raise TypeError(f"pruner must be an Optuna pruner, got {type(pruner).__name__}.")
        if mode is not None:
            require_choice("OptunaPrunerScheduler mode", mode, ("min", "max"))
        self._pruner, self._metric, self._mode, self.time_attr = pruner, metric, mode, time_attr
        self._study: optuna.Study | None = None  # made at the first report
        self._trials: dict[str, optuna.Trial] = {}  # those that have not ended
        self._steps: dict[str, int] = {}  # the last one reported

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from `TuneConfig`; False, Ray's no, if given in both."""
        if (metric and self._metric) or (mode and self._mode):
            return False
        self._metric, self._mode = metric or self._metric, mode or self._mode  # type: ignore[assignment]
        return True

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """STOP where the pruner prunes; a repeated report, or an earlier step, is neutral."""
        if self._metric not in result or self.time_attr not in result:
            return str(TrialScheduler.CONTINUE)
        time = result[self.time_attr]
        if time != int(time):
            raise ValueError(
                f"Optuna's steps are whole numbers, got {self.time_attr}={time!r}; "
                "use time_attr='training_iteration'."
            )
        key = trial.trial_id
        if int(time) <= self._steps.get(key, -1):
            return str(TrialScheduler.CONTINUE)
        self._steps[key] = int(time)
        asked = self._trials.get(key)
        if asked is None:
            asked = self._trials[key] = self._open_study().ask()
        asked.report(float(result[self._metric]), int(time))
        if not asked.should_prune():
            return str(TrialScheduler.CONTINUE)
        self._tell(key, "PRUNED")
        return str(TrialScheduler.STOP)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Tell the study of a trial that came to its end."""
        value = float(result[self._metric]) if self._metric in result else math.nan
        worst = math.inf if self._mode == "min" else -math.inf
        self._tell(trial.trial_id, "COMPLETE", value if math.isfinite(value) else worst)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A crash says nothing against a trial; a retry is a trial of its own."""
        self._tell(trial.trial_id, "FAIL")
        self._steps.pop(trial.trial_id, None)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial taken away while it waits is no evidence either."""
        self._tell(trial.trial_id, "FAIL")

    def debug_string(self) -> str:
        """One line: the pruner, and how many trials have not ended."""
        return f"{type(self._pruner).__name__}: {len(self._trials)} trials under way"

    def _open_study(self) -> optuna.Study:
        if self._study is None:
            import optuna

            check_metric("OptunaPrunerScheduler", self._metric, self._mode)
            with _quiet():
                self._study = optuna.create_study(
                    study_name="tune_stoppers",  # some pruners draw brackets from it
                    direction="minimize" if self._mode == "min" else "maximize",
                    sampler=optuna.samplers.RandomSampler(seed=0),
                    pruner=self._pruner,
                )
        return self._study

    def _tell(self, key: str, state: str, value: float | None = None) -> None:
        asked = self._trials.pop(key, None)
        if asked is None or self._study is None:
            return
        from optuna.trial import TrialState

        with _quiet():
            self._study.tell(asked, value, state=TrialState[state])


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings only: what Optuna says of each study and trial is of no use here."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
