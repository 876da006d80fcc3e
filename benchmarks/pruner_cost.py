"""What `should_prune` costs with `RulePruner`, beside Optuna's own `MedianPruner`.

    python -m benchmarks.pruner_cost

Studies in memory, one trial after the other; milliseconds a call, of this process's CPU time.
"""

from __future__ import annotations

import time

import numpy as np
import optuna

from tune_stoppers import RulePruner
from tune_stoppers.rules import BoundASHA, Patience

CASES = (
    ("RulePruner(BoundASHA(max_t=50))", RulePruner(BoundASHA(max_t=50)), 300, 50),
    ("RulePruner(Patience(50))", RulePruner(Patience(50)), 10, 1000),
    ("MedianPruner()", optuna.pruners.MedianPruner(), 300, 50),
    ("MedianPruner()", optuna.pruners.MedianPruner(), 10, 1000),
)


def cost(pruner: optuna.pruners.BasePruner, trials: int, steps: int) -> tuple[float, int]:
    """Milliseconds a call, and the number of calls, of trials that end within `steps`."""
    dice = np.random.default_rng(0)
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    spent, calls = 0.0, 0
    for _ in range(trials):
        trial, base = study.ask(), float(dice.random())
        for step in range(1, steps + 1):
            trial.report(base + 1 / step, step)
            before = time.process_time()
            pruned = trial.should_prune()
            spent += time.process_time() - before
            calls += 1
            if pruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, base)
    return 1000 * spent / calls, calls


def main() -> None:
    """Print a line for each case."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name, pruner, trials, steps in CASES:
        taken, calls = cost(pruner, trials, steps)
        print(f"{name}, {trials} trials of {steps} steps: {taken:.2f} ms a call, {calls} calls")


if __name__ == "__main__":
    main()
