"""`RulePruner`: the rules of this package as Optuna pruners."""

from __future__ import annotations

import threading
from contextlib import suppress
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

try:
    from optuna.pruners import BasePruner
    from optuna.study import Study
    from optuna.trial import FrozenTrial
except ImportError as error:
    raise ImportError("RulePruner needs Optuna: pip install 'tune_stoppers[optuna]'.") from error

from tune_stoppers.core import (
    Action,
    After,
    BaseRule,
    Decision,
    OnNonfinite,
    Rule,
    SweepRule,
    require_number,
)
from tune_stoppers.result_keys import STOP_REASON, WOULD_STOP_REASON
from tune_stoppers.rules import Patience
from tune_stoppers.rules.horizon import max_t_of
from tune_stoppers.training.study_fold import SweepFold, TrialFold, times_of, with_time


class RulePruner(BasePruner):
    """Prunes the trials of a study that a rule would stop.

    ::

        study = optuna.create_study(direction="minimize", pruner=RulePruner(Patience(3)))

    It decides as the rule does in Ray Tune, on what the objective reports with
    `trial.report(value, step)`: time is Optuna's step, the direction is the study's. All that the
    rule remembers is folded out of the study's storage, so a study that is resumed, another process
    that opens the same storage, and trials that run at the same time go by the same reports. For a
    rule that looks across trials, the time of each report is written into the trial's
    `system_attrs`. Its decisions depend on when reports arrive, as in Ray.

    Optuna's `best_trial` is the best of those that are complete. A trial that comes to the rule's
    `max_t` is therefore not pruned there; and where a rule ends good trials too, as a patience or
    a threshold does, let the objective return its best value instead of raising `TrialPruned`.

    A pruned trial has the reason in `trial.user_attrs["stop_reason"]`, which is a column of
    `study.trials_dataframe()`. A decision that ends the sweep stops the study too; it is in
    `study.user_attrs["stop_reason"]`, and as long as it is there every trial that reports is pruned
    (`study.set_user_attr("stop_reason", None)` lifts that).

    Args:
        rule: any rule of `tune_stoppers.rules` that only stops and reads nothing beside the
            objective, for each trial by itself or across trials; or a patience, the number of
            evaluations. Thresholds and limits in it are in loss units: negated where the study
            maximises.
        start_after: the rule sees and counts everything, and decides from this step on.
        on_nonfinite: "worst", "stop" or "ignore"; None: as the rule says.
        dry_run: nothing is pruned; a trial that would have been has `would_stop_reason` in its
            `user_attrs`.

    Safe to use from the threads of `study.optimize(..., n_jobs=…)`.
    """

    def __init__(
        self,
        rule: BaseRule | int,
        *,
        start_after: float = 0,
        on_nonfinite: OnNonfinite | None = None,
        dry_run: bool = False,
    ) -> None:
        rule = _checked(rule)
        if on_nonfinite is not None:
            rule = rule.with_policy(on_nonfinite)
        require_number("RulePruner start_after", start_after, at_least=0)
        if not isinstance(dry_run, bool):
            raise TypeError(f"RulePruner dry_run must be True or False, got {dry_run!r}.")
        self.rule: BaseRule = After(start_after, rule) if start_after else rule
        self.dry_run = dry_run
        self._begin()

    def _begin(self) -> None:
        self._horizon = max_t_of(self.rule)
        self._lock = threading.Lock()
        # by storage and study: what was folded so far, which the storage can always give again
        self._folds: WeakKeyDictionary[Any, dict[int, TrialFold | SweepFold]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """The rule: what happened is in the study's storage."""
        return {"rule": self.rule, "dry_run": self.dry_run}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was constructed."""
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"RulePruner({self.rule!r}{', dry_run=True' if self.dry_run else ''})"

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the rule stops `trial` at its newest value; called by `trial.should_prune()`."""
        if trial.last_step is None:
            return False
        if not self.dry_run and study.user_attrs.get(STOP_REASON):
            return self._pruned(study, trial, study.user_attrs[STOP_REASON])
        sign = 1 if study.direction.name == "MINIMIZE" else -1
        with self._lock:
            decision = self._judged(study, trial, sign)
        if decision.action is not Action.STOP or trial.last_step == self._horizon:
            return False
        why = f"RulePruner: {decision.rule}: {decision.say(sign)}"
        if decision.ends_sweep and not self.dry_run:
            study.set_user_attr(STOP_REASON, why)
        return self._pruned(study, trial, why, ends_study=decision.ends_sweep)

    def _pruned(
        self, study: Study, trial: FrozenTrial, why: str, *, ends_study: bool = True
    ) -> bool:
        """Write down why, and stop the study where it has ended; False in a dry run."""
        storage, trial_id = study._storage, trial._trial_id
        if self.dry_run:
            if WOULD_STOP_REASON not in storage.get_trial(trial_id).user_attrs:
                storage.set_trial_user_attr(trial_id, WOULD_STOP_REASON, why)
            return False
        storage.set_trial_user_attr(trial_id, STOP_REASON, why)
        if ends_study:
            with suppress(RuntimeError):  # outside of `optimize` the user's loop has to ask
                study.stop()
        return True

    def _judged(self, study: Study, trial: FrozenTrial, sign: int) -> Decision:
        folds = self._folds.setdefault(study._storage, {})
        fold = folds.get(study._study_id)
        if fold is None:
            fold = folds[study._study_id] = (
                SweepFold(self.rule, sign)
                if isinstance(self.rule, SweepRule)
                else TrialFold(_of_one_trial(self.rule), sign)
            )
        if isinstance(fold, TrialFold):
            return fold.judge(trial)
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        if str(trial.last_step) not in times_of(trial):
            key, times = with_time(trial, fold.next_time([*others, trial]))
            study._storage.set_trial_system_attr(trial._trial_id, key, times)
            trial = copy(trial)
            trial.system_attrs = {**trial.system_attrs, key: times}
        return fold.judge(trial, [*others, trial])


def _of_one_trial(rule: BaseRule) -> Rule:
    assert isinstance(rule, Rule)
    return rule


def _checked(rule: Any) -> BaseRule:
    """The rule, or `Patience` of so many evaluations; TypeError or ValueError for what cannot be.

    Optuna reports one number and cannot pause a trial.
    """
    if isinstance(rule, int) and not isinstance(rule, bool):
        return Patience(rule)
    if not isinstance(rule, Rule | SweepRule):
        inner = getattr(rule, "rule", None)
        hint = f" Give it the rule in it: {inner!r}." if isinstance(inner, BaseRule) else ""
        raise TypeError(f"RulePruner needs a rule of tune_stoppers.rules, got {rule!r}.{hint}")
    if rule.scheduler:
        raise TypeError(
            f"RulePruner cannot carry out what {rule.name} asks for: Optuna neither pauses trials "
            f"nor takes them back. In Ray Tune: {rule.scheduler}."
        )
    if rule.reads or not rule.needs_objective:
        raise ValueError(
            f"{rule.name} reads {', '.join(rule.reads)}, and a trial of Optuna reports one number, "
            "its objective: take a rule that reads nothing else."
        )
    return rule
