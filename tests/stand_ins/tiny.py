"""A language model small enough to train within milliseconds, and data for it."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed


def tiny_model(seed: int = 0, tied: bool = True) -> Any:
    """A randomly initialised Llama of a few thousand weights, the same for the same seed."""
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def tiny_rows(count: int = 16, seed: int = 0) -> list[dict[str, list[int]]]:
    """Sequences that count upwards: learnable."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, 20, (count,), generator=generator).tolist()
    rows = [[start + offset for offset in range(8)] for start in starts]
    return [{"input_ids": row, "attention_mask": [1] * 8, "labels": row} for row in rows]
