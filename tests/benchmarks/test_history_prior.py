"""The controls of the benchmark do what they say, and it runs."""

import numpy as np
import pandas as pd

from benchmarks.history_prior import halved, judged, main, negated, regret, shuffled
from tune_stoppers.recorded.sweep import Sweep


def sweep_of(trials=32, length=16, best=1e-3, seed=0):
    """The nearer a learning rate is to `best`, the lower the loss."""
    rng = np.random.default_rng(seed)
    rows = [
        {"trial_id": f"t{k}", "training_iteration": t, "config/lr": lr, "loss": 5 - (4 - far) * t}
        for k, lr in enumerate(10 ** rng.uniform(-5, -1, trials))
        for far in [abs(np.log10(lr / best))]
        for t in range(1, length + 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def test_a_right_history_ranks_and_the_controls_do_not():
    """Outcomes dealt out anew say nothing, negated ones the contrary."""
    sweep, other = sweep_of(), sweep_of(seed=1)
    right, wrong = judged(sweep, [other], 2), judged(sweep, [negated(other)], 2)
    none = judged(sweep, [shuffled(other)], 2)
    assert right["tau"] > 0.8
    assert wrong["tau"] < -0.8
    assert abs(none["tau"]) < 0.5
    assert right["first 1"] < right["any 1"]


def test_halving_leaves_the_better_trials_longer():
    """A quarter passes each rung; the best is among those at the end."""
    sweep = halved(sweep_of())
    lengths = [len(curve) for curve in sweep]
    assert sorted(lengths) == [1] * 24 + [4] * 6 + [16] * 2
    bests = [curve.metrics["loss"].min() for curve in sweep]
    assert lengths[int(np.argmin(bests))] == 16


def test_regret_is_in_units_of_the_median():
    """None once the best is started; one if the first is the median."""
    finals, pool = np.array([3.0, 1.0, 2.0]), np.arange(3)
    assert regret(finals, np.array([2.0, 0.0, 1.0]), pool, 1) == 0
    assert regret(finals, np.array([2.0, 1.0, 0.0]), pool, 1) == 1
    assert regret(finals, np.array([2.0, 1.0, 0.0]), pool, 2) == 0


def test_it_runs_from_end_to_end(tmp_path, capsys):
    """And writes its section in place of its last version."""
    for seed in range(2):
        sweep_of(seed=seed).to_parquet(tmp_path / f"lora_{seed}.parquet")
    out = tmp_path / "RESULTS.md"
    for _ in range(2):
        command = [str(tmp_path), "--families", "lora", "--quick", "--out", str(out)]
        assert main(command) == 0
    assert out.read_text().count("| lora | all other sweeps |") == 1
    assert main([str(tmp_path), "--families", "none"]) == 2
    assert "holds no two sweeps none_*.parquet" in capsys.readouterr().err
