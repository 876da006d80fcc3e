"""What earlier sweeps expect of configurations, as the models of this sweep begin with it.

What is expected of a configuration is its standing among the trials of a sweep, as a normal score:
0 is the typical trial, -1 is one standard deviation better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tune_stoppers.surrogate.encoding import Floats

RANDOM = 5  # of the trials that a history chooses first, one in so many is the next given
NEXT_GIVEN = "one in {every} of the first trials is the next in the order given"
SLOPE, SLOPE_SD = 0.8, 0.5  # of standings on what was expected of them, before any is seen


class Prior(Protocol):
    """What is known of configurations before the sweep."""

    def expected(self, configs: Sequence[Mapping[str, Any]]) -> Floats | None:
        """The standing of each, in normal scores (lower is better); None: nothing is known."""


def most_expected(expected: Floats, picks: int, every: int = RANDOM) -> int | None:
    """The place of the trial to start, by a history alone; None: the next in the order given.

    Args:
        expected: of those that wait, in the order given.
        picks: how many were chosen before.
        every: one in so many is the next given, so that a wrong history shows.
    """
    if not len(expected) or picks % every == every - 1:
        return None
    return int(np.argmin(expected))


def told(expected: float) -> str:
    """What earlier sweeps expect of a trial, in words."""
    if abs(expected) < 0.05:
        return "earlier sweeps expect it to be typical"
    how = "better" if expected < 0 else "worse"
    return f"earlier sweeps expect it {abs(expected):.1f} sd {how} than the typical trial"


class Trust(NamedTuple):
    """How far the trials of a sweep do as was expected of them.

    Their standings v are taken for v - mean(v) = slope · (expected - mean(expected)) + noise of
    variance 1, times each one's noisiness, with slope ~ N(0.8, 0.5²) beforehand: a history that the
    sweep contradicts has a slope near 0, and changes nothing from there on.
    """

    slope: float
    middle: float  # the mean that was expected of the trials that the slope was learnt from

    def of(self, expected: Floats) -> Floats:
        """What may be expected of others, among these trials."""
        return self.slope * (expected - self.middle)


def trust(values: Floats, expected: Floats, noisiness: Floats | float = 1.0) -> Trust:
    """The trust that trials with these standings, and this expected of them, deserve."""
    if not len(values):
        return Trust(SLOPE, 0.0)
    middle = float(expected.mean())
    far = expected - middle
    weights = 1 / np.broadcast_to(noisiness, values.shape)
    precision = SLOPE_SD**-2 + float(weights @ far**2)
    seen = float((weights * far) @ (values - values.mean()))
    return Trust(max((SLOPE * SLOPE_SD**-2 + seen) / precision, 0.0), middle)
