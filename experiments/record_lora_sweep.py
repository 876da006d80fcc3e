"""Record a sweep of LoRA fine-tunes of one language model: every trial to its end, side by side.

All trials train at the same time over one frozen model (`experiments/side_by_side.py`), which is
what makes recording cheap: tens of configurations cost a few times what one does. On a GPU in bf16,
on a CPU in f32. `--space` and `TASK` name the search space and the data:

    python -m experiments.record_lora_sweep docstring --space short --trials 56 --out new.parquet
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch

from experiments.lora_spaces import SPACES, Config, configuration
from experiments.lora_tasks import TASKS, Data, data_of
from experiments.model import load, prepare
from experiments.side_by_side import Hyperparameters, Plan, train
from tune_stoppers.recorded.sweep import Sweep

MODES = {
    "eval_loss": "min",
    "eval_accuracy": "max",
    "train_loss": "min",
    "grad_norm": "min",
    "lr": "max",
}


class UsageError(ValueError):
    """Something the user asked for cannot be done; nothing has been written."""


@dataclass(frozen=True)
class Recording:
    """What a sweep is, beside its data."""

    task: str
    space: str
    trials: int
    seed: int  # of the configurations
    training_seed: int  # of first weights and orders of data
    train_examples: int
    plan: Plan

    @property
    def configs(self) -> list[Config]:
        return [configuration(self.space, self.seed, index) for index in range(self.trials)]

    @property
    def seeds(self) -> list[int]:
        return [self.training_seed * 1_000_003 + index for index in range(self.trials)]

    @property
    def command(self) -> str:
        return (
            f"python -m experiments.record_lora_sweep {self.task} --space {self.space} "
            f"--trials {self.trials} --seed {self.seed} --training-seed {self.training_seed} "
            f"--examples {self.plan.examples} --evaluations {self.plan.evaluations} "
            f"--train-examples {self.train_examples}"
        )


def record(recording: Recording, model: Any, data: Data) -> list[tuple[int, Config, list[Any]]]:
    """Train all trials; each with its number, its configuration and its rows, in order."""
    trials = [Hyperparameters(**config) for config in recording.configs]

    def adapted(index: int) -> int:
        names = ("q_proj", "o_proj", "up_proj")
        return sum(trials[index].rank_in(name, depth) > 0 for name in names for depth in (0.0, 1.0))

    order = sorted(range(len(trials)), key=adapted, reverse=True)  # a saving, see SideBySide
    reports = train(
        model, [trials[i] for i in order], [recording.seeds[i] for i in order], data, recording.plan
    )
    return sorted(
        ((i, recording.configs[i], rows) for i, rows in zip(order, reports, strict=True)),
        key=lambda trial: trial[0],
    )


def sweep_of(
    recording: Recording, recorded: list[tuple[int, Config, list[Any]]], data: Data, name: str
) -> Sweep:
    """The sweep with its description; numbers are rounded to float32."""
    frame = pd.DataFrame(
        [
            {"trial_id": f"{index:02}"}
            | row
            | {f"config/{key}": value for key, value in config.items()}
            for index, config, rows in recorded
            for row in rows
        ]
    )
    for column in MODES:
        frame[column] = frame[column].astype("float32")
    epochs = recording.plan.examples / recording.train_examples
    return Sweep.from_frame(
        frame,
        nan="value",
        name=name,
        metric="eval_loss",
        mode="min",
        modes=MODES,
        description={
            "source": recording.command,
            "licence": "Apache-2.0",
            "kind": "recorded",
            "step_unit": f"optimizer steps ({recording.plan.examples:,} examples in all, so fewer "
            "of larger batches)",
            "notes": f"LoRA fine-tunes of SmolLM2-135M-Instruct, all to their ends, on {device()} "
            f"with torch {torch.__version__}; task {recording.task}: "
            f"{recording.train_examples:,} training examples, {epochs:g} epochs, "
            f"{len(data.evaluation)} evaluation examples of other groups; search space "
            f"{recording.space}. Compare at equal progress: evaluations are evenly over the run. "
            "Losses are in nats a token; times were not measured per trial. "
            f"Recorded on {time.strftime('%Y-%m-%d', time.gmtime())}.",
        },
    )


def device() -> str:
    """The name of the card, or of the processor's kind."""
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()} in bf16"
    return f"a CPU ({platform.machine()}) in f32"


# --- command line -----------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line, without the usage
        raise UsageError(message)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises `UsageError` for what cannot be done."""
    parser = _Parser(
        prog="python -m experiments.record_lora_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("task", choices=sorted(TASKS), help="what is learnt")
    add("--space", choices=list(SPACES), default="standard", help="the search space (standard)")
    add("--trials", type=int, default=60, help="configurations to draw (60)")
    add("--seed", type=int, default=0, help="of the configurations (0)")
    add("--training-seed", type=int, default=0, help="of first weights and orders of data (0)")
    add("--examples", type=int, default=2048, help="that each trial sees in all (2,048)")
    add("--evaluations", type=int, default=24, help="of each trial (24)")
    add("--train-examples", type=int, default=1024, help="different ones (1,024)")
    add("--data", type=Path, help="encoded by experiments.lora_tasks; default: made here")
    add("--model", type=Path, help="a saved model's folder; default: SmolLM2-135M")
    add("--out", type=Path, default=Path("results/lora.parquet"), help="the Parquet file")
    args = parser.parse_args(given)
    for name in ("trials", "examples", "evaluations", "train_examples"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1.")
    if args.out.exists():
        raise UsageError(f"{args.out} exists: give another --out, or delete it.")
    return args


def main(given: Sequence[str] | None = None) -> int:
    """Record a sweep. 0: written; 2: a user's mistake."""
    try:
        args = arguments(given)
        began = time.monotonic()
        on_gpu = torch.cuda.is_available()
        model, tokenizer = load(
            args.model or prepare(),
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            device="cuda" if on_gpu else "cpu",
        )
        data = (
            Data.load(args.data)
            if args.data
            else data_of(args.task, tokenizer, args.train_examples)
        )
        recording = Recording(
            task=args.task,
            space=args.space,
            trials=args.trials,
            seed=args.seed,
            training_seed=args.training_seed,
            train_examples=len(data.train),
            plan=Plan(examples=args.examples, evaluations=args.evaluations),
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        loaded = time.monotonic()
        recorded = record(recording, model, data)
    except (ValueError, OSError) as error:  # DataError, ModelError and UsageError with them
        print(f"error: {error}", file=sys.stderr)
        return 2
    trained = time.monotonic()
    sweep = sweep_of(recording, recorded, data, name=args.out.stem)
    written = args.out.with_name(args.out.name + ".new")
    sweep.to_parquet(written)
    os.replace(written, args.out)
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if on_gpu else ""
    print(
        f"{args.out}: {len(sweep)} trials, {sweep.reports} reports; loaded in "
        f"{loaded - began:.1f} s, trained in {trained - loaded:.1f} s{memory}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
