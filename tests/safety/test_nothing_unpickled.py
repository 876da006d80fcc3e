"""Whoever reads an experiment runs none of its pickles."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle

from tests.stand_ins.watched import BIRTH, watched
from tune_stoppers import Sweep, best_state, best_states, explain
from tune_stoppers.cli import main
from tune_stoppers.report import experiment_story
from tune_stoppers.report.html.page import page

CHECKPOINT = "checkpoint_000001"
RAYS = [
    "tuner.pkl",
    "trainable.pkl",
    f"searcher-state-{BIRTH}.pkl",
    f"search_gen_state-{BIRTH}.json",
    f"callback_states-{BIRTH}.pkl",
    f"experiment_state-{BIRTH}.json",
    f"basic-variant-state-{BIRTH}.json",
]
OF_A_TRIAL = ["error.pkl", "params.pkl", "trial.pkl", "progress.csv"]
OF_A_CHECKPOINT = [
    *(".metadata.json", ".tune_metadata", "dict_checkpoint.pkl", "pytorch_model.bin"),
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"),
]


class Trap:
    """Once unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


@pytest.fixture
def trapped(tmp_path: Path, sprung: Path) -> Path:
    """An experiment with a trap in every file that Ray, Transformers or we may write there."""
    folder = watched(tmp_path / "sweep")
    trap = cloudpickle.dumps(Trap(sprung))
    marked = {"_type": "CLOUDPICKLE_FALLBACK", "value": trap.hex()}
    for name in RAYS:
        text = json.dumps({"trial_data": [[json.dumps(marked), json.dumps(marked)]], "x": marked})
        (folder / name).write_bytes(trap if name.endswith(".pkl") else text.encode())
    (ours,) = (folder / "tune_stoppers").iterdir()
    for name in ("state-000001.json", "state.pkl", "journal.pkl"):
        (ours / name).write_bytes(trap)
    for place in folder.glob("train_*"):
        for name in OF_A_TRIAL:
            (place / name).write_bytes(trap)
        (place / CHECKPOINT).mkdir()
        for name in OF_A_CHECKPOINT:
            (place / CHECKPOINT / name).write_bytes(trap)
        row = {"trial_id": "x", "loss": 0.01, "training_iteration": 9, "done": False}
        row |= {"checkpoint_dir_name": CHECKPOINT, "x": marked, "y": trap.hex()}
        row |= {"trial_id": place.name.split("_")[1]}
        with (place / "result.json").open("a") as file:
            file.write(json.dumps(row) + "\n")
        params = {"lr": 0.1, "f": marked, "__reduce__": trap.hex()}
        (place / "params.json").write_text(json.dumps(params))
    return folder


def test_the_trap_works(tmp_path: Path, sprung: Path) -> None:
    """Else none of the tests here would show anything."""
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.is_dir()


def test_readers_unpickle_nothing(
    trapped: Path, sprung: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Best states, sweeps, explanations, reports, and the commands."""
    frame = best_states(trapped, "loss", "min")
    assert (frame["checkpoint_value"] == 0.01).all()
    assert len(explain(trapped)) == 6
    assert len(Sweep.from_ray(trapped, metric="loss", mode="min")) == 6
    assert "loss" in page(experiment_story(trapped, "loss", "min"))
    arguments = ["--output", str(trapped.parent / "page.html")]
    assert main(["report", str(trapped), *arguments]) == 0
    assert main(["explain", str(trapped), "flat", "--verify"]) in (0, 1)
    assert main(["best", str(trapped), "--metric", "loss", "--mode", "min"]) == 0
    assert main(["replay", str(trapped), "--metric", "loss", "--mode", "min"]) == 0
    assert main(["stop", str(trapped), "running"]) in (0, 2)
    capsys.readouterr()
    assert not sprung.exists()


def test_a_checkpoint_is_loaded_without_unpickling(trapped: Path, sprung: Path) -> None:
    """Weights that are a pickle are refused; so is an optimizer that is more than tensors."""
    best = best_state(trapped, "loss", "min")
    with pytest.raises(ValueError, match=r"no more is unpickled here"):
        best.load()
    from safetensors.torch import save_file

    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save_file(model.state_dict(), Path(best.checkpoint) / "model.safetensors")
    torch.save({"state": Trap(sprung)}, Path(best.checkpoint) / "optimizer.pt")
    assert best.load().keys() == {"weight", "bias"}
    with pytest.raises(ValueError, match=r"optimizer\.pt cannot be read"):
        best.restore(model, optimizer)
    (Path(best.checkpoint) / "model.safetensors").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        best.load()
    assert not sprung.exists()


@pytest.mark.parametrize("garbage", [b"", b"\x80\x04garbage", b"[" * 10**6, b"\x00" * 10**6])
def test_rays_own_state_is_not_read(tmp_path: Path, garbage: bytes) -> None:
    """What is in it changes nothing."""
    folder = watched(tmp_path / "sweep")
    before = best_states(folder, "loss", "min"), explain(folder)
    for name in RAYS:
        (folder / name).write_bytes(garbage)
    assert before[0].equals(best_states(folder, "loss", "min"))
    assert before[1].equals(explain(folder))
