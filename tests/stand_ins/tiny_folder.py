"""A saved model's folder with a tokenizer, and encoded examples for it, made in milliseconds."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from experiments.lora_tasks import Data, Rows
from tests.stand_ins.tiny import tiny_model


def word_tokenizer() -> PreTrainedTokenizerFast:
    """The words w0 (padding), w1 (end) to w31."""
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0", eos_token="w1")


def tiny_folder(folder: Path) -> Path:
    """Save the tiny model there, with that tokenizer."""
    tiny_model().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def counting_rows(count: int, seed: int) -> Rows:
    """Sequences that count upwards: 8 to 12 tokens, of which 1 to 3 are the prompt."""
    draw = np.random.default_rng(seed)
    end = draw.integers(8, 13, count)
    tokens = draw.integers(0, 20, (count, 1)) + np.arange(12)
    tokens[np.arange(12) >= end[:, None]] = 0
    return Rows(tokens, draw.integers(1, 4, count), end)


def counting_data() -> Data:
    """48 of them to train on, 8 to evaluate."""
    return Data(counting_rows(48, seed=0), counting_rows(8, seed=1))
