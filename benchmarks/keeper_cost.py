"""What keeping the best state costs: seconds and bytes, as a share of a training step.

python -m benchmarks.keeper_cost [--runs 5] [--folder .] [--device cuda] [--model FOLDER]

The demo model (135 M parameters, f32) on a batch of 4 x 64 tokens with AdamW, fine-tuned whole and
with LoRA adapters of rank 8; medians of the runs. A state on disk is written, checksummed and
flushed to the device under `--folder`. On a GPU two times are told of keeping: until the loop may
go on, and until the copy is there.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch

from experiments.model import add_lora, load, prepare
from tune_stoppers import BestStateKeeper
from tune_stoppers.report.terminal.tables import markdown

BATCH, TOKENS = 4, 64


def finish() -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def seconds(act: Callable[[], Any], runs: int) -> tuple[float, float]:
    """The median times of `act`: until it returns, and until all it began is done."""
    returned, done = [], []
    for _ in range(runs):
        finish()
        start = time.perf_counter()
        act()
        returned.append(time.perf_counter() - start)
        finish()
        done.append(time.perf_counter() - start)
    return median(returned), median(done)


def tensor_bytes(value: Any) -> int:
    """Of all tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(tensor_bytes(item) for item in items)


def keeping(
    place: Path | None, parts: tuple[Any, ...], runs: int
) -> tuple[tuple[float, float], float, int]:
    """Seconds to keep a new best and to restore it, and the bytes that it takes."""
    keeper, steps = BestStateKeeper(place), count(1)

    def keep() -> None:
        step = next(steps)
        assert keeper.offer(step, -float(step), *parts)

    keep()  # the later ones also remove the former best
    kept = seconds(keep, runs)
    restored = seconds(lambda: keeper.restore(*parts), runs)[1]
    if place is not None:
        return kept, restored, sum(f.stat().st_size for f in place.rglob("*") if f.is_file())
    trained = [parameter for parameter in parts[0].parameters() if parameter.requires_grad]
    return kept, restored, tensor_bytes([trained, *(part.state_dict() for part in parts[1:])])


def costs(kind: str, model: Any, folder: Path, runs: int) -> list[list[str]]:
    """The rows of one kind of fine-tune."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    tokens = torch.arange(BATCH * TOKENS, device=model.device).reshape(BATCH, TOKENS)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first one allocates
    one_step = seconds(step, runs)[1]
    rows = []
    for what, parts in (("weights", (model,)), ("weights, optimizer", (model, optimizer))):
        for where, place in (("memory", None), ("disk", folder / f"{kind}-{what}")):
            (kept, copied), restored, size = keeping(place, parts, runs)
            times = [f"{s:.4f}" for s in (kept, copied, restored, one_step)]
            rows.append([kind, what, where, f"{size / 1e6:,.1f}", *times, f"{kept / one_step:.1%}"])
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keeper_cost")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="default: the temporary folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=None, help="folder or hub name; default: the demo model")
    options = parser.parse_args(arguments)
    source = options.model or prepare()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for kind in ("full", "LoRA"):
            model = load(source, torch.float32)[0]
            model = (model if kind == "full" else add_lora(model, 8)).to(options.device)
            model.train()
            rows += costs(kind, model, Path(folder), options.runs)
    head = [
        "fine-tune",
        "kept",
        "in",
        "MB",
        "keep, s",
        "copied after, s",
        "restore, s",
        "training step, s",
        "keep/step",
    ]
    print(f"{torch.get_num_threads()} threads")
    print(markdown(head, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
