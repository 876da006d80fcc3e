"""RuleCallback in TRL's trainers: the names they log are those that the recipes watch."""

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from datasets import Dataset, disable_progress_bars, enable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from experiments.model import add_lora, load, prepare
from tests.stand_ins.tiny import tiny_model
from tune_stoppers import RuleCallback, recipes
from tune_stoppers.rules import Divergence, Rollback, Threshold

WORDS = [f"w{i}" for i in range(32)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No bars of `datasets`."""
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model and a tokenizer of whole words: TRL loads references by name."""
    folder = str(tmp_path_factory.mktemp("tiny"))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0", eos_token="w1").save_pretrained(
        folder
    )
    model = tiny_model()
    for config in (model.config, model.generation_config):
        config.update({"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None})
    model.save_pretrained(folder)
    return folder


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A training log at every step, on the CPU; nothing saved."""
    usual: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 12,
        "logging_steps": 1,
        "learning_rate": 0.01,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": None,  # TRL 1.16 turns it on by a name that is deprecated
    }
    return usual | changes


def run_of(start: int, length: int) -> str:
    """Words that count upwards."""
    return " ".join(WORDS[2 + (start + i) % 30] for i in range(length))


def logged(trainer: Any, metric: str) -> list[float]:
    return [row[metric] for row in trainer.state.log_history if metric in row]


def smoothed(values: list[float], weight: float) -> list[float]:
    """The exponential mean, written again."""
    means = values[:1]
    for value in values[1:]:
        means.append(weight * means[-1] + (1 - weight) * value)
    return means


FACTS = (
    ("The capital of France is", " Paris, on the Seine."),
    ("Water boils at", " one hundred degrees Celsius."),
    ("The sun rises in", " the east, each morning."),
    ("A byte has", " eight bits, on most machines."),
)


def test_sft_of_a_language_model_ends_when_its_smoothed_loss_is_low(tmp_path: Path) -> None:
    """SmolLM2 with LoRA learns four sentences by heart, and is stopped at that very step."""
    model, tokenizer = load(prepare())
    callback = RuleCallback(Threshold(1.5, smoothing={"ema": 0.5}), "loss", "min")
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in FACTS]
    trainer = SFTTrainer(
        add_lora(model, 8),
        args=SFTConfig(**settings(tmp_path, max_steps=20), per_device_train_batch_size=4),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    means = smoothed(logged(trainer, "loss"), 0.5)
    assert means[-1] < 1.5 <= min(means[:-1])
    assert trainer.state.global_step == len(means) < 20
    assert "is past the threshold 1.5" in callback.reason


def test_the_sft_recipe_in_its_trainer(tmp_path: Path, tiny: str) -> None:
    """Three logs in a row with the smoothed training loss below the target."""
    recipe = recipes.sft(3.3, patience=3)
    callback = RuleCallback(recipe.rule, **recipe.objective)
    rows = [{"prompt": run_of(i, 3) + " ", "completion": run_of(i + 3, 4)} for i in range(16)]
    trainer = SFTTrainer(
        tiny,
        args=SFTConfig(**settings(tmp_path, max_steps=60), max_length=16),
        train_dataset=Dataset.from_list(rows),
        callbacks=[callback],
    )
    trainer.train()
    below = [mean < 3.3 for mean in smoothed(logged(trainer, "loss"), 0.9)]
    assert below[-4:] == [False, True, True, True]
    assert trainer.state.global_step == len(below) < 60


def test_an_sft_run_that_diverges_goes_back(tmp_path: Path, tiny: str) -> None:
    """Left alone its loss stays far above a guess; with a rollback it ends below its start."""
    rows = [{"prompt": run_of(i, 3) + " ", "completion": run_of(i + 3, 4)} for i in range(16)]
    blow_up = Divergence(factor=1.0, patience=1)
    rule = Rollback(patience=4, recovery_patience=9, max_rollbacks=6, divergence=blow_up)
    found = {}
    for name, judged in (("alone", Threshold(0.0)), ("rescued", rule)):
        callback = RuleCallback(judged, "eval_loss", "min", factor=0.1 if judged is rule else None)
        trainer = SFTTrainer(
            tiny,
            args=SFTConfig(
                **settings(tmp_path, max_steps=40, learning_rate=3.0),
                max_length=16,
                warmup_steps=20,
                lr_scheduler_type="constant_with_warmup",
                eval_strategy="steps",
                eval_steps=2,
            ),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows),
            callbacks=[callback],
        )
        trainer.train()
        found[name] = logged(trainer, "eval_loss")
    assert found["alone"][-1] > 2 * found["alone"][0]
    assert found["rescued"][-1] < found["rescued"][0]
    assert callback.rollbacks >= 1


@pytest.mark.parametrize(("agree", "steps"), [(True, 8), (False, 3)])
def test_the_dpo_recipe_in_its_trainer(tmp_path: Path, tiny: str, agree: bool, steps: int) -> None:
    """A perfect accuracy ends nothing while the loss falls; two that only worsen do."""
    recipe = recipes.dpo(patience=2)
    callback = RuleCallback(recipe.rule, **recipe.objective)
    answers = [(run_of(i, 3) + " ", run_of(i + 3, 4), "w5 w5 w5 w5") for i in range(16)]
    train = [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in answers]
    opposite = [{"prompt": p, "chosen": bad, "rejected": good} for p, good, bad in answers]
    trainer = DPOTrainer(
        tiny,
        args=DPOConfig(
            **settings(tmp_path, max_steps=8), max_length=16, eval_strategy="steps", eval_steps=1
        ),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(train if agree else opposite),
        callbacks=[callback],
    )
    trainer.train()
    assert set(recipe.rule.reads) <= set().union(*trainer.state.log_history)
    assert set(logged(trainer, "eval_rewards/accuracies")[1:]) == {1.0 if agree else 0.0}
    assert trainer.state.global_step == steps
    assert callback.stopped is not agree
    assert "eval_loss" in callback.reason


def distinct_words(completions: list[str], **unused: Any) -> list[float]:
    """A reward that needs no model."""
    return [float(len(set(completion.split()))) for completion in completions]


def rewarded(folder: Path, tiny: str, callbacks: list[Any], **changes: Any) -> GRPOTrainer:
    """GRPO of the tiny model, not trained yet."""
    rows = Dataset.from_list([{"prompt": run_of(i, 3)} for i in range(16)])
    usual = settings(folder, num_generations=4, per_device_train_batch_size=8)
    return GRPOTrainer(
        tiny,
        reward_funcs=distinct_words,
        args=GRPOConfig(**usual | {"max_completion_length": 4} | changes),
        train_dataset=rows,
        eval_dataset=rows.select(range(2)),
        callbacks=callbacks,
    )


def test_the_grpo_recipe_in_its_trainer(tmp_path: Path, tiny: str) -> None:
    """The third log in a row whose KL is above the limit, as the median of five, ends training."""
    recipe = recipes.grpo(max_kl=0.02)
    callback = RuleCallback(recipe.rule, **recipe.objective)
    trainer = rewarded(tmp_path, tiny, [callback], max_steps=40, beta=0.05)
    trainer.train()
    kls = logged(trainer, "kl")
    above = [median(kls[max(0, i - 4) : i + 1]) > 0.02 for i in range(len(kls))]
    assert above[-4:] == [False, True, True, True]
    assert trainer.state.global_step == len(kls) < 40
    assert "kl: " in callback.reason and "past the threshold 0.02, 3 of 3" in callback.reason
    assert math.isfinite(logged(trainer, "reward")[-1])
    assert set(recipe.rule.reads) <= set().union(*trainer.state.log_history)


def test_without_a_kl_the_grpo_recipe_says_what_turns_it_on(
    tmp_path: Path, tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TRL's default, a beta of 0, logs none: one warning, and the run is judged by the rest."""
    recipe = recipes.grpo(metric="eval_reward", patience=1)
    callback = RuleCallback(recipe.rule, **recipe.objective)
    trainer = rewarded(
        tmp_path, tiny, [callback], learning_rate=0.0, eval_strategy="steps", eval_steps=2, seed=1
    )
    trainer.train()
    (said,) = (r.getMessage() for r in caplog.records if "not logged" in r.getMessage())
    assert "'kl' is not logged" in said and "with beta above 0: GRPOConfig(beta=0.04)" in said
    assert callback.stopped
    assert callback.reason.startswith("Patience: 1 of 1 evaluations without improvement")


def test_a_reward_without_spread_ends_the_run(tmp_path: Path, tiny: str) -> None:
    """Whatever the completion, the reward is the same: nothing is learnt, and ten logs show it."""
    recipe = recipes.rloo(max_kl=None)
    callback = RuleCallback(recipe.rule, **recipe.objective)
    rows = Dataset.from_list([{"prompt": run_of(i, 3)} for i in range(16)])
    trainer = RLOOTrainer(
        tiny,
        reward_funcs=lambda completions, **unused: [1.0] * len(completions),
        args=RLOOConfig(
            **settings(tmp_path, num_generations=4, per_device_train_batch_size=8),
            max_completion_length=4,
        ),
        train_dataset=rows,
        callbacks=[callback],
    )
    trainer.train()
    assert trainer.state.global_step == 10
    assert "frac_reward_zero_std: 1 is past the threshold 0.9, 10 of 10" in callback.reason
    assert set(recipes.rloo().rule.reads) <= set().union(*trainer.state.log_history)
