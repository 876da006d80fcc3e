"""How a trial stands, in the words that trackers get."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from tune_stoppers.core import Action
from tune_stoppers.result_keys import STOP_REASON, WOULD_STOP_REASON
from tune_stoppers.tune.announcing import Verdict
from tune_stoppers.tune.ray_internals.types import Trial

STOP_STATUS = "stop_status"  # what runs can be filtered by: one of the next
NOT_STOPPED, STOPPED, PAUSED, WOULD_STOP, FAILED = (
    "not stopped",
    "stopped",
    "paused",
    "would stop",
    "failed",
)
DECISION = "decision"  # under which a result has the numbers compared, and STOPPED_FLAG
STOPPED_FLAG = "stopped"  # 1 or 0, for trackers that can only filter by numbers
NO_REASON = "no reason was given: a stopper or scheduler of Ray's, or the trainable, ended it"


class Outcome(NamedTuple):
    """What a tracker is told of a trial."""

    status: str
    reason: str = ""
    step: int = 0  # Ray's `training_iteration`, by which its loggers count
    numbers: Mapping[str, float] = {}  # those compared at the newest decision

    @property
    def words(self) -> dict[str, str]:
        """What is text, by the key that it has in every tracker."""
        return {STOP_STATUS: self.status} | ({STOP_REASON: self.reason} if self.reason else {})

    @property
    def metrics(self) -> dict[str, float]:
        """What is a number, by the key that it has in a result."""
        return {STOPPED_FLAG: float(self.status == STOPPED), **self.numbers}


class Tracker(Protocol):
    """Where outcomes are written."""

    def in_use(self, trial: Trial) -> bool:
        """Whether runs are looked at there."""

    def write(self, trial: Trial, outcome: Outcome) -> None:
        """Write how a trial stands; it may raise anything."""


def status_at(result: Mapping[str, Any], verdicts: list[Verdict]) -> tuple[str, str]:
    """The status and the reason at a report, after all have decided on it."""
    if reason := result.get(STOP_REASON):
        return STOPPED, str(reason)
    if result.get("done"):
        return STOPPED, NO_REASON
    asking = [verdict for verdict in verdicts if verdict.decision.action is not Action.CONTINUE]
    for verdict in asking:
        if verdict.paused:
            return PAUSED, said(verdict)
    if reason := result.get(WOULD_STOP_REASON):
        return WOULD_STOP, str(reason)
    for verdict in asking:
        if verdict.dry_run:
            return WOULD_STOP, said(verdict)
    return NOT_STOPPED, ""


def said(verdict: Verdict) -> str:
    """A decision in words, in the metric's own units."""
    return f"{verdict.owner}: {verdict.decision.say(verdict.sign)}"
