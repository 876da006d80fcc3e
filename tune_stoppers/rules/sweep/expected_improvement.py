"""ExpectedImprovement: trials pause at rungs, and run while more is expected of them.

What is expected of whom is not this rule's matter: it keeps the curves, and says when a trial is
compared with the others. `surrogate.acquisition.expected_improvement` compares.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from tune_stoppers.core import Decision, Report, require_number
from tune_stoppers.rules.sweep.pausing import PausingRecord, PausingRule, PausingTrial
from tune_stoppers.rules.sweep.rung import Rung

# Of the horizon: close to one another at first, where a report says most. Twenty-fourths, as the
# sweeps on which they were chosen have 24 reports a trial.
SHARES = tuple(n / 24 for n in (1, 2, 3, 4, 6, 8, 12, 16, 20))
MOST_POINTS = 48  # of a curve that are kept
SUMMED_GAIN, LEAST_GAINS = 0.32, (0.01, 0.04)  # what may be lost of all trials, and of each
HALVINGS = 0.25, 0.5  # shares of the horizon
SIGNALS = ("train_loss", "training_loss", "train/loss", "loss")
FORESEEN = (
    "trials end {error:.1f} times as far from where they were expected as believed: halving; "
)


class Point(NamedTuple):
    """A report that is kept of a trial's curve."""

    time: float
    loss: float
    best: float  # the lowest loss of all reports up to this one, kept or not


@dataclass(slots=True)
class CurvesRecord(PausingRecord):
    """A `PausingRecord` with the curves."""

    curves: dict[str, list[Point]] = field(default_factory=dict)
    signals: dict[str, list[Point]] = field(default_factory=dict)  # what else they report
    saves: bool = False  # a report has come with a checkpoint


@dataclass(frozen=True, kw_only=True)
class ExpectedImprovement(PausingRule):
    """Pauses a trial at each rung, at its first report there with a checkpoint.

    Rungs are at 1, 2, 3, 4, 6, 8, 12, 16 and 20 twenty-fourths of `max_t`, from `grace_period` on,
    rounded up where time comes in whole steps. Of each trial at most 48 reports are kept, evenly
    spread. A first loss that is not finite is kept as infinity, a later one is not; either stops
    the trial.

    Units: `max_t`, `grace_period` in those of the time. `least_gain`: the sweep ends when the
    improvement on the best loss expected of each trial is below this share of the distance
    between the best and the median trial; None: 0.32 over the number of trials, but 0.01 to 0.04,
    as many small chances make a large one. `floor`: it goes on at least until this share of all
    trials' training is done.

    `signals`: names of what trials may report besides, of which lower is better, as the loss on
    the training data; the first that a report has is kept as the objective is.
    """

    scheduler: ClassVar[str] = "AutoScheduler"
    version: ClassVar[int] = 3  # 2 knew no targets, and did not favour the best so far

    least_gain: float | None = None
    floor: float = 0.25
    signals: tuple[str, ...] = SIGNALS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_gain is not None:
            require_number("least_gain", self.least_gain, at_least=0)
        require_number("floor", self.floor, at_least=0, at_most=1)
        first = self.grace_period or 0.0
        fine = tuple(share * self.max_t for share in SHARES if share * self.max_t >= first)
        if self.grace_period and self.grace_period < self.max_t and self.grace_period not in fine:
            fine = (self.grace_period, *fine)
        whole = {float(math.ceil(rung - 1e-9)) for rung in fine}
        rungs = tuple(sorted(rung for rung in whole if rung < self.max_t))
        object.__setattr__(self, "fine_rungs", fine)
        object.__setattr__(self, "rungs", rungs or fine)

    @property
    def reads(self) -> tuple[str, ...]:
        """The signals."""
        return self.signals

    @property
    def may_lack(self) -> tuple[str, ...]:
        """All of them."""
        return self.signals

    def least_of(self, count: int) -> float:
        """`least_gain` of a sweep of so many trials."""
        if self.least_gain is not None:
            return self.least_gain
        least, most = LEAST_GAINS
        return min(max(SUMMED_GAIN / count, least), most)

    def init(self) -> CurvesRecord:
        """The record before the first report."""
        return CurvesRecord(
            [Rung(None) for _ in self.rungs], [[] for _ in self.rungs], times=self.rungs
        )

    def at_rung(
        self, record: PausingRecord, trial_id: str, course: PausingTrial, checkpoint: bool
    ) -> Decision:
        """It is compared with all others; without a checkpoint it can only be stopped."""
        rung = record.rungs[course.reached - 1]
        loss = rung.of_trial[trial_id]
        numbers = {
            "loss": loss,
            "rank": rung.rank(loss),
            "count": len(rung.losses),
            "rung": record.times[course.reached - 1],
        }
        text = "{loss:loss} is rank {rank} of {count} at rung {rung:g}: it is compared with all"
        return self.pause(text, **numbers)

    def halve(self, record: PausingRecord, trial_id: str, error: float) -> Decision:
        """Careful halving, for sweeps whose ends cannot be foreseen: CONTINUE or PAUSE.

        All trials go on to the rung at a quarter of the horizon; of those that have come there, and
        to the rung at half of it, the better half goes on. `error`: how many times as far from
        where they were expected trials have ended as was believed.
        """
        course, text = record.courses[trial_id], FORESEEN
        for share in reversed(HALVINGS):
            index = bisect_left(record.times, share * self.max_t - 1e-9)
            if index < course.reached:
                rung = record.rungs[index]
                loss = rung.of_trial[trial_id]
                rank, count = rung.rank(loss), len(rung.losses)
                numbers = {"rung": record.times[index], "rank": rank, "count": count}
                text += "{loss:loss} at rung {rung:g} is rank {rank} of {count}"
                decide = self.keep if 2 * rank <= count + 1 else self.pause
                return decide(text, error=error, loss=loss, **numbers)
        first = HALVINGS[0] * self.max_t
        return self.keep(text + "all go on to {first:g}", error=error, first=first)

    def forget(self, record: PausingRecord, trial_ids: Iterable[str]) -> None:
        """Drop everything about these trials."""
        gone = list(trial_ids)
        super().forget(record, gone)
        assert isinstance(record, CurvesRecord)
        for trial_id in gone:
            record.curves.pop(trial_id, None)
            record.signals.pop(trial_id, None)

    def _judge(
        self, record: PausingRecord, course: PausingTrial, report: Report, checkpoint: bool
    ) -> Decision:
        assert isinstance(record, CurvesRecord)
        trial_id, time, loss, metrics = report
        assert loss is not None
        record.saves = record.saves or checkpoint
        _keep(record.curves.setdefault(trial_id, []), time, loss)
        signal = next((metrics[name] for name in self.signals if name in metrics), None)
        if signal is not None:
            _keep(record.signals.setdefault(trial_id, []), time, signal)
        return super()._judge(record, course, report, checkpoint)


def _keep(curve: list[Point], time: float, value: float) -> None:
    """Add a report to a curve, from which later ones are taken: the trial went back."""
    del curve[bisect_right(curve, time, key=lambda point: point.time) :]
    if math.isfinite(value) or not curve:
        seen = value if math.isfinite(value) else math.inf
        best = min(seen, curve[-1].best) if curve else seen
        _thin(curve, time)
        curve.append(Point(time, seen, best))


def _thin(curve: list[Point], now: float) -> None:
    """Make room for a report at `now`: those that are kept stay about evenly spread."""
    if len(curve) > 2 and curve[-1].time - curve[-2].time < (now - curve[0].time) / MOST_POINTS:
        del curve[-1]
    if len(curve) >= MOST_POINTS:
        del curve[1:-1:2]
