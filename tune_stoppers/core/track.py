"""A rule at work on one trial, as an adapter keeps it: fresh reports, replayed ones, rewinds.

Time may run backwards under an adapter: a trial that failed, was paused or rolled back continues
from an earlier checkpoint and reports old steps again. A rule never sees that. The track puts
back the newest state that it kept below the step now reported, and the rule counts on from there.
"""

from typing import Any, Literal, NamedTuple, Protocol

from tune_stoppers.core.decision import Decision, Report
from tune_stoppers.core.rule import BaseRule, Rule, State, SweepRule

Event = Literal["rewind", "repeat", "out of order"]

KEPT_STATES = 8  # at the newest reports that came with a checkpoint; `init()` is always at hand


class Judgement(NamedTuple):
    """What became of one report."""

    decision: Decision
    event: Event | None = None  # None: an ordinary report
    warn: bool = False  # the first report out of order of this trial


class Session(Protocol):
    """What an adapter asks of a rule at work on one trial, whichever kind of rule it is."""

    @property
    def step(self) -> float | None:
        """The newest step reported."""

    def update(
        self, report: Report, *, checkpoint: bool = False, since_restore: int | None = None
    ) -> Judgement:
        """Judge `report`; `checkpoint`: it came with one, so the trial may come back to it."""

    def finish(self) -> None:
        """The trial has come to its own end."""

    def cut(self, report: Report) -> None:
        """The trial was stopped at this report."""

    def dump(self) -> Any:
        """What the session remembers, as JSON data."""


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
            since_restore: Ray's `iterations_since_restore`. Where it kept growing while the
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
        self._lacks_start = False  # there were reports before those of the states kept

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
        before = self.state
        self.state, decision = self.rule.update(before, report)
        if event == "repeat" and self.state is not before:
            event = None  # the first report at this step that told the rule something
        if checkpoint and event != "repeat":
            self._lacks_start |= len(self._kept) == KEPT_STATES
            self._kept = [*self._kept[1 - KEPT_STATES :], (report.step, self.state)]
        return Judgement(decision, event)

    def forgets(self, step: float) -> bool:
        """Whether a report at `step` comes before all states kept, and others came before it."""
        earlier = self.step is not None and step < self.step
        return earlier and self._lacks_start and not any(kept < step for kept, _ in self._kept)

    def take_up(self, step: float, state: State) -> None:
        """Continue from a state of which nothing earlier is known."""
        self.time.place(step)
        self.state, self._kept, self._lacks_start = state, [], True

    def _rewind(self, step: float) -> None:
        self._kept = [kept for kept in self._kept if kept[0] < step]
        self.state = self._kept[-1][1] if self._kept else self.rule.init()
        self._lacks_start &= bool(self._kept)

    def finish(self) -> None:
        """Drop what only a rewind needs: the trial has ended."""
        self._kept = []

    def cut(self, report: Report) -> None:
        """The trial may be resumed, so its states are kept."""

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


class SharedTrack:
    """A session of a rule whose record all trials of the sweep share."""

    def __init__(self, rule: SweepRule[Any], record: Any, trial_id: str) -> None:
        self.rule, self.record, self._trial_id = rule, record, trial_id
        self.time = Timeline()
        self._judged: tuple[float, Decision] | None = None  # the newest step, and what was decided

    @property
    def step(self) -> float | None:
        """The newest step reported."""
        return self.time.step

    def update(
        self, report: Report, *, checkpoint: bool = False, since_restore: int | None = None
    ) -> Judgement:
        """Judge `report`; one out of order, or without the objective, is left out."""
        in_order = self.time.in_order
        event = self.time.place(report.step, since_restore)
        if event == "out of order":
            decision = self.rule.keep("a report out of order is left out")
            return Judgement(decision, event, warn=in_order)
        if not self.rule.judges(report):
            return Judgement(self.rule.keep("the report does not carry what the rule reads"), event)
        if event == "repeat":
            if self._judged is not None and self._judged[0] == report.step:
                return Judgement(self._judged[1], event)
            event = None  # the first report at this step that told the rule something
        name = "checkpoint" if checkpoint else None
        decision = self.rule.update(
            self.record, report, checkpoint=name, since_restore=since_restore
        )
        self._judged = report.step, decision
        return Judgement(decision, event)

    def finish(self) -> None:
        """The trial has come to its own end."""
        self.rule.finished(self.record, self._trial_id)

    def cut(self, report: Report) -> None:
        """The trial was stopped at this report."""
        self.rule.ended(self.record, report)

    def dump(self) -> Any:
        """The record of all trials, as JSON data."""
        return self.rule.dump(self.record)


class Sessions:
    """The sessions of one rule, by trial; a rule that looks across trials has one record here."""

    def __init__(self, rule: BaseRule) -> None:
        self.rule = rule
        self.record = rule.init() if isinstance(rule, SweepRule) else None
        self._of: dict[str, Session] = {}

    def of(self, trial_id: str) -> Session:
        """The session of a trial; a new one for a trial not seen before."""
        session = self._of.get(trial_id)
        if session is None:
            session = self._of[trial_id] = self._new(trial_id)
        return session

    def drop(self, trial_id: str) -> None:
        """Begin this trial anew at its next report; what was recorded of it elsewhere stays."""
        self._of.pop(trial_id, None)

    def _new(self, trial_id: str) -> Session:
        if isinstance(self.rule, SweepRule):
            return SharedTrack(self.rule, self.record, trial_id)
        assert isinstance(self.rule, Rule)
        return Track(self.rule)
