"""Whether a rule's horizon, `max_t`, is in units of the time that its trials report.

`AutoScheduler(max_t=1000)` over trials of six reports has its rungs where no trial ever comes, and
`AutoScheduler(max_t=3)` with `time_attr="step"` ends every trial at its first report. Neither is an
error, and both are mistakes. One function decides it for all who tell: live, replayed, explained.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tune_stoppers.core import Rule, SweepRule
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.metrics import number

ENOUGH = 3  # trials that have to agree before anything is said
FAR = 2  # times the longest trial, where those that have ended agree on where the end is
MANY, VERY_FAR = 6, 10  # trials, and times the longest, where they do not: some may give up early
BEYOND = 2  # times the horizon
ALIKE = 0.02  # share by which two lengths may differ and be the same
WHOLE = 0.99  # progress from which a trial has come to its full length
COUNTED = re.compile(r"step|epoch|progress|token|sample|example|batch|update|iteration|timesteps")
NOT_COUNTED = re.compile(r"per_|/s$|_size|time_|since_restore|this_iter|loss|_id$")
CLOCK = "time_total_s"  # Ray's, which is thought of last
ITERATION = "training_iteration"


class Glance(NamedTuple):
    """One report: its time, and what else in it counts something."""

    time: float
    others: Mapping[str, float]


class Seen(NamedTuple):
    """A trial as far as its length goes."""

    first: Glance
    longest: float  # time that it has reached
    end: Glance | None = None  # its last report, if nobody is known to have stopped it
    sure: bool = False  # that it has ended by itself


class Misfit(NamedTuple):
    """A horizon that does not fit, and what it may have been meant to count."""

    max_t: float
    time_attr: str
    why: str
    length: float | None  # of the trials, in units of the time; None: not known
    key: str | None  # what `max_t` seems to count
    value: float = 0.0  # of `key`, where the time was `at`
    at: str = ""

    def say(self, owner: str, objective: str = "") -> str:
        """In a sentence or two, with the line to write.

        `objective`: what a stopper is given first, `"loss", "min"`.
        """
        attr = "" if self.time_attr == ITERATION else f', time_attr="{self.time_attr}"'
        begin = f"{owner}({objective}{', ' if objective else ''}max_t="
        shorter = None if self.length is None else f"{begin}{_plain(self.length)}{attr})"
        text = f"{owner}: max_t={_plain(self.max_t)} does not fit the trials' time: {self.why}."
        if self.key is not None:
            told = "" if self.key == ITERATION else f', time_attr="{self.key}"'
            text += (
                f" If it counts {self.key} ({_plain(self.value)} {self.at}), write "
                f"{begin}{_plain(self.max_t)}{told})"
            )
            return text + (f"; else {shorter}." if shorter else ".")
        return text + (f" Write {shorter}." if shorter else f" Give max_t in {self.time_attr}.")


def max_t_of(rule: Any) -> float | None:
    """The horizon of a rule, or of one within it; None if it has none."""
    if isinstance(rule, PerTrial):
        return max_t_of(rule.rule)
    if not isinstance(rule, (Rule, SweepRule)):
        return None
    own = number(getattr(rule, "max_t", None))
    inner = (max_t_of(child) for child in getattr(rule, "children", ()))
    return own if own is not None else next((found for found in inner if found is not None), None)


def glance(time: float, result: Mapping[str, Any], time_attr: str) -> Glance:
    """A report; `result` may be flat or nested, of a nested one the top is looked at."""
    others = {}
    for key, value in result.items():
        if key == time_attr or not isinstance(key, str) or key.startswith("config/"):
            continue
        counts = COUNTED.search(key) and not NOT_COUNTED.search(key)
        if (counts or key == CLOCK) and not isinstance(value, (bool, Mapping)):
            found = number(value)
            if found is not None and 0 < found < float("inf"):
                others[key] = found
    return Glance(time, others)


def misfit(max_t: float, time_attr: str, trials: Iterable[Seen]) -> Misfit | None:
    """Why `max_t` does not fit the time of these trials; None if it does, or too little is known.

    It does not where three trials say so and none says otherwise:

    - too far: all that have ended did so at one time, or one step, epoch or the like, and none of
      the sweep has come further, nor to half of `max_t`. Or at least six have ended by themselves,
      anywhere, and none of the sweep has come to a tenth of `max_t`. A trial that reports a
      `progress` below 1 at its end has given up early, and does not count.
    - too near: their first report is later than `max_t` already, or they are twice beyond it.
    - by `progress`: something else that they report comes to `max_t` at their full length, and the
      time to less than half or more than twice of it.
    """
    seen = list(trials)
    return (
        _by_progress(max_t, time_attr, seen)
        or _too_far(max_t, time_attr, seen)
        or _too_near(max_t, time_attr, seen)
    )


def _too_far(max_t: float, time_attr: str, trials: list[Seen]) -> Misfit | None:
    ends = [(trial.end, trial.sure) for trial in trials if trial.end is not None]
    whole = [(end, sure) for end, sure in ends if _progress(end) in (None, 1.0)]
    if len(whole) < ENOUGH:
        return None
    longest = max(trial.longest for trial in trials)
    agree = _agree([end for end, _ in whole]) and max(end.time for end, _ in whole) == longest
    many = sum(sure for _, sure in whole) >= MANY
    far = (agree and longest * FAR < max_t) or (many and longest * VERY_FAR < max_t)
    if not far or longest <= 0:
        return None
    why = f"{len(whole)} trials have come to their end, none beyond {time_attr} {_plain(longest)}"
    last = max((end for end, _ in whole), key=lambda end: end.time)
    near = {
        key: value
        for key, value in last.others.items()
        if max_t / BEYOND <= value <= max_t * (1 + ALIKE)
    }
    key = max(near, key=lambda name: (name != CLOCK, near[name]), default=None)
    value = 0.0 if key is None else near[key]
    return Misfit(max_t, time_attr, why, longest, key, value, "at the end")


def _agree(ends: list[Glance]) -> bool:
    """Whether trials have ended at one time, or at one count of something else."""
    shared = set.intersection(*(set(end.others) for end in ends)) - {CLOCK}
    counts = [[end.time for end in ends], *([end.others[key] for end in ends] for key in shared)]
    return any(max(values) - min(values) <= ALIKE * max(values) for values in counts)


def _too_near(max_t: float, time_attr: str, trials: list[Seen]) -> Misfit | None:
    late = [trial for trial in trials if _is_late(trial.first, max_t)]
    beyond = [trial for trial in trials if trial.longest > BEYOND * max_t]
    if len(late) >= ENOUGH and len(late) == len(trials):
        first = min((trial.first for trial in late), key=lambda first: first.time)
        why = f"the first report is at {time_attr} {_plain(first.time)} already"
        smaller = [key for key, value in first.others.items() if value < max_t]
        key = min(smaller, key=lambda name: _likely(name, max_t), default=None)
        value = 0.0 if key is None else first.others[key]
        return Misfit(max_t, time_attr, why, None, key, value, "there")
    if len(beyond) >= ENOUGH:
        longest = max(trial.longest for trial in beyond)
        why = f"trials run to {time_attr} {_plain(longest)}"
        return Misfit(max_t, time_attr, why, longest, None)
    return None


def _is_late(first: Glance, max_t: float) -> bool:
    """Whether the horizon has passed at the first report, and not just where the trial ends."""
    partly = any(value < max_t for value in first.others.values())
    return first.time > max_t or (first.time == max_t <= 1 and partly)


def _by_progress(max_t: float, time_attr: str, trials: list[Seen]) -> Misfit | None:
    lengths: dict[str, list[float]] = {}  # of trials, by what comes to `max_t` there
    for trial in trials:
        time, others = trial.first
        share = others.get("progress", 0.0)
        if not 0 < share < 1 or max_t / BEYOND <= time / share <= max_t * BEYOND:
            continue
        for key, value in others.items():
            if key != CLOCK and abs(value / share - max_t) <= ALIKE * max_t:
                lengths.setdefault(key, []).append(time / share)
    if not lengths:
        return None
    key = max(lengths, key=lambda name: (len(lengths[name]), name != ITERATION))
    if len(lengths[key]) < ENOUGH:
        return None
    length = max(lengths[key])
    why = f"by the progress that they report, trials end at {time_attr} {_plain(length)}"
    return Misfit(max_t, time_attr, why, length, key, max_t, "there")


def _progress(end: Glance) -> float | None:
    """How much of its length a trial has come to, 1 for all of it; None: no share is reported."""
    share = end.others.get("progress")
    if share is None or share > 1:
        return None
    return 1.0 if share >= WHOLE else share


def _likely(key: str, max_t: float) -> tuple[bool, bool, bool]:
    """What a small horizon counts: progress up to 1, else epochs, else iterations."""
    return (("progress" in key) != (max_t <= 1), "epoch" not in key, key != ITERATION)


def _plain(value: float) -> str:
    return f"{value:.10g}"
