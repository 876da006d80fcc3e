"""What a worker is worth where: the improvement on the best loss that it is expected to bring.

Expected improvement (Mockus 1978) per cost, over where a trial may be paused again, with the
belief of `surrogate.joint_model` about where each ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tune_stoppers.surrogate.encoding import Encoder, Floats
from tune_stoppers.surrogate.joint_model import Belief, JointModel, observations
from tune_stoppers.surrogate.loss_scale import Curve, Indices, LossScale, scale_of
from tune_stoppers.surrogate.prior import Prior
from tune_stoppers.surrogate.signals import sharpened
from tune_stoppers.surrogate.targets import end_at_target
from tune_stoppers.surrogate.trial_scores import BLAS, some_of

MOST_KNOWN = 100  # trials that the belief is made of
MOST_ASKED = 80  # new configurations that are compared for one choice
LEAST_RESUME = 0.02  # of the horizon, or trials would change places for next to nothing
MOST_ERROR = 1.75  # of the model, in units of what it believes, with which it is relied on

Mask = npt.NDArray[np.bool_]


class Course(NamedTuple):
    """A trial that has reported."""

    config: Mapping[str, Any]
    curve: Curve
    waits: bool  # it can be resumed
    runs: bool
    signal: Curve | None = None  # what else it reports
    ended: bool = False  # by itself or by a stopper, before the horizon


class Offer(NamedTuple):
    """A trial to start or to continue, and what is expected of it."""

    place: int  # among the new configurations; of a trial that has begun: behind all of those
    worth: float  # expected improvement, in gaps, per training to the horizon
    gain: float  # improvement that its end is expected to bring on the target, in gaps
    chance: float  # probability that it ends better than the best so far
    expected: float  # loss at its end
    spread: float  # standard deviation of that
    best: float  # loss of the best so far
    leads: bool  # as the best so far, it goes before all others
    at_target: bool  # others have ended by themselves at a target


class Moves(NamedTuple):
    """What a worker could do, a row each."""

    rows: Indices  # of the configurations
    done: Floats  # progress of the trials
    again: Floats  # what starting or resuming them costs, as a share of the horizon
    leads: Mask  # as in `Offer`


class Comparison(NamedTuple):
    """All that a worker could do."""

    places: Indices  # as in `Offer`
    worth: Floats
    gain: Floats
    chance: Floats
    end: Belief
    scale: LossScale
    gain_of_running: float  # the largest `gain` of the trials that have a worker
    least_gain: float
    surprise: float  # how far ends were from what was believed, as `JointModel` has it
    leads: Mask  # as in `Offer`
    at_target: bool  # likewise, of all

    @property
    def most_gain(self) -> float:
        """The largest improvement expected of any trial."""
        return float(max(self.gain.max(), self.gain_of_running))

    @property
    def error(self) -> float:
        """How many times as far from where they were expected trials have ended as was believed."""
        return math.sqrt(self.surprise)

    @property
    def misleads(self) -> bool:
        """Whether that is so far that the model is no guide."""
        return self.error > MOST_ERROR

    def without(self, rows: Mask) -> Comparison:
        """The same, with nothing expected of these."""
        kept = ~rows
        return self._replace(
            worth=self.worth * kept, gain=self.gain * kept, chance=self.chance * kept
        )

    @property
    def best(self) -> Offer:
        """What is worth most, of those that promise at least `least_gain`, if any does.

        The best so far goes before all others.
        """
        promising = self.gain >= self.least_gain
        if self.leads.any():
            promising = self.leads
        worth = np.where(promising, self.worth, -np.inf) if promising.any() else self.worth
        return self._offer(int(np.argmax(worth)))

    def of(self, place: int) -> Offer | None:
        """One of those compared."""
        found = np.flatnonzero(self.places == place)
        return self._offer(int(found[0])) if len(found) else None

    def best_new(self, count: int) -> Offer | None:
        """The one worth most among the first `count`, the new configurations."""
        new = np.flatnonzero(self.places < count)
        return self._offer(int(new[np.argmax(self.worth[new])])) if len(new) else None

    def _offer(self, row: int) -> Offer:
        mean, sd = float(self.end.mean[row]), float(self.end.sd[row])
        return Offer(
            place=int(self.places[row]),
            worth=float(self.worth[row]),
            gain=float(self.gain[row]),
            chance=float(self.chance[row]),
            expected=self.scale.loss(mean),
            spread=(self.scale.loss(mean + sd) - self.scale.loss(mean - sd)) / 2,
            best=self.scale.best,
            leads=bool(self.leads[row]),
            at_target=self.at_target,
        )


class ExpectedImprovementAcquisition:
    """The trial that is worth most to a free worker.

    A trial with belief m ± s about its score at progress h, where t is to be passed, is expected to
    pass it by EI = s (z Φ(z) + φ(z)), z = (t - m) / s, and does with probability Φ(z). Going on
    with it is worth the largest, over the horizons h of its next two rungs and its end, of

        EI / (start or resume + way to the next rung + Φ(z) · way from there to h):

    the first part is paid in any case, the rest only if it still promises something there. To be
    passed is the best score so far, 0; at an end also the lowest end that is expected of a trial
    that runs, if that is lower.

    Three things are decided without that. The trial with the best loss so far goes before all
    others, while `least_gain` is expected of it and no trial that is as good runs or has ended:
    nothing shows sooner what the others may come to. (Not where over 80 new configurations wait: it
    cost area on TaskSet, as better ones than the first are found among so many.) Where trials end
    by themselves at a target (`surrogate.targets`), none is expected to end lower, or to gain more,
    than a trial to come. Nothing is expected of a trial that has diverged (`LossScale.diverged`):
    its best state stays, and the curves of the others, which the belief goes by, say nothing of how
    one that has diverged goes on.

    The belief is made of the better half of 100 trials, and others at random; at most 80 new
    configurations, at random, are compared. Deterministic: a choice depends on what it is given,
    on how many have been made, and on what the model was last fitted to.
    """

    def __init__(self, prior: Prior | None = None, *, seed: int = 0) -> None:
        self.model, self.prior, self.seed = JointModel(), prior, seed
        self._encoded = Encoder()

    def compare(
        self,
        new: Sequence[Mapping[str, Any]],
        begun: Sequence[Course],
        awaited: Sequence[Mapping[str, Any]] = (),
        *,
        rungs: Sequence[float],
        start: float,
        resume: float,
        picks: int,
        arriving: int | None = None,
        least_gain: float = 0.0,
        recoverable: bool = True,
    ) -> Comparison | None:
        """What a worker could do; None if nothing can be done, or nothing is known yet.

        Args:
            new: configurations not started, in the order given.
            begun: the trials that have reported.
            awaited: configurations of trials that were started and have not reported.
            rungs: shares of the horizon.
            start: what starting a trial costs, as a share of the horizon.
            resume: what resuming one costs, likewise; taken for 0.02 at least.
            picks: how many were chosen before.
            arriving: the place among `begun` of a trial that has its worker still.
            least_gain: what improves less at its end is chosen only if all do.
            recoverable: trials can be paused. Else one that is stopped is gone, and the belief
                alone speaks of those that have diverged.
        """
        dice = np.random.default_rng([self.seed, picks])
        known = some_of([course.curve.bests[-1] for course in begun], MOST_KNOWN, dice)
        if arriving is not None and arriving not in known:
            known = np.append(known, arriving)
        curves = [begun[place].curve for place in known]
        scale = scale_of(curves, len(begun) + len(awaited)) if len(known) else None
        if scale is None:
            return None
        asked = np.arange(len(new))
        if len(new) > MOST_ASKED:
            asked = np.sort(dice.choice(len(new), MOST_ASKED, replace=False))
        waiting = [place for place in known if begun[place].waits or place == arriving]
        diverged = {p for p in known if recoverable and scale.diverged(begun[p].curve)}
        running = [p for p in known if begun[p].runs and p != arriving and p not in diverged]
        target = end_at_target(curves, [begun[place].ended for place in known], scale)
        first = {p for p in known if begun[p].curve.bests[-1] <= scale.best} - diverged
        if len(new) > MOST_ASKED or not first <= set(waiting):
            first = set()
        if not len(asked) and not waiting:
            return None
        configs = [*new, *(course.config for course in begun), *awaited]
        seen = observations([len(new) + place for place in known], curves, scale)
        seen = sharpened(seen, curves, [begun[place].signal for place in known], scale)
        with BLAS.limit(limits=1, user_api="blas"):
            expected = None if self.prior is None else self.prior.expected(configs)
            self.model.condition(self._encoded(configs), seen, scale.noise, expected)
            rows = np.array([*asked, *(len(new) + place for place in waiting)], dtype=np.intp)
            done = np.array([0.0] * len(asked) + [begun[p].curve.progress[-1] for p in waiting])
            resume = max(resume, LEAST_RESUME)
            again = np.array([start] * len(asked) + [resume * (p != arriving) for p in waiting])
            leads = np.isin(rows, [len(new) + place for place in first])
            busy = np.array([len(new) + place for place in running], dtype=np.intp)
            moves = Moves(rows, done, again, leads)
            found = self._compare(scale, moves, busy, np.array(rungs), least_gain, target)
        lost = [False] * len(asked) + [place in diverged for place in waiting]
        return found.without(np.array(lost)) if any(lost) else found

    # -- inside --------------------------------------------------------------------------------

    def _compare(
        self,
        scale: LossScale,
        moves: Moves,
        busy: Indices,
        rungs: Floats,
        least_gain: float,
        target: Belief | None,
    ) -> Comparison:
        rows, done, again, leads = moves
        marks = np.append(rungs, 1.0)
        last = len(marks) - 1
        first = np.minimum(np.searchsorted(marks, done + 1e-9, side="right"), last)
        second = np.minimum(first + 1, last)
        ahead = marks[first]
        count = len(rows)
        whole = np.ones(count)
        horizons = np.concatenate([whole, ahead, marks[second], np.ones(len(busy))])
        belief = self.model.at(np.concatenate([rows, rows, rows, busy]), horizons)
        end = Belief(belief.mean[:count], belief.sd[:count])
        aim, running = 0.0, 0.0
        if len(busy):
            theirs = Belief(belief.mean[3 * count :], belief.sd[3 * count :])
            aim = min(0.0, float(theirs.mean.min()))
            running = float(improvement(theirs, 0.0)[0].max())
        aims = np.repeat([aim, 0.0, 0.0], count)
        three = Belief(belief.mean[: 3 * count], belief.sd[: 3 * count])
        gain, odds = improvement(three, aims)
        cost = np.tile(ahead - done + again, 3) + odds * (horizons[: 3 * count] - np.tile(ahead, 3))
        worth = (gain / cost).reshape(3, count).max(axis=0)
        gain, chance = gain[:count], improvement(end, 0.0)[1]
        if target is not None:
            end = Belief(np.maximum(end.mean, target.mean), end.sd)
            most, likeliest = improvement(target, 0.0)
            gain, chance = np.minimum(gain, most), np.minimum(chance, likeliest)
            running = min(running, float(most[0]))
        return Comparison(
            *(rows, worth, gain, chance, end, scale, running, least_gain, self.model.surprise),
            leads=leads & (gain >= least_gain),
            at_target=target is not None,
        )


def improvement(belief: Belief, target: Floats | float) -> tuple[Floats, Floats]:
    """The expected improvement on a score, and the probability of one."""
    z = (target - belief.mean) / belief.sd
    chance = np.asarray(ndtr(z))
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(belief.sd * (z * chance + density)), chance
