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


def test_a_rule_on_another_metric_decides_as_under_a_stopper():
    """Trial by trial, also where a report lacks that metric."""
    rows = [
        {"trial_id": f"t{n}", "training_iteration": t, "loss": 1 / t}
        | ({"kl": 0.1 * t * n} if t % 2 else {})
        for n in range(6)
        for t in range(1, 11)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    rule = rules.Patience(3) | rules.On("kl", rules.Threshold(-0.8), "max")
    policy = {"metric": "loss", "mode": "min", "on_missing": "skip"}
    for way in (
        {"scheduler": RuleScheduler(rule, **policy)},
        {"stopper": RuleStopper(rule, **policy)},
    ):
        trials = replay(sweep, **way).trials.sort_values("trial_id")
        assert list(trials["reports"]) == [10, 9, 5, 3, 3, 3]
