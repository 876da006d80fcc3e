"""A trial's time, before a record that it shares with all others of the sweep."""

from typing import Any, Protocol, cast

from tune_stoppers.core import Action, Decision, Report, Rule
from tune_stoppers.track import Judgement, Track


class SharedRule(Protocol):
    """What is asked of a rule over the whole sweep."""

    def update(self, record: Any, report: Report) -> Decision:
        """Take in a report and decide."""

    def finished(self, record: Any, trial_id: str) -> None:
        """The trial has come to its own end."""


class SharedTrack(Track):
    """Puts a trial's reports in order for a rule whose record all trials share."""

    def __init__(self, rule: SharedRule, record: Any, trial_id: str) -> None:
        super().__init__(cast(Rule, rule))
        self._rule, self._record, self._trial_id = rule, record, trial_id

    def update(
        self, report: Report, *, checkpoint: bool = False, since_restore: int | None = None
    ) -> Judgement:
        in_order = self.time.in_order
        event = self.time.place(report.step, since_restore)
        if event == "out of order":
            text = "a report out of order is left out"
            decision = Decision(Action.CONTINUE, text, type(self._rule).__name__)
            return Judgement(decision, event, warn=in_order)
        return Judgement(self._rule.update(self._record, report), event)

    def finish(self) -> None:
        self._rule.finished(self._record, self._trial_id)
