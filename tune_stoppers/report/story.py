"""What a report shows, as plain data: made from an experiment or a replay, drawn by others.

Values are in the metric's own units, steps in those of `time_attr`, times in `Story.clock`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeGuard

import numpy as np

from tune_stoppers.core import Mode
from tune_stoppers.metrics import number, sign_of

Kind = Literal["finished", "stopped", "failed", "unexplained", "unfinished"]
Opening = Literal["start", "resume", "restart"]  # restart: it went back in steps
Points = tuple[tuple[float, float], ...]  # (step, value)
EXTRAS = ("grad_norm", "lr", "learning_rate", "train_loss")  # metrics shown beside the objective
KINDS: tuple[Kind, ...] = ("finished", "stopped", "unexplained", "failed", "unfinished")


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    kind: Kind
    cause: str  # short: what people count by
    reason: str  # in full, with the numbers where a rule gave them


@dataclass(frozen=True)
class Span:
    """A stretch of time in which one process of the trial ran."""

    begin: float
    end: float
    place: str  # the host, or ""
    opening: Opening = "start"
    step: float = math.nan  # where it began


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial beside its reports: a pause, a rollback, a retry, …"""

    time: float  # NaN where unknown
    step: float
    kind: str
    text: str


@dataclass(frozen=True)
class Would:
    """Where a dry run would have stopped a trial."""

    step: float
    reason: str
    spared: float  # time that the trial went on for
    reports: int  # that it went on to make


@dataclass(frozen=True, kw_only=True)
class TrialStory:
    """One trial; of a stretch that was run again, the curve has the last run."""

    trial_id: str
    config: dict[str, Any]  # of its best report; flat
    curve: Points  # the objective; not finite: NaN or an infinity
    times: tuple[float, ...]  # of the points of the curve; NaN where unknown
    ending: Ending
    best_step: float  # NaN: no finite value
    best_value: float
    last_step: float  # NaN: no report
    reports: int  # those made again included
    spent: float  # time, work made again included
    saved: float = 0.0  # time that going on to the horizon would have taken
    saved_reports: float = 0.0
    extras: dict[str, Points] = field(default_factory=dict)  # grad norm, learning rate, …
    beyond: Points = ()  # what the record knows and the replay did not run
    checkpoint: str | None = None  # of its best state that was kept
    checkpoint_step: float = math.nan
    checkpoint_value: float = math.nan
    checkpoint_config: dict[str, Any] = field(default_factory=dict)  # what differs from `config`
    last_config: dict[str, Any] = field(default_factory=dict)  # the trial's last: what differs
    spans: tuple[Span, ...] = ()
    events: tuple[Event, ...] = ()
    would: Would | None = None


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter and the values that were tried."""

    name: str
    values: tuple[Any, ...]  # one per trial, None where a trial lacks it
    numeric: bool

    @cached_property
    def distinct(self) -> list[Any]:
        """The values tried, each once, in order; text where they are not numbers."""
        given = [value for value in self.values if value is not None]
        return sorted(set(given)) if self.numeric else sorted({str(value) for value in given})


@dataclass(frozen=True)
class DryRun:
    """What the decisions that were not taken would have come to."""

    stopped: int  # trials
    spared: float  # time
    reports: int
    best_value: float  # that would have been found


@dataclass(frozen=True, kw_only=True)
class Story:
    """A sweep as a report shows it."""

    name: str
    source: Literal["experiment", "replay"]
    place: str  # where the experiment lies, or what was replayed
    rule: str  # what ran, in words; "" where nobody says
    metric: str
    mode: Mode
    time_attr: str
    clock: Literal["s", "reports"]
    trials: tuple[TrialStory, ...]
    basis: str  # how `saved` was worked out
    saved_share: float | None = None  # where it is known better than from the trials' sums
    rungs: tuple[float, ...] = ()  # steps
    thresholds: tuple[float, ...] = ()  # values of the metric
    facts: tuple[tuple[str, str], ...] = ()  # more to say, as names and values
    notes: tuple[str, ...] = ()  # what is not known, and what to beware of
    load: str = ""  # Python that loads the best state

    @property
    def sign(self) -> int:
        """1 where lower is better, else -1."""
        return sign_of(self.mode)

    @cached_property
    def ranked(self) -> list[TrialStory]:
        """Trials with a finite value, the best first; of equals, the one listed first."""
        with_value = [trial for trial in self.trials if math.isfinite(trial.best_value)]
        return sorted(with_value, key=lambda trial: self.sign * trial.best_value)

    @property
    def best(self) -> TrialStory | None:
        """The trial with the best value reported."""
        return self.ranked[0] if self.ranked else None

    @cached_property
    def kept(self) -> TrialStory | None:
        """The trial with the best state that was kept."""
        kept = [trial for trial in self.trials if trial.checkpoint is not None]
        return min(kept, key=lambda trial: self.sign * trial.checkpoint_value, default=None)

    @property
    def spent(self) -> float:
        return sum(trial.spent for trial in self.trials)

    @property
    def saved(self) -> float:
        return sum(trial.saved for trial in self.trials)

    @property
    def share(self) -> float:
        """Saved, of what would have been at stake; NaN where nothing was."""
        if self.saved_share is not None:
            return self.saved_share
        stake = self.spent + self.saved
        return self.saved / stake if stake > 0 else math.nan

    @property
    def reports(self) -> int:
        return sum(trial.reports for trial in self.trials)

    @cached_property
    def causes(self) -> dict[str, list[TrialStory]]:
        """Trials by cause of ending: first by kind, then the most frequent first."""
        found: dict[str, list[TrialStory]] = {}
        for trial in self.trials:
            found.setdefault(trial.ending.cause, []).append(trial)
        order = {kind: place for place, kind in enumerate(KINDS)}
        return dict(sorted(found.items(), key=lambda i: (order[i[1][0].ending.kind], -len(i[1]))))

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Every hyperparameter, in the order first met."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.config)
        return [_parameter(name, [t.config.get(name) for t in self.trials]) for name in names]

    @cached_property
    def swept(self) -> list[Parameter]:
        """The hyperparameters that differ between trials, those first that tell most apart."""
        varied = [parameter for parameter in self.parameters if len(parameter.distinct) > 1]
        return sorted(varied, key=lambda parameter: -self.strength(parameter))

    def strength(self, parameter: Parameter) -> float:
        """How much of the ranking of trials by best value a parameter goes with, 0 to 1.

        |Spearman's ρ| of numbers; of k categories the correlation ratio over n ranks, adjusted
        for their number: √(1 − (1 − η²)·(n − 1)/(n − k)) (Kelley 1935), 0 where that is negative.
        Over the trials with a finite value.
        """
        pairs = [
            (value, self.sign * trial.best_value)
            for value, trial in zip(parameter.values, self.trials, strict=True)
            if value is not None and math.isfinite(trial.best_value)
        ]
        if len(pairs) < 3:
            return 0.0
        ranks = _ranks([loss for _, loss in pairs])
        if parameter.numeric:
            return abs(_correlation(_ranks([value for value, _ in pairs]), ranks))
        groups: dict[str, list[float]] = {}
        for (value, _), rank in zip(pairs, ranks.tolist(), strict=True):
            groups.setdefault(str(value), []).append(rank)
        free = len(ranks) - len(groups)
        whole = float(((ranks - ranks.mean()) ** 2).sum())
        within = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in groups.values())
        if not free or not whole:
            return 0.0
        return math.sqrt(max(0.0, 1 - within / whole * (len(ranks) - 1) / free))

    @cached_property
    def incumbent(self) -> list[tuple[float, float, str]]:
        """The best so far as it improved: (time, value, trial); empty where times are unknown."""
        reports = sorted(
            (time, self.sign * value, trial.trial_id)
            for trial in self.trials
            for time, (_, value) in zip(trial.times, trial.curve, strict=True)
            if math.isfinite(time) and math.isfinite(value)
        )
        found: list[tuple[float, float, str]] = []
        best = math.inf
        for time, loss, trial_id in reports:
            if loss < best:
                best = loss
                found.append((time, self.sign * loss, trial_id))
        return found

    @cached_property
    def envelope(self) -> Points:
        """The best value of any trial up to each step."""
        best, found = math.inf, []
        points = [point for trial in self.trials for point in trial.curve]
        for step, value in sorted(points, key=lambda point: point[0]):
            if math.isfinite(value) and self.sign * value < best:
                best = self.sign * value
                found.append((step, value))
        return tuple(found)

    @cached_property
    def duration(self) -> float:
        """The time from the first start to the last end; 0 where times are unknown."""
        return max((span.end for trial in self.trials for span in trial.spans), default=0.0)

    @cached_property
    def lanes(self) -> list[tuple[str, list[tuple[Span, TrialStory]]]]:
        """Spans on as few lanes as ran side by side, per place: (place, spans in order)."""
        spans = [(span, trial) for trial in self.trials for span in trial.spans]
        lanes: dict[str, list[list[tuple[Span, TrialStory]]]] = {}
        slack = 1e-9 * max(self.duration, 1.0)
        for span, trial in sorted(spans, key=lambda item: (item[0].begin, item[0].end)):
            here = lanes.setdefault(span.place, [])
            free = next((lane for lane in here if lane[-1][0].end <= span.begin + slack), None)
            if free is None:
                here.append([(span, trial)])
            else:
                free.append((span, trial))
        return [(place, lane) for place in sorted(lanes) for lane in lanes[place]]

    @cached_property
    def dry_run(self) -> DryRun | None:
        """What the decisions that a dry run did not take would have come to, if there were any."""
        would = [trial.would for trial in self.trials if trial.would is not None]
        if not would:
            return None
        left = [
            self.sign * value
            for trial in self.trials
            for step, value in trial.curve
            if math.isfinite(value) and (trial.would is None or step <= trial.would.step)
        ]
        return DryRun(
            stopped=len(would),
            spared=sum(w.spared for w in would),
            reports=sum(w.reports for w in would),
            best_value=self.sign * min(left) if left else math.nan,
        )


def best_point(curve: Points, mode: Mode) -> tuple[float, float]:
    """The step and value of the best finite point; NaN twice if there is none."""
    finite = [point for point in curve if math.isfinite(point[1])]
    return min(finite, key=lambda p: sign_of(mode) * p[1], default=(math.nan, math.nan))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of a configuration is a finite number (a truth value is none)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return math.isfinite(number(value) or 0.0)  # an integer may be too large to be one


def _parameter(name: str, values: Sequence[Any]) -> Parameter:
    given = [value for value in values if value is not None]
    return Parameter(name, tuple(values), bool(given) and all(map(is_number, given)))


def _ranks(values: Iterable[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    array = np.array(list(values), dtype=float)
    _, place, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends: np.ndarray[Any, np.dtype[np.float64]] = np.cumsum(counts) - (counts - 1) / 2
    return ends[place]


def _correlation(left: Any, right: Any) -> float:
    spread = float(left.std() * right.std())
    return float(((left - left.mean()) * (right - right.mean())).mean() / spread) if spread else 0.0
