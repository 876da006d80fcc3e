"""Does the replay tell the truth? A real LLM sweep in full, then with a scheduler, then replayed.

Runs the sweep of `make sweep` with 16 trials to their ends and records it; runs the same 16
configurations again for real under `AutoScheduler`, or `--scheduler bound_asha`; replays the
recording under the same scheduler; and writes the three side by side, a section for each
scheduler. Takes some 15 minutes on two CPU cores.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from benchmarks.results import insert
from tune_stoppers import AutoScheduler, BoundASHAScheduler
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown

STEPS, EVERY, CONCURRENT = 24, 4, 2
SCHEDULERS = {"auto": AutoScheduler, "bound_asha": BoundASHAScheduler}


def run_sweep(storage: Path, scheduler: str, trials: int, seed: int) -> Path:
    """A real sweep in a process of its own; its experiment folder."""
    command = [sys.executable, "-m", "experiments.finetune_sweep"]
    command += ["--stop", "none", "--scheduler", scheduler, "--trials", str(trials)]
    command += ["--max-steps", str(STEPS), "--eval-every", str(EVERY)]
    command += ["--concurrent", str(CONCURRENT), "--seed", str(seed)]
    subprocess.run([*command, "--storage", str(storage / scheduler)], check=True)
    return max((storage / scheduler).iterdir())


def measure(full: Sweep, real: Sweep, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The three runs side by side, and the last step of each configuration in the last two."""
    scheduler = SCHEDULERS[name](STEPS, grace_period=EVERY, time_attr="step")
    again = replay(
        full,
        scheduler,
        workers=CONCURRENT,
        order="recorded",
        cost="seconds",
        metric="eval_loss",
        mode="min",
    )
    rows = {
        "in full, real": _summary(full),
        f"{type(scheduler).__name__}, real": _summary(real),
        f"{type(scheduler).__name__}, replayed": {
            "reports": again.reports,
            "training seconds": again.work,
            "best eval loss": again.best,
        },
    }
    table = pd.DataFrame(rows).T
    table["saved reports"] = 1 - table["reports"] / table["reports"].iloc[0]
    table["saved seconds"] = 1 - table["training seconds"] / table["training seconds"].iloc[0]
    replayed = dict(zip(again.trials["trial_id"], again.trials["reports"], strict=True))
    steps = pd.DataFrame(
        {
            "learning rate": [curve.config["learning_rate"] for curve in full],
            "best eval loss in full": [float(curve.metrics["eval_loss"].min()) for curve in full],
            "reports, real": _matched(full, real),
            "reports, replayed": [replayed[curve.trial_id] for curve in full],
        }
    )
    return table, steps.sort_values("best eval loss in full", ignore_index=True)


def _summary(sweep: Sweep) -> dict[str, float]:
    return {
        "reports": sweep.reports,
        "training seconds": sum(float(c.seconds[-1]) for c in sweep if c.seconds is not None),
        "best eval loss": min(float(c.metrics["eval_loss"].min()) for c in sweep),
    }


def _matched(full: Sweep, real: Sweep) -> list[int]:
    """Reports of the trial of `real` with each configuration of `full`; 0: it never started."""
    reports = {str(sorted(c.config.items())): len(c.iterations) for c in real}
    return [reports.get(str(sorted(curve.config.items())), 0) for curve in full]


def _markdown(table: pd.DataFrame) -> str:
    cells = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row] for row in table.values]
    return markdown([str(column) for column in table], cells)


def main() -> int:
    """Run, measure and write a section of `experiments/RESULTS.md`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.real_vs_replay", description=__doc__
    )
    parser.add_argument("--scheduler", choices=SCHEDULERS, default="auto")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--storage", type=Path, default=Path("results/real_vs_replay"))
    parser.add_argument("--out", type=Path, default=Path("experiments/RESULTS.md"))
    args = parser.parse_args()
    full = Sweep.from_ray(run_sweep(args.storage, "none", args.trials, args.seed))
    real = Sweep.from_ray(run_sweep(args.storage, args.scheduler, args.trials, args.seed))
    table, steps = measure(full, real, args.scheduler)
    agree = int((steps["reports, real"] == steps["reports, replayed"]).sum())
    text = (
        f"# The replay against reality: {SCHEDULERS[args.scheduler].__name__}\n\n"
        f"`python -m experiments.real_vs_replay --scheduler {args.scheduler} "
        f"--trials {args.trials} --seed {args.seed}`, "
        f"{time.strftime('%Y-%m-%d')}, two CPU cores, {CONCURRENT} trials at a time: LoRA "
        f"fine-tunes of SmolLM2-135M, {STEPS} steps, an evaluation every {EVERY} and one before "
        "the first. Both real runs had the same configurations; seconds are of training, start-up "
        "included, and vary with the load of the machine.\n\n"
        f"{_markdown(table.reset_index(names='run'))}\n\n"
        f"Reports of each configuration (equal in {agree} of {len(steps)}; trials that run at the "
        "same time report in another order in each run):\n\n"
        f"{_markdown(steps)}"
    )
    insert(args.out, f"real_vs_replay {args.scheduler}", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
