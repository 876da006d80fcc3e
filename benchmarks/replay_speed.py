"""How many reports a second the replay plays, under ours and under Ray's schedulers.

python -m benchmarks.replay_speed

1,000 trials of 50 reports that nothing stops (ours under `dry_run`: all is judged, nothing taken),
so that every rule sees all 50,000; the best of five runs each, in turn.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from tune_stoppers import BoundASHAScheduler, PatienceStopper
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown

TRIALS, REPORTS, RUNS = 1_000, 50, 5


def power_laws() -> Sweep:
    """Trials that fall at different rates to different floors, with a little noise."""
    dice = np.random.default_rng(0)
    steps = np.arange(1, REPORTS + 1)
    floors, rates = dice.uniform(1, 3, (TRIALS, 1)), dice.uniform(0.2, 1, (TRIALS, 1))
    losses = floors + steps**-rates + dice.normal(0, 0.01, (TRIALS, REPORTS))
    frame = pd.DataFrame(
        {
            "trial_id": np.repeat([f"t{i:04d}" for i in range(TRIALS)], REPORTS),
            "training_iteration": np.tile(steps, TRIALS),
            "loss": losses.ravel(),
        }
    )
    return Sweep.from_frame(frame, metric="loss", mode="min", name="power laws")


RULES: dict[str, Callable[[], dict[str, Any]]] = {
    "no rule (Ray FIFO)": lambda: {"scheduler": FIFOScheduler()},
    "BoundASHAScheduler": lambda: {"scheduler": BoundASHAScheduler(REPORTS, dry_run=True)},
    "PatienceStopper": lambda: {"stopper": PatienceStopper("loss", "min", dry_run=True)},
    "Ray ASHA, first rung at 50": lambda: {"scheduler": ASHAScheduler(max_t=51, grace_period=50)},
}


def main() -> int:
    """Print the table."""
    sweep = power_laws()
    best = dict.fromkeys(RULES, float("inf"))
    for _ in range(RUNS):
        for name, make in RULES.items():
            start = time.process_time()
            result = replay(sweep, **make(), workers=8)
            best[name] = min(best[name], time.process_time() - start)
            assert result.reports == TRIALS * REPORTS
    none = best["no rule (Ray FIFO)"]
    rows = [
        [name, f"{TRIALS * REPORTS / s:,.0f}", f"{s:.2f}", f"{1e6 * (s - none) / 50_000:.1f}"]
        for name, s in best.items()
    ]
    print(markdown(["rule", "reports / s", "CPU s", "µs a report above no rule"], rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
