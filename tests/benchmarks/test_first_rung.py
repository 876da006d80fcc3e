"""How well ranks at a report foretell the final ones, on curves where that is known."""

import pandas as pd
import pytest

from benchmarks.first_rung import at
from benchmarks.pools import Task
from tune_stoppers.recorded.sweep import Sweep


def a_task(target: float | None = None) -> Task:
    """Ten trials of ten reports: at first the later winners are last, from the fifth on first."""
    rows = [
        {"trial_id": f"t{i}", "training_iteration": t, "loss": (20.0 - i if t < 5 else i) - t / 100}
        for i in range(10)
        for t in range(1, 11)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", target=target)
    return Task("lora", sweep)


def test_ranks_that_turn_round_and_ranks_that_stay() -> None:
    """The best three stand at the end of the field, then at its head."""
    assert at(a_task(), 0.4) == pytest.approx((-1.0, 0.9))
    assert at(a_task(), 0.5) == pytest.approx((1.0, 0.2))


def test_with_a_target_the_soonest_is_the_best() -> None:
    """At the target from the fifth report on are three, all at the same time."""
    tau, stands = at(a_task(target=2.0), 0.5)
    assert 0 < tau < 1
    assert stands == pytest.approx(0.2)
