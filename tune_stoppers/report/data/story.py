"""What a report shows, as plain data: made from an experiment or a replay, drawn by others.

Values are in the metric's own units, steps in those of `time_attr`, times in `Story.clock`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeGuard

from tune_stoppers.core import Mode
from tune_stoppers.metrics import number, sign_of
from tune_stoppers.report.data.earlier import EarlierSweeps
from tune_stoppers.report.data.importance import importance
from tune_stoppers.report.data.totals import Cost, Totals

Kind = Literal["finished", "stopped", "failed", "unexplained", "unfinished"]
Opening = Literal["start", "resume", "restart"]  # restart: it went back in steps
Points = tuple[tuple[float, float], ...]  # (step, value)
EXTRAS = ("grad_norm", "lr", "learning_rate", "train_loss")  # metrics shown beside the objective
LACKED = "none"  # what a trial without a hyperparameter has, where to lack it is a choice
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
    host: str  # its name, or ""
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
    spared: float  # time that the trial continued for
    reports: int  # that it made in that time


@dataclass(frozen=True, kw_only=True)
class TrialStory(Cost):
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
    untrained: float = 0.0  # the last step at which nothing had been trained yet
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

    @property
    def diverged(self) -> bool:
        """Whether the last value of the objective is not finite."""
        return bool(self.curve) and not math.isfinite(self.curve[-1][1])


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter and the values that were tried."""

    name: str
    values: tuple[Any, ...]  # one per trial; of a number None where a trial lacks it
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
    standing: tuple[str, ...] = ()  # trials that failed, diverged, run or wait, in sentences
    notes: tuple[str, ...] = ()  # what is not known, and what to beware of
    load: str = ""  # Python that loads the best state
    earlier: EarlierSweeps | None = None  # what they expected
    unstopped: Points = ()  # (time, best so far) had nothing been stopped; the last: the end

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

    @cached_property
    def totals(self) -> Totals:
        """What all trials took, and what stopping them saved."""
        return Totals.of(self.trials)

    @property
    def spent(self) -> float:
        return self.totals.spent

    @property
    def saved(self) -> float:
        return self.totals.saved

    @property
    def share(self) -> float:
        """Saved, of what would have been at stake; NaN where nothing was, or it is not known."""
        return self.totals.share if self.saved_share is None else self.saved_share

    @property
    def reports(self) -> int:
        return sum(trial.reports for trial in self.trials)

    @cached_property
    def causes(self) -> dict[str, list[TrialStory]]:
        """Trials by cause of ending: first by kind, then the most frequent first."""
        found: dict[str, list[TrialStory]] = {}
        for trial in self.trials:
            found.setdefault(trial.ending.cause, []).append(trial)
        order = {kind: index for index, kind in enumerate(KINDS)}
        return dict(sorted(found.items(), key=lambda i: (order[i[1][0].ending.kind], -len(i[1]))))

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Every hyperparameter, in the order first met."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.config)
        return [_parameter(name, [t.config.get(name) for t in self.trials]) for name in names]

    @cached_property
    def swept(self) -> list[Parameter]:
        """The hyperparameters that differ between trials, those first that tell most apart.

        Those of which that is not known come last, in the order first met.
        """
        varied = [parameter for parameter in self.parameters if len(parameter.distinct) > 1]
        strengths = {parameter.name: self.strength(parameter) for parameter in varied}
        return sorted(varied, key=lambda p: _known_first(-strengths[p.name]))

    def strength(self, parameter: Parameter) -> float:
        """How much of the ranking of trials a parameter by itself explains, 0 to 1.

        NaN where there are too few trials to tell; see `importance`.
        """
        return self._strengths[parameter.name]

    @cached_property
    def _strengths(self) -> dict[str, float]:
        return {
            p.name: importance(p.values, self.outcomes, numeric=p.numeric) for p in self.parameters
        }

    @cached_property
    def outcomes(self) -> tuple[float, ...]:
        """The best loss of each trial once it trained, lower better; of a diverged one infinity.

        NaN for a trial without a report after the untrained model's.
        """
        return tuple(self._outcome(trial) for trial in self.trials)

    @property
    def judged(self) -> int:
        """The number of trials that have such a result."""
        return sum(not math.isnan(loss) for loss in self.outcomes)

    def _outcome(self, trial: TrialStory) -> float:
        trained = [self.sign * value for step, value in trial.curve if step > trial.untrained]
        finite = [loss for loss in trained if math.isfinite(loss)]
        return min(finite, default=math.inf if trained else math.nan)

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
        """Spans on as few lanes as ran side by side, per host: (host, spans in order)."""
        spans = [(span, trial) for trial in self.trials for span in trial.spans]
        lanes: dict[str, list[list[tuple[Span, TrialStory]]]] = {}
        slack = 1e-9 * max(self.duration, 1.0)
        for span, trial in sorted(spans, key=lambda item: (item[0].begin, item[0].end)):
            here = lanes.setdefault(span.host, [])
            free = next((lane for lane in here if lane[-1][0].end <= span.begin + slack), None)
            if free is None:
                here.append([(span, trial)])
            else:
                free.append((span, trial))
        return [(host, lane) for host in sorted(lanes) for lane in lanes[host]]

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
    """A parameter; to lack it is a choice like another where it has one value or is no number."""
    given = [value for value in values if value is not None]
    numeric = bool(given) and all(map(is_number, given))
    if given and len(given) < len(values) and (not numeric or len(set(given)) == 1):
        return Parameter(name, tuple(LACKED if v is None else v for v in values), numeric=False)
    return Parameter(name, tuple(values), numeric)


def _known_first(value: float) -> tuple[bool, float]:
    return math.isnan(value), 0.0 if math.isnan(value) else value
