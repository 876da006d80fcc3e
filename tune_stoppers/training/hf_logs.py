"""What a Trainer logs, gathered into the reports that a rule judges."""

from collections.abc import Mapping
from typing import Any

from tune_stoppers.core import BaseRule
from tune_stoppers.metrics import closest, flat_keys, lookup, where_logged
from tune_stoppers.training.spending import TOTALS

_EVALUATION = "eval_"  # how the names of what an evaluation logs begin
_SHOWN = 30  # of the names that a message could list


class StepLogs:
    """What has been logged so far, and which of it is of one optimizer step.

    A Trainer logs training and evaluation, and several evaluation sets, one after the other. A
    log concerns the rule if it is of the kind (evaluation, training log) that the rule's
    objective comes with.
    """

    def __init__(self, rule: BaseRule, metric: str | None) -> None:
        reads = tuple(name for name in rule.reads if name not in TOTALS)  # the judge has those
        others = rule.other_objectives
        watched = (metric,) if metric is not None else tuple(n for n in reads if n not in others)
        evaluated = tuple(name for name in watched if _of_evaluation(name))
        self.name = ", ".join(evaluated or watched or others)  # of what is watched
        if metric is not None and evaluated:  # sets are logged one by one: wait for all it reads
            evaluated += tuple(name for name in reads if _of_evaluation(name))
        self._watches_evaluations = bool(evaluated)
        self.needed = evaluated or watched  # a report carries all of these
        self.on = tuple(name for name in others if name not in self.needed)  # or one of these
        self._also = tuple(name for name in reads if name not in (*self.needed, *self.on))
        self._logged: dict[str, Any] = {}  # the newest value of everything
        self._of_step: dict[str, Any] = {}  # since the newest step began
        self._kinds: set[bool] = set()  # of logs so far: evaluations, training logs
        self._concerned = False  # one of those of the step was of the kind that is watched

    def take(self, logs: Mapping[str, Any]) -> None:
        """Remember what is logged."""
        self._logged |= logs
        self._of_step |= logs

    def concern(self, logs: Mapping[str, Any]) -> bool:
        """Whether there may be a report in these logs; the same on every rank."""
        if "train_runtime" in logs:  # the summary at the end
            return False
        evaluation = _evaluates(logs)
        if evaluation or "loss" in logs:
            self._kinds.add(evaluation)
        concerns = bool(self.needed or not self.on) and (  # one that only counts judges every log
            all(_carries(logs, name) for name in self.needed)
            or (self._watches_evaluations if evaluation else self._is_training_log(logs))
        )
        self._concerned |= concerns
        return concerns or any(_carries(logs, name) for name in self.on)

    def _is_training_log(self, logs: Mapping[str, Any]) -> bool:
        return not self._watches_evaluations and "loss" in logs

    def await_more(self, logs: Mapping[str, Any], evaluation_follows: bool) -> bool:
        """Whether a rule `On` another metric needs what is still to be logged at this step."""
        if not _evaluates(logs):
            return bool(self.on) and evaluation_follows
        sets = (name for name in self.on if _of_evaluation(name))
        return not all(_carries(self._of_step, name) for name in sets)

    @property
    def concerned(self) -> bool:
        """Whether this step has logged what the objective comes with."""
        return self._concerned

    def end_step(self) -> None:
        """What is logged from now on is of another step."""
        self._of_step, self._concerned = {}, False

    @property
    def metrics(self) -> dict[str, Any]:
        """What is judged; with a rule `On` another metric, of this step where it is judged by."""
        if not self.on:
            return self._logged
        older = {name: lookup(self._logged, name) for name in self._also}
        return {name: value for name, value in older.items() if value is not None} | self._of_step

    def absent(self, evaluates: bool) -> tuple[str | None, str | None]:
        """What is to be said if a metric is not there: now, or unless it is there in the end.

        Args:
            evaluates: the Trainer will.
        """
        for name in self.needed:
            if not _carries(self._of_step, name):
                text, near = self._say(name)
                # evaluations to come may have the name that was meant, "eval_f1" for "f1"
                waits = evaluates and True not in self._kinds and not near
                return (None, text) if waits else (text, None)
        for name in self._also:  # may come with a kind of log that has not been yet
            if not _carries(self._logged, name) and _of_evaluation(name) not in self._kinds:
                return None, self._say(name)[0]
        return None, None

    @property
    def never_logged(self) -> dict[str, str]:
        """What is to be said of metrics of rules `On` them that their kind of log does not have."""
        return {
            name: self._say(name)[0]
            for name in self.on
            if _of_evaluation(name) in self._kinds and not _carries(self._logged, name)
        }

    def _say(self, missing: str) -> tuple[str, str]:
        """That it is not logged, and the name that may be meant."""
        present = sorted(flat_keys(self._logged, lists=True))
        listed = ", ".join(present[:_SHOWN]) + (", …" if len(present) > _SHOWN else "")
        near = closest(missing, present)
        where = where_logged(missing)
        text = f"RuleCallback: {missing!r} is not logged; so far there are: {listed}.{near}{where}"
        return text, near


def _carries(logs: Mapping[str, Any], name: str) -> bool:
    return name in logs or lookup(logs, name) is not None


def _of_evaluation(name: str) -> bool:
    return name.startswith(_EVALUATION)


def _evaluates(logs: Mapping[str, Any]) -> bool:
    """Whether the logs are of an evaluation."""
    return any(_of_evaluation(name) for name in logs)
