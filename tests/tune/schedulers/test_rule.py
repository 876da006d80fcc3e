"""`RuleScheduler`: a rule that looks across trials learns from those that end by themselves."""

import pandas as pd

from tune_stoppers import RuleScheduler, RuleStopper, Sweep, replay, rules


def short_trials() -> Sweep:
    """Two hundred trials of 10 reports, below a horizon of 12; they differ by a constant."""
    rows = [
        {"trial_id": f"t{n:03}", "training_iteration": t, "loss": 1 / t + (n * 37 % 200) / 50}
        for n in range(200)
        for t in range(1, 11)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def test_a_forecast_learns_from_trials_that_end_before_the_horizon():
    """As under a stopper, which hears of each end by itself."""
    sweep, rule = short_trials(), rules.Forecast(max_t=12)
    scheduled = replay(sweep, RuleScheduler(rule, metric="loss", mode="min")).reports
    stopped = replay(sweep, stopper=RuleStopper(rule, "loss", "min")).reports
    assert scheduled < sweep.reports / 2
    assert abs(scheduled - stopped) < 0.1 * sweep.reports
