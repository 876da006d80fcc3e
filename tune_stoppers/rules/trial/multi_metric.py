"""Several metrics: stop a trial once their composite, or most of them, no longer improve."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Decision, Report, Rule, require, require_choice, require_number

LEAST_FIRST = 1e-12  # a first value nearer to zero counts as this: changes stay finite
HALF = 0.5 * (1 + 1e-12)  # 0.4 is half of 0.3 + 0.4 + 0.1, whatever the rounding

Metrics = Mapping[str, Mapping[str, Any]]  # {name: {"mode": "min" or "max", "weight": 1}}


class MultiMetricState(NamedTuple):
    """What `MultiMetric` remembers; of the one score, or in a vote of each metric by name.

    Values are signed so that higher is better.
    """

    best: tuple[float, ...]  # highest so far; minus infinity: none yet
    best_step: tuple[float | None, ...]  # where that was
    bad: tuple[int, ...]  # evaluations in a row that did not rise above the best
    newest: tuple[float, ...]  # minus infinity stands for any that was not finite
    first: tuple[float | None, ...]  # each metric's first finite value ("relative" alone)


@dataclass(frozen=True)
class MultiMetric(Rule):
    """Stop once several metrics together have not improved for `patience` evaluations.

    Formula, combine="score": the score must rise strictly above its best within `patience`
    evaluations; the patience-th in a row that does not stops. The score is

    - scaling="reciprocal": Σ w/(1 + v) over the metrics to minimise + Σ w·v over those to
      maximise. It needs v > -1 where v is minimised.
    - scaling="relative": Σ ±w·(v - first)/max(|first|, 1e-12), + to maximise and - to minimise:
      each metric's change as a share of the trial's own first finite value, so that metrics of
      any size and sign weigh alike.

    combine="vote": a metric has stalled at its patience-th evaluation in a row without an
    improvement of its own; stop while the stalled metrics have over half of the weight, strictly.

    Source: the reciprocal score is folklore; it saturates for losses far above 1, where
    "relative" does not. The vote is a weighted majority of `Patience` rules.

    Args:
        metrics: {name: {"mode": "min" or "max", "weight": 1}}; weights above 0, 1 where left
            out. Values are read in their own units; there is no other objective.
        patience: evaluations, at least 1.
        scaling: "reciprocal" or "relative"; a vote needs none.
        combine: "score" or "vote".

    A tie is no improvement. A report that lacks any of the metrics, or at a step already seen,
    changes nothing. NaN and infinities ("worst"): the score of that evaluation is minus infinity;
    in a vote that metric alone does not improve. "ignore" leaves such a report out as a whole.

    Raises:
        ValueError: in `update`, if a metric to minimise is at or below -1 under "reciprocal":
            the score would jump or turn round there. It ends the sweep, on purpose.

    Example: patience 2, a loss and an accuracy: (1, 0.5), (0, 0.25), (1, 0.75), (3, 1) score
    1, 1.25, 1.25, 1.25 and stop at the fourth: two evaluations that did not rise above 1.25.
    """

    metrics: Metrics
    patience: int = 5
    scaling: Literal["reciprocal", "relative"] = "reciprocal"
    combine: Literal["score", "vote"] = "score"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "metrics", _checked(self.metrics))  # ours from here on
        require_number("patience", self.patience, at_least=1, integer=True)
        require_choice("scaling", self.scaling, ("reciprocal", "relative"))
        require_choice("combine", self.combine, ("score", "vote"))

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.metrics)

    @property
    def needs_objective(self) -> bool:
        return False

    def start(self) -> MultiMetricState:
        watched = len(self.metrics) if self.combine == "vote" else 1
        none = (-math.inf,) * watched
        firsts = len(self.metrics) if self._relative else 0
        return MultiMetricState(none, (None,) * watched, (0,) * watched, none, (None,) * firsts)

    def observe(self, own: MultiMetricState, report: Report) -> MultiMetricState:
        values = tuple(report.metrics[name] for name in self.metrics)
        first = tuple(
            value if known is None and math.isfinite(value) else known
            for known, value in zip(own.first, values, strict=False)  # none unless "relative"
        )
        newest = self._votes(values) if self.combine == "vote" else (self._score(report, first),)
        rises = [new > best for new, best in zip(newest, own.best, strict=True)]
        return MultiMetricState(
            best=tuple(max(new, best) for new, best in zip(newest, own.best, strict=True)),
            best_step=tuple(
                report.step if rise else step
                for rise, step in zip(rises, own.best_step, strict=True)
            ),
            bad=tuple(0 if rise else bad + 1 for rise, bad in zip(rises, own.bad, strict=True)),
            newest=newest,
            first=first,
        )

    def decide(self, own: MultiMetricState) -> Decision:
        return self._decide_vote(own) if self.combine == "vote" else self._decide_score(own)

    def _decide_score(self, own: MultiMetricState) -> Decision:
        (best,), (best_step,), (bad,), (score,) = own.best, own.best_step, own.bad, own.newest
        if bad == 0:
            return self.keep("the score rose to {score}", score=score)
        numbers: dict[str, Any] = {"score": score, "bad": bad, "patience": self.patience}
        text = "{bad} of {patience} evaluations without a rise of the score, now "
        text += "{score}" if math.isfinite(score) else "not finite"
        if best_step is None:
            text += ", none finite yet"
        else:
            text += ", best {best} at step {best_step:g}"
            numbers |= {"best": best, "best_step": best_step}
        return (self.stop if bad >= self.patience else self.keep)(text, **numbers)

    def _decide_vote(self, own: MultiMetricState) -> Decision:
        weights = [spec["weight"] for spec in self.metrics.values()]
        stalled = sum(w for w, bad in zip(weights, own.bad, strict=True) if bad >= self.patience)
        numbers = {
            "stalled": float(stalled),
            "total": float(sum(weights)),
            "counts": ", ".join(
                f"{name} {bad}" for name, bad in zip(self.metrics, own.bad, strict=True)
            ),
            "patience": self.patience,
        }
        text = (
            "stalled weight {stalled} of {total}; evaluations without improvement, of {patience}: "
            "{counts}"
        )
        return (self.stop if stalled > HALF * sum(weights) else self.keep)(text, **numbers)

    @property
    def _relative(self) -> bool:
        return self.combine == "score" and self.scaling == "relative"

    def _votes(self, values: tuple[float, ...]) -> tuple[float, ...]:
        signs = (_sign(spec) for spec in self.metrics.values())
        pairs = zip(signs, values, strict=True)
        return tuple(s * value if math.isfinite(value) else -math.inf for s, value in pairs)

    def _score(self, report: Report, first: tuple[float | None, ...]) -> float:
        """The weighted sum; minus infinity if any value is not finite."""
        if not all(math.isfinite(report.metrics[name]) for name in self.metrics):
            return -math.inf
        score = 0.0
        for i, (name, spec) in enumerate(self.metrics.items()):
            value = report.metrics[name]
            term = self._change(spec, value, first[i]) if first else _level(name, spec, report)
            score += _bounded(spec["weight"] * term)
        return _bounded(score)

    def _change(self, spec: Mapping[str, Any], value: float, first: float | None) -> float:
        assert first is not None  # `value` is finite, so it is the first at the latest
        return _sign(spec) * (value - first) / max(abs(first), LEAST_FIRST)


def _sign(spec: Mapping[str, Any]) -> int:
    """1 where higher is better, else -1."""
    return 1 if spec["mode"] == "max" else -1


def _level(name: str, spec: Mapping[str, Any], report: Report) -> float:
    """A metric's share of the reciprocal score, before its weight."""
    value = report.metrics[name]
    if spec["mode"] == "max":
        return value
    require(
        value > -1,
        f"Metric {name!r} is {value:g} in trial {report.trial_id} at step {report.step:g}, but "
        'scaling="reciprocal" needs metrics to minimise above -1. Use scaling="relative".',
    )
    return 1 / (1 + value)


def _bounded(value: float) -> float:
    """`value`, or the largest float where it overflowed: infinity means not finite."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def _checked(metrics: object) -> dict[str, dict[str, Any]]:
    """`metrics` with each weight filled in, by name: states do not depend on their order."""
    like = '{"loss": {"mode": "min"}, "accuracy": {"mode": "max", "weight": 2}}'
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a mapping such as {like}, got {metrics!r}.")
    require(bool(metrics), f"metrics is empty; give, say, {like}.")
    for name, spec in metrics.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"metrics must map names of metrics, got {name!r}.")
        if not isinstance(spec, Mapping):
            raise TypeError(f'metrics[{name!r}] must be like {{"mode": "min"}}, got {spec!r}.')
        for key in spec:
            known = key in ("mode", "weight")
            require(known, f"metrics[{name!r}] has unknown key {key!r}; known: mode, weight.")
        require("mode" in spec, f'metrics[{name!r}] needs "mode": "min" or "max".')
        require_choice(f"metrics[{name!r}] mode", spec["mode"], ("min", "max"))
        require_number(f"metrics[{name!r}] weight", spec.get("weight", 1), above=0)
    return {name: {"weight": 1} | dict(spec) for name, spec in sorted(metrics.items())}
