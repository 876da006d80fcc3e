"""Restoring the Trainer's own checkpoint folders, full and LoRA."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments, default_data_collator

from tests.tiny import tiny_model, tiny_rows
from tune_stoppers.training.checkpoints import load_weights, restore_checkpoint
from tune_stoppers.training.snapshot import StateMismatchError
from tune_stoppers.training.state_files import StateFileError


def with_adapter(model: Any, rank: int = 2) -> Any:
    return get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj", "v_proj"]))


def trained(model: Any, folder: Path) -> Path:
    """The checkpoint that the Trainer writes after three steps."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=3,
        save_steps=3,
        learning_rate=0.01,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows: Any = tiny_rows()
    Trainer(model, arguments, default_data_collator, train_dataset=rows).train()
    return folder / "checkpoint-3"


@pytest.mark.parametrize("kind", ["tied", "untied", "lora"])
def test_restored_weights_are_those_saved(tmp_path: Path, kind: str) -> None:
    """A fresh model holds exactly the trained weights after restoring."""
    model = tiny_model(tied=kind == "tied")
    fresh = tiny_model(seed=1, tied=kind == "tied")
    if kind == "lora":
        model, fresh = with_adapter(model), with_adapter(fresh)
    folder = trained(model, tmp_path)
    restore_checkpoint(folder, fresh)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    saved, restored = model.state_dict(), fresh.state_dict()
    assert names
    assert all(torch.equal(saved[name], restored[name]) for name in names)


def test_sharded_weights_are_restored(tmp_path: Path) -> None:
    """Of a model too large for one file, every shard that the index names."""
    model, fresh = tiny_model(), tiny_model(seed=1)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    restore_checkpoint(tmp_path, fresh)
    saved, restored = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(saved[name], restored[name]) for name in saved)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(StateFileError, match=shard.name):
        restore_checkpoint(tmp_path, fresh)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_')
    with pytest.raises(StateFileError, match=r"index\.json: torn"):
        restore_checkpoint(tmp_path, fresh)


@pytest.mark.parametrize("torn", [b"", b"PK torn"])
def test_a_torn_optimizer_is_named(tmp_path: Path, torn: bytes) -> None:
    """An empty file and a cut one."""
    folder = trained(tiny_model(), tmp_path)
    (folder / "optimizer.pt").write_bytes(torn)
    fresh = tiny_model()
    with pytest.raises(StateFileError, match=r"optimizer\.pt"):
        restore_checkpoint(folder, fresh, torch.optim.AdamW(fresh.parameters()))


def test_optimizer_and_schedule_come_back(tmp_path: Path) -> None:
    """The moments of the optimizer are restored without unpickling."""
    model = tiny_model()
    folder = trained(model, tmp_path)
    fresh = tiny_model()
    optimizer = torch.optim.AdamW(
        [{"params": list(fresh.parameters())[:1]}, {"params": list(fresh.parameters())[1:]}]
    )
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    groups = [len(group["params"]) for group in saved["param_groups"]]
    parameters = list(fresh.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": parameters[: groups[0]]}, {"params": parameters[groups[0] :]}]
    )
    restore_checkpoint(folder, fresh, optimizer)
    assert optimizer.state_dict()["state"][0]["step"] == 3


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    """An adapter on a bare model, another rank, another architecture: one clear error each."""
    lora = trained(with_adapter(tiny_model()), tmp_path / "lora")
    full = trained(tiny_model(), tmp_path / "full")
    with pytest.raises(StateMismatchError, match=r"peft\.get_peft_model"):
        restore_checkpoint(lora, tiny_model())
    with pytest.raises(StateMismatchError, match="does not fit"):
        restore_checkpoint(lora, with_adapter(tiny_model(), rank=4))
    with pytest.raises(StateMismatchError, match="does not fit"):
        restore_checkpoint(full, torch.nn.Linear(2, 2))


def test_torn_and_empty_folders_are_named(tmp_path: Path) -> None:
    """A torn weights file and a folder without weights say which they are."""
    with pytest.raises(StateFileError, match="holds no weights"):
        load_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(StateFileError, match=r"model\.safetensors"):
        load_weights(tmp_path)
