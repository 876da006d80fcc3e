"""How much of the ranking of trials goes with one hyperparameter. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 10  # trials; with fewer, chance alone often gives more than 0.7
PER_BIN = 3  # trials, on average
BINS = (3, 8)  # the fewest see a valley at all, more see narrow ones
CHANCE = 2.2  # over √n: what chance alone exceeds in 1 of 20 cases, by simulation

Floats = NDArray[np.float64]
Groups = NDArray[np.intp]


def importance(values: Sequence[Any], losses: Sequence[float], *, numeric: bool) -> float:
    """The correlation ratio of the ranks of the losses over groups of trials alike in a value.

    With k groups of n trials, and η² the part of the variance of the ranks that lies between the
    groups, √(1 − (1 − η²)·(n − 1)/(n − k)): 0 to 1, corrected for what chance puts between groups
    (Kelley 1935), 0 where that leaves nothing. Categories, and numbers of up to 8 different values,
    are the groups; other numbers are cut into 3, 4, … up to 8 groups of equal size, at least three
    trials each, and the squares of the ratios averaged. Unlike a correlation it sees a valley, as
    a learning rate has one. It does not see what a value does only together with another's.

    Args:
        values: of the hyperparameter, one a trial; a trial with None is left out.
        losses: one a trial, lower better; infinity for a diverged one, NaN to leave it out.
        numeric: whether the values are numbers, else categories.

    NaN, not known, with fewer than 10 trials or fewer than two trials a category.
    """
    pairs = [
        (value, loss)
        for value, loss in zip(values, losses, strict=True)
        if value is not None and not math.isnan(loss)
    ]
    if len(pairs) < FEWEST:
        return math.nan
    ranks = _ranks(loss for _, loss in pairs)
    squares = [_squared_ratio(groups, ranks) for groups in _groupings(pairs, numeric)]
    return math.sqrt(max(fmean(squares), 0.0)) if squares else math.nan


def by_chance(trials: int) -> float:
    """What a hyperparameter without any influence exceeds in about one of twenty sweeps."""
    return min(CHANCE / math.sqrt(trials), 1.0) if trials else 1.0


def too_few(trials: int) -> str:
    """What to say where nothing is known of any hyperparameter."""
    return (
        f"Too few trials to say how much a hyperparameter matters: {trials} have a result after "
        f"training, {FEWEST} are needed."
    )


def _groupings(pairs: Sequence[tuple[Any, float]], numeric: bool) -> Iterable[Groups]:
    """The group of each trial, one way or several."""
    names = [value if numeric else str(value) for value, _ in pairs]
    distinct = {name: index for index, name in enumerate(sorted(set(names)))}
    which = np.array([distinct[name] for name in names])
    if not numeric or len(distinct) <= min(BINS[1], len(pairs) // 2):
        return [which] if 2 * len(distinct) <= len(pairs) else []
    places = (_ranks(which.tolist()) - 0.5) / len(pairs)  # equal values stay together
    most = min(max(len(pairs) // PER_BIN, BINS[0]), BINS[1])
    return [(places * count).astype(np.intp) for count in range(BINS[0], most + 1)]


def _squared_ratio(groups: Groups, ranks: Floats) -> float:
    """Corrected for the number of groups: 0 on average where only chance is at work."""
    whole = float(((ranks - ranks.mean()) ** 2).sum())
    _, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.bincount(which, ranks) / counts
    within = float(((ranks - means[which]) ** 2).sum())
    if not whole:
        return 0.0  # all trials came out alike
    return 1 - within / whole * (len(ranks) - 1) / (len(ranks) - len(counts))


def _ranks(values: Iterable[float]) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    array = np.array(list(values), dtype=float)
    _, which, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends: Floats = np.cumsum(counts) - (counts - 1) / 2
    return ends[which]
