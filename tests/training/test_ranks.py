"""Two real processes over gloo whose local values differ: they leave at the same step, or hang.

Each script trains under `DistributedDataParallel`, so a rank that left earlier would keep the
other waiting for its gradients until the time limit.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
SECONDS = 240  # far beyond what it takes; a hang ends here

PRELUDE = """
import json, math, os, sys, warnings
from pathlib import Path
import torch
import torch.distributed as dist
torch.set_num_threads(1)
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
# Patience 2 on one's own values would end rank 0 at the 6th and rank 1 at the 3rd.
VALUES = [[5.0, 4.0, 3.0, 2.0, 2.0, 2.0, 1.0, 1.0], [1.0, 2.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5]][rank]
found = {}

def tell():
    print(json.dumps(found), flush=True)
    dist.barrier()  # the first to leave takes the store of the other one with it
    dist.destroy_process_group()
"""


def two_ranks(body: str, folder: Path) -> list[dict[str, Any]]:
    """What each of two processes that run `body` tells; both are killed if one hangs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    path = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(folder)],
            cwd=REPOSITORY,
            env={**os.environ, **shared, **path, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        done = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, done, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in done]


def test_a_plain_loop_ends_on_all_ranks_at_once(tmp_path: Path) -> None:
    """By rank 0's values; the best weights come back on each, from memory and from a folder.

    So does a loop of Accelerate, whose model and optimizer are wrapped.
    """
    first, second = two_ranks(
        """
        from accelerate import Accelerator
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel
        from tune_stoppers import BestStateKeeper, EarlyStopping
        from tune_stoppers.core import MissingMetricError
        accelerator = Accelerator(cpu=True)  # initialises torch.distributed
        assert accelerator.num_processes == dist.get_world_size() == 2

        def run(name, keeper, values, accelerated=False):
            torch.manual_seed(rank)
            model = nn.Linear(4, 1)
            if not accelerated:
                model = DistributedDataParallel(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            if accelerated:
                model, optimizer = accelerator.prepare(model, optimizer)
            stop, weights = EarlyStopping(2, mode="min", keeper=keeper), []
            for value in values:
                optimizer.zero_grad()
                model(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
                weights.append(model.module.weight.tolist())
                if stop(value, model, optimizer):
                    break
            trained = len(weights)
            step = stop.restore_best(model, optimizer)
            found[name] = {
                "trained": trained,
                "step": step,
                "reason": stop.reason,
                "best_value": stop.best_value,
                "state": stop.state_dict(),
                "restored": model.module.weight.tolist() == weights[int(step) - 1],
                "momentum": optimizer.state_dict()["state"][0]["momentum_buffer"].tolist(),
                "next_draw": torch.rand(1).item(),
            }

        run("memory", None, VALUES)
        run("disk", BestStateKeeper(folder / "best"), VALUES)
        run("rank 0 alone has a value", None, VALUES if rank == 0 else [None] * 8)
        run("accelerated", None, VALUES, accelerated=True)

        try:
            EarlyStopping(2, metric="loss", mode="min")({"los" if rank == 0 else "loss": 1.0})
        except (MissingMetricError, RuntimeError) as error:
            found["error"] = str(error)
        tell()
        """,
        tmp_path,
    )
    for name in ("memory", "disk", "rank 0 alone has a value", "accelerated"):
        draws = [told[name].pop("next_draw") for told in (first, second)]
        assert draws[0] != draws[1], "each rank keeps random generators of its own"
        assert first[name] == second[name]
        assert (first[name]["trained"], first[name]["step"]) == (6, 4)
        assert first[name]["restored"]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["000004-step-4"]
    assert "'loss' is missing" in first["error"]
    assert second["error"].startswith("rank 0 could not decide: MissingMetricError: EarlyStopping")


def test_all_ranks_go_back_at_once(tmp_path: Path) -> None:
    """By rank 0's values, each to its own copy, or all to the folder's, at the same lower rate."""
    first, second = two_ranks(
        """
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel
        from tune_stoppers import BestStateKeeper, EarlyStopping
        from tune_stoppers.rules import Rollback
        dist.init_process_group("gloo")

        def run(name, keeper):
            torch.manual_seed(rank)
            model = DistributedDataParallel(nn.Linear(4, 1))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            stop, weights = EarlyStopping(Rollback(patience=2), mode="min", keeper=keeper), []
            for value in VALUES[:7]:
                optimizer.zero_grad()
                model(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
                stop(value, model, optimizer)
                weights.append(model.module.weight.tolist())
                if stop.rollbacks:
                    break
            found[name] = {
                "calls": len(weights),
                "back": weights[-1] == weights[3],
                "lr": optimizer.param_groups[0]["lr"],
                "reason": stop.reason,
                "weights": weights[-1],
            }

        run("memory", None)
        run("disk", BestStateKeeper(folder / "best"))
        tell()
        """,
        tmp_path,
    )
    assert first == second
    for name in ("memory", "disk"):
        assert (first[name]["calls"], first[name]["back"], first[name]["lr"]) == (6, True, 0.05)
        assert "back to 2 at step 4, rollback 1 of 3" in first[name]["reason"]


def test_a_trainer_ends_on_all_ranks_at_once(tmp_path: Path) -> None:
    """By what rank 0 evaluates, whatever the other evaluates; also resumed, and by an error."""
    told = two_ranks(
        """
        from transformers import Trainer, TrainingArguments, default_data_collator
        from tests.stand_ins.tiny import tiny_model, tiny_rows
        from tune_stoppers import BestStateKeeper, RuleCallback
        from tune_stoppers.core import MissingMetricError

        def run(name, score, resume=False, metric="eval_score", keeper=None):
            values = iter(VALUES)
            arguments = TrainingArguments(
                output_dir=str(folder / "run"), max_steps=8, eval_strategy="steps", eval_steps=1,
                logging_steps=1, save_strategy="steps", save_steps=4, learning_rate=0.01,
                report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
                use_cpu=True, ddp_backend="gloo", per_device_train_batch_size=2,
            )
            callback = RuleCallback(2, metric, "min", keeper=keeper)
            trainer = Trainer(
                tiny_model(), arguments, default_data_collator,
                train_dataset=tiny_rows(), eval_dataset=tiny_rows(4),
                compute_metrics=lambda _: score(next(values)), callbacks=[callback],
            )
            try:
                trainer.train(resume_from_checkpoint=resume)
            except MissingMetricError as error:
                found[name] = [trainer.state.global_step, str(error)]
                return
            found[name] = [trainer.state.global_step, callback.reason, callback.best_step]
            if keeper is not None:
                kept = keeper.restore(trainer.model)
                weights = [p.sum().item() for p in trainer.model.parameters()]
                found[name] += [kept, weights]

        run("differ", lambda value: {"score": value}, keeper=BestStateKeeper())
        run("resumed", lambda value: {"score": value}, resume=True)
        best = BestStateKeeper(folder / "best")
        run("folder", lambda value: {"score": value}, keeper=best)
        again = BestStateKeeper(folder / "best", fresh=True)  # beside those of the run before
        run("folder again", lambda value: {"score": value}, keeper=again)
        run("rank 0 alone", lambda value: {"score": value} if rank == 0 else {})
        run("missing", lambda value: {"score": value}, metric="eval_scores")
        assert dist.get_world_size() == 2
        tell()
        """,
        tmp_path,
    )
    first, second = told
    assert first == second
    assert first["differ"][:4] == [6, first["differ"][1], 4, 4]
    assert first["differ"][1].startswith("Patience: 2 of 2 evaluations without improvement")
    assert first["resumed"] == first["differ"][:3]
    assert first["folder"] == first["folder again"] == first["differ"]
    assert first["rank 0 alone"] == first["differ"][:3]
    assert first["missing"][0] == 1
    assert "Did you mean 'eval_score'" in first["missing"][1]


def test_lightning_ends_on_all_ranks_at_once(tmp_path: Path) -> None:
    """By what rank 0 validates, also where it alone logs it; and by an error."""
    first, second = two_ranks(
        """
        import logging
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        from tests.stand_ins.tiny_lightning import Tiny, tiny_trainer
        from tune_stoppers import BestStateKeeper, LightningRuleCallback
        from tune_stoppers.core import MissingMetricError

        def run(name, values, metric="val_loss", keeper=None):
            callback = LightningRuleCallback(2, metric, "min", keeper=keeper)
            trainer = tiny_trainer(folder, callback, strategy="ddp", devices=2, max_epochs=8)
            module = Tiny(values)
            try:
                trainer.fit(module)
            except MissingMetricError as error:
                found[name] = [trainer.global_step, str(error)]
                return
            found[name] = [trainer.global_step, callback.reason, callback.best_step]
            if keeper is not None:
                found[name] += [keeper.restore(module), module.layers[0].weight.tolist()]

        run("differ", VALUES, keeper=BestStateKeeper())
        run("folder", VALUES, keeper=BestStateKeeper(folder / "best"))
        run("rank 0 alone", VALUES if rank == 0 else [{}] * 8)
        run("missing", VALUES, metric="val_los")
        assert dist.get_world_size() == 2
        tell()
        """,
        tmp_path,
    )
    assert first == second
    assert first["differ"][:4] == [12, first["differ"][1], 8, 8]  # two batches an epoch each
    assert first["differ"][1].startswith("Patience: 2 of 2 evaluations without improvement")
    assert first["folder"] == first["differ"]
    assert first["rank 0 alone"] == first["differ"][:3]
    assert first["missing"][0] == 2
    assert "Did you mean 'val_loss'" in first["missing"][1]
