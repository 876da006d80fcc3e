"""Scores of regret curves, each checked by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from tune_stoppers.backtest.score import (
    RegretCurve,
    area,
    average_ranks,
    geometric_mean,
    mean_and_se,
    mean_curve,
    ratio,
    regret_curve,
    speedup,
    time_to,
    value_at,
    wilcoxon_p,
    wins_ties_losses,
)


def curve(*steps: tuple[float, float]) -> RegretCurve:
    return RegretCurve(np.array([t for t, _ in steps]), np.array([v for _, v in steps]))


FAST = curve((1.0, 0.5), (2.0, 0.0))
SLOW = curve((2.0, 0.5), (3.0, 0.25))
NEVER = curve()


def test_the_curve_starts_at_worst_and_steps_down():
    """Times are divided by the unit; an improvement counts from its own time on."""
    incumbent = pd.DataFrame({"time": [10.0, 20.0], "value": [5.0, 1.0]})
    made = regret_curve(incumbent, {5.0: 0.5, 1.0: 0.0}.__getitem__, unit=10)
    assert [value_at(made, t) for t in (0.0, 0.999, 1.0, 1.5, 2.0, 9.0)] == [1, 1, 0.5, 0.5, 0, 0]
    assert value_at(NEVER, 4.0) == 1.0
    with pytest.raises(ValueError, match="unit must be a positive time, got 0"):
        regret_curve(incumbent, abs, unit=0)


def test_the_area_is_the_exact_integral_over_the_budget():
    """FAST: 1 for 1, 0.5 for 1, 0 for 2, over 4; what comes after the budget counts nothing."""
    assert area(FAST, 4.0) == 1.5 / 4
    assert area(FAST, 1.5) == 1.25 / 1.5
    assert area(FAST, 1.0) == area(NEVER, 3.0) == 1.0
    with pytest.raises(ValueError, match="budget must be a positive time, got 0"):
        area(FAST, 0)


def test_the_time_to_a_level():
    """When it is first there; never is infinite, and the worst level holds from the start."""
    assert [time_to(FAST, level) for level in (1.0, 0.7, 0.5, 0.1)] == [0, 1, 1, 2]
    assert time_to(SLOW, 0.1) == math.inf


def test_the_speedup_is_the_ratio_of_times_to_the_baselines_regret():
    """SLOW is at 0.5 at time 2, where FAST was at 1; at 4 it is at 0.25 (time 3), FAST at 2."""
    assert speedup(SLOW, FAST, at=2.0, budget=4.0) == 2.0
    assert speedup(SLOW, FAST, at=4.0, budget=4.0) == 1.5
    assert speedup(SLOW, FAST, at=1.0, budget=4.0) == 1.0  # both are at the worst at once


def test_a_level_never_reached_counts_as_reached_at_the_budget():
    """FAST is at 0 at time 2; SLOW never is: 2 / 4, also if it gets there after the budget."""
    assert speedup(FAST, SLOW, at=4.0, budget=4.0) == 0.5
    assert speedup(FAST, curve((8.0, 0.0)), at=4.0, budget=4.0) == 0.5
    assert speedup(NEVER, FAST, at=4.0, budget=4.0) == 1.0
    assert (ratio(math.inf, 1.0, 4.0), ratio(0.0, 0.0, 4.0)) == (4.0, 1.0)


def test_the_mean_curve_steps_wherever_one_does():
    """At 1 only FAST has moved: (0.5 + 1) / 2."""
    mean = mean_curve([FAST, SLOW])
    assert mean.times.tolist() == [1.0, 2.0, 3.0]
    assert mean.values.tolist() == [0.75, 0.25, 0.125]
    both = (area(FAST, 4.0) + area(SLOW, 4.0)) / 2
    assert area(mean, 4.0) == pytest.approx(both)


def test_wins_ties_and_losses():
    """Lower wins; a difference within the tolerance is a tie."""
    assert wins_ties_losses([1.0, 2.0, 3.0, 1.0], [2.0, 2.0 + 1e-12, 1.0, 2.0]) == (2, 1, 1)


def test_ranks_are_averaged_over_whole_rows():
    """Ties share their mean rank; a row with a gap is left out."""
    scores = pd.DataFrame({"a": [1.0, 1.0, 9.0], "b": [2.0, 1.0, math.nan], "c": [3.0, 0.0, 1.0]})
    assert average_ranks(scores).to_dict() == {"a": 1.75, "b": 2.25, "c": 2.0}


def test_wilcoxon_on_task_means():
    """Six tasks, all better: p = 2 / 2^6; nothing to test with one task; equals differ in none."""
    assert wilcoxon_p([1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 12]) == pytest.approx(2 / 64)
    assert math.isnan(wilcoxon_p([1.0], [2.0]))
    assert wilcoxon_p([1.0, 2.0], [1.0, 2.0]) == 1.0


def test_means():
    """sd of 1, 3 is √2, over √2; one value has no error; ratios are averaged as ratios."""
    assert mean_and_se([1.0, 3.0]) == (2.0, pytest.approx(1.0))
    assert mean_and_se([5.0])[0] == 5.0
    assert math.isnan(mean_and_se([5.0])[1])
    assert math.isnan(mean_and_se([])[0])
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([]))
