"""A learning rate that diverges, rescued: one LoRA fine-tune without and with `RollbackScheduler`.

The rate warms up to a peak that is far too high: the fine-tune improves at first, then blows up.
Left alone it ends there; rolled back, it goes on from its best checkpoint at half the rate, as
often as it takes. Writes a plot and the reports behind it. Takes some minutes on two CPU cores.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pandas as pd
import ray
import torch
from ray import tune

from experiments import docpairs
from experiments.finetune import Data, Task
from experiments.finetune_sweep import MAX_TOKENS, trainable_of
from experiments.model import bf16_is_fast, load, prepare
from tune_stoppers import RollbackScheduler, checkpoint_config
from tune_stoppers.rules import Divergence

COLUMNS = ["run", "line", "step", "eval_loss", "lr"]
ALONE, RESCUED = "left alone", "rolled back"
GREY, RED, BLUE = "#8a8f98", "#d1495b", "#1b6ca8"


@dataclass(frozen=True)
class Point:
    """One evaluation of a run."""

    run: str
    line: int  # rollbacks before it
    step: int  # optimizer steps
    eval_loss: float
    lr: float | None  # of the optimizer; None before the first step


class Evaluations(tune.Callback):
    """Collects the evaluations of one trial in the order in which they came."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.points: list[Point] = []

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        step, line = result["step"], 0
        if self.points:
            newest = self.points[-1]
            line = newest.line + (step <= newest.step)
        point = Point(self.run, line, step, result["eval_loss"], result.get("lr"))
        self.points.append(point)
        rate = "" if point.lr is None else f" at learning rate {point.lr:.2g}"
        print(f"{self.run}: step {step}: eval loss {point.eval_loss:.4f}{rate}", flush=True)


def rescue() -> RollbackScheduler:
    """Quick to act, as the demo is short."""
    return RollbackScheduler(
        patience=3,
        recovery_patience=3,
        max_rollbacks=4,
        lr_key="learning_rate",
        divergence=Divergence(factor=2.0, patience=1),
        time_attr="step",
    )


def measure(
    run: str,
    trainable: Any,
    config: dict[str, Any],
    scheduler: RollbackScheduler | None,
    storage: str,
) -> list[Point]:
    """Run one trial under `scheduler`."""
    evaluations = Evaluations(run)
    results = tune.Tuner(
        trainable,
        param_space=config,
        tune_config=tune.TuneConfig(metric="eval_loss", mode="min", scheduler=scheduler),
        run_config=tune.RunConfig(
            name=run.replace(" ", "_"),
            storage_path=storage,
            checkpoint_config=checkpoint_config("eval_loss", "min"),
            callbacks=[evaluations],
            verbose=0,
        ),
    ).fit()
    if results.errors:
        raise RuntimeError(f"the trial {run} failed: {results.errors[0]}")
    print(f"{run}: {results[0].metrics.get('stop_reason', 'ran to its end')}", flush=True)
    return evaluations.points


def table_of(points: list[Point]) -> pd.DataFrame:
    """One row per evaluation."""
    return pd.DataFrame([vars(point) for point in points], columns=COLUMNS)


def summary(table: pd.DataFrame) -> str:
    """A line for each run: what it spent, and where it got."""
    lines = []
    for run, rows in table.groupby("run", sort=False):
        spent = sum(int(part["step"].max() - start) for part, start in _parts(rows))
        lines.append(
            f"{run}: best eval loss {rows['eval_loss'].min():.3f}, last "
            f"{rows['eval_loss'].iloc[-1]:.3f}, {rows['line'].max()} rollbacks, {spent} steps"
        )
    return "\n".join(lines)


def _parts(rows: pd.DataFrame) -> list[tuple[pd.DataFrame, float]]:
    """The lines of a run, each with the step that it went back to: the best before it.

    That one may have been evaluated again.
    """
    found = []
    for number, part in rows.groupby("line"):
        earlier = rows[(rows["line"] < number) & (rows["step"] <= part["step"].min())]
        start = 0 if earlier.empty else earlier.loc[earlier["eval_loss"].idxmin(), "step"]
        found.append((part, start))
    return found


def _branches(rows: pd.DataFrame) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """What was given up, a branch for each rollback, and the way to where the run ended."""
    given_up: list[pd.DataFrame] = []
    way = rows[:0]
    for number, (part, start) in enumerate(_parts(rows)):
        if number:
            given_up.append(way[way["step"] >= start])
        part = part[part["step"] > start] if number else part
        way = pd.concat([way[way["step"] <= start], part])
    return given_up, way


def plot(table: pd.DataFrame, target: Path) -> None:
    """Both runs over the optimizer steps: evaluation loss, and learning rate below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = pyplot.subplots(
        2, 1, sharex=True, figsize=(8, 6), height_ratios=[3, 1], layout="constrained"
    )
    panels = (("eval_loss", (1, 1.5, 2, 3, 4, 5, 7)), ("lr", (1, 2, 5)))
    for axis, (column, ticks) in zip(axes, panels, strict=True):
        alone, rescued = (table[table["run"] == run] for run in (ALONE, RESCUED))
        axis.plot(alone["step"], alone[column], "o-", color=GREY, markersize=4, label=ALONE)
        given_up, way = _branches(rescued)
        for number, branch in enumerate(given_up, start=1):
            label = "given up" if number == 1 else None
            axis.plot(branch["step"], branch[column], "o--", color=RED, markersize=4, label=label)
            where = (branch["step"].iloc[-1], branch[column].iloc[-1])
            axis.annotate(str(number), where, (6, 4), textcoords="offset points", color=RED)
        axis.plot(way["step"], way[column], "o-", color=BLUE, markersize=5, label=RESCUED)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=ticks))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.25)
    upper, lower = axes
    upper.axhline(
        table["eval_loss"].iloc[0], color="black", linewidth=0.8, linestyle=":", label="untrained"
    )
    upper.set_ylabel("evaluation loss")
    upper.set_title("A learning rate that diverges, left alone and rolled back")
    upper.legend()
    lower.set_ylabel("learning rate")
    lower.set_xlabel("optimizer step; at each number the trial was sent back")
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def read_data(tokenizer: Any, examples: int, seed: int) -> Data:
    """Pairs of signature and docstring from the standard library."""
    parts = docpairs.split(docpairs.stdlib_pairs(), seed)
    train, evaluation = (docpairs.encode(part, tokenizer, MAX_TOKENS) for part in parts[:2])
    return Data(train, evaluation[:examples], heldout=[], example=parts.heldout[0])


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.rollback_demo",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("results/rollback_demo.png"), help="PNG or SVG")
    add("--model", help="folder or hub name; default: SmolLM2-135M, as `make sweep` prepares it")
    add("--learning-rate", type=float, default=0.06, help="the peak")
    add("--warmup", type=float, default=0.4, help="share of the steps")
    add("--max-steps", type=int, default=24, help="optimizer steps")
    add("--eval-every", type=int, default=3, help="optimizer steps")
    add("--eval-examples", type=int, default=16)
    add("--batch-size", type=int, default=4)
    add("--seed", type=int, default=3)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Run both, print a line for each, and write the plot and a CSV beside it."""
    args = arguments(given)
    task = Task(
        model=args.model or str(prepare()),
        max_steps=args.max_steps,
        eval_every=args.eval_every,
        batch_size=args.batch_size,
        seed=args.seed,
        full=False,
        metric="eval_loss",
        mode="min",
        bf16=bf16_is_fast(),
    )
    config = {
        "learning_rate": args.learning_rate,
        "schedule": "constant_with_warmup",
        "warmup": args.warmup,
        "weight_decay": 0.0,
        "lora_rank": 8,
    }
    _, tokenizer = load(task.model)
    data = read_data(tokenizer, args.eval_examples, args.seed)
    gpus = min(torch.cuda.device_count(), 1)
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    trainable = tune.with_resources(trainable_of(task, data), {"cpu": 1, "gpu": gpus})
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="rollback-") as storage:
        for run, scheduler in ((ALONE, None), (RESCUED, rescue())):
            points += measure(run, trainable, config, scheduler, storage)
    ray.shutdown()
    table = table_of(points)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out.with_suffix(".csv"), index=False)
    plot(table, args.out)
    print(summary(table))
    print(f"plot: {args.out}, reports: {args.out.with_suffix('.csv')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
