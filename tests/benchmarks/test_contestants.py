"""The oracle that search benchmarks compare with is one."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pytest

from benchmarks.contestants import OracleScheduler
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep


def sweep_of(curves: Mapping[str, Sequence[float]], target: float | None = None) -> Sweep:
    rows = [
        {"trial_id": name, "training_iteration": t, "loss": value}
        for name, values in curves.items()
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", target=target)


CURVES = {"late": [9, 9, 9, 1], "bad": [8, 8, 8, 8], "quick": [9, 2], "nan": [float("nan")] * 3}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_oracle_starts_the_best_first_and_stops_none(workers: int) -> None:
    """Each trial runs once, from the start to its recorded end."""
    result = replay(sweep_of(CURVES), OracleScheduler(sweep_of(CURVES)), workers=workers)
    starts = result.journal[result.journal["action"] == "start"]["trial_id"].tolist()
    assert starts == ["late", "quick", "bad", "nan"]
    assert set(result.journal["action"]) == {"start", "finish"}
    assert result.savings == 0.0


def test_the_oracle_goes_by_the_time_to_a_target() -> None:
    """The soonest there comes first, whatever it reaches later; then the best."""
    sweep = sweep_of(CURVES, target=2.5)
    result = replay(sweep, OracleScheduler(sweep), workers=1)
    starts = result.journal[result.journal["action"] == "start"]["trial_id"].tolist()
    assert starts == ["quick", "late", "bad", "nan"]
    assert result.time_to_target == 2.0
