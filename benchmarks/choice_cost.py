"""What a choice among configurations costs: milliseconds of CPU.

python -m benchmarks.choice_cost [--runs 20]

As many trials have reported, at rungs like those of a sweep, as wait to be started; half of those
that have reported are paused. Eight hyperparameters, two of them categories. Fits of the model are
left in: it is fitted again when there are half as many trials more.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import mean, median
from typing import Any

import numpy as np

from tune_stoppers.report.terminal.tables import markdown
from tune_stoppers.surrogate.acquisition.expected_improvement import (
    Course,
    ExpectedImprovementAcquisition,
)
from tune_stoppers.surrogate.acquisition.freeze_thaw import FreezeThawAcquisition, StartedTrial
from tune_stoppers.surrogate.acquisition.lcb import LowerConfidenceBound
from tune_stoppers.surrogate.loss_scale import curve_of
from tune_stoppers.surrogate.trial_scores import TrialLosses

NAMES = ("ExpectedImprovementAcquisition", "LowerConfidenceBound", "FreezeThawAcquisition")
SIZES = (64, 100, 300, 1_000, 3_000)
RUNGS = (0.04, 0.12, 0.36)  # shares of the horizon

Config = Mapping[str, Any]


def configs_of(count: int, rng: np.random.Generator) -> list[Config]:
    """Random ones."""
    return [
        {f"x{i}": float(x) for i, x in enumerate(rng.random(6))}
        | {"optimizer": str(rng.choice(["adamw", "lion", "sgd"]))}
        | {"schedule": str(rng.choice(["linear", "cosine"]))}
        for _ in range(count)
    ]


def standing_of(config: Config, index: int, rng: np.random.Generator) -> TrialLosses:
    """A loss that depends on the configuration, at one to three rungs."""
    loss = (config["x0"] - 0.3) ** 2 + 0.1 * rng.random()
    rungs = 1 + (index % 3 == 0) + (index % 9 == 0)
    return TrialLosses(tuple(loss / (1 + rung) for rung in range(rungs)), loss / rungs)


def begun_of(config: Config, standing: TrialLosses, waits: bool) -> StartedTrial:
    """The trial at the last of its rungs."""
    done = RUNGS[len(standing.rung_losses) - 1]
    return StartedTrial(
        config, standing, done, 2 * done, 1 - 3 * done if done < 0.3 else 0.0, waits
    )


def course_of(config: Config, standing: TrialLosses, waits: bool) -> Course:
    """The curve of the trial up to the last of its rungs."""
    losses = np.array(standing.rung_losses)
    progress = np.array(RUNGS[: len(losses)])
    curve = curve_of(progress, losses, np.minimum.accumulate(losses), RUNGS)
    return Course(config, curve, waits, runs=not waits)


def chooser(name: str, count: int) -> Callable[[int], Any]:
    """What makes the k-th choice."""
    rng = np.random.default_rng(count)
    waiting, known = configs_of(count, rng), configs_of(count, rng)
    told = [(config, standing_of(config, i, rng)) for i, config in enumerate(known)]
    if name == "LowerConfidenceBound":
        order = LowerConfidenceBound(explore=0)
        return lambda k: order.choose(waiting, told, picks=k)
    if name == "ExpectedImprovementAcquisition":
        ours = ExpectedImprovementAcquisition()
        courses = [course_of(*each, waits=i % 2 == 0) for i, each in enumerate(told)]
        return lambda k: ours.compare(
            waiting, courses, rungs=RUNGS, start=0.0, resume=0.02, picks=k
        )
    thaw = FreezeThawAcquisition(explore=0)
    begun = [begun_of(*each, waits=i % 2 == 0) for i, each in enumerate(told)]
    return lambda k: thaw.choose(waiting, begun, first_rung=RUNGS[0], picks=k)


def main(given: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice_cost")
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args(given).runs
    rows = []
    for name in NAMES:
        for count in SIZES:
            choose, times = chooser(name, count), []
            for k in range(runs + 1):
                began = time.process_time()
                choose(k)
                times.append(1e3 * (time.process_time() - began))
            first, *later = times
            cells = [f"{first:.0f}", f"{median(later):.1f}", f"{mean(later):.1f}"]
            rows.append([name, f"{count:,}", *cells])
    header = ["", "trials known, and waiting", "first, ms", "later, median ms", "mean ms"]
    print(markdown(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
