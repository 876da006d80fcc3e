"""Early stopping in a plain training loop: any trial rule, and the best state kept."""

from collections.abc import Mapping
from typing import Any

from tune_stoppers.core import BaseRule, Mode, OnMissing
from tune_stoppers.metrics import check_metric
from tune_stoppers.training.given_rule import as_rule
from tune_stoppers.training.going_back import rolls_back
from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.session import RuleSession


class EarlyStopping(RuleSession):
    """Asks a rule after each evaluation whether to stop, and keeps the best state.

    ::

        stop = EarlyStopping(5, mode="min")
        with stop.restoring(model):  # the best weights, however the loop ends
            for epoch in range(100):
                ...
                if stop(validation_loss, model, optimizer):
                    break

    or `stop.restore_best(model, optimizer)` after the loop. A loop that continues from a saved
    state (`load_state_dict`) asks `stop.stopped` before it trains.

    With data parallel (`torch.distributed` initialised) every rank must call it. Rank 0's value
    and decision count, and all ranks leave at the same evaluation. In memory each rank keeps its
    own copy of the best state; into a keeper's folder rank 0 alone writes, and all restore from
    there.

    With `rules.Rollback` a run in trouble recovers, as a trial does under `RollbackScheduler`::

        stop = EarlyStopping(Rollback(patience=3) | Threshold(0.1), mode="min", factor=0.5)
        stop(validation_loss, model, optimizer, scheduler=scheduler)  # may put the best state back

    On a plateau or a divergence the best state goes back into model, optimizer, scheduler and
    random generators, every learning rate is multiplied with `factor`, and the loop goes on; after
    `max_rollbacks` it stops. `rollbacks` says how often that was, `reason` why. The loop's own
    counters and the order of its data are the loop's: they go on.

    Args:
        rule_or_patience: a rule of `tune_stoppers.rules` (thresholds in loss units: negated where
            `mode` is "max"), or the patience of `Patience`, in evaluations.
        metric: its name where a mapping of metrics is passed.
        mode: "min" or "max"; required.
        min_delta: of `Patience`, where a number was given.
        on_missing: "raise": a metric that no call has carried yet is an error that names those
            there are. "skip": such a call is left out, with one warning.
        keeper: a `BestStateKeeper` (on disk, say); None: one in memory, once a model is passed.
            Under a `Rollback` it keeps what that goes back to, which is never a diverging state.
        factor: of `Rollback`: what the learning rate is multiplied with each time, between 0 and
            1; None: 0.5.

    Attributes: `reason` of the newest decision; `best_value` and `best_step` of the best value
    seen, None before the first finite one. A call at a step already seen changes nothing; at an
    earlier step, the rule goes back to where it was before that step, if that was among its eight
    newest and after the last `load_state_dict`; else it begins anew, with a warning.
    """

    def __init__(
        self,
        rule_or_patience: BaseRule | int,
        *,
        metric: str = "value",
        mode: Mode,
        min_delta: float = 0.0,
        on_missing: OnMissing = "raise",
        keeper: BestStateKeeper | None = None,
        factor: float | None = None,
    ) -> None:
        check_metric("EarlyStopping", metric, mode)  # also where the rule reads others
        rule = as_rule(rule_or_patience, min_delta)
        super().__init__(
            "EarlyStopping", rule, metric, mode, on_missing=on_missing, keeper=keeper, factor=factor
        )

    def __call__(
        self,
        value_or_metrics: Any,
        model: Any = None,
        optimizer: Any = None,
        step: float | None = None,
        *,
        scheduler: Any = None,
    ) -> bool:
        """Judge one evaluation; True: stop now. Without a step it is the next one: 1, 2, …

        Under a `Rollback` the best state may be in model, optimizer and scheduler afterwards.
        """
        metrics = value_or_metrics
        if not isinstance(metrics, Mapping):
            metrics = {self.metric: metrics}
        if rolls_back(self.rule) and (model is None or optimizer is None):
            raise TypeError(
                "EarlyStopping: a rule that goes back needs what to put the best state into: "
                "stop(value, model, optimizer, scheduler=…)."
            )
        stops = self.judge(metrics, step, model, optimizer, scheduler)
        if self.due:
            self.go_back(model, optimizer, scheduler)
        return stops
