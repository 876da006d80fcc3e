"""The best state of the real small model, full and LoRA, gives its recorded value again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments, default_data_collator

from experiments.docpairs import encode, stdlib_pairs
from experiments.model import add_lora, load, prepare
from tune_stoppers import BestStateKeeper, EarlyStopping, RuleCallback

pytestmark = pytest.mark.stress


@pytest.fixture(scope="module")
def rows() -> list[dict[str, list[int]]]:
    """A few docstrings to learn."""
    _, tokenizer = load(prepare(), torch.float32)
    return encode(stdlib_pairs()[:24], tokenizer, max_tokens=48)[:12]


def real_model() -> Any:
    return load(prepare(), torch.float32)[0]


def with_adapters(seed: int = 0) -> Any:
    return add_lora(real_model(), 4, seed=seed)


def batch(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("ending", ["stopped", RuntimeError])
def test_lora_under_the_trainer(tmp_path: Path, rows: Any, ending: Any) -> None:
    """Adapters alone are kept, and load into a fresh model: to 1e-5 of the recorded value."""
    keeper = BestStateKeeper(tmp_path / "best")

    class Breaks(RuleCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3 and ending is RuntimeError:
                raise RuntimeError

    # Of a falling loss the first is highest: patience ends it at the second evaluation.
    mode: Any = "max" if ending == "stopped" else "min"
    callback = Breaks(1, "eval_loss", mode, keeper=keeper)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        learning_rate=2e-3,
        per_device_train_batch_size=4,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        prediction_loss_only=True,
    )
    trainer = Trainer(
        with_adapters(),
        arguments,
        default_data_collator,
        train_dataset=rows[:8],
        eval_dataset=rows[8:],
        callbacks=[callback],
    )
    if ending == "stopped":
        with keeper.restoring(trainer.model):
            trainer.train()
    else:
        with pytest.raises(RuntimeError), keeper.restoring(trainer.model):
            trainer.train()
    assert callback.stopped == (ending == "stopped")
    assert callback.best_step == (1 if ending == "stopped" else 2)
    recorded = pytest.approx(callback.best_value, abs=1e-5)
    assert trainer.evaluate()["eval_loss"] == recorded
    fresh = with_adapters(seed=1)
    BestStateKeeper(tmp_path / "best").restore(fresh)
    trainer.model.load_state_dict(fresh.state_dict())
    assert trainer.evaluate()["eval_loss"] == recorded
    size = sum(path.stat().st_size for path in (tmp_path / "best").rglob("*") if path.is_file())
    assert size < 5e6, "adapters, not the model of 540 MB"


def test_a_full_fine_tune_in_a_plain_loop(rows: Any) -> None:
    """Tied embeddings and all; the weights that go on training are not those kept."""
    model = real_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def evaluate() -> float:
        with torch.no_grad():
            return float(model.eval()(**batch(rows[8:])).loss)

    stop = EarlyStopping(1, mode="max")
    with stop.restoring(model):
        while not stop(evaluate(), model):
            model.train()(**batch(rows[:4])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert evaluate() < stop.best_value - 1e-3
    assert evaluate() == pytest.approx(stop.best_value, abs=1e-5)
    assert model.lm_head.weight is model.model.embed_tokens.weight
