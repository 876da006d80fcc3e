"""States that users write with torch, Lightning, transformers or by hand are read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.stand_ins.tiny import tiny_model
from tune_stoppers import load_state
from tune_stoppers.training.checkpoints import load_weights
from tune_stoppers.training.state_files import StateFileError


def made() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """A model after one step, with its optimizer and schedule."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    return model, optimizer, schedule


class Lightning(nn.Module):
    """As a LightningModule holds the model: under a name of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = model


def parts(way: str, model: nn.Module, optimizer: Any, schedule: Any) -> Any:
    """What is given to `torch.save`."""
    own, states = model.state_dict(), (optimizer.state_dict(), schedule.state_dict())
    return {
        "state dict": own,
        "data parallel": {f"module.{name}": tensor for name, tensor in own.items()},
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in own.items()},
        "torch's tutorial": {
            "epoch": 3,
            "model_state_dict": own,
            "optimizer_state_dict": states[0],
            "loss": 0.5,
        },
        "short names": {"net": own, "optim": states[0], "lr_scheduler": states[1], "ema": own},
        "tuple": (own, states[0]),
        "Lightning": {
            "epoch": 1,
            "global_step": 4,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": Lightning(model).state_dict(),
            "optimizer_states": [states[0]],
            "lr_schedulers": [states[1]],
            "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5)}},
            "loops": {"fit_loop": {"state_dict": {}}},
            "hyper_parameters": {"lr": 0.1},
        },
    }[way]


WAYS = {
    "state dict": "weights.pt",
    "data parallel": "model.pth",
    "compiled": "model.bin",
    "torch's tutorial": "checkpoint.pt",
    "short names": "checkpoint.tar.pt",
    "tuple": "checkpoint.pt",
    "Lightning": "epoch=1-step=4.ckpt",
}
WITH_OPTIMIZER = ("torch's tutorial", "short names", "tuple", "Lightning")
WITH_SCHEDULE = ("short names", "Lightning")


@pytest.mark.parametrize(("way", "file"), WAYS.items())
def test_what_torch_saved_comes_back(tmp_path: Path, way: str, file: str) -> None:
    """Weights, and the optimizer's and scheduler's state where the file has them."""
    saved, fresh = made(), made()
    torch.save(parts(way, *saved), tmp_path / file)
    nn.init.zeros_(fresh[0][0].weight)  # type: ignore[index]
    fresh[1].param_groups[0]["lr"] = 7.0
    load_state(
        tmp_path,
        fresh[0],
        fresh[1] if way in WITH_OPTIMIZER else None,
        fresh[2] if way in WITH_SCHEDULE else None,
    )
    before, after = saved[0].state_dict(), fresh[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    rate = fresh[1].param_groups[0]["lr"]
    assert rate == (pytest.approx(0.01) if way in WITH_OPTIMIZER else 7.0)
    assert len(load_weights(tmp_path)) == 4


def test_a_lightning_module_takes_its_own_names(tmp_path: Path) -> None:
    """Restored into the module itself, not only into the model inside."""
    saved = made()
    torch.save(parts("Lightning", *saved), tmp_path / "last.ckpt")
    fresh = Lightning(made()[0])
    nn.init.zeros_(fresh.net[0].weight)  # type: ignore[index]
    load_state(tmp_path / "last.ckpt", fresh)
    assert torch.equal(fresh.net[0].weight, saved[0][0].weight)  # type: ignore[index]


def test_parts_may_lie_in_files_of_their_own(tmp_path: Path) -> None:
    """model.pt, optimizer.pt, scheduler.pt."""
    saved, fresh = made(), made()
    for name, part in zip(("model", "optimizer", "scheduler"), saved, strict=True):
        torch.save(part.state_dict(), tmp_path / f"{name}.pt")
    fresh[1].param_groups[0]["lr"] = 7.0
    load_state(tmp_path, *fresh)
    assert fresh[1].param_groups[0]["lr"] == pytest.approx(0.01)
    assert torch.equal(fresh[0][0].weight, saved[0][0].weight)  # type: ignore[index]
    other = made()[1]
    load_state(tmp_path, optimizer=other)
    assert other.state_dict()["state"][0]["step"] == 1


def test_an_old_bin_in_shards_comes_back(tmp_path: Path) -> None:
    """As transformers wrote large models before safetensors; tied weights have one name."""
    model, fresh = tiny_model(), tiny_model(seed=1)
    state = {name: t for name, t in model.state_dict().items() if name != "lm_head.weight"}
    names = sorted(state)
    where = {name: f"pytorch_model-0000{1 + number % 2}.bin" for number, name in enumerate(names)}
    for file in set(where.values()):
        torch.save({name: state[name] for name in names if where[name] == file}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    load_state(tmp_path, fresh)
    assert all(torch.equal(t, fresh.state_dict()[name]) for name, t in model.state_dict().items())


def test_a_folder_inside_is_found(tmp_path: Path) -> None:
    """`model.save_pretrained(folder / "model")`, as Ray's own callback for transformers does."""
    model, fresh = tiny_model(), tiny_model(seed=1)
    model.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "notes").mkdir()
    load_state(tmp_path, fresh)
    assert torch.equal(fresh.lm_head.weight, model.lm_head.weight)


def test_one_file_of_safetensors_has_any_name(tmp_path: Path) -> None:
    """And a manifest of somebody else's beside it is not ours."""
    model, fresh = made()[0], made()[0]
    save_file(model.state_dict(), str(tmp_path / "best.safetensors"))
    (tmp_path / "manifest.json").write_text("{}")
    load_state(tmp_path, fresh)
    assert torch.equal(fresh[0].weight, model[0].weight)  # type: ignore[index]


def test_what_is_not_understood_says_what_is(tmp_path: Path) -> None:
    """A plain file, a folder that is empty, one that is not there, several files of weights."""
    with pytest.raises(StateFileError, match="is not there"):
        load_state(tmp_path / "gone")
    with pytest.raises(StateFileError, match="it has: nothing"):
        load_weights(tmp_path)
    (tmp_path / "weights.txt").write_text("3.5")
    with pytest.raises(StateFileError, match=r"it has: weights\.txt\. Understood: .*save_state"):
        load_state(tmp_path, nn.Linear(1, 1))
    for name in ("a.pt", "b.pt"):
        torch.save(nn.Linear(1, 1).state_dict(), tmp_path / name)
    with pytest.raises(StateFileError, match=r"a\.pt, b\.pt: give the path of one"):
        load_state(tmp_path, nn.Linear(1, 1))
    load_state(tmp_path / "a.pt", nn.Linear(1, 1))


class Runs:
    """What a pickle could do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("what", ["a module", "code"])
def test_nothing_more_than_tensors_is_unpickled(tmp_path: Path, what: str) -> None:
    """A whole module, or code: refused with what to save instead, and not run."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    mark = tmp_path / "ran"
    torch.save({"module": nn.Linear(1, 1)} if what == "a module" else Runs(mark), folder / "m.pt")
    for read in (load_weights, lambda folder: load_state(folder, nn.Linear(1, 1))):
        with pytest.raises(StateFileError, match=r"no more is unpickled here.*state_dict\(\)"):
            read(folder)
    assert not mark.exists()


def test_a_file_without_weights_is_given_as_it_is(tmp_path: Path) -> None:
    """`load_weights` returns what is there; a model cannot be restored from it."""
    torch.save({"best": 0.5, "names": ["a"]}, tmp_path / "notes.pt")
    assert load_weights(tmp_path) == {"best": 0.5, "names": ["a"]}
    with pytest.raises(StateFileError, match=r"notes\.pt.*no state dict .* keys best, names"):
        load_state(tmp_path, nn.Linear(1, 1))


def test_two_sets_of_weights_are_not_guessed_between(tmp_path: Path) -> None:
    """A name that everyone uses for the model decides; without one it is an error."""
    one, two = nn.Linear(1, 1).state_dict(), nn.Linear(1, 1).state_dict()
    torch.save({"ema": one, "model": two}, tmp_path / "a.pt")
    assert torch.equal(load_weights(tmp_path)["weight"], two["weight"])
    torch.save({"ema": one, "swa": two}, tmp_path / "a.pt")
    with pytest.raises(StateFileError, match="2 sets of weights: ema, swa"):
        load_weights(tmp_path)


def test_of_several_optimizers_the_weights_come_back(tmp_path: Path) -> None:
    """As of a GAN in Lightning, or with a warm-up and a decay; which of them is meant is only
    asked where one is wanted."""
    (model, optimizer, scheduler), fresh = made(), made()
    states = {"optimizer_states": [optimizer.state_dict()] * 2}
    states |= {"warmup": scheduler.state_dict(), "decay": scheduler.state_dict()}
    torch.save({"state_dict": model.state_dict(), **states}, tmp_path / "last.ckpt")
    load_state(tmp_path / "last.ckpt", fresh[0])
    assert torch.equal(fresh[0][0].weight, model[0].weight)  # type: ignore[index]
    assert len(load_weights(tmp_path / "last.ckpt")) == 4
    with pytest.raises(StateFileError, match="2 optimizers: optimizer_states/0"):
        load_state(tmp_path / "last.ckpt", *fresh[:2])
    with pytest.raises(StateFileError, match="2 schedulers: warmup, decay"):
        load_state(tmp_path / "last.ckpt", fresh[0], scheduler=fresh[2])
