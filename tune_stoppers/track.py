"""One trial's rule state as an adapter keeps it: fresh reports, replayed ones, rewinds.

Time may run backwards under an adapter: a trial that failed, was paused or rolled back goes on
from an earlier checkpoint and reports old steps again. A rule never sees that. The track puts
back the newest state that it kept below the step now reported, and the rule counts on from there.
"""

from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Decision, Report, Rule, State

Event = Literal["rewind", "repeat", "out of order"]

KEPT_STATES = 8  # at the newest reports that came with a checkpoint; `init()` is always at hand


class Judgement(NamedTuple):
    """What became of one report."""

    decision: Decision
    event: Event | None = None  # None: an ordinary report
    warn: bool = False  # the first report out of order of this trial


class Timeline:
    """One trial's time, which may run backwards."""

    __slots__ = ("_ignored", "_since_restore", "step")

    def __init__(self) -> None:
        self.step: float | None = None  # the newest, where the trial is now
        self._since_restore: int | None = None
        self._ignored: tuple[float, int | None] | None = None  # the newest report out of order

    def place(self, step: float, since_restore: int | None = None) -> Event | None:
        """What a report at `step` is: fresh (None), a repeat, after a rewind, or out of order.

        Args:
            since_restore: Ray's `iterations_since_restore`. Where it went on growing while the
                step fell, the trial did not restart: its clock runs backwards, and the report
                is to be left out.
        """
        event: Event | None = "repeat" if step == self.step else None
        if self.step is not None and step < self.step:
            if self._kept_running(step, since_restore):
                self._ignored = (step, since_restore)
                self._since_restore = since_restore
                return "out of order"
            event = "rewind"
        self.step, self._since_restore = step, since_restore
        return event

    @property
    def in_order(self) -> bool:
        """Whether no report was out of order yet."""
        return self._ignored is None

    def _kept_running(self, step: float, since_restore: int | None) -> bool:
        if since_restore is None or self._since_restore is None:
            return False
        repeated = (step, since_restore) == self._ignored
        return repeated or since_restore > self._since_restore


class Track:
    """A rule's state for one trial, with the states that a rewind may need."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.state: State = rule.init()
        self.time = Timeline()
        self._kept: list[tuple[float, State]] = []

    @property
    def step(self) -> float | None:
        """The newest step reported, also without the objective."""
        return self.time.step

    def update(
        self, report: Report, *, checkpoint: bool = False, since_restore: int | None = None
    ) -> Judgement:
        """Judge `report`; `checkpoint`: it came with one, so the trial may come back to it.

        `Timeline.place` says what `since_restore` is for.
        """
        in_order = self.time.in_order
        event = self.time.place(report.step, since_restore)
        if event == "out of order":
            return Judgement(self.rule.verdict(self.state), event, warn=in_order)
        if event == "rewind":
            self._rewind(report.step)
        self.state, decision = self.rule.update(self.state, report)
        if checkpoint and event != "repeat":
            self._kept = [*self._kept[1 - KEPT_STATES :], (report.step, self.state)]
        return Judgement(decision, event)

    def _rewind(self, step: float) -> None:
        self._kept = [kept for kept in self._kept if kept[0] < step]
        self.state = self._kept[-1][1] if self._kept else self.rule.init()

    def finish(self) -> None:
        """Drop what only a rewind needs: the trial has ended."""
        self._kept = []

    def dump(self) -> dict[str, Any]:
        """The track as JSON data."""
        kept = [[step, self.rule.dump(state)] for step, state in self._kept]
        return {"step": self.step, "state": self.rule.dump(self.state), "kept": kept}

    @classmethod
    def load(cls, rule: Rule, data: dict[str, Any]) -> "Track":
        """The track of `rule` that `dump` wrote."""
        track = cls(rule)
        track.time.step = data["step"]
        track.state = rule.load(data["state"])
        track._kept = [(step, rule.load(state)) for step, state in data["kept"]]
        return track
