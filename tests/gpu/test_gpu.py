"""What only a GPU can show. Skipped where there is none."""

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from torch import nn

from tests.stand_ins.tiny import tiny_model
from tests.stand_ins.tiny_trainer import make_trainer
from tests.tune.trainer.test_callback_resume import check_resuming
from tune_stoppers import (
    AutoScheduler,
    BestStateKeeper,
    PatienceStopper,
    TuneCallback,
    best_state,
    best_states,
    checkpoint_config,
)
from tune_stoppers.training.energy import EnergyMeter, nvml_counters

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_loop_does_not_wait_for_a_copy() -> None:
    """An offer returns while the GPU is still at work, and holds what was there when it was made.

    The optimizer's state with it; the copies go through pinned memory behind the queued kernels.
    """
    model = nn.Linear(4096, 4096, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    keeper, data = BestStateKeeper(), torch.randn(4096, 4096, device="cuda")
    for step in range(3):  # what comes first allocates
        model(data).square().mean().backward()
        optimizer.step()
        keeper.offer(step, -float(step), model, optimizer)
    torch.cuda.synchronize()
    expected = model.weight.detach().cpu().clone()
    moment = optimizer.state[model.weight]["exp_avg"].cpu().clone()

    began = time.perf_counter()
    for _ in range(200):
        data = torch.tanh(data @ data)
    queued = time.perf_counter() - began
    assert keeper.offer(9, -9.0, model, optimizer)
    offered = time.perf_counter() - began - queued
    with torch.no_grad():
        model.weight.add_(1.0)
    torch.cuda.synchronize()
    whole = time.perf_counter() - began
    print(f"queued in {queued:.3f} s, offered in {offered:.3f} s, all done after {whole:.3f} s")
    assert offered < 0.5 * (whole - queued)

    optimizer.state.clear()
    assert keeper.restore(model, optimizer) == 9
    assert torch.equal(model.weight.cpu(), expected)
    assert torch.equal(optimizer.state[model.weight]["exp_avg"].cpu(), moment)


@pytest.mark.filterwarnings("ignore:`(report|get_checkpoint)` is meant to only be")
@pytest.mark.parametrize("precision", ["plain", "bf16", "fp16"])
def test_resuming_on_a_gpu_goes_on_bit_for_bit(tmp_path: Path, precision: str) -> None:
    """The random state of the device, which dropout uses, comes back with the checkpoint."""
    changes = {} if precision == "plain" else {precision: True}
    check_resuming(tmp_path, "plain", {"use_cpu": False, **changes})


def test_trials_that_share_a_gpu(ray_session: None, tmp_path: Path) -> None:
    """Half a GPU each: two run at a time, each within its share, in bf16; the best is restored."""

    def train(config: dict[str, Any]) -> None:
        torch.cuda.set_per_process_memory_fraction(0.5)
        callback = TuneCallback("eval_loss", "min")
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(
                folder, [callback], config["lr"], use_cpu=False, bf16=True, max_steps=16
            )
            assert trainer.model.device.type == "cuda"
            trainer.train(resume_from_checkpoint=callback.resume_from)

    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": 0.5}),
        param_space={"lr": tune.grid_search([0.02, 0.01, 1e-5, 1e-6])},
        tune_config=tune.TuneConfig(
            metric="eval_loss", mode="min", scheduler=AutoScheduler(max_t=8)
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop=PatienceStopper("eval_loss", "min", patience=3),
            checkpoint_config=checkpoint_config("eval_loss", "min"),
            verbose=0,
        ),
    ).fit()
    assert results.num_errors == 0
    table = best_states(results, "eval_loss", "min")
    print(table[["best_step", "best_value", "status", "config/lr"]].to_string())
    assert len(table) == 4 and table["checkpoint"].notna().all()
    best = best_state(results, "eval_loss", "min")
    model = tiny_model(seed=1).to("cuda")
    best.restore(model)
    trainer = make_trainer(tmp_path / "again", [], model=model, use_cpu=False, bf16=True)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best.value, abs=1e-4)


def test_a_gpu_counts_its_energy() -> None:
    """More than it would take idle, in a second of work, and less than it could."""
    pytest.importorskip("pynvml", reason="pynvml is not installed")
    counters, why = nvml_counters()
    assert counters, why
    meter, data = EnergyMeter(counters), torch.randn(8192, 8192, device="cuda")
    begin = time.perf_counter()
    while (took := time.perf_counter() - begin) < 1.0:
        data = (data @ data).clamp(-1, 1)
        torch.cuda.synchronize()
    assert 10.0 * took < meter.joules() < 5000.0 * took * len(counters)
