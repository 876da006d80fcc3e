"""Which of the configurations not started yet to start next, by a model of those that were."""

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
    MOST_KNOWN,
    ConfigModel,
    TrialLosses,
    normal_scores,
    some_of,
)

MOST_ASKED = 200  # configurations that are compared for one choice


class NextStart(NamedTuple):
    """The configuration to start, by its position among those asked about, and why."""

    position: int
    why: str


class LowerConfidenceBound:
    """Chooses by the lower confidence bound of a Gaussian process over the configurations.

    What is modelled is how a trial does among the others. Of two trials the better one is that
    with the lower loss at the last rung that both have reached; of two that have reached none, or
    all, that with the lower best loss. The share of the others that it does better than, as a
    normal score, is the value of its configuration. The next to start is, of the configurations
    asked about (at most 200, at random), the one with the least mean - `optimism` · deviation,
    where trials that have not reported yet count as awaited (Gaussian-process batches by
    hallucination: Desautels, Krause & Burdick 2014).

    The first `least` trials, and then a share `explore` at random, start in the order given, which
    keeps the sweep honest where the model is wrong. Deterministic: a pick depends on what it is
    given, on how many have been made, and on what the model was last fitted to.

    With a `prior`, of the first `least` four in five are those of which it expects most, and the
    process models how trials differ from what was expected of them, as far as it has come true
    (`surrogate.prior.Trust`).

    Args:
        prior: what is known of configurations before the sweep.
        least: trials that must have reported before the model has a say.
        explore: share of the picks that the model has no say in.
        optimism: standard deviations that an unknown configuration is given the benefit of.
        seed: of the random choices.
    """

    def __init__(
        self,
        prior: Prior | None = None,
        *,
        least: int = 8,
        explore: float = 0.1,
        optimism: float = 2.0,
        seed: int = 0,
    ) -> None:
        require_number("least", least, at_least=2, integer=True)
        require_number("explore", explore, at_least=0, at_most=1)
        require_number("optimism", optimism, at_least=0)
        require_number("seed", seed, at_least=0, integer=True)
        self.prior = prior
        self.least, self.explore, self.optimism, self.seed = least, explore, optimism, seed
        self.model = ConfigModel()

    def choose(
        self,
        waiting: Sequence[Mapping[str, Any]],
        reported: Sequence[tuple[Mapping[str, Any], TrialLosses]],
        awaited: Sequence[Mapping[str, Any]] = (),
        *,
        picks: int,
    ) -> NextStart:
        """The position in `waiting` of the configuration to start next.

        Args:
            waiting: configurations not started, in the order given; at least one.
            reported: configurations of the trials that have reported, and how they do.
            awaited: configurations of trials that were started and have not reported.
            picks: how many were chosen before.
        """
        rng = np.random.default_rng([self.seed, picks])
        configs = [*waiting, *(config for config, _ in reported), *awaited]
        expected = None if self.prior is None else self.prior.expected(configs)
        if len(reported) < self.least:
            return self._first(expected, len(waiting), picks)
        if rng.random() < self.explore:
            return NextStart(0, "random exploration: next in the given order")
        if len(waiting) == 1:
            return NextStart(0, "no other one waits")
        known = some_of([standing.best for _, standing in reported], MOST_KNOWN, rng)
        values = normal_scores([reported[index][1] for index in known])
        asked = np.arange(len(waiting))
        if len(waiting) > MOST_ASKED:
            asked = np.sort(rng.choice(len(waiting), MOST_ASKED, replace=False))
        rows, groups, _ = self.model.points(waiting, [config for config, _ in reported], awaited)
        if not len(groups):
            return NextStart(
                0, "the configurations do not differ in anything that a model could use"
            )
        first, second = len(waiting), len(waiting) + len(reported)
        points = rows[first + known]
        on_their_way = rows[second:] if len(awaited) else None
        beforehand = np.zeros(len(asked))
        if expected is not None:
            learnt = trust(values, expected[first + known])
            values = values - learnt.of(expected[first + known])
            beforehand = learnt.of(expected[asked])
        with BLAS.limit(limits=1, user_api="blas"):
            process = self.model.process(points, values, groups, len(reported))
            mean, sd = process.posterior(points, values, rows[asked], on_their_way)
        mean = mean + beforehand
        best = int(np.argmin(mean - self.optimism * sd))
        why = (
            f"the model expects it to do better than {norm.cdf(-mean[best]):.0%} of those so far "
            f"({mean[best]:+.2f} ± {sd[best]:.2f} of a normal score; lower is better)"
        )
        if expected is not None:
            why += f"; {told(expected[asked[best]])}"
        return NextStart(int(asked[best]), why)

    def _first(self, expected: Floats | None, waiting: int, picks: int) -> NextStart:
        """One of the first trials: as the prior says, or the next in the order given."""
        if expected is None:
            return NextStart(0, f"the first {self.least} trials start in the order given")
        place = most_expected(expected[:waiting], picks)
        if place is None:
            return NextStart(0, NEXT_GIVEN.format(every=RANDOM))
        return NextStart(place, f"{told(expected[place])}, most of all that wait")
