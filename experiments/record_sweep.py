"""Record a hyperparameter sweep of real training: every trial to its end, nothing stopped.

Each trial trains a small character-level transformer on signatures and docstrings of the standard
library, and is evaluated on modules that none of it trained on. The learning rates reach from
hardly moving to diverging; a diverged trial goes on to its end and reports what it measures.
The sweep that the package carries (`tune_stoppers/backtest/example.parquet`) was made by this.

Finished trials are kept in `OUT.partial.jsonl` until all are there: the same command goes on.
"""

import argparse
import json
import math
import os
import platform
import random
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.docpairs import DataError, Pair, split, stdlib_pairs
from tune_stoppers.recorded.sweep import Sweep

CONTEXT = 64  # characters
HEAD_WIDTH = 16
VOCABULARY = 128  # ASCII; what is not becomes "?"
EVAL_WINDOWS = 128  # of CONTEXT characters, spread over the evaluation text
ANNEALED = 0.2  # share of the steps over which wsd (warmup, stable, decay) falls to 0

MODES = {"train_loss": "min", "eval_loss": "min", "grad_norm": "min", "lr": "max"}

Config = dict[str, Any]
Record = dict[str, Any]  # of one trial: its index, its config, its rows


class UsageError(ValueError):
    """Something the user asked for cannot be done."""


@dataclass(frozen=True)
class Plan:
    """What all trials share; a partial record is gone on with only under the same."""

    steps: int  # optimizer steps of a trial
    eval_every: int  # optimizer steps
    seed: int  # of the configurations, the evaluation modules and the training
    torch: str = torch.__version__
    python: str = platform.python_version()  # its standard library is the text


# --- configurations and their schedules -------------------------------------------------------


def configuration(seed: int, index: int) -> Config:
    """The configuration of trial `index`, whatever the number of trials."""
    draw = random.Random(f"{seed}/{index}")
    return {
        "learning_rate": _log_uniform(draw, 1e-4, 10.0),
        "schedule": draw.choice(["constant", "cosine", "linear", "wsd"]),
        "warmup": draw.choice([0.0, 0.02, 0.1, 0.2]),  # share of the steps
        "optimizer": draw.choice(["adamw", "adamw", "sgd"]),  # sgd: with momentum
        "beta2": draw.choice([0.9, 0.99, 0.999]),
        "weight_decay": _log_uniform(draw, 1e-4, 1.0),
        "max_grad_norm": draw.choice([0.0, 1.0]),  # 0: no clipping
        "batch_size": draw.choice([4, 8, 16]),
        "width": draw.choice([16, 32, 48, 64]),
        "layers": draw.choice([1, 2]),
        "dropout": draw.choice([0.0, 0.1, 0.2, 0.4]),
    }


def _log_uniform(draw: random.Random, low: float, high: float) -> float:
    return float(f"{math.exp(draw.uniform(math.log(low), math.log(high))):.4g}")


def rate_share(schedule: str, warmup: float, progress: float) -> float:
    """The share of the peak learning rate at `progress`, the share of the steps begun (0..1].

    All warm up linearly. Then: constant; cosine and linear, to 0 at the end; wsd, constant and
    over the last fifth linear to 0.
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        return min(1.0, (1.0 - progress) / ANNEALED)
    left = (1.0 - progress) / (1.0 - warmup)
    return left if schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))


# --- the model --------------------------------------------------------------------------------


class Block(nn.Module):
    """Causal attention, then a feed-forward layer, each normalised first and added back."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.dropout = dropout
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split_heads = (batch, length, 3, self.heads, HEAD_WIDTH)
        q, k, v = self.qkv(self.norms[0](x)).view(split_heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.feed(self.norms[1](x))
        return out


class LanguageModel(nn.Module):
    """A decoder-only transformer over ASCII characters; its forward is the mean loss in nats."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, windows: Tensor) -> Tensor:
        x = self.characters(windows[:, :-1]) + self.positions
        logits = self.head(self.norm(self.blocks(x)))
        loss: Tensor = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        return loss


# --- text -------------------------------------------------------------------------------------


def characters(pairs: list[Pair]) -> Tensor:
    """The pairs as one text of ASCII codes, parted by empty lines."""
    text = "\n\n".join(f'{pair.prompt}{pair.completion}"""' for pair in pairs)
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    return torch.from_numpy(codes.astype(np.int64))


def windows_at(text: Tensor, starts: Tensor) -> Tensor:
    """A window of `CONTEXT` characters, and the one after, at each start."""
    return text[starts[:, None] + torch.arange(CONTEXT + 1)]


def eval_windows(text: Tensor) -> Tensor:
    """The fixed windows that all trials are compared on."""
    last = len(text) - CONTEXT - 1
    return windows_at(text, torch.linspace(0, last, EVAL_WINDOWS).long())


# --- one trial --------------------------------------------------------------------------------


def train(index: int, plan: Plan, text: Tensor, evaluation: Tensor) -> Record:
    """Train trial `index` to its end: its configuration, and a row per evaluation.

    Everything random is drawn from the plan's seed and the index. Time is the process's CPU time.
    """
    torch.set_num_threads(1)
    config = configuration(plan.seed, index)
    torch.manual_seed(plan.seed * 1_000_003 + index)
    model = LanguageModel(config["width"], config["layers"], config["dropout"])
    optimizer = _optimizer(model, config)
    max_norm = config["max_grad_norm"] or math.inf
    began = time.process_time()  # the first optimizer of a process imports half of torch
    rows: list[dict[str, float]] = []
    losses: list[float] = []
    for step in range(1, plan.steps + 1):
        lr = config["learning_rate"] * rate_share(
            config["schedule"], config["warmup"], step / plan.steps
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        starts = torch.randint(len(text) - CONTEXT, (config["batch_size"],))
        loss = model(windows_at(text, starts))
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        losses.append(loss.item())
        if step % plan.eval_every == 0:
            rows.append(
                {
                    "training_iteration": len(rows) + 1,
                    "step": step,
                    "time_total_s": 0.0,
                    "train_loss": sum(losses) / len(losses),
                    "eval_loss": _evaluate(model, evaluation),
                    "grad_norm": norm.item(),
                    "lr": lr,
                }
            )
            rows[-1]["time_total_s"] = time.process_time() - began
            losses.clear()
    return {"trial": index, "config": config, "rows": rows}


def _optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    settings = {"lr": config["learning_rate"], "weight_decay": config["weight_decay"]}
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **settings)
    return torch.optim.AdamW(model.parameters(), betas=(0.9, config["beta2"]), **settings)


@torch.no_grad()
def _evaluate(model: nn.Module, evaluation: Tensor) -> float:
    model.eval()
    loss = float(model(evaluation))
    model.train()
    return loss


# --- the record -------------------------------------------------------------------------------


class Partial:
    """Finished trials on disk: the plan in the first line, then one trial a line.

    Opens what is there, without a last line that was cut off; else begins anew.
    Raises `UsageError` if it was recorded under another plan, or cannot be read or written.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.records: dict[int, Record] = {}
        try:
            whole, _, _ = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
            lines = [json.loads(line) for line in whole.splitlines()]
            if not lines:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(asdict(plan)) + "\n")
                return
            os.truncate(path, len(whole) + 1)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}.") from error
        except ValueError as error:
            raise UsageError(f"{path} is no partial record ({error}): delete it.") from error
        if lines[0] != asdict(plan):
            raise UsageError(
                f"{path} was recorded with {lines[0]}, not {asdict(plan)}: go on with those "
                f"settings, or delete it."
            )
        self.records = {record["trial"]: record for record in lines[1:]}

    def add(self, record: Record) -> None:
        self.records[record["trial"]] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def record_trials(plan: Plan, trials: int, processes: int, partial: Partial) -> None:
    """Train the trials that `partial` has not, in parallel processes of one thread each."""
    missing = [index for index in range(trials) if index not in partial.records]
    if len(missing) < trials:
        print(f"{partial.path} has {trials - len(missing)} of {trials} trials.", flush=True)
    if not missing:
        return
    parts = split(stdlib_pairs(), plan.seed)
    text, evaluation = characters(parts.train), eval_windows(characters(parts.eval))
    began = time.monotonic()
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_end_with_parent) as pool:
        running = [pool.submit(train, index, plan, text, evaluation) for index in missing]
        try:
            for done, future in enumerate(as_completed(running), start=1):
                partial.add(future.result())
                left = (time.monotonic() - began) / done * (len(missing) - done)
                print(_progress(future.result(), done, len(missing), left), flush=True)
        finally:  # a failure, or Ctrl-C: do not wait for trials that have not begun
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for work for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _progress(record: Record, done: int, missing: int, left: float) -> str:
    last = record["rows"][-1]
    return (
        f"{done}/{missing}: trial {record['trial']} ended at eval loss {last['eval_loss']:.3f} "
        f"after {last['time_total_s']:.1f} s of CPU time; about {left / 60:.1f} min left"
    )


def sweep_of(records: list[Record], plan: Plan, name: str) -> Sweep:
    """The sweep, in order of trials, with its description; numbers are rounded to float32."""
    frame = pd.DataFrame(
        [
            {"trial_id": f"t{record['trial']:03d}"}
            | row
            | {f"config/{key}": value for key, value in record["config"].items()}
            for record in sorted(records, key=lambda record: record["trial"])
            for row in record["rows"]
        ]
    )
    for column in (*MODES, "time_total_s"):
        frame[column] = frame[column].astype("float32")
    return Sweep.from_frame(
        frame,
        name=name,
        metric="eval_loss",
        mode="min",
        modes=MODES,
        description={
            "source": f"python -m experiments.record_sweep --trials {len(records)} "
            f"--steps {plan.steps} --eval-every {plan.eval_every} --seed {plan.seed}",
            "licence": "Apache-2.0",
            "kind": "raw logs",
            "step_unit": "optimizer step",
            "notes": f"Character-level transformers of 1 or 2 layers, trained on signatures and "
            f"docstrings of the standard library of Python {plan.python} (modules held out for "
            f"eval_loss), with torch {plan.torch} on one CPU thread; random search, nothing "
            f"stopped early. Losses are in nats a character; time_total_s is CPU time; grad_norm "
            f"is that of the last step, before clipping (max_grad_norm 0: none). Diverged trials "
            f"go on to the end: non-finite, and huge finite losses. Recorded on "
            f"{time.strftime('%Y-%m-%d', time.gmtime())}.",
        },
    )


# --- command line -----------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line, without the usage
        raise UsageError(message)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises `UsageError` for what cannot be done."""
    parser = _Parser(
        prog="python -m experiments.record_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trials", type=int, default=144, help="configurations to draw (144)")
    add("--steps", type=int, default=800, help="optimizer steps of a trial (800)")
    add("--eval-every", type=int, default=20, help="optimizer steps between evaluations (20)")
    add("--processes", type=int, default=2, help="trials at a time, one thread each (2)")
    add("--seed", type=int, default=0, help="of all that is random (0)")
    add("--out", type=Path, default=Path("results/recorded.parquet"), help="the Parquet file")
    args = parser.parse_args(given)
    for name in ("trials", "steps", "eval_every", "processes"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1.")
    if args.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {args.seed}.")
    if args.steps % args.eval_every:
        raise UsageError(
            f"--steps {args.steps} must be a multiple of --eval-every {args.eval_every}, so that "
            f"the last step is evaluated."
        )
    if args.out.exists():
        raise UsageError(f"{args.out} exists: give another --out, or delete it.")
    return args


def main(given: list[str] | None = None) -> int:
    """Record the sweep. 0: written; 2: a user's mistake."""
    try:
        args = arguments(given)
        plan = Plan(steps=args.steps, eval_every=args.eval_every, seed=args.seed)
        partial = Partial(args.out.with_name(args.out.name + ".partial.jsonl"), plan)
        record_trials(plan, args.trials, args.processes, partial)
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    records = [partial.records[index] for index in range(args.trials)]
    sweep = sweep_of(records, plan, name=args.out.stem)
    written = args.out.with_name(args.out.name + ".new")
    sweep.to_parquet(written)
    os.replace(written, args.out)
    partial.path.unlink()
    print(f"{args.out}: {len(sweep)} trials, {sweep.reports} reports")
    return 0


if __name__ == "__main__":
    sys.exit(main())
