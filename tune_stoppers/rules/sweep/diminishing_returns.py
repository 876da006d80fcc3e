"""DiminishingReturns: end the sweep when continuing is expected to gain too little.

Over 350 lines by the docstring of `DiminishingReturns`, the reference of what it estimates.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple, Self

from tune_stoppers.core import (
    Decision,
    OnNonfinite,
    Report,
    SweepRule,
    require,
    require_choice,
    require_number,
)
from tune_stoppers.rules.noise import deviation
from tune_stoppers.rules.trial.budget import SWEEP_ACTIVE_SECONDS, SWEEP_SECONDS, in_currency

RECENT = 6  # newest values that a trial's noise is measured on
NOISY = 5  # best trials whose noise counts
MARK_RATIO = 2 ** (1 / 4)  # reports nearer in time than this are thinned: ≤ 5 a doubling
SILENT = 4  # a trial that has missed so many of its turns to report has ended
TURN_RATE = 0.05  # share of a new turn in the moving mean of turns
NEGLIGIBLE = 1e-4  # probability of the ranks that are not kept


class Best(NamedTuple):
    """The best of one of the best trials."""

    loss: float
    trial_id: str
    noise: float | None  # deviation of its evaluations; None: too few of them


class Gain(NamedTuple):
    """By how much continuing is expected to better the best loss, and what it must exceed."""

    best: float  # loss
    new: float  # by trials not yet started
    running: float  # by the most promising of those under way
    noise: float  # deviation of an evaluation
    needed: float  # for the gain to be worth the time ahead; 0: time costs nothing
    money: float = 0.0  # what the time ahead costs; 0: no price is known

    def is_enough(self, factor: float) -> bool:
        """Whether it is above `factor` times the noise, and worth the time."""
        return self.total > factor * self.noise and self.total >= self.needed

    @property
    def total(self) -> float:
        """Of new and running trials together; no less than by either."""
        return self.new + self.running


@dataclass(slots=True)
class RunningTrial:
    """A trial that has reported lately."""

    time: float = -math.inf  # of its newest report
    best: float = math.inf
    marks: list[tuple[float, float]] = field(default_factory=list)  # times and bests, a doubling
    recent: list[float] = field(default_factory=list)  # newest losses
    decision: Decision | None = None  # on the newest report


@dataclass(slots=True)
class DiminishingReturnsRecord:
    """The mutable state of a sweep: trials under way and the best in full, of others the name."""

    reports: int = 0
    heard: dict[str, int] = field(default_factory=dict)  # the newest report of every trial
    turn: float = 0.0  # reports from one of a trial to its next, a moving mean; 0: unknown
    whole: set[str] = field(default_factory=set)  # trained to their end
    running: dict[str, RunningTrial] = field(default_factory=dict)  # longest silent first
    top: list[Best] = field(default_factory=list)  # best first
    horizon: float = 0.0  # the longest time that a trial has reached
    checked: int = 0  # reports at the newest check
    quiet: int = 0  # checks in a row with too little to gain
    gain: Gain | None = None  # at the newest check; None: none yet


def thinned_gain(losses: Sequence[float], keep: float) -> float:
    """How much worse the best would be, had each trial been left out with probability 1 - `keep`.

    `losses` are the best of the trials, best first. The best one kept is that of rank i with
    probability keep·(1 - keep)^(i - 1); what is left of the probability falls to the last.
    """
    gain, left = 0.0, 1.0
    for loss in losses[:-1]:
        gain += left * keep * (loss - losses[0])
        left *= 1 - keep
    return gain + left * (losses[-1] - losses[0])


def gain_of(run: RunningTrial, horizon: float, incumbent: float) -> float:
    """By how much a trial in the last doubling of its time is expected to better the incumbent.

    It is taken to gain per doubling of time what it gained over the last; a power law gains less.
    """
    before = next((best for time, best in reversed(run.marks) if time <= run.time / 2), None)
    if before is None or not run.time < horizon <= 2 * run.time:
        return 0.0
    to_come = (before - run.best) * math.log2(horizon / run.time)
    return max(incumbent - (run.best - to_come), 0.0)


@dataclass(frozen=True, kw_only=True)
class DiminishingReturns(SweepRule[DiminishingReturnsRecord]):
    """End the sweep once continuing is expected to gain no more than noise, or than it is worth.

    Looking ahead `ahead` times as long as the sweep has run, about `ahead` times as many new
    trials will start as have so far. What they will gain is what the newest share of so many has
    gained, averaged over all orders in which the trials could have come: with k = 1/(1 + `ahead`)
    and x₁ <= x₂ <= … the bests of the trials,

        new = Σ k·(1 - k)^(i - 1)·(xᵢ - x₁),

    a trial in the worse half counting as the last of the better. Gains shrink as a sweep continues
    wherever there is a best value that none can pass, so the estimate errs on the high side. To it
    comes the most that a trial in the last doubling of its time gains on the incumbent if its best
    falls as much per doubling of time as over its last doubling. Younger trials count as new ones,
    and paused ones not at all. The noise is the median, over the 5 best
    trials, of the deviation of their last 6 evaluations (from second differences). The sweep
    ends once, at `patience` checks in a row,

        new + running <= `noise` · deviation, or new + running < `worth` · hours ahead,

    or, with a price, `worth` · money ahead: the GPU-hours of all trials so far, times the price and
    `ahead`.

    There is a check whenever, on average, every running trial has reported once.

    Args:
        patience: checks in a row, at least 1.
        min_trials: that have reported, at least 4, before the sweep may end; and at least one has
            come to its end.
        ahead: how far to look, in units of the sweep's length so far.
        noise: factor on the deviation; 0: only a sweep with nothing to gain ends.
        worth: what an hour of the sweep has to gain, in units of the metric, or, with
            `gpu_hour_price`, what a unit of money has to; None: it costs nothing.
        gpu_hour_price: of a GPU for an hour, in any currency, above 0; None: the reasons say
            nothing of money.
        gpus_per_trial: GPUs that one trial holds, above 0; a share of one is fine.
        currency: what the reasons call it, "EUR" for instance.
        max_t: the time at which a trial is at its end also if it does not end by itself (a
            scheduler ends it there); None: the longest time a trial has reached.
        start_after: everything is seen and counted, and nothing ended by a report before it.

    It assumes that trials come in any order, as from random search: where a searcher improves,
    new trials gain more; and it cannot know of a jump that no trial has made yet. A trial that
    stays silent for four such rounds counts as ended. A loss that is not finite: "worst" is
    no improvement, "stop" stops that trial, "ignore" is neutral. A report at the time last judged
    gets the same decision and changes nothing; one at an earlier time means that the trial went
    back, and what it had reached stays reached.

    Sources: stopping below the evaluation's noise, Makarova et al. (2022), there with another
    estimate of the gain.
    """

    patience: int = 5
    min_trials: int = 30
    ahead: float = 1.0
    noise: float = 1.0
    worth: float | None = None
    max_t: float | None = None
    start_after: float = 0
    on_nonfinite: OnNonfinite = "worst"
    gpu_hour_price: float | None = None
    gpus_per_trial: float = 1
    currency: str = ""

    def __post_init__(self) -> None:
        require_number("patience", self.patience, at_least=1, integer=True)
        require_number("min_trials", self.min_trials, at_least=4, integer=True)
        require_number("ahead", self.ahead, above=0, at_most=10)
        require_number("noise", self.noise, at_least=0)
        for name in ("worth", "max_t", "gpu_hour_price"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), above=0)
        require_number("gpus_per_trial", self.gpus_per_trial, above=0)
        require(
            self.gpu_hour_price is not None or (self.gpus_per_trial == 1 and not self.currency),
            "gpus_per_trial and currency are of use to gpu_hour_price alone: give that.",
        )
        require(isinstance(self.currency, str), f"currency is a word, got {self.currency!r}.")
        require_number("start_after", self.start_after, at_least=0)
        require_choice("on_nonfinite", self.on_nonfinite, ("worst", "stop", "ignore"))
        left_out = self.ahead / (1 + self.ahead)
        object.__setattr__(self, "ranks", math.ceil(math.log(NEGLIGIBLE, left_out)) + 1)

    ranks: int = field(init=False, repr=False, compare=False)  # of the best trials, kept

    @property
    def reads(self) -> tuple[str, ...]:
        """The work of all trials, where it has a price; the clock, where time has a worth."""
        if self.gpu_hour_price is not None:
            return (SWEEP_ACTIVE_SECONDS,)
        return () if self.worth is None else (SWEEP_SECONDS,)

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
        """The same rule under another policy for values that are not finite."""
        return replace(self, on_nonfinite=on_nonfinite)

    def init(self) -> DiminishingReturnsRecord:
        """The record before the first report."""
        return DiminishingReturnsRecord()

    def update(
        self,
        record: DiminishingReturnsRecord,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; `record` is changed. Checkpoints play no part."""
        trial_id, time, loss, metrics = report
        run = record.running.get(trial_id)
        if run is not None and run.time == time and run.decision is not None:
            return run.decision
        if run is None and trial_id in record.whole:
            return self.keep("the trial has come to its end")
        if loss is None or (self.on_nonfinite == "ignore" and not math.isfinite(loss)):
            return self.keep("nothing to judge")
        run = self._heard(record, trial_id, time)
        if math.isfinite(loss):
            _remember(run, loss)
            self._rank(record, trial_id, run)
        if record.reports - record.checked >= record.turn:
            self._check(record, metrics)
        run.decision = self._decide(record, time, loss)
        return run.decision

    def ended(self, record: DiminishingReturnsRecord, report: Report) -> None:
        """The trial is over, with this last report; before its end it was cut short."""
        if report.loss is not None:
            self.update(record, report)
        record.running.pop(report.trial_id, None)

    def finished(self, record: DiminishingReturnsRecord, trial_id: str) -> None:
        """The trial has come to its own end."""
        if trial_id in record.heard:
            record.whole.add(trial_id)
        record.running.pop(trial_id, None)

    def lost(self, record: DiminishingReturnsRecord, trial_id: str) -> None:
        """The trial's process died: it may come back, so nothing goes."""

    def forget(self, record: DiminishingReturnsRecord, trial_ids: Iterable[str]) -> None:
        """Drop these trials; the next check is without them."""
        gone = set(trial_ids)
        record.heard = {name: at for name, at in record.heard.items() if name not in gone}
        record.whole -= gone
        record.running = {name: run for name, run in record.running.items() if name not in gone}
        record.top = [best for best in record.top if best.trial_id not in gone]
        record.quiet, record.gain = 0, None

    def _heard(self, record: DiminishingReturnsRecord, trial_id: str, time: float) -> RunningTrial:
        record.reports += 1
        _take_turn(record, trial_id)
        run = record.running.pop(trial_id, None) or RunningTrial()
        record.running[trial_id] = run
        if time < run.time:
            run.marks = [mark for mark in run.marks if mark[0] < time]
            run.best = run.marks[-1][1] if run.marks else math.inf
            run.recent = []
        run.time = time
        record.horizon = max(record.horizon, time)
        if self.max_t is not None and time >= self.max_t:
            record.whole.add(trial_id)
        silent = SILENT * record.turn or math.inf
        while record.reports - record.heard[oldest := next(iter(record.running))] > silent:
            del record.running[oldest]
        return run

    def _rank(self, record: DiminishingReturnsRecord, trial_id: str, run: RunningTrial) -> None:
        top = record.top
        if len(top) == self.ranks and run.best > top[-1].loss:
            return
        before = next((best for best in top if best.trial_id == trial_id), None)
        loss = run.best
        if before is not None:
            top.remove(before)
            loss = min(loss, before.loss)
        noise = deviation(run.recent) if len(run.recent) > 2 else None
        top.append(Best(loss, trial_id, noise))
        top.sort(key=_loss)
        del top[self.ranks :]

    def _check(self, record: DiminishingReturnsRecord, spent: Mapping[str, float]) -> None:
        record.checked = record.reports
        if len(record.heard) < self.min_trials or not record.whole or not record.top:
            return
        better = [best.loss for best in record.top[: len(record.heard) // 2]]
        horizon = record.horizon if self.max_t is None else self.max_t
        running = [gain_of(run, horizon, better[0]) for run in record.running.values()]
        noises = [best.noise for best in record.top[:NOISY] if best.noise is not None]
        hours = self.ahead * spent.get(SWEEP_SECONDS, 0.0) / 3600
        gpu_hours = self.ahead * self.gpus_per_trial * spent.get(SWEEP_ACTIVE_SECONDS, 0.0) / 3600
        money = gpu_hours * (self.gpu_hour_price or 0.0)
        record.gain = Gain(
            best=better[0],
            new=thinned_gain(better, 1 / (1 + self.ahead)),
            running=max(running, default=0.0),
            noise=median(noises) if noises else 0.0,
            needed=(self.worth or 0.0) * (hours if self.gpu_hour_price is None else money),
            money=money,
        )
        record.quiet = 0 if record.gain.is_enough(self.noise) else record.quiet + 1

    def _decide(self, record: DiminishingReturnsRecord, time: float, loss: float) -> Decision:
        if not math.isfinite(loss) and self.on_nonfinite == "stop":
            return self.stop("the value is {value}, which is not finite", value=loss)
        gain = record.gain
        if gain is None:
            return self.keep(
                "{started} trials have started, {least} needed; {whole} have come to their end, "
                "1 needed",
                started=len(record.heard),
                least=self.min_trials,
                whole=len(record.whole),
            )
        done = record.quiet >= self.patience and time >= self.start_after
        against = _NOISE if self.worth is None else _NOISE_AND_WORTH
        costs = ""
        if self.gpu_hour_price is not None:
            costs = f"costs {{money:.6g}}{in_currency(self.currency)} and "
        text = (
            "going on for {ahead:g} times as long "
            + costs
            + "is expected to better {best:loss} by "
            "{expected:.3g}: {new:.3g} by new trials, {running:.3g} by those under way; "
            f"{against}; too little at {{quiet}} checks in a row, {{patience}} needed"
        )
        if done:
            text = "{expected:.3g} is expected to be left on the table: " + text
        numbers = {"ahead": self.ahead, **gain._asdict(), "expected": gain.total}
        if self.gpu_hour_price is None:
            del numbers["money"]
        numbers |= {"quiet": record.quiet, "patience": self.patience}
        if not done:
            return self.keep(text, **numbers)
        decision = self.stop(text, **numbers)
        decision.ends_sweep = True
        return decision


_NOISE = "the noise of an evaluation is {noise:.3g}"
_NOISE_AND_WORTH = _NOISE + ", the time is worth {needed:.3g}"


def _take_turn(record: DiminishingReturnsRecord, trial_id: str) -> None:
    before = record.heard.get(trial_id)
    record.heard[trial_id] = record.reports
    if before is None:
        return
    turn = float(record.reports - before)
    if record.turn == 0:
        record.turn = turn
    turn = min(turn, 2 * record.turn + 1)  # it may have been paused
    record.turn += TURN_RATE * (turn - record.turn)


def _remember(run: RunningTrial, loss: float) -> None:
    run.recent = [*run.recent[1 - RECENT :], loss]
    run.best = min(run.best, loss)
    if run.marks and run.time < run.marks[-1][0] * MARK_RATIO:
        return
    run.marks.append((run.time, run.best))
    while len(run.marks) > 1 and run.marks[1][0] <= run.time / 2:
        run.marks.pop(0)


def _loss(best: Best) -> float:
    return best.loss
