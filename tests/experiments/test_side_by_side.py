"""Trials trained side by side: each as if by itself, on the model that Transformers would run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from experiments.lora_tasks import Rows
from experiments.side_by_side import Hyperparameters, Plan, SideBySide, order_of, train
from tests.stand_ins.tiny import tiny_model
from tests.stand_ins.tiny_folder import counting_data

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PLAN = Plan(examples=128, evaluations=4, eval_part=3)
TRIALS = [  # of different ranks, layers, batches and clipping; the third diverges
    Hyperparameters(learning_rate=3e-2, targets="all", lora_rank=4, batch_size=8, schedule="wsd"),
    Hyperparameters(
        learning_rate=2e-2, targets="attention", lora_rank=4, batch_size=16, warmup=0.2,
        max_grad_norm=0.1, beta1=0.8, beta2=0.95, weight_decay=0.1, lr_ratio_b=4.0,
    ),
    Hyperparameters(learning_rate=math.inf, targets="mlp", alpha_ratio=4.0, batch_size=8),
    Hyperparameters(learning_rate=2e-2, layers="upper", lora_rank=4, batch_size=32),
]  # fmt: skip


DATA = counting_data()


def run(trials: Sequence[Hyperparameters], seeds: Sequence[int]) -> list[list[dict[str, float]]]:
    return train(tiny_model(), trials, seeds, DATA, PLAN)


@pytest.fixture(scope="module")
def together() -> list[list[dict[str, float]]]:
    return run(TRIALS, [5, 6, 7, 8])


@pytest.mark.parametrize("index", range(len(TRIALS)))
def test_a_trial_is_what_it_is_alone(together: list[Any], index: int) -> None:
    """Bit for bit in f32: whatever the others are, and also where one of them diverges."""
    alone = run([TRIALS[index]], [5 + index])[0]
    assert str(together[index]) == str(alone)  # as text, so that NaN equals NaN


def test_trials_learn_and_diverge(together: list[Any]) -> None:
    """Otherwise the comparison above would say little."""
    last = [reports[-1]["eval_loss"] for reports in together]
    assert last[0] < last[1] < last[3] < 3.475  # what the untrained model has
    assert last[0] < 3.3
    assert math.isnan(last[2])


def test_rows_say_where_a_trial_is(together: list[Any]) -> None:
    """All are evaluated after the same examples; steps depend on the batch."""
    assert [[row["examples"] for row in reports] for reports in together] == [[32, 64, 96, 128]] * 4
    assert [reports[-1]["step"] for reports in together] == [16, 8, 16, 4]
    assert [row["progress"] for row in together[0]] == [0.25, 0.5, 0.75, 1.0]


def test_the_base_is_transformers_own() -> None:
    """Before the first step the loss of a trial is the model's own, as Transformers computes it."""
    some = DATA.evaluation
    with torch.no_grad():
        expected = float(_loss(tiny_model(), some))
    losses, _ = SideBySide(tiny_model(), TRIALS, [1, 2, 3, 4]).evaluate(some, at_once=8)
    assert losses == pytest.approx([expected] * 4, rel=1e-6)


def test_a_trial_is_a_fine_tune_with_peft(together: list[Any]) -> None:
    """The same losses as a plain loop with peft's adapters, torch's AdamW and its clipping."""
    hp, seed = TRIALS[1], 6
    own = SideBySide(tiny_model(), [hp], [seed])
    config = LoraConfig(
        r=hp.lora_rank,
        lora_alpha=int(hp.alpha_ratio * hp.lora_rank),
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    )
    model = get_peft_model(tiny_model(), config)
    a, b = [], []
    for name, layer in own.model.named_modules():
        if not hasattr(layer, "a"):
            continue
        adapter = model.get_submodule(f"base_model.model.{name}")
        adapter.lora_A["default"].weight.data.copy_(layer.a[0])
        a.append(adapter.lora_A["default"].weight)
        b.append(adapter.lora_B["default"].weight)
    groups = [{"params": a}, {"params": b}]
    optimizer = torch.optim.AdamW(groups, betas=(hp.beta1, hp.beta2), weight_decay=hp.weight_decay)
    order = order_of(seed, len(DATA.train), PLAN.examples)
    for step in range(PLAN.examples // hp.batch_size):
        picked = DATA.train[order[step * hp.batch_size :][: hp.batch_size]]
        rate = hp.rate_at((step + 0.5) * hp.batch_size / PLAN.examples)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.param_groups[1]["lr"] = rate * hp.lr_ratio_b
        optimizer.zero_grad()
        _loss(model, picked).backward()
        norm = torch.nn.utils.clip_grad_norm_(a + b, hp.max_grad_norm)
        optimizer.step()
    last = together[1][-1]
    assert float(norm) == pytest.approx(last["grad_norm"], rel=1e-3)
    with torch.no_grad():
        assert float(_loss(model, DATA.evaluation)) == pytest.approx(last["eval_loss"], rel=1e-4)


def _loss(model: Any, picked: Rows) -> torch.Tensor:
    tokens = torch.from_numpy(picked.tokens)
    labels = tokens.clone()
    at = torch.arange(labels.shape[1])
    first, end = (torch.from_numpy(x)[:, None] for x in (picked.first, picked.end))
    labels[(at < first) | (at >= end)] = -100
    loss: torch.Tensor = model(input_ids=tokens, labels=labels).loss
    return loss


def test_padding_stays_zero() -> None:
    """A trial whose rank is smaller than another's has no weights beyond its own."""
    own = SideBySide(tiny_model(), TRIALS, [1, 2, 3, 4])
    for _ in range(2):
        own.backward(DATA.train[np.arange(16)], np.full(4, 40))
        own.step({0: 0.01, 1: 0.01, 3: 0.01})
    q = own.model.get_submodule("model.layers.0.self_attn.q_proj")
    down = own.model.get_submodule("model.layers.1.mlp.down_proj")
    assert q.a[1, :4].ne(0).all() and q.b[1, :, :4].ne(0).all()
    assert q.a[1, 4:].eq(0).all() and q.b[1, :, 4:].eq(0).all()
    assert len(q.a) == 2 and len(down.a) == 3  # the upper half of q is in layer 1
    assert down.a[1].eq(0).all()  # attention only


def test_examples_must_fill_the_batches() -> None:
    """What cannot be evaluated at whole steps is refused."""
    with pytest.raises(ValueError, match="multiples of part=5, got"):
        train(tiny_model(), TRIALS, [1, 2, 3, 4], DATA, Plan(examples=160, evaluations=4, part=5))
    with pytest.raises(ValueError, match="a multiple of 32"):
        train(tiny_model(), TRIALS, [1, 2, 3, 4], DATA, Plan(examples=120, evaluations=3))
    with pytest.raises(ValueError, match="at least for each of 5"):
        train(tiny_model(), TRIALS, [1, 2, 3, 4], DATA, Plan(examples=128, evaluations=5))
