"""What is kept of an earlier sweep: its configurations, and how each did within it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tune_stoppers.history.names import flat_values
from tune_stoppers.surrogate.encoding import Floats
from tune_stoppers.surrogate.trial_scores import TrialLosses, normal_scores

MOST_KEPT = 300  # trials of a sweep
MOST_COMPARED = 1000  # trials that each is compared with
FEWEST = 3  # trials: fewer have no ranks to speak of
MARKS = 1.25 ** -np.arange(21.0)[::-1]  # shares of the horizon at which trials are compared
WHOLE = 0.999  # of the horizon: the trial has come to its end
Value = float | str


class Trial(NamedTuple):
    """A recorded trial: its reports, oldest first."""

    config: Mapping[str, Any]
    shares: Floats  # of the horizon
    losses: Floats  # lower is better; infinite where it diverged


@dataclass(frozen=True)
class PastSweep:
    """An earlier sweep, thinned to `MOST_KEPT` trials.

    `scores` are normal scores: 0 is the median trial, -1 one that does better than 84 % of them.
    """

    name: str
    trials: int  # that reported, before thinning
    columns: Mapping[str, tuple[Value | None, ...]] = field(repr=False)  # hyperparameters by path
    scores: tuple[float, ...] = field(repr=False)
    done: tuple[float, ...] = field(repr=False)  # the share of the horizon behind each score
    content: str = field(default="", repr=False)  # what `content_of` says of it

    @classmethod
    def of(cls, name: str, trials: Iterable[Trial], seed: int = 0) -> PastSweep:
        """The sweep, from its trials; `ValueError` if there is nothing in it to be learnt.

        Two trials are compared at the last of `MARKS` that both have reached, by the best loss so
        far. So a trial that was stopped, or failed, or still runs, counts for what it shows. What
        is above the median trial's first finite loss counts as that: such a trial learnt nothing.
        """
        reported = [trial for trial in trials if len(trial.losses)]
        if len(reported) < FEWEST:
            raise ValueError(
                f"{name} has {len(reported)} trials that reported its metric, which say nothing of "
                f"configurations: {FEWEST} are needed."
            )
        standings = _standings(reported)
        rng = np.random.default_rng([seed, len(reported)])
        among = None
        if len(reported) > MOST_COMPARED:
            among = rng.permutation(len(reported))[:MOST_COMPARED]
        scores = normal_scores(standings, among)
        if np.ptp(scores) == 0:
            raise ValueError(
                f"{name}: all its trials do equally well, so there is nothing to learn."
            )
        kept = np.sort(rng.permutation(len(reported))[:MOST_KEPT])
        configs = [flat_values(reported[place].config) for place in kept]
        names = dict.fromkeys(key for config in configs for key in config)
        done = [1.0 if standings[p].ended else float(reported[p].shares[-1]) for p in kept]
        return cls(
            name=name,
            trials=len(reported),
            columns={key: tuple(config.get(key) for config in configs) for key in names},
            scores=tuple(round(float(score), 4) for score in scores[kept]),
            done=tuple(round(min(share, 1.0), 4) for share in done),
        )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def identity(self) -> object:
        """Equal for the same sweep read from two places: its content, and who had which score.

        Of many trials, which are not all kept, its content alone.
        """
        if not self.content:
            return id(self)
        if self.trials > MOST_KEPT:
            return self.content
        columns = [self.columns[name] for name in sorted(self.columns)]
        return self.content, *sorted(map(repr, zip(self.scores, *columns, strict=True)))


def content_of(values: Iterable[Floats]) -> str:
    """A fingerprint of a recorded metric, each trial's values: that of each one's last finite.

    The same in whatever file or order the trials are, maximised or minimised; "" of fewer than
    three trials.
    """
    lasts = [v[np.isfinite(v)][-1] for v in values if np.isfinite(v).any()]
    if len(lasts) < FEWEST:
        return ""
    text = " ".join(sorted(f"{abs(last):.9g}" for last in lasts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _standings(trials: Sequence[Trial]) -> list[TrialLosses]:
    """How each does at the marks, and whether it has come to its end (also by diverging)."""
    first = [_first_finite(trial.losses) for trial in trials]
    cap = np.nanmedian(first) if np.isfinite(first).any() else 0.0
    standings = []
    for trial in trials:
        best = np.minimum.accumulate(np.minimum(trial.losses, cap))
        # the first report is a mark of its own: everyone has it
        reached = np.searchsorted(trial.shares, MARKS[trial.shares[-1] >= MARKS - 1e-9] - 1e-9)
        marks = (float(best[0]), *(float(best[row]) for row in reached))
        ended = bool(trial.shares[-1] >= WHOLE or not np.isfinite(trial.losses[-1]))
        standings.append(TrialLosses(marks, float(best[-1]), ended))
    return standings


def _first_finite(losses: Floats) -> float:
    finite = losses[np.isfinite(losses)]
    return float(finite[0]) if len(finite) else np.nan
