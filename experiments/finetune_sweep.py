"""A hyperparameter sweep over fine-tunes of a real language model, end to end.

Sweeps learning rate, schedule, warm-up, weight decay and LoRA rank; stops the losers early;
restores the winner's best state and measures it again. `--help` shows what people vary.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import ray
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from experiments import docpairs
from experiments.finetune import REPORTED, Data, Task, build_model, train
from experiments.model import ModelError, bf16_is_fast, load, prepare
from experiments.sweep_summary import summarise
from tune_stoppers import (
    AllOf,
    AnyOf,
    AutoScheduler,
    BoundASHAScheduler,
    DivergenceStopper,
    FreezeThawScheduler,
    PatienceStopper,
    PromotionASHAScheduler,
    RollbackScheduler,
    RuleScheduler,
    SweepReporter,
    ThresholdStopper,
    checkpoint_config,
)
from tune_stoppers.expressions import parse
from tune_stoppers.metrics import closest
from tune_stoppers.rules import Patience

STOPPERS = {
    cls.__name__: cls
    for cls in (AllOf, AnyOf, DivergenceStopper, PatienceStopper, ThresholdStopper)
}
DEFAULT_STOP = "DivergenceStopper()"
SCHEDULERS = [
    "auto",
    "bound_asha",
    "promotion_asha",
    "freeze_thaw",
    "rollback",
    "patience",
    "asha",
    "none",
]
LORA_RANKS = (4, 8, 16)
MAX_TOKENS = 64  # holds nine pairs in ten whole
N_HELDOUT = 128  # pairs that no trial sees
SETTINGS = "settings.json"  # in the experiment's folder tune_stoppers/, for --resume


class UsageError(ValueError):
    """Something the user asked for cannot be done; nothing has been written."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.finetune_sweep",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", help="folder or hub name; default: SmolLM2-135M, as `make sweep` prepares it")
    add("--data", help="JSON lines with prompt and completion; default: the standard library's")
    add("--trials", type=int, default=8, help="configurations to sample")
    add("--max-steps", type=int, default=20, help="optimizer steps of a full trial")
    add("--eval-every", type=int, default=4, help="optimizer steps between evaluations")
    add("--eval-examples", type=int, default=24, help="pairs that trials are compared on")
    add("--batch-size", type=int, default=4, help="examples per optimizer step")
    add("--search", choices=["random", "optuna"], default="random")
    add("--scheduler", choices=SCHEDULERS, default="auto", help="asha is Ray's own")
    add(
        "--stop",
        metavar="EXPRESSION",
        help=f"stoppers, or none (default: {DEFAULT_STOP}; none "
        "with rollback, which rescues what a stopper would end)",
    )
    add("--metric", default="eval_loss", help="what is minimised")
    add("--concurrent", type=int, default=2, help="trials at a time")
    add("--gpus-per-trial", type=float, help="fractions allowed; default: what there is, shared")
    add("--full", action="store_true", help="fine-tune all weights instead of a LoRA adapter")
    add("--storage", default="results", help="any Ray storage path")
    add("--address", help="an existing Ray cluster; default: start one on this machine")
    add("--resume", metavar="PATH", help="go on with an experiment, through Tuner.restore")
    add("--seed", type=int, default=3, help="of the configurations, the data and the training")
    return parser.parse_args(given)


def search_space(full: bool) -> dict[str, Any]:
    """What is swept; the learning rate reaches from hardly moving to diverging."""
    space = {
        "learning_rate": tune.loguniform(3e-5, 1e-1),
        "schedule": tune.choice(["linear", "cosine", "constant_with_warmup"]),
        "warmup": tune.choice([0.0, 0.1]),
        "weight_decay": tune.choice([0.0, 0.01, 0.1]),
    }
    return space if full else space | {"lora_rank": tune.choice(list(LORA_RANKS))}


def check(args: argparse.Namespace) -> None:
    """Raise `UsageError` for what is wrong whatever the model and the data are."""
    for name in ("trials", "max_steps", "eval_every", "eval_examples", "batch_size", "concurrent"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1.")
    if args.eval_every > args.max_steps:
        raise UsageError(
            f"--eval-every {args.eval_every} is more than --max-steps {args.max_steps}: "
            "no trial would ever be evaluated."
        )
    if args.metric not in REPORTED:
        raise UsageError(
            f"trials do not report {args.metric!r}.{closest(args.metric, REPORTED)} "
            f"They report: {', '.join(REPORTED)}."
        )


def read_data(args: argparse.Namespace, tokenizer: Any) -> Data:
    """The data of a sweep: to train on, to compare trials on, and what no trial sees."""
    pairs = docpairs.read_jsonl(args.data) if args.data else docpairs.stdlib_pairs()
    parts = docpairs.split(pairs, args.seed)
    encoded = [docpairs.encode(part, tokenizer, MAX_TOKENS) for part in parts]
    if not all(encoded):
        raise UsageError(f"no pair is left: all prompts are longer than {MAX_TOKENS} tokens.")
    return Data(
        train=encoded[0],
        evaluation=encoded[1][: args.eval_examples],
        heldout=encoded[2][:N_HELDOUT],
        example=parts.heldout[0],
    )


def checkpoint_bytes(task: Task) -> int:
    """The size of the largest checkpoint: weights that train, and two moments of Adam for each."""
    rank = {} if task.full else {"lora_rank": max(LORA_RANKS)}
    model, _ = build_model(task, rank)
    trained = [p for p in model.parameters() if p.requires_grad]
    return 3 * sum(int(p.numel()) * int(p.element_size()) for p in trained)


def check_storage(storage: str, trials: int, size: int) -> str:
    """The absolute storage path, once it can be written and has room for the checkpoints."""
    if "://" in storage:
        return storage  # Ray says so itself before the first trial
    path = Path(storage).expanduser().absolute()
    needed = trials * 2 * size
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--storage {storage} cannot be written: {error.strerror}.") from error
    free = shutil.disk_usage(path).free
    plan = f"{trials} trials x 2 checkpoints x {size / 1e6:.1f} MB = {needed / 1e6:.0f} MB"
    if needed > free:
        raise UsageError(f"--storage {storage} has {free / 1e6:.0f} MB free, less than {plan}.")
    print(f"Checkpoints: at most {plan}, in {path}.")
    return str(path)


def resources(args: argparse.Namespace, task: Task) -> dict[str, float]:
    """What one trial takes."""
    gpus = args.gpus_per_trial
    if gpus is None:
        gpus = torch.cuda.device_count() / args.concurrent
        gpus = math.floor(gpus) if gpus >= 1 else gpus
    return {"cpu": task.threads, "gpu": gpus}


def stopper(args: argparse.Namespace) -> Any:
    """The stopper that `--stop` describes; None for none."""
    expression = args.stop or ("none" if args.scheduler == "rollback" else DEFAULT_STOP)
    if expression == "none":
        return None
    try:
        return parse(expression, STOPPERS, metric=args.metric, mode="min", time_attr="step")
    except (ValueError, TypeError) as error:  # also the constructors'
        raise UsageError(f"--stop: {error}") from error


def scheduler(args: argparse.Namespace) -> TrialScheduler:
    """The scheduler asked for; its time is the number of optimizer steps."""
    horizon = {"max_t": args.max_steps, "grace_period": args.eval_every, "time_attr": "step"}
    match args.scheduler:
        case "auto":
            return AutoScheduler(**horizon)
        case "bound_asha":
            return BoundASHAScheduler(**horizon)
        case "freeze_thaw":
            return FreezeThawScheduler(**horizon)
        case "promotion_asha":
            return PromotionASHAScheduler(**horizon)
        case "rollback":
            return RollbackScheduler(patience=2, lr_key="learning_rate", time_attr="step")
        case "patience":
            return RuleScheduler(Patience(2), time_attr="step")
        case "asha":
            return AsyncHyperBandScheduler(**horizon, reduction_factor=3)
    return FIFOScheduler()


def searcher(args: argparse.Namespace) -> Any:
    """The search algorithm asked for, with its seed."""
    if args.search == "random":
        # here the cores limit how many run; a limit would count those that a scheduler has paused
        most = args.concurrent if args.address else 0
        return BasicVariantGenerator(random_state=args.seed, max_concurrent=most)
    from ray.tune.search.optuna import OptunaSearch  # optuna is an extra

    limited = OptunaSearch(seed=args.seed)
    return tune.search.ConcurrencyLimiter(limited, max_concurrent=args.concurrent)


def trainable_of(task: Task, data: Data) -> Any:
    """The function trainable with what all trials share, which travels once to each node."""
    return tune.with_parameters(train, task=task, train_rows=data.train, eval_rows=data.evaluation)


def new_sweep(args: argparse.Namespace) -> tuple[tune.Tuner, Task, Data]:
    """A tuner for a new sweep."""
    check(args)
    stopper(args)  # says now what is wrong with it
    task = Task(
        model=args.model or str(prepare()),
        max_steps=args.max_steps,
        eval_every=args.eval_every,
        batch_size=args.batch_size,
        seed=args.seed,
        full=args.full,
        metric=args.metric,
        mode="min",
        bf16=bf16_is_fast(),
    )
    _, tokenizer = load(task.model)
    data = read_data(args, tokenizer)
    storage = check_storage(args.storage, args.trials, checkpoint_bytes(task))
    name = time.strftime("finetune_sweep_%Y-%m-%d_%H-%M-%S")
    notes = Path(storage, name, "tune_stoppers")
    start_ray(args, task)
    trainable = trainable_of(task, data)
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources(args, task)),
        param_space=search_space(args.full),
        tune_config=tune.TuneConfig(
            metric=args.metric,
            mode="min",
            num_samples=args.trials,
            scheduler=scheduler(args),
            search_alg=searcher(args),
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            stop=stopper(args),
            checkpoint_config=checkpoint_config(args.metric, "min"),
            progress_reporter=SweepReporter(1 + args.max_steps // args.eval_every),
            verbose=1,
        ),
    )
    if "://" not in storage:
        notes.mkdir(parents=True, exist_ok=True)
        (notes / SETTINGS).write_text(json.dumps(vars(args) | {"task": asdict(task)}))
    return tuner, task, data


def resumed_sweep(args: argparse.Namespace) -> tuple[tune.Tuner, Task, Data]:
    """A tuner that goes on with the experiment at `--resume`, with its own settings."""
    path = args.resume
    settings = Path(path, "tune_stoppers", SETTINGS)
    if not settings.is_file() or not tune.Tuner.can_restore(path):
        raise UsageError(f"--resume {path} is no experiment of this sweep: it has no {SETTINGS}.")
    kept = json.loads(settings.read_text())
    task = Task(**kept.pop("task"))
    then = argparse.Namespace(**kept)
    _, tokenizer = load(task.model)
    data = read_data(then, tokenizer)
    start_ray(args, task)
    trainable = trainable_of(task, data)
    tuner = tune.Tuner.restore(
        str(Path(path).absolute()),
        tune.with_resources(trainable, resources(then, task)),
        resume_errored=True,
    )
    return tuner, task, data


def start_ray(args: argparse.Namespace, task: Task) -> None:
    """Connect to the cluster, or start Ray here with a slot for each concurrent trial."""
    if args.address:
        ray.init(address=args.address, log_to_driver=False)
        return
    ray.init(
        address="local",
        num_cpus=args.concurrent * task.threads,
        include_dashboard=False,
        log_to_driver=False,
    )


def main(given: list[str] | None = None) -> int:
    """Run the sweep. 0: done; 1: the restored best state does not agree; 2: a user's mistake."""
    args = arguments(given)
    try:
        make = resumed_sweep if args.resume else new_sweep
        tuner, task, data = make(args)
    except (UsageError, ModelError, docpairs.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results = tuner.fit()
    ray.shutdown()  # its processes would share the cores with the measurements that follow
    return summarise(results, task, data)


if __name__ == "__main__":
    sys.exit(main())
