"""A trial that wants more than its share of a GPU's memory, beside three that do not.

Four trials share the card, a quarter each. At its third report one of them asks for more: with
`torch.cuda.set_per_process_memory_fraction` in each trial, and without it, where it takes all that
is left and holds it for a while. Every trial may fail once (`max_failures=1`). What became of each
is printed and appended to `OUT/gpu_memory.jsonl`. Without a GPU the greedy trial raises the
same error itself, as a dry run.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import torch
from ray import tune
from torch import nn

from tune_stoppers import best_state, best_states, checkpoint_config, load_state, save_state

TRIALS = 4
REPORTS = 6
GREEDY_AT = 3  # the report that the greedy trial does not reach
MIB = 2**20


def train(config: dict[str, Any], *, limited: bool, seconds: float) -> None:
    """A small regression; each report takes `seconds` and brings a checkpoint.

    At every report a trial asks for a tenth of its share anew and gives it back, as a larger batch
    would; the greedy one asks for more than its share.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if limited and device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 / TRIALS)
    model = nn.Linear(8, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    begun = 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            begun = load_state(folder, model, optimizer)["report"]
    x = torch.randn(64, 8, device=device)
    y = x.sum(dim=1, keepdim=True)
    for report in range(begun + 1, REPORTS + 1):
        if config["greedy"] and report == GREEDY_AT:
            take(greedily=True, limited=limited, hold=4 * seconds)
        take(greedily=False, limited=limited, hold=seconds)
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            save_state(folder, model, optimizer, report=report)
            value = (model(x) - y).square().mean().item()
            tune.report(
                {"loss": value, "report": report},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def take(*, greedily: bool, limited: bool, hold: float) -> None:
    """Ask for memory, hold it for a while and give it back.

    A modest trial asks for a tenth of its share. A greedy one asks for one and a half of it where
    shares are limited; where not, for all that the card has left. Raises `torch.OutOfMemoryError`.
    """
    if not torch.cuda.is_available():
        time.sleep(hold)
        if greedily:
            raise torch.OutOfMemoryError("a stand-in: there is no GPU here")
        return
    share = torch.cuda.get_device_properties().total_memory // TRIALS
    held: list[torch.Tensor] = []
    try:
        if not greedily or limited:
            size = 3 * share // 2 if greedily else share // 10
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        else:
            for size in (2048 * MIB, 256 * MIB, 32 * MIB):
                while torch.cuda.mem_get_info()[0] > 2 * size:
                    held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            time.sleep(hold)  # while the others ask for theirs
            held.append(torch.empty(share, dtype=torch.uint8, device="cuda"))
        time.sleep(hold)
    finally:
        held.clear()
        torch.cuda.empty_cache()


def run(limited: bool, seconds: float, storage: Path) -> dict[str, Any]:
    """Four trials at a time; what became of each."""
    configs = [{"lr": 0.05 / (i + 1), "greedy": i == 1} for i in range(TRIALS)]
    share = 1 / TRIALS if torch.cuda.is_available() else 0.0
    began = time.monotonic()
    results = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(train, limited=limited, seconds=seconds), {"cpu": 1, "gpu": share}
        ),
        param_space=tune.grid_search(configs),
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(
            name="limited" if limited else "unlimited",
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=checkpoint_config("loss", "min"),
            verbose=0,
        ),
    ).fit()
    wall = time.monotonic() - began
    table = best_states(results, "loss", "min").set_index("trial_id")
    trials = []
    for result in results:
        last = result.metrics or {}
        row = table.loc[last["trial_id"]]
        failures = Path(result.path, "error.txt")  # Ray adds to it at each
        trials.append(
            {
                "greedy": result.config["greedy"],
                "status": row["status"],
                "last_report": last.get("report"),
                "failures": failures.read_text().count("Failure #") if failures.exists() else 0,
                "best_checkpoint_at": float(row["checkpoint_step"]),
                "error": _first_line(result.error),
            }
        )
    best = best_state(results, "loss", "min")
    model = nn.Linear(8, 1)
    best.restore(model)
    return {"limited": limited, "wall_s": wall, "trials": trials, "best": best.value}


def _first_line(error: BaseException | None) -> str | None:
    """What the card said, out of Ray's account of it."""
    lines = [line for line in str(error or "").splitlines() if "OutOfMemory" in line]
    return lines[-1].strip()[:300] if lines else (str(error)[:300] if error else None)


def main(given: Sequence[str] | None = None) -> int:
    """Run both. 1 if a trial that asked for no more than its share failed where it is limited."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="a report takes (1)")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder")
    args = parser.parse_args(given)
    args.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    ray.init(
        address="local",
        num_cpus=max(TRIALS, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
    )
    kept = True
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-memory-") as storage:
            for limited in (True, False):
                found = {"card": card} | run(limited, args.seconds, Path(storage))
                print(json.dumps(found), flush=True)
                with (args.out / "gpu_memory.jsonl").open("a") as file:
                    file.write(json.dumps(found) + "\n")
                modest = [t for t in found["trials"] if not t["greedy"]]
                kept &= not limited or all(t["last_report"] == REPORTS for t in modest)
    finally:
        ray.shutdown()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
