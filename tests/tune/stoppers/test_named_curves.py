"""The named stoppers build their rules: one call each, as docs/strategies.md has it."""

import math
from pathlib import Path
from typing import Any

import pytest

import tune_stoppers
from tune_stoppers import (
    AdaptivePatienceStopper,
    GradientStopper,
    MultiMetricStopper,
    OverfitStopper,
    RecoveryStopper,
)


def stopped_at(stopper: Any, **curves: list[float]) -> int | None:
    """The report, counted from 1, at which the stopper ends a trial with these metrics."""
    for step, values in enumerate(zip(*curves.values(), strict=True), start=1):
        result = {"training_iteration": step, **dict(zip(curves, values, strict=True))}
        if stopper("t", result):
            assert stopper.name in result["stop_reason"]
            return step
    return None


@pytest.mark.parametrize(
    ("stopper", "curves", "step"),
    [
        (AdaptivePatienceStopper("x", "min", initial_patience=2), {"x": [1.0, 1.0, 1.0]}, 3),
        (AdaptivePatienceStopper("x", "max", initial_patience=2), {"x": [1.0, 2.0, 3.0]}, None),
        (RecoveryStopper("x", "min", patience=1, recovery_patience=1), {"x": [1.0] * 4}, 3),
        (GradientStopper("x", "min", patience=2), {"x": [3.0, 1.0, 1.0, 1.0]}, 4),
        (
            GradientStopper(source="grad_norm", patience=1, threshold=0.5),
            {"grad_norm": [0.1, 0.6, 0.4]},
            3,
        ),
        (OverfitStopper("x", "min", alpha=5), {"x": [1.0, 1.04, 1.06]}, 3),
        (OverfitStopper("x", "max", alpha=5), {"x": [1.0, 0.96, 0.94]}, 3),
        (
            MultiMetricStopper({"a": {"mode": "min"}, "b": {"mode": "max"}}, patience=1),
            {"a": [1.0, 0.5, 0.6], "b": [0.1, 0.2, 0.2]},
            3,
        ),
        (
            MultiMetricStopper({"a": {"mode": "min"}}, patience=1, combine="vote"),
            {"a": [1.0, math.nan]},
            2,
        ),
    ],
)
def test_named_stopper_stops_where_its_rule_does(
    stopper: Any, curves: dict[str, list[float]], step: int | None
) -> None:
    """Each strategy works as a Ray stopper, in the metric's own direction."""
    assert stopped_at(stopper, **curves) == step


def test_options_of_the_other_source_are_refused() -> None:
    """What a gradient stopper would silently leave out is an error."""
    with pytest.raises(ValueError, match="source='metric' does not use relative"):
        GradientStopper("x", "min", relative=True)
    with pytest.raises(ValueError, match="source='grad_norm' does not use confidence"):
        GradientStopper(source="grad_norm", confidence=0.9)


@pytest.mark.parametrize("page", ["README.md", "docs/strategies.md"])
def test_every_strategy_has_a_row(page: str) -> None:
    """The tables of strategies are complete, in brief and with calls."""
    text = Path(tune_stoppers.__file__).parents[1].joinpath(page).read_text()
    names = [name for name in tune_stoppers.__all__ if name.endswith(("Stopper", "Scheduler"))]
    assert len(names) >= 10
    assert [name for name in names if f"| `{name}`" not in text] == []
