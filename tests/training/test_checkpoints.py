"""Restoring the Trainer's own checkpoint folders, full and LoRA."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tune_stoppers import load_state
from tune_stoppers.training.checkpoints import load_weights
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
    load_state(folder, fresh)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    saved, restored = model.state_dict(), fresh.state_dict()
    assert names
    assert all(torch.equal(saved[name], restored[name]) for name in names)


def test_sharded_weights_are_restored(tmp_path: Path) -> None:
    """Of a model too large for one file, every shard that the index names."""
    model, fresh = tiny_model(), tiny_model(seed=1)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    load_state(tmp_path, fresh)
    saved, restored = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(saved[name], restored[name]) for name in saved)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(StateFileError, match=shard.name):
        load_state(tmp_path, fresh)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_')
    with pytest.raises(StateFileError, match=r"index\.json: torn"):
        load_state(tmp_path, fresh)


@pytest.mark.parametrize("torn", [b"", b"PK torn"])
def test_a_torn_optimizer_is_named(tmp_path: Path, torn: bytes) -> None:
    """An empty file and a cut one."""
    folder = trained(tiny_model(), tmp_path)
    (folder / "optimizer.pt").write_bytes(torn)
    fresh = tiny_model()
    with pytest.raises(StateFileError, match=r"optimizer\.pt"):
        load_state(folder, fresh, torch.optim.AdamW(fresh.parameters()))


def test_optimizer_and_schedule_come_back(tmp_path: Path) -> None:
    """The moments are restored without unpickling, where the groups are the Trainer's."""
    model = tiny_model()
    folder = trained(model, tmp_path)
    fresh = tiny_model()
    optimizer = Trainer(fresh, TrainingArguments(str(tmp_path / "other"))).create_optimizer()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    load_state(folder, fresh, optimizer, schedule)
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    assert optimizer.state_dict()["state"][0]["step"] == 3
    assert torch.equal(optimizer.state_dict()["state"][8]["exp_avg"], saved["state"][8]["exp_avg"])
    assert schedule.last_epoch == 3
    other = torch.optim.AdamW([{"params": [p]} for p in tiny_model(seed=1).parameters()])
    with pytest.raises(StateMismatchError, match="groups of 15, 5 parameters kept"):
        load_state(folder, tiny_model(), other)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    """An adapter on a bare model, another rank, another architecture: one clear error each."""
    lora = trained(with_adapter(tiny_model()), tmp_path / "lora")
    full = trained(tiny_model(), tmp_path / "full")
    with pytest.raises(StateMismatchError, match=r"peft\.get_peft_model"):
        load_state(lora, tiny_model())
    with pytest.raises(StateMismatchError, match="does not fit"):
        load_state(lora, with_adapter(tiny_model(), rank=4))
    with pytest.raises(StateMismatchError, match="does not fit"):
        load_state(full, torch.nn.Linear(2, 2))


def test_torn_and_empty_folders_are_named(tmp_path: Path) -> None:
    """A torn weights file and a folder without weights say which they are."""
    with pytest.raises(StateFileError, match="holds no weights"):
        load_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(StateFileError, match=r"model\.safetensors"):
        load_weights(tmp_path)
