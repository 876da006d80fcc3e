"""Short runs of GRPO, RLOO and DPO, healthy and broken on purpose, recorded as TRL logs them.

Two models: a language model of characters, pretrained here for a minute on the docstrings of the
standard library, for many seeds; and SmolLM2-135M with LoRA, for a few.

`python -m benchmarks.reward_runs --model characters --seeds 0-6` adds the runs that the file does
not have yet, and can be interrupted; `benchmarks.reward_alarms` judges them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from benchmarks.reward_alarms import (
    CHARACTERS,
    RECIPES,
    RUNS,
    SETTINGS,
    SMOLLM2,
    Run,
    Setting,
    recorded,
    write,
)
from experiments.docpairs import stdlib_pairs
from experiments.model import add_lora, load, prepare

PROMPT, PRETRAINING, BLOCK = 12, 600, 64  # characters; steps; characters
EVALUATED = 32  # pairs
TARGET = 20  # characters of a completion
KEPT = (
    "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy", "loss", "grad_norm",
    "completions/mean_length", "completions/clipped_ratio",
    "eval_loss", "eval_rewards/accuracies", "eval_rewards/margins", "eval_rewards/chosen",
    "eval_rewards/rejected", "rewards/accuracies", "rewards/margins", "rewards/chosen",
    "rewards/rejected",
)  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """A model to train, with what suits it."""

    name: str
    make: Callable[[int], Any]  # of a seed
    tokenizer: Any
    rates: dict[str, float]  # the usual learning rate of each trainer
    steps: dict[str, int]
    tokens: int  # of a completion, at most
    batch: int  # completions a step; pairs


# --- the models -------------------------------------------------------------------------------


@cache
def texts() -> list[str]:
    """The first paragraphs of docstrings, long enough to be continued."""
    found = (pair.completion for pair in stdlib_pairs())
    rows = (" ".join(text.split()) for text in found)
    return [text for text in rows if len(text) > 3 * PROMPT and text.isascii()]


def characters(folder: Path) -> Policy:
    """The model of characters, pretrained once and kept in `folder`."""
    path = folder / CHARACTERS
    if not (path / "config.json").exists():
        _pretrain(path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    rate, steps = dict.fromkeys(RECIPES, 3e-4), dict.fromkeys(RECIPES, 40)

    def make(seed: int) -> Any:
        return LlamaForCausalLM.from_pretrained(path)

    return Policy(CHARACTERS, make, tokenizer, rate, steps, 24, 16)


def _pretrain(path: Path) -> None:
    rows = texts()
    known = sorted(set("".join(rows)))
    core = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(["<pad>", "<end>", *known])}, "<pad>")
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(known) + 2,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    stream = torch.tensor([i for row in rows for i in (*tokenizer(row)["input_ids"], 1)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, PRETRAINING)
    for _ in range(PRETRAINING):
        starts = torch.randint(0, len(stream) - BLOCK, (32,)).tolist()
        batch = torch.stack([stream[start : start + BLOCK] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"pretrained to a loss of {loss.item():.2f} nats a character", flush=True)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def smollm2(folder: Path) -> Policy:
    """SmolLM2-135M with LoRA, in f32."""
    _, tokenizer = load(prepare(), dtype=torch.float32)

    def make(seed: int) -> Any:
        model, _ = load(prepare(), dtype=torch.float32)
        return add_lora(model, 8, seed=seed)

    rate, steps = dict.fromkeys(RECIPES, 2e-4), dict.fromkeys(RECIPES, 20)
    return Policy(SMOLLM2, make, tokenizer, rate, steps, 16, 4)


MODELS = {CHARACTERS: characters, SMOLLM2: smollm2}

# --- the rewards and the pairs ----------------------------------------------------------------


def reward_of(kind: str) -> Callable[..., list[float]]:
    """The reward function: of words that docstrings have and a length near the target, or not."""
    known = {word for text in texts() for word in text.split()}

    def fitting(completions: list[str], **unused: Any) -> list[float]:
        return [_fits(completion, known) for completion in completions]

    def constant(completions: list[str], **unused: Any) -> list[float]:
        return [1.0 for _ in completions]

    def length(completions: list[str], **unused: Any) -> list[float]:
        return [len(completion) / TARGET for completion in completions]

    return {"fitting": fitting, "constant": constant, "length": length}[kind]


def _fits(text: str, known: set[str]) -> float:
    words = text.split()
    share = sum(word in known for word in words) / len(words) if words else 0.0
    return share / 2 + max(0.0, 1 - abs(len(text) - TARGET) / TARGET) / 2


def prompts(seed: int) -> Dataset:
    """Beginnings of docstrings."""
    return Dataset.from_list([{"prompt": text[:PROMPT]} for text in _drawn(256, seed)])


def pairs(kind: str, seed: int) -> tuple[Dataset, Dataset]:
    """To train on, and to evaluate on."""
    drawn = _drawn(256 + EVALUATED, seed)
    end = PROMPT + 24
    rows = []
    for text in drawn:
        own = text[PROMPT:end]
        other = misspelt(own)
        if kind == "same":
            other = own
        if kind == "chance" and torch.rand(()) < 0.5:
            own, other = other, own
        rows.append({"prompt": text[:PROMPT], "chosen": own, "rejected": other})
    return Dataset.from_list(rows[EVALUATED:]), Dataset.from_list(rows[:EVALUATED])


def misspelt(text: str) -> str:
    """With two letters swapped in each longer word."""
    words = text.split(" ")
    swapped = (w[0] + w[2] + w[1] + w[3:] if len(w) > 3 else w for w in words)
    return " ".join(swapped)


def _drawn(count: int, seed: int) -> list[str]:
    rows = texts()
    set_seed(seed)
    return [rows[i] for i in torch.randperm(len(rows))[:count].tolist()]


# --- training ---------------------------------------------------------------------------------


def train(policy: Policy, setting: Setting, seed: int, callbacks: Sequence[Any] = ()) -> Any:
    """The trainer, after its run; its log is in `state.log_history`."""
    usual: dict[str, Any] = {
        "max_steps": policy.steps[setting.trainer],
        "learning_rate": policy.rates[setting.trainer] * setting.faster,
        "beta": setting.beta,
        "per_device_train_batch_size": policy.batch,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
        "seed": seed,
    }
    model = policy.make(seed)
    with tempfile.TemporaryDirectory() as folder:
        common = {"model": model, "processing_class": policy.tokenizer, "callbacks": [*callbacks]}
        if setting.trainer == "dpo":
            training, evaluated = pairs(setting.data, seed)
            trainer: Any = DPOTrainer(
                **common,
                args=DPOConfig(
                    output_dir=folder, **usual, max_length=64, eval_strategy="steps", eval_steps=4,
                    per_device_eval_batch_size=policy.batch,
                ),
                train_dataset=training,
                eval_dataset=evaluated.select(range(min(EVALUATED, 2 * policy.batch))),
            )  # fmt: skip
        else:
            kinds: dict[str, Any] = {
                "grpo": (GRPOTrainer, GRPOConfig),
                "rloo": (RLOOTrainer, RLOOConfig),
            }
            make, config = kinds[setting.trainer]
            trainer = make(
                **common,
                reward_funcs=reward_of(setting.data),
                args=config(
                    output_dir=folder, **usual, num_generations=4,
                    max_completion_length=policy.tokens,
                ),
                train_dataset=prompts(seed),
            )  # fmt: skip
        trainer.train()
    return trainer


def curves(history: Sequence[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """{metric: [steps, values]}, to four digits."""
    found: dict[str, list[list[float]]] = {}
    for row in history:
        for key in KEPT:
            if isinstance(row.get(key), (int, float)):
                steps, values = found.setdefault(key, [[], []])
                steps.append(row["step"])
                values.append(float(f"{row[key]:.4g}"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the file does not have yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward_runs")
    parser.add_argument("path", type=Path, nargs="?", default=RUNS)
    parser.add_argument("--model", choices=MODELS, default=CHARACTERS)
    parser.add_argument("--seeds", default="0-8", help="first-last")
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no run after these")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    disable_progress_bars()
    torch.set_num_threads(1)
    policy = MODELS[given.model](Path(tempfile.gettempdir()) / "reward_runs")
    runs = recorded(given.path)
    done = {(run.model, run.setting, run.seed) for run in runs}
    first, _, last = given.seeds.partition("-")
    for seed in range(int(first), int(last or first) + 1):
        for name in given.settings:
            if (policy.name, name, seed) in done:
                continue
            if time.monotonic() - began > 60 * given.minutes:
                return
            start = time.monotonic()
            trainer = train(policy, SETTINGS[name], seed)
            seconds = round(time.monotonic() - start, 1)
            runs.append(Run(policy.name, name, seed, seconds, curves(trainer.state.log_history)))
            write(given.path, runs)
            print(f"{policy.name}, {name}, seed {seed}: {seconds} s", flush=True)


if __name__ == "__main__":
    main()
