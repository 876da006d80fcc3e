"""One trial's rule state as an adapter keeps it: fresh reports, replayed ones, rewinds.

Time may run backwards under an adapter: a trial that failed, was paused or rolled back goes on
from an earlier checkpoint and reports old steps again. A rule never sees that. The track puts
back the newest state that it kept below the step now reported, and the rule counts on from there.
"""

from typing import NamedTuple

from tune_stoppers.core import Decision, Report, Rule, State

KEPT_STATES = 8  # at the newest reports that came with a checkpoint; `init()` is always at hand


class Judgement(NamedTuple):
    """What became of one report."""

    decision: Decision
    event: str | None = None  # "rewind", "repeat", "out of order", or None: an ordinary report
    warn: bool = False  # the first report out of order of this trial


class Track:
    """A rule's state for one trial, with the states that a rewind may need."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.state: State = rule.init()
        self.step: float | None = None  # the newest step reported, also without the objective
        self._since_restore: int | None = None
        self._kept: list[tuple[float, State]] = []
        self._ignored: tuple[float, int | None] | None = None  # the newest report out of order

    def update(
        self, report: Report, *, checkpoint: bool = False, since_restore: int | None = None
    ) -> Judgement:
        """Judge `report`.

        Args:
            checkpoint: the report came with a checkpoint, so the trial may come back to it.
            since_restore: Ray's `iterations_since_restore`. Where it went on growing while the
                step fell, the trial did not restart: its clock runs backwards, and the report
                is ignored.
        """
        event = "repeat" if report.step == self.step else None
        if self.step is not None and report.step < self.step:
            if self._kept_running(report.step, since_restore):
                warn = self._ignored is None
                self._ignored = (report.step, since_restore)
                self._since_restore = since_restore
                return Judgement(self.rule.verdict(self.state), "out of order", warn)
            self._rewind(report.step)
            event = "rewind"
        self.state, decision = self.rule.update(self.state, report)
        self.step, self._since_restore = report.step, since_restore
        if checkpoint and event != "repeat":
            self._kept = [*self._kept[1 - KEPT_STATES :], (report.step, self.state)]
        return Judgement(decision, event)

    def _kept_running(self, step: float, since_restore: int | None) -> bool:
        if since_restore is None or self._since_restore is None:
            return False
        repeated = (step, since_restore) == self._ignored
        return repeated or since_restore > self._since_restore

    def _rewind(self, step: float) -> None:
        self._kept = [kept for kept in self._kept if kept[0] < step]
        self.state = self._kept[-1][1] if self._kept else self.rule.init()

    def finish(self) -> None:
        """Drop what only a rewind needs: the trial has ended."""
        self._kept = []
