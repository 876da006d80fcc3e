"""Whether to start a new trial or continue a paused one, and which: what a worker is worth there.

Freeze-thaw optimisation (Swersky, Snoek & Adams 2014) with a plain model: how trials do among the
others is a Gaussian process over their configurations, and of its own trial a report says more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from tune_stoppers.core import require_number
from tune_stoppers.surrogate.encoding import Floats
from tune_stoppers.surrogate.prior import NEXT_GIVEN, RANDOM, Prior, most_expected, told, trust
from tune_stoppers.surrogate.trial_scores import (
    BLAS,
    ConfigModel,
    TrialLosses,
    normal_scores,
    some_of,
)

MOST_KNOWN = 100  # trials that the model is made of
MOST_ASKED = 80  # new configurations that are compared for one choice
OWN = 0.2  # of the noise variance of an early report: what stays with the trial to its end
LEFT = 0.1  # of the rest of it: what is still there at the horizon


class StartedTrial(NamedTuple):
    """A trial that has reported."""

    config: Mapping[str, Any]
    standing: TrialLosses
    done: float  # share of the horizon that it has come to; 1 also for one that diverged
    ahead: float  # to its next rung, a resume with it, as a share of the horizon
    beyond: float  # from there to the horizon, likewise
    waits: bool  # it can be continued


class Candidate(NamedTuple):
    """What to do with a worker."""

    position: int  # among the new configurations; of a trial that has begun: behind all of those
    probability: float  # that it does better in the end than all the others
    worth: float  # that probability, over what it is expected to take
    why: str


class FreezeThawAcquisition:
    """Goes where a worker is expected to find a new best soonest.

    How a trial will do in the end, as a normal score among the others (`surrogate.trial_scores`
    says how they are compared; lower is better), is g(configuration) + h: a Gaussian process, and
    what is the trial's own. What is seen of it has noise beside, which falls with the root of the
    share of the horizon done. With m ± s believed of a trial, and t the lowest belief about any
    other, its probability of being the best is Φ((t - m) / s), and continuing it is worth

        probability / (ahead + probability · beyond):

    it costs the way to the next rung, and the rest of the way only if it is still promising there.
    New configurations (at most 80, at random) and trials that wait are compared by that.

    The first `least` trials, and then a share `explore` of what is chosen, start in the order
    given. Deterministic: a choice depends on what it is given, on how many have been made, and on
    what the model was last fitted to.

    With a `prior`, of the first `least` four in five are those of which it expects most, and
    g(configuration) is how it differs from what was expected, as far as that has come true
    (`surrogate.prior.Trust`).
    """

    def __init__(
        self, prior: Prior | None = None, *, least: int = 8, explore: float = 0.1, seed: int = 0
    ) -> None:
        require_number("least", least, at_least=2, integer=True)
        require_number("explore", explore, at_least=0, at_most=1)
        require_number("seed", seed, at_least=0, integer=True)
        self.prior, self.least, self.explore, self.seed = prior, least, explore, seed
        self._model = ConfigModel()

    def choose(
        self,
        new: Sequence[Mapping[str, Any]],
        begun: Sequence[StartedTrial],
        awaited: Sequence[Mapping[str, Any]] = (),
        *,
        first_rung: float,
        picks: int,
        arrives: bool = False,
        least_probability: float = 0.0,
    ) -> Candidate | None:
        """What a worker should do; None if nothing can be done.

        Args:
            new: configurations not started, in the order given.
            begun: the trials that have reported.
            awaited: configurations of trials that were started and have not reported.
            first_rung: what a new trial takes to its first rung, as a share of the horizon.
            picks: how many were chosen before.
            arrives: a trial has come to a rung and is to continue or to wait: no exploration.
            least_probability: what has less is chosen only if there is nothing else.
        """
        configs = [*new, *(trial.config for trial in begun), *awaited]
        expected = None if self.prior is None else self.prior.expected(configs)
        if new and len(begun) < self.least:
            return self._first(expected, len(new), picks)
        rng = np.random.default_rng([self.seed, picks])
        if new and not arrives and rng.random() < self.explore:
            return Candidate(0, 1.0, 1.0, "random exploration: next in the given order")
        waiting = [index for index, trial in enumerate(begun) if trial.waits]
        if not new and not waiting:
            return None
        if len(begun) == 1:
            return Candidate(len(new), 1.0, 1.0, "no other one is there to compare with")
        asked = np.arange(len(new))
        if len(new) > MOST_ASKED:
            asked = np.sort(rng.choice(len(new), MOST_ASKED, replace=False))
        mean, sd = self._beliefs(new, begun, awaited, asked, rng, expected)
        probabilities, worth = self._compared(mean, sd, begun, len(asked), first_rung)
        promising = (probabilities >= least_probability) & (worth > -np.inf)
        best = int(np.argmax(np.where(promising, worth, -np.inf) if promising.any() else worth))
        position = int(asked[best]) if best < len(asked) else len(new) + best - len(asked)
        why = (
            f"a probability of {probabilities[best]:.0%} to be the best in the end "
            f"({mean[best]:+.2f} ± {sd[best]:.2f} of a normal score; lower is better)"
        )
        if expected is not None and position < len(new):
            why += f"; {told(expected[position])}"
        return Candidate(position, float(probabilities[best]), float(worth[best]), why)

    def _first(self, expected: Floats | None, new: int, picks: int) -> Candidate:
        """One of the first trials: as the prior says, or the next in the order given."""
        if expected is None:
            return Candidate(0, 1.0, 1.0, f"the first {self.least} trials start in the order given")
        place = most_expected(expected[:new], picks)
        if place is None:
            return Candidate(0, 1.0, 1.0, NEXT_GIVEN.format(every=RANDOM))
        return Candidate(place, 1.0, 1.0, f"{told(expected[place])}, most of all that wait")

    def _beliefs(
        self,
        new: Sequence[Mapping[str, Any]],
        begun: Sequence[StartedTrial],
        awaited: Sequence[Mapping[str, Any]],
        asked: np.ndarray[Any, np.dtype[np.intp]],
        rng: np.random.Generator,
        expected: Floats | None,
    ) -> tuple[Floats, Floats]:
        """Mean and deviation of how those asked about, and then all that have begun, will do."""
        known = some_of([trial.standing.best for trial in begun], MOST_KNOWN, rng)
        values = normal_scores([trial.standing for trial in begun], known)
        passing = 1 - (1 - LEFT) * np.sqrt([trial.done for trial in begun])
        noisiness = OWN + (1 - OWN) * passing
        rows, groups, _ = self._model.points(new, [trial.config for trial in begun], awaited)
        first, second = len(new), len(new) + len(begun)
        mine = rows[first:second]
        beforehand = np.zeros(len(asked) + len(begun))
        if expected is not None:
            theirs = expected[first:second]
            learnt = trust(values[known], theirs[known], noisiness[known])
            values = values - learnt.of(theirs)
            beforehand = learnt.of(np.concatenate([expected[asked], theirs]))
        with BLAS.limit(limits=1, user_api="blas"):
            process = self._model.process(
                mine[known], values[known], groups, len(begun), noisiness[known]
            )
            mean, sd = process.posterior(
                mine[known],
                values[known],
                np.vstack([rows[asked], mine]),
                rows[second:] if len(awaited) else None,
                noisiness[known],
            )
        own = OWN * process.noise
        gain = np.concatenate([np.zeros(len(asked)), OWN / noisiness])
        seen = np.concatenate([np.zeros(len(asked)), values - mean[len(asked) :]])
        return beforehand + mean + gain * seen, np.sqrt((1 - gain) ** 2 * sd**2 + own * (1 - gain))

    def worth_of_any(self, others: int, first_rung: float) -> float:
        """What a new trial is worth that is as likely as any other to be the best."""
        return float(_worth(np.float64(1 / (others + 1)), first_rung, 1 - first_rung))

    def _compared(
        self, mean: Floats, sd: Floats, begun: Sequence[StartedTrial], asked: int, first_rung: float
    ) -> tuple[Floats, Floats]:
        """The probability of each to be the best, and what continuing it is worth."""
        expected = np.where(np.arange(len(mean)) < asked, np.inf, mean)
        leader = int(np.argmin(expected))
        target = np.full(len(mean), expected[leader])
        target[leader] = np.partition(expected, 1)[1]
        probabilities = np.asarray(norm.cdf((target - mean) / sd))
        ahead = np.array([first_rung] * asked + [trial.ahead for trial in begun])
        beyond = np.array([1 - first_rung] * asked + [trial.beyond for trial in begun])
        can = np.array([True] * asked + [trial.waits for trial in begun])
        worth = np.full(len(mean), -np.inf)
        worth[can] = _worth(probabilities[can], ahead[can], beyond[can])
        return probabilities, worth


def _worth(probability: Any, ahead: Any, beyond: Any) -> Any:
    return probability / (ahead + probability * beyond)
