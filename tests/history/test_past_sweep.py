"""What is kept of an earlier sweep: how each trial did in it, partial trials too."""

import numpy as np
import pytest

from tune_stoppers.history.past_sweep import MOST_KEPT, PastSweep, Trial

SHARES = np.arange(1, 11) / 10


def falling(to, rows=10, **config):
    """A trial whose loss falls from 1 to `to` over the horizon, of which `rows` tenths are seen."""
    return Trial(config, SHARES[:rows], (1 + (to - 1) * SHARES)[:rows])


def test_a_standing_is_a_normal_score():
    """The median trial has 0, better ones are below; level and unit of the loss do not matter."""
    ends = [0.5, 0.1, 0.9, 0.3, 0.7]
    past = PastSweep.of("s", [falling(end, lr=end) for end in ends])
    assert past.scores[0] == 0
    assert np.argsort(past.scores).tolist() == np.argsort(ends).tolist()
    assert past.scores[1] == -past.scores[2] < -1
    scaled = [Trial({"lr": e}, SHARES, 1e6 * falling(e).losses - 7e6) for e in ends]
    assert PastSweep.of("s", scaled).scores == past.scores


def test_a_stopped_trial_counts_for_what_it_shows():
    """It is compared with the others where it was stopped, not with what they came to later."""
    whole = [falling(end) for end in (0.2, 0.4, 0.6, 0.8)]
    past = PastSweep.of("s", [*whole, falling(0.1, rows=3)])
    assert np.argmin(past.scores) == 4
    assert past.done == (1.0, 1.0, 1.0, 1.0, 0.3)


def test_a_diverged_trial_keeps_the_best_that_it_had():
    """It has come to its end; one that never was finite stands with those that learnt nothing."""
    diverged = Trial({}, SHARES[:4], np.array([1.0, 0.5, np.inf, np.inf]))
    never = Trial({}, SHARES[:1], np.array([np.inf]))
    past = PastSweep.of("s", [falling(0.2), falling(0.4), falling(0.6), diverged, never])
    assert np.argsort(past.scores).tolist() == [0, 1, 3, 2, 4]
    assert past.done == (1.0,) * 5
    flat = Trial({}, SHARES, np.ones(10))
    worse = Trial({}, SHARES, np.full(10, 1e9))
    scores = PastSweep.of(
        "s", [falling(0.5), falling(0.6), falling(0.7), flat, worse, never]
    ).scores
    assert scores[3] == scores[4] == scores[5]


def test_a_large_sweep_is_thinned():
    """After all its trials were compared."""
    past = PastSweep.of("s", [falling(k / 2000, lr=float(k)) for k in range(1200)])
    assert len(past) == len(past.columns["lr"]) == MOST_KEPT
    assert past.trials == 1200
    assert np.corrcoef(past.columns["lr"], past.scores)[0, 1] > 0.95
    assert abs(np.mean(past.scores)) < 0.2


def test_hyperparameters_are_kept_as_columns():
    """None where a trial has none."""
    past = PastSweep.of("s", [falling(0.1, lr=1), falling(0.2, opt={"b": "x"}), falling(0.3)])
    assert past.columns == {"lr": (1.0, None, None), "opt/b": (None, "x", None)}


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([falling(0.1), falling(0.2)], "s has 2 trials that reported its metric"),
        ([falling(0.1)] * 4, "s: all its trials do equally well"),
        ([], "s has 0 trials"),
    ],
)
def test_what_says_nothing_is_refused(trials, message):
    """One line says why."""
    with pytest.raises(ValueError, match=message):
        PastSweep.of("s", trials)
