"""Earlier sweeps as prior knowledge of the next one's configurations.

In three steps, each in its own file. `sources` reads sweeps, and `past_sweep` keeps of each how its
trials compared. `matching` finds the hyperparameters of the sweep at hand in them. `model` says
what a configuration may be expected to do.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tune_stoppers.history.matching import Match, matched, varying
from tune_stoppers.history.model import HistoryModel
from tune_stoppers.history.names import flat_values
from tune_stoppers.history.past_sweep import PastSweep
from tune_stoppers.history.sources import Source, read
from tune_stoppers.metrics import closest
from tune_stoppers.surrogate.encoding import Floats

LEAST_COVERAGE = 0.5  # of what the best sweep covers: those that cover less are left out


@dataclass(frozen=True)
class Prior:
    """What earlier sweeps make one expect of some configurations, before any is tried.

    Attributes:
        expected: for each configuration its standing among the trials of a sweep, as a normal
            score: 0 is the median trial, -1 one that does better than 84 % of them.
        sd: the standard deviation of that belief.
        trust: the share of the hyperparameters that vary here of which the history knows
            something; 0 where there is none, and then nothing is expected of anything.
        said: what was used, how it was matched, what was left out and why; plain sentences.
    """

    expected: Floats
    sd: Floats
    trust: float
    said: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """What is kept of earlier sweeps: small, and independent of the files that it came from.

    Attributes: `sweeps`; `rename`, as `of` was given it; `said`, sentences about what was read.
    """

    sweeps: tuple[PastSweep, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    _models: dict[Any, HistoryModel] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(
        cls,
        sources: Source | Sequence[Source] | History,
        *,
        metric: str | None = None,
        mode: str | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> History:
        """What `sources` have recorded.

        Args:
            sources: one or a list of: the path or URI of a Ray experiment's folder, also of a
                running one, or of a folder of experiments; a Parquet or CSV file; a `Sweep`;
                "lora", the recorded LoRA fine-tunes that come with the package.
            metric, mode: what to judge trials by in sweeps that reported it. Others are judged by
                their own objective: only how trials compare within their sweep counts.
            rename: the names of hyperparameters in earlier sweeps, and what they are called here:
                {"optimizer/step_size": "lr"}. Of the usual ones the usual names are known.

        `ValueError` for a path where there is nothing, a file that cannot be read, an unknown mode.
        What is there and of no use is left out: `said` tells why.
        """
        if isinstance(sources, History):
            return sources
        found, said = read(sources, metric, mode)
        names = [name for sweep in found for name in sweep.columns]
        renamed = dict(rename or {})
        for name in renamed.keys() - set(names) if names else ():
            said.append(f"rename: no earlier sweep has {name!r}.{closest(name, names)}")
        return cls(tuple(found), renamed, tuple(said))

    def without(self, contents: Container[str], why: str) -> History:
        """The same but for the sweeps of these contents (`sources.contents_of`); `why` is said."""
        kept = tuple(sweep for sweep in self.sweeps if sweep.content not in contents)
        if len(kept) == len(self.sweeps):
            return self
        gone = [sweep.name for sweep in self.sweeps if sweep.content in contents]
        said = (*self.said, *(f"{name} is left out of the history: {why}." for name in gone))
        fewer = replace(self, sweeps=kept, said=said)
        object.__setattr__(fewer, "_models", self._models)  # by sweep: what one fits serves both
        return fewer

    def prior(self, configs: Sequence[Mapping[str, Any]]) -> Prior:
        """What the history expects of `configs`, those known so far of the sweep at hand."""
        flat = [flat_values(config) for config in configs]
        kept, said = self._matched(flat)
        if not kept:
            return Prior(np.zeros(len(flat)), np.ones(len(flat)), 0.0, (*self.said, *said))
        expected, sd = self._model(kept).beliefs(flat)
        covered = {name for match in kept for name in match.covered}
        vary = varying(flat)
        trust = len(covered) / len(vary) if vary else 1.0
        return Prior(expected, sd, trust, (*self.said, *said))

    def choose(
        self, configs: Sequence[Mapping[str, Any]], n: int
    ) -> tuple[list[int] | None, tuple[str, ...]]:
        """The places of the `n` most promising and diverse of `configs`, and what is to be said.

        None in place of the places where the history knows nothing of them.
        """
        flat = [flat_values(config) for config in configs]
        kept, said = self._matched(flat)
        chosen = self._model(kept).choose(flat, n) if kept else None
        return chosen, (*self.said, *said)

    def _matched(self, flat: Sequence[Mapping[str, Any]]) -> tuple[list[Match], list[str]]:
        """The sweeps that know enough, each as it is matched, and what is to be said of all."""
        matches = [matched(flat, sweep, self.rename) for sweep in self.sweeps]
        vary = varying(flat)
        best = max((_coverage(match, vary) for match in matches), default=0)
        kept, said = [], []
        for match in matches:
            coverage = _coverage(match, vary)
            if match.names and coverage and coverage >= LEAST_COVERAGE * best:
                kept.append(match)
                said.append(_used(match, vary))
            elif coverage:
                said.append(
                    f"{match.sweep.name} is left out: it knows {coverage} of the {len(vary)} "
                    f"hyperparameters that vary here, another sweep {best}."
                )
            else:
                said.append(_useless(match, vary))
        return kept, said

    def _model(self, kept: Sequence[Match]) -> HistoryModel:
        """The model of what is kept, in the names of the sweep at hand; fitted once."""
        key = tuple((id(match.sweep), *sorted(match.names.items())) for match in kept)
        if key not in self._models:
            self._models[key] = HistoryModel([_in_our_names(match) for match in kept])
        return self._models[key]

    def __deepcopy__(self, memo: Any) -> History:
        return self  # it never changes, and what was fitted is worth keeping

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": {}}


def _coverage(match: Match, vary: Sequence[str]) -> int:
    """How much the sweep knows; of a single configuration, nothing of which varies, of all."""
    return len(match.covered) if vary else len(match.names)


def _in_our_names(match: Match) -> tuple[list[dict[str, Any]], Floats, Floats]:
    sweep = match.sweep
    configs: list[dict[str, Any]] = [
        {
            here: value
            for here, there in match.names.items()
            if (value := sweep.columns[there][place]) is not None
        }
        for place in range(len(sweep))
    ]
    return configs, np.array(sweep.scores), np.array(sweep.done)


def _used(match: Match, vary: Sequence[str]) -> str:
    known = match.covered if vary else tuple(match.names)
    of = f"{len(known)} of the {len(vary)} hyperparameters that vary here" if vary else "it knows"
    named = [
        here if match.names[here] == here else f"{here} (there {match.names[here]})"
        for here in known
    ]
    parts = [f"{match.sweep.name}: {match.sweep.trials} trials; {of}: {', '.join(named)}"]
    if match.unknown:
        parts.append(f"nothing is known of {', '.join(match.unknown)}")
    if match.apart:
        parts.append(f"{', '.join(match.apart)}, so it says nothing of that")
    return "; ".join(parts) + "."


def _useless(match: Match, vary: Sequence[str]) -> str:
    name = match.sweep.name
    if match.apart:
        return f"{name} is left out: {', '.join(match.apart)}, so it says nothing of this sweep."
    theirs = ", ".join(list(match.sweep.columns)[:8]) or "none"
    return (
        f"{name} is left out: it varied none of the hyperparameters that vary here "
        f"({', '.join(vary) or 'none'}). It has: {theirs}. If one is the same by another name, "
        'say so: rename={"there": "here"}.'
    )
