"""What `AutoScheduler` knows only while its sweep runs: its model, and what that said last."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tune_stoppers.rules.sweep.expected_improvement import (
    CurvesRecord,
    ExpectedImprovement,
    Point,
)
from tune_stoppers.rules.sweep.rung import Times
from tune_stoppers.surrogate.acquisition.expected_improvement import (
    Comparison,
    Course,
    ExpectedImprovementAcquisition,
)
from tune_stoppers.surrogate.loss_scale import Curve, curve_of
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import PAUSED, Trial
from tune_stoppers.tune.schedulers.expectations import Expectations
from tune_stoppers.tune.schedulers.pausing import Pausing

FIRST = 6  # trials that start in the order given
RESUME_COST = 0.02  # of the horizon, until one has been measured
LEAST_PROGRESS = 1e-3  # that a report counts as


Curves = tuple[Curve, Curve | None]  # of the metric, and of what else the trial reports


class Said(NamedTuple):
    """A comparison, and whom its places are."""

    compared: Comparison | None
    trials: list[Trial]  # new ones first
    new: int  # how many of them

    @property
    def error(self) -> float:
        """That of the comparison; 1 without one."""
        return self.compared.error if self.compared is not None else 1.0

    @property
    def misleads(self) -> bool:
        """Whether the model behind the comparison is no guide."""
        return self.compared is not None and self.compared.misleads


class Beliefs(Live):
    """The model, and what it said last."""

    def __init__(self, prior: Expectations | None) -> None:
        self.order = ExpectedImprovementAcquisition(prior)
        self.turn = 0  # grows with whatever may change a choice
        self.said: tuple[int, Said] | None = None  # at which turn, and what
        self.judged: dict[str, int] = {}  # at which rung a trial was last compared, without a pause
        self.curves: dict[str, tuple[int, float, Times, Curves]] = {}  # of each trial, as last made
        self.hopeless = False

    def compare(
        self,
        rule: ExpectedImprovement,
        record: CurvesRecord,
        live: Pausing,
        arriving: Trial | None = None,
    ) -> Said:
        """What a worker could do: now, or with the trial that has just come to a rung."""
        if self.said is not None and self.said[0] == self.turn and arriving is None:
            return self.said[1]
        new = list(live.held.trials)
        begun, awaited, trials = [], [], []
        for trial_id, trial in live.trials.items():
            if trial_id in live.held:
                continue
            if record.curves.get(trial_id):
                trials.append(trial)
                begun.append(self._course(rule, record, trial))
            elif not trial.is_finished():
                awaited.append(trial.config)
        compared = None
        if not new or len(begun) + len(awaited) >= FIRST:
            known = record.resumes > 0
            compared = self.order.compare(
                [trial.config for trial in new],
                begun,
                awaited,
                rungs=[time / rule.max_t for time in record.times],
                resume=rule.resume_cost(record) / rule.max_t if known else RESUME_COST,
                picks=len(begun) + sum(course.passed for course in record.courses.values()),
                arriving=trials.index(arriving) if arriving in trials else None,
                least_gain=rule.least_gain,
            )
        said = Said(compared, [*new, *trials], len(new))
        self.said = self.turn, said
        return said

    def _course(self, rule: ExpectedImprovement, record: CurvesRecord, trial: Trial) -> Course:
        trial_id = trial.trial_id
        points = record.curves[trial_id]
        known = self.curves.get(trial_id)
        now = len(points), points[-1].time, record.times
        if known is None or known[:-1] != now:
            beside = record.signals.get(trial_id)
            also = _curve(rule, record, beside) if beside else None
            known = (*now, (_curve(rule, record, points), also))
            self.curves[trial_id] = known
        course, (curve, signal) = record.courses[trial_id], known[-1]
        return Course(
            config=trial.config,
            curve=curve,
            waits=course.paused and trial.status == PAUSED,
            runs=not trial.is_finished() and not course.paused,
            signal=signal,
        )


def _curve(rule: ExpectedImprovement, record: CurvesRecord, points: Sequence[Point]) -> Curve:
    times, losses, bests = np.array(points, dtype=float).T
    progress = np.clip(times / rule.max_t, LEAST_PROGRESS, 1.0)
    return curve_of(progress, losses, bests, [time / rule.max_t for time in record.times])
