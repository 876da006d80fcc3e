"""Thinned sweeps keep what matters of a curve."""

import numpy as np
import pandas as pd
import pytest

from tune_stoppers.backtest.thinning import equal_progress, only_metrics, thin
from tune_stoppers.recorded.sweep import Sweep


def sweep(lengths: dict[str, int], **options) -> Sweep:
    rows = [
        {
            "trial_id": name,
            "training_iteration": i,
            "step": float(10 * i),
            "time_total_s": float(i),
            "loss": 1.0 / i,
            "other": 0.0,
            "config/steps": 10 * options.get("planned", {}).get(name, length),
        }
        for name, length in lengths.items()
        for i in range(1, length + 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", name="s", target=0.1)


def test_evenly_with_the_last_report_kept():
    """120 iterations to 60: every second; a trial of 7 keeps 2, 4, 6 and its last."""
    thinned = thin(sweep({"a": 120, "b": 7}), 60)
    long, short = thinned
    assert (len(long), thinned.max_t, thinned.target) == (60, 60, 0.1)
    assert short.iterations.tolist() == [1, 2, 3, 4]
    assert short.seconds.tolist() == [2.0, 4.0, 6.0, 7.0]
    assert short.metrics["loss"][-1] == 1 / 7


def test_short_curves_are_left_alone():
    """No more reports than asked for: the very same sweep."""
    recorded = sweep({"a": 60, "b": 7})
    assert thin(recorded, 60) is recorded
    with pytest.raises(ValueError, match="at least 1 report a trial, got 0"):
        thin(recorded, 0)


def test_equal_progress():
    """Trials of 4 and 8 reports, both at iteration 2 of 4 halfway; costs stay what they were; one
    that broke off at 3 of 12 is not at its end."""
    recorded = sweep({"a": 4, "b": 8, "broken": 3}, planned={"broken": 12})
    a, b, broken = equal_progress(recorded, "steps", 4)
    assert a.iterations.tolist() == b.iterations.tolist() == [1, 2, 3, 4]
    assert (a.seconds[-1], b.seconds[-1]) == (4.0, 8.0)
    np.testing.assert_allclose(b.metrics["progress"], [0.25, 0.5, 0.75, 1.0])
    assert broken.iterations.tolist() == [1]
    assert broken.metrics["progress"].tolist() == [0.25]
    with pytest.raises(ValueError, match="a positive hyperparameter 'epochs', got None"):
        equal_progress(recorded, "epochs", 4)


def test_other_metrics_can_be_dropped():
    """The objective stays, and the sweep still knows it."""
    slim = only_metrics(sweep({"a": 3}), "loss")
    assert (slim.metrics, slim.metric, slim.reports) == (("loss",), "loss", 3)


def test_an_evaluation_is_not_lost_behind_training_logs():
    """Evaluated at 5 and 10 of 12, logged at each: stretches of 4 keep the evaluations, and what
    is reported after them; a stretch without one still has none."""
    rows = [
        {"trial_id": "a", "training_iteration": i, "train_loss": float(i)}
        | ({"eval_loss": 100.0 + i} if i in (5, 10) else {})
        for i in range(1, 13)
    ]
    recorded = Sweep.from_frame(pd.DataFrame(rows), metric="eval_loss", mode="min")
    (curve,) = thin(recorded, 3)
    assert [row.get("eval_loss") for row in curve.rows()] == [None, 105.0, 110.0]
    assert [row["train_loss"] for row in curve.rows()] == [4.0, 8.0, 12.0]
