"""Every kind of PEFT adapter that a Trainer saves comes back into a fresh model."""

import logging
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from tests.stand_ins.tiny import tiny_model
from tests.training.test_checkpoints import trained
from tune_stoppers import load_state, save_state
from tune_stoppers.training.checkpoints import load_weights
from tune_stoppers.training.snapshot import StateMismatchError

TASK = "CAUSAL_LM"
KINDS: dict[str, Any] = {
    "lora": peft.LoraConfig(r=2, task_type=TASK),
    "a head beside it": peft.LoraConfig(r=2, modules_to_save=["lm_head"], task_type=TASK),
    "dora": peft.LoraConfig(r=2, use_dora=True, task_type=TASK),
    "ia3": peft.IA3Config(task_type=TASK),
    "tokens": peft.LoraConfig(r=2, trainable_token_indices=[1, 2], task_type=TASK),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=2, task_type=TASK),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=2, task_type=TASK),
    "projected prefix": peft.PrefixTuningConfig(
        num_virtual_tokens=2, prefix_projection=True, encoder_hidden_size=8, task_type=TASK
    ),
    "p-tuning": peft.PromptEncoderConfig(
        num_virtual_tokens=2, encoder_hidden_size=8, task_type=TASK
    ),
}


def wrapped(kind: str, name: str = "default") -> Any:
    return peft.get_peft_model(tiny_model(tied=False), KINDS[kind], adapter_name=name)


def outputs(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.arange(8)[None]).logits
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_adapter_comes_back(tmp_path: Path, kind: str) -> None:
    """The fresh model answers as the trained one does, and not as it did before."""
    model, fresh = wrapped(kind), wrapped(kind)
    folder = trained(model, tmp_path)
    expected = outputs(model)
    assert not torch.allclose(outputs(fresh), expected, atol=1e-4)
    load_state(folder, fresh)
    torch.testing.assert_close(outputs(fresh), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs(model), expected, atol=0, rtol=0)  # that one is left alone


@pytest.mark.parametrize("saved_as", ["sft", "default"])
def test_an_adapter_has_any_name(tmp_path: Path, saved_as: str) -> None:
    """PEFT saves it in a folder of that name; it goes into the only one of the model."""
    model, fresh = wrapped("lora", saved_as), wrapped("lora", "mine")
    folder = trained(model, tmp_path)
    load_state(folder, fresh)
    assert torch.equal(outputs(fresh), outputs(model))
    assert all(key.startswith("base_model") for key in load_weights(folder))


def test_several_adapters_come_back_by_their_names(tmp_path: Path) -> None:
    """And a model that lacks one is told which."""

    def two() -> Any:
        model = wrapped("lora")
        model.add_adapter("second", KINDS["lora"])
        return model

    model, fresh = two(), two()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    load_state(tmp_path, fresh)
    before, after = model.state_dict(), fresh.state_dict()
    adapters = [name for name in before if "lora_" in name]
    assert any(".second." in name for name in adapters)
    assert all(torch.equal(before[name], after[name]) for name in adapters)
    assert len(load_weights(tmp_path)) == len(adapters)
    with pytest.raises(StateMismatchError, match=r"the adapters default, second, the model has"):
        load_state(tmp_path, wrapped("lora"))


def test_adapters_of_transformers_come_back(tmp_path: Path) -> None:
    """Those that were put into the model itself, `model.add_adapter`."""

    def made() -> Any:
        model = tiny_model()
        model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]), "mine")
        return model

    model, fresh = made(), made()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    load_state(tmp_path, fresh)
    assert torch.equal(outputs(fresh), outputs(model))


def test_an_adapter_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """Of another rank, or of other layers: the names and shapes are told."""
    wrapped("lora").save_pretrained(tmp_path)
    other = peft.get_peft_model(
        tiny_model(), peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj"], task_type=TASK)
    )
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(StateMismatchError, match=r"k_proj.*missing.*v_proj.*unknown.*\(2, 16\)"):
        load_state(tmp_path, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_finished_prompt_cannot_be_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PEFT does not keep the encoder of p-tuning: refused with an optimizer, said without."""
    model = wrapped("p-tuning")
    folder = trained(model, tmp_path / "run")
    fresh = wrapped("p-tuning")
    optimizer = torch.optim.AdamW(p for p in fresh.parameters() if p.requires_grad)
    before = outputs(fresh)
    with pytest.raises(StateMismatchError, match=r"not the encoder.*save_state"):
        load_state(folder, fresh, optimizer)
    assert torch.equal(outputs(fresh), before)
    caplog.set_level(logging.WARNING, "tune_stoppers")
    load_state(folder, fresh)
    assert "not trained on" in caplog.text
    save_state(tmp_path / "ours", model)  # which has the encoder
    again = wrapped("p-tuning")
    load_state(tmp_path / "ours", again)
    assert torch.equal(outputs(again), outputs(model))
    assert not again.peft_config["default"].inference_mode


def test_the_trainers_checkpoints_beside_an_adapter_are_none(tmp_path: Path) -> None:
    """As an SFTTrainer leaves its folder: the adapter at the top is the one."""
    model, fresh = wrapped("lora"), wrapped("lora")
    folder = trained(model, tmp_path)
    shutil.copytree(folder, tmp_path / "copy" / "checkpoint-500")
    shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
    load_state(tmp_path / "copy", fresh)
    assert torch.equal(outputs(fresh), outputs(model))
    assert all(key.startswith("base_model") for key in load_weights(tmp_path / "copy"))
