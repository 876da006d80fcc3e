"""A trial-level rule over a whole sweep: each trial has its own state, and nothing is compared."""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Self

from tune_stoppers.core.decision import Decision, OnNonfinite, Report
from tune_stoppers.core.rule import Rule, SweepRule
from tune_stoppers.core.track import Track

Tracks = dict[str, Track]


@dataclass(frozen=True)
class PerTrial(SweepRule[Tracks]):
    """`rule` for each trial by itself; the record maps each trial to its track."""

    rule: Rule

    @property
    def reads(self) -> tuple[str, ...]:
        """What the rule reads."""
        return self.rule.reads

    @property
    def needs_objective(self) -> bool:
        """Whether the rule reads the objective."""
        return self.rule.needs_objective

    @property
    def other_objectives(self) -> tuple[str, ...]:
        """Those in the rule."""
        return self.rule.other_objectives

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        """Those of the rule."""
        return self.rule.optional_metrics

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
        """The rule under another policy, for each trial by itself."""
        return replace(self, rule=self.rule.with_policy(on_nonfinite))

    def judges(self, report: Report) -> bool:
        """Whether it carries what the rule reads."""
        return self.rule.concerns(report)

    def init(self) -> Tracks:
        """No trial yet."""
        return {}

    def update(
        self,
        record: Tracks,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """The rule's decision on the trial's own curve."""
        track = record.get(report.trial_id)
        if track is None:
            track = record[report.trial_id] = Track(self.rule)
        judged = track.update(
            report, checkpoint=checkpoint is not None, since_restore=since_restore
        )
        return judged.decision

    def ended(self, record: Tracks, report: Report) -> None:
        """Drop what only a rewind of the trial needs."""
        if report.trial_id in record:
            record[report.trial_id].finish()

    def lost(self, record: Tracks, trial_id: str) -> None:
        """The trial may come back from a checkpoint: its states are kept."""

    def forget(self, record: Tracks, trial_ids: Iterable[str]) -> None:
        """Drop these trials."""
        for trial_id in trial_ids:
            record.pop(trial_id, None)

    def dump(self, record: Tracks) -> dict[str, Any]:
        """Each trial's track as JSON data."""
        return {trial_id: track.dump() for trial_id, track in record.items()}

    def freeze(self, record: Tracks) -> Callable[[], dict[str, Any]]:
        """As `dump`, later: a state is replaced at a report, never changed.

        The trials wait for it: with 10,000 of them a `dump` takes 1 s and this 0.1 s.
        """
        now = {trial_id: _as_it_is(track) for trial_id, track in record.items()}
        return lambda: self.dump(now)

    def load(self, data: dict[str, Any]) -> Tracks:
        """The record that `dump` wrote."""
        return {trial_id: Track.load(self.rule, track) for trial_id, track in data.items()}


def _as_it_is(track: Track) -> Track:
    kept = copy(track)
    kept.time = copy(track.time)
    return kept
