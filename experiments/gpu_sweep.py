"""What stopping early is worth on one GPU that several trials share.

One trial alone, then the same configurations three times through Ray: under `AutoScheduler`, to
their ends (FIFO), under Ray's ASHA at its defaults. Each trial is a LoRA fine-tune that takes a
share of the card and reports a checkpoint with every evaluation. Then steps are timed with 1, 2, …
processes on the card. Each result is printed and appended to `OUT/gpu_sweep.jsonl` as it comes,
the curves go to `OUT/STRATEGY.parquet`. Without a GPU the same runs on CPUs, as a dry run.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import numpy as np
import ray
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from experiments.docpairs import IGNORED_LABEL
from experiments.finetune import Rows, Task, build_model, build_trainer, evaluate
from experiments.finetune_sweep import search_space
from experiments.lora_tasks import Data, data_of
from experiments.lora_tasks import Rows as Encoded
from experiments.model import bf16_is_fast, load, prepare
from tune_stoppers import AutoScheduler, Sweep, TuneCallback, best_state, checkpoint_config

METRIC = "eval_loss"
STRATEGIES = ("alone", "auto", "none", "asha")  # in this order, should the time run out
SHARING = (1, 2, 4, 8)  # processes on the card
START_LIMIT = 300.0  # seconds that a process may take to import, on a machine at work


def scheduler(strategy: str, reports: int) -> TrialScheduler:
    """The scheduler of a strategy; time is the number of reports."""
    match strategy:
        case "asha":
            return AsyncHyperBandScheduler(max_t=reports)
        case "auto":
            return AutoScheduler(max_t=reports)
    return FIFOScheduler()


def configurations(trials: int, seed: int) -> list[dict[str, Any]]:
    """The same for every strategy, drawn from the space of `make sweep`."""
    draw = np.random.RandomState(seed)
    space = search_space(full=False)
    return [
        {name: domain.sample(random_state=draw) for name, domain in space.items()}
        for _ in range(trials)
    ]


def trainer_rows(encoded: Encoded) -> Rows:
    """Examples as the Trainer takes them; the loss is that of the answers."""
    at = np.arange(encoded.tokens.shape[1])
    answer = (at >= encoded.first[:, None]) & (at < encoded.end[:, None])
    labels = np.where(answer, encoded.tokens, IGNORED_LABEL)
    seen = (at < encoded.end[:, None]).astype(np.int64)
    columns = {"input_ids": encoded.tokens, "attention_mask": seen, "labels": labels}
    return [
        {name: column[row].tolist() for name, column in columns.items()}
        for row in range(len(encoded))
    ]


def train(config: dict[str, Any], *, task: Task, train_rows: Rows, eval_rows: Rows) -> None:
    """The Tune function trainable: every report brings a checkpoint."""
    model, _ = build_model(task, config)
    callback = TuneCallback(task.metric, task.mode, checkpoint_every=1)
    with tempfile.TemporaryDirectory(prefix="gpu-sweep-") as folder:
        trainer = build_trainer(task, config, model, train_rows, eval_rows, folder, [callback])
        trainer.train(resume_from_checkpoint=callback.resume_from)


def sweep(
    strategy: str,
    configs: list[dict[str, Any]],
    task: Task,
    rows: tuple[Rows, Rows],
    concurrent: int,
    storage: Path,
    out: Path,
) -> dict[str, Any]:
    """Run one strategy, the first configuration only for "alone"; its cost and what it found."""
    if strategy == "alone":
        configs, concurrent = configs[:1], 1
    reports = task.max_steps // task.eval_every
    has_gpu = torch.cuda.is_available()
    # Ray counts GPUs in ten-thousandths: six shares of 0.1667 would be more than one.
    share = math.floor(10_000 / concurrent) / 10_000 if has_gpu else 0.0
    trainable = tune.with_parameters(train, task=task, train_rows=rows[0], eval_rows=rows[1])
    began = time.monotonic()
    with utilisation() as used:
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": share}),
            param_space=search_space(full=False),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="min",
                num_samples=len(configs),
                scheduler=scheduler(strategy, reports),
                search_alg=BasicVariantGenerator(points_to_evaluate=configs),
                reuse_actors=True,  # a new process takes seconds to import, with any strategy
            ),
            run_config=tune.RunConfig(
                name=strategy,
                storage_path=str(storage),
                # each n-th checkpoint of a trial, of n to keep, has Ray write the sweep's state
                checkpoint_config=checkpoint_config(METRIC, "min", keep=4),
                verbose=0,
            ),
        ).fit()
        wall = time.monotonic() - began
    tables = [
        table
        for result in results
        if (table := result.metrics_dataframe) is not None
        and "iterations_since_restore" in table  # absent from a trial that was never started
    ]
    seconds = [float((result.metrics or {}).get("time_total_s", 0.0)) for result in results]
    Sweep.from_ray(storage / strategy, metric=METRIC, mode="min").to_parquet(
        out / f"{strategy}.parquet"
    )
    best = best_state(results, METRIC, "min")
    model, _ = build_model(task, best.config)
    best.restore(model)
    again = evaluate(task, best.config, _placed(model), rows[1])
    return {
        "strategy": strategy,
        "concurrent": concurrent,
        "trials": len(configs),
        "errors": results.num_errors,
        "reports": sum(map(len, tables)),
        "starts": sum(int((table["iterations_since_restore"] == 1).sum()) for table in tables),
        "wall_s": wall,
        "trial_s": sum(seconds),
        "gpu_s": sum(seconds) / concurrent,
        "report_s": statistics.median(
            seconds for table in tables for seconds in table["time_this_iter_s"][1:]
        ),
        "best": best.value,
        "best_step": best.step,
        "restored": again,
        "best_config": best.config,
        **used,
    }


def _placed(model: Any) -> Any:
    return model.to("cuda") if torch.cuda.is_available() else model


@contextlib.contextmanager
def utilisation() -> Iterator[dict[str, float]]:
    """Fill a dict with the card's mean utilisation (%) and largest memory use (MiB) meanwhile.

    By `nvidia-smi`, twice a second; it stays empty where there is none.
    """
    found: dict[str, float] = {}
    if shutil.which("nvidia-smi") is None:
        yield found
        return
    query = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    samples: list[tuple[float, float]] = []

    def read(lines: Any) -> None:
        for line in lines:
            with contextlib.suppress(ValueError):  # "[N/A]", or a line cut off
                busy, memory = map(float, line.split(","))
                samples.append((busy, memory))

    command = ["nvidia-smi", *query, "-lms", "500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            yield found
        finally:
            process.terminate()
            reader.join()
    if samples:
        found["utilisation"] = statistics.fmean(busy for busy, _ in samples)
        found["memory_mib"] = max(memory for _, memory in samples)


# --- how far trials that share a card slow each other down ------------------------------------


def sharing(task: Task, rows: Rows, counts: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of a training step with so many processes at it, each for `seconds`."""
    context = torch.multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(max(counts)), context.Queue()
    arguments = (task, rows[: task.batch_size], tuple(counts), seconds, barrier, queue)
    processes = [
        context.Process(target=_step_for, args=(index, *arguments), daemon=True)
        for index in range(max(counts))
    ]
    for process in processes:
        process.start()
    try:
        timed = [queue.get(timeout=START_LIMIT) for _ in range(sum(counts))]
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()
    return [
        {
            "processes": count,
            "step_ms": 1000 * statistics.fmean(s for c, s in timed if c == count),
            "steps_per_s": sum(1 / s for c, s in timed if c == count),
        }
        for count in counts
    ]


def _step_for(
    index: int,
    task: Task,
    rows: Rows,
    counts: tuple[int, ...],
    seconds: float,
    barrier: Any,
    queue: Any,
) -> None:
    """Train in a process of its own while it is one of those that count; send a step's seconds."""
    model, _ = build_model(task, {"lora_rank": 8})
    model = _placed(model)
    device = next(model.parameters()).device
    batch = {
        name: torch.tensor([row[name] for row in rows], device=device)
        for name in ("input_ids", "attention_mask", "labels")
    }
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)

    def step() -> None:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        loss.item()  # wait for it, as a loop that logs does

    for _ in range(3):  # what comes first allocates
        step()
    for count in counts:
        barrier.wait(timeout=START_LIMIT)
        if index >= count:
            continue
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            step()
            done += 1
        queue.put((count, (time.perf_counter() - began) / done))


# --- command line -----------------------------------------------------------------------------


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--strategies", nargs="*", choices=STRATEGIES, default=list(STRATEGIES))
    add("--trials", type=int, default=24, help="configurations (24)")
    add("--concurrent", type=int, default=6, help="trials on the card at a time (6)")
    add("--steps", type=int, default=72, help="optimizer steps of a full trial (72)")
    add("--eval-every", type=int, default=3, help="optimizer steps between reports (3)")
    add("--batch-size", type=int, default=16, help="examples a step (16)")
    add("--seed", type=int, default=3, help="of the configurations and the training (3)")
    add("--sharing", nargs="*", type=int, default=list(SHARING), help="processes to time steps of")
    add("--seconds", type=float, default=4.0, help="to time steps for (4)")
    add("--data", type=Path, help="encoded by experiments.lora_tasks; default: docstring")
    add("--model", help="a saved model's folder; default: SmolLM2-135M")
    add("--out", type=Path, default=Path("results/gpu"), help="folder of the results")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run all strategies, then time steps. 1 if a restored state does not measure as recorded."""
    args = arguments(given)
    task = Task(
        model=args.model or str(prepare()),
        max_steps=args.steps,
        eval_every=args.eval_every,
        batch_size=args.batch_size,
        seed=args.seed,
        full=False,
        metric=METRIC,
        mode="min",
        eval_on_start=False,
        bf16=bf16_is_fast(),
    )
    data = Data.load(args.data) if args.data else data_of("docstring", load(task.model)[1])
    rows = trainer_rows(data.train), trainer_rows(data.evaluation)
    configs = configurations(args.trials, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    storage = Path(tempfile.mkdtemp(prefix="gpu-sweep-"))
    agree = True

    def say(fact: dict[str, Any]) -> None:
        line = json.dumps({"card": card} | fact)
        print(line, flush=True)
        with (args.out / "gpu_sweep.jsonl").open("a") as file:
            file.write(line + "\n")

    try:
        if args.strategies:
            ray.init(
                address="local",
                num_cpus=max(args.concurrent, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
            )
        for strategy in args.strategies:
            found = sweep(strategy, configs, task, rows, args.concurrent, storage, args.out)
            agree &= abs(found["restored"] - found["best"]) <= 0.01  # bf16, in other batches
            say(found)
        ray.shutdown()
        if args.sharing:
            for timed in sharing(task, rows[0], args.sharing, args.seconds):
                say(timed)
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
