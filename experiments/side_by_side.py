"""LoRA fine-tunes trained side by side, in one process over one frozen model.

The rows of a batch belong to the trials in turn; the frozen layers see them as one batch, and the
low-rank adapters (Hu et al. 2021) of all trials are two batched products a layer. What a trial
computes depends on no other: each has its own adapters, optimizer state, schedule and order of
data, and the same losses as by itself. A trial that diverges spoils its own rows only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.lora_tasks import Data, Rows
from experiments.record_sweep import rate_share

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
TARGETS = {  # the layers that are adapted, by their names in the Llama family
    "qv": ("q_proj", "v_proj"),
    "attention": _ATTENTION,
    "mlp": _FEED_FORWARD,
    "all": _ATTENTION + _FEED_FORWARD,
}


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Those of one trial; what its search space leaves out stays at its default here."""

    learning_rate: float  # the peak
    lora_rank: int = 8
    alpha_ratio: float = 2.0  # alpha / rank, the factor of the adapters' output
    targets: str = "qv"
    layers: str = "all"  # or "upper": the upper half of the model only
    init_scale: float = 1.0  # of the first weights, 1 as in peft
    batch_size: int = 16
    schedule: str = "linear"
    warmup: float = 0.0  # share of the steps
    min_lr_ratio: float = 0.0  # the share of the peak that the schedule ends at
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = 1.0  # 0: no clipping
    lr_ratio_b: float = 1.0  # rate of B over that of A: LoRA+ (Hayou et al. 2024)

    def rank_in(self, name: str, depth: float) -> int:
        """The rank in the layer of this name, `depth` between 0 (input) and 1 (output)."""
        adapted = name in TARGETS[self.targets] and (self.layers == "all" or depth >= 0.5)
        return self.lora_rank if adapted else 0

    def rate_at(self, progress: float) -> float:
        """The learning rate at this share of the steps, 0 to 1."""
        share = rate_share(self.schedule, self.warmup, progress)
        if progress >= self.warmup:
            share = self.min_lr_ratio + (1.0 - self.min_lr_ratio) * share
        return self.learning_rate * share


class AdaptedLinear(nn.Module):
    """A frozen linear layer, and the adapters of the first `len(a)` of `trials` trials.

    Ranks below the largest are padded with zeros in both factors: then both gradients are zero
    there, and the padding stays zero.
    """

    def __init__(self, base: nn.Linear, a: Tensor, b: Tensor, scale: Tensor, trials: int) -> None:
        super().__init__()
        self.base, self.trials = base, trials
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)  # (n, rank, in), (n, out, rank)
        self.scale = scale.view(-1, 1, 1)  # alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        n = len(self.a)
        rows = len(x) // self.trials * n
        own = x[:rows].reshape(n, -1, x.shape[-1])
        low = torch.bmm(own, self.a.to(x.dtype).transpose(1, 2)) * self.scale.to(x.dtype)
        kept = out[:rows].reshape(n, -1, out.shape[-1])
        adapted = torch.baddbmm(kept, low, self.b.to(x.dtype).transpose(1, 2))
        adapted = adapted.view(rows, *out.shape[1:])
        return adapted if n == self.trials else torch.cat((adapted, out[rows:]))


class SideBySide:
    """The adapters of several trials on one model, which is changed in place.

    `weights` and `gradients` are (trials, parameters): each layer's adapters are views of them, and
    so are the parameters of the optimizer, A and B of each trial. Trials that adapt more layers
    should come first, as a layer holds the adapters of all up to the last that it needs.
    """

    def __init__(self, model: Any, trials: Sequence[Hyperparameters], seeds: Sequence[int]) -> None:
        self.model, self.trials = model.eval().requires_grad_(False), list(trials)
        self.device = next(model.parameters()).device
        layers = [
            (name, layer) for name, layer in model.named_modules() if _is_adapted(name, layer)
        ]
        plan = []  # of each layer that some trial adapts
        for index, (name, layer) in enumerate(layers):
            depth = index / len(layers)
            ranks = [trial.rank_in(name.rpartition(".")[2], depth) for trial in trials]
            count = max((i + 1 for i, rank in enumerate(ranks) if rank), default=0)
            if count:
                plan.append((name, layer, ranks[:count], max(ranks)))
        self.size_a = sum(rank * layer.in_features for _, layer, _, rank in plan)
        size = self.size_a + sum(rank * layer.out_features for _, layer, _, rank in plan)
        self.weights = torch.zeros(len(trials), size, device=self.device)
        self.gradients = torch.zeros_like(self.weights)
        scale = torch.tensor([trial.alpha_ratio for trial in trials], device=self.device)
        at_a, at_b = 0, self.size_a
        draws = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        for name, layer, ranks, rank in plan:
            n, fan_in, fan_out = len(ranks), layer.in_features, layer.out_features
            to_a, to_b = at_a + rank * fan_in, at_b + rank * fan_out
            a = self.weights[:n, at_a:to_a].view(n, rank, fan_in)
            b = self.weights[:n, at_b:to_b].view(n, fan_out, rank)
            for i, own in enumerate(ranks):  # as peft: uniform, with the bound of kaiming(√5)
                bound = trials[i].init_scale / math.sqrt(fan_in)
                a[i, :own].uniform_(-bound, bound, generator=draws[i])
            adapted = AdaptedLinear(layer, a, b, scale[:n], len(trials))
            _collect(adapted.a, self.gradients[:n, at_a:to_a].view_as(a))
            _collect(adapted.b, self.gradients[:n, at_b:to_b].view_as(b))
            parent, _, own_name = name.rpartition(".")
            setattr(model.get_submodule(parent), own_name, adapted)
            at_a, at_b = to_a, to_b
        self.parameters = [
            (nn.Parameter(row[: self.size_a]), nn.Parameter(row[self.size_a :]))
            for row in self.weights
        ]
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [parameter],
                    "lr": 0.0,
                    "betas": (trial.beta1, trial.beta2),
                    "weight_decay": trial.weight_decay,
                }
                for trial, pair in zip(trials, self.parameters, strict=True)
                for parameter in pair
            ],
            fused=self.device.type == "cuda",
        )

    def answers(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each answer token in `rows`, its trial, and whether it is the likeliest.

        The rows are those of the first trial, then as many of the second, and so on.
        """
        width = rows.tokens.shape[1]
        at = np.arange(1, width)
        asked = (at >= rows.first[:, None]) & (at < rows.end[:, None])
        row, before = np.nonzero(asked)
        tokens = self._on_device(rows.tokens)
        hidden = self.model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
        picked = hidden.flatten(0, 1)[self._on_device(row * width + before)]
        logits = self.model.get_output_embeddings()(picked).float()
        expected = self._on_device(rows.tokens[row, before + 1])
        losses = functional.cross_entropy(logits, expected, reduction="none")
        trial = self._on_device(row // (len(rows) // len(self.trials)))
        return losses, trial, logits.detach().argmax(dim=-1) == expected

    def totals(self, values: Tensor, trial: Tensor) -> Tensor:
        """The sum of the values of each trial."""
        return torch.zeros(len(self.trials), device=self.device).index_add(0, trial, values.float())

    def backward(self, rows: Rows, tokens_of_batch: npt.NDArray[np.int64]) -> Tensor:
        """Add the gradients of these rows, their share of a batch; the summed loss by trial."""
        losses, trial, _ = self.answers(rows)
        weight = self._on_device(1.0 / tokens_of_batch).float()
        torch.autograd.backward((losses * weight[trial]).sum())
        return self.totals(losses.detach(), trial)

    def step(self, rates: Mapping[int, float]) -> Tensor:
        """A step of the optimizer for the trials in `rates`, at these learning rates.

        Returns the gradient norm of every trial, before clipping.
        """
        # in f64, so that the padding of other trials' ranks does not change the rounding
        norms: Tensor = torch.linalg.vector_norm(self.gradients, dim=1, dtype=torch.float64).float()
        limits = torch.tensor([t.max_grad_norm or math.inf for t in self.trials]).to(self.device)
        moving = torch.tensor([i in rates for i in range(len(self.trials))]).to(self.device)
        factor = torch.where(moving, (limits / (norms + 1e-6)).clamp(max=1.0), 1.0)
        self.gradients.mul_(factor[:, None])
        for i, (a, b) in enumerate(self.parameters):
            own = self.gradients[i] if i in rates else None
            a.grad = None if own is None else own[: self.size_a]
            b.grad = None if own is None else own[self.size_a :]
            rate = rates.get(i, 0.0)
            self.optimizer.param_groups[2 * i]["lr"] = rate
            self.optimizer.param_groups[2 * i + 1]["lr"] = rate * self.trials[i].lr_ratio_b
        self.optimizer.step()
        self.gradients.index_fill_(0, self._on_device(np.array(sorted(rates))), 0.0)
        return norms

    @torch.no_grad()
    def evaluate(self, rows: Rows, at_once: int) -> tuple[list[float], list[float]]:
        """The mean loss and accuracy of each trial over the answer tokens of the same rows."""
        loss = torch.zeros(len(self.trials), device=self.device)
        right = torch.zeros_like(loss)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            every = part[np.tile(np.arange(len(part)), len(self.trials))]
            losses, trial, correct = self.answers(every)
            loss += self.totals(losses, trial)
            right += self.totals(correct, trial)
        count = int((rows.end - rows.first).sum())
        return (loss / count).tolist(), (right / count).tolist()

    def _on_device(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)


def _is_adapted(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and name.rpartition(".")[2] in TARGETS["all"]


def _collect(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Let what backward finds for `parameter` be added to `gradient`."""

    def add(leaf: Tensor) -> None:
        if leaf.grad is not None:
            gradient.add_(leaf.grad)
        leaf.grad = None

    parameter.register_post_accumulate_grad_hook(add)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Plan:
    """What all trials of a recording share."""

    examples: int  # seen by each trial in all, over as many epochs as that takes
    evaluations: int  # evenly over the run
    part: int = 8  # examples of each trial in one pass; every batch is a multiple of it
    eval_part: int = 16  # the same in an evaluation


def order_of(seed: int, rows: int, examples: int) -> npt.NDArray[np.int64]:
    """The rows that a trial of this seed sees, in order: one permutation after the other."""
    draw = np.random.default_rng(seed)
    epochs = [draw.permutation(rows) for _ in range(-(-examples // rows))]
    return np.concatenate(epochs)[:examples]


def train(
    model: Any, trials: Sequence[Hyperparameters], seeds: Sequence[int], data: Data, plan: Plan
) -> list[list[dict[str, float]]]:
    """Train all trials to their ends; the rows of each, one an evaluation.

    All are evaluated after the same number of examples, where each has taken a whole step. A batch
    larger than `plan.part` is the sum of several.

    Raises `ValueError` where batches, parts and examples do not fit.
    """
    sizes, part = [trial.batch_size for trial in trials], plan.part
    whole = math.lcm(part, *sizes)
    if any(size % part for size in sizes):
        raise ValueError(f"batches must be multiples of {part=}, got {sorted(set(sizes))}.")
    if plan.examples % whole or plan.examples < whole * plan.evaluations:
        raise ValueError(
            f"examples must be a multiple of {whole} (batches of {sorted(set(sizes))}), and "
            f"{whole} at least for each of {plan.evaluations} evaluations, got {plan.examples}."
        )
    together = SideBySide(model, trials, seeds)
    orders = [order_of(seed, len(data.train), plan.examples) for seed in seeds]
    answer = data.train.end - data.train.first
    due = {
        round(k * plan.examples / plan.evaluations / whole) * whole
        for k in range(1, plan.evaluations + 1)
    }
    reports: list[list[dict[str, float]]] = [[] for _ in trials]
    sums = torch.zeros(len(trials), device=together.device)
    norms = torch.zeros_like(sums)
    counts = np.zeros(len(trials))
    rate = [0.0] * len(trials)
    for seen in range(0, plan.examples, part):
        picked = np.stack([order[seen : seen + part] for order in orders])
        begins = [seen // size * size for size in sizes]
        batch_tokens = np.array(
            [answer[o[b : b + s]].sum() for o, b, s in zip(orders, begins, sizes, strict=True)]
        )
        sums += together.backward(data.train[picked.flatten()], batch_tokens)
        counts += answer[picked].sum(axis=1)
        done = seen + part
        moving = [i for i, size in enumerate(sizes) if done % size == 0]
        for i in moving:  # at the middle of the step, so that no schedule's last step is nothing
            rate[i] = trials[i].rate_at((done - sizes[i] / 2) / plan.examples)
        if moving:
            new = together.step({i: rate[i] for i in moving})
            norms[moving] = new[moving]
        if done not in due:
            continue
        losses, accuracies = together.evaluate(data.evaluation, plan.eval_part)
        trained, measured = (sums.cpu().numpy() / counts).tolist(), norms.tolist()
        for i, rows in enumerate(reports):
            rows.append(
                {
                    "training_iteration": len(rows) + 1,
                    "step": done // sizes[i],
                    "eval_loss": losses[i],
                    "eval_accuracy": accuracies[i],
                    "train_loss": trained[i],
                    "grad_norm": measured[i],
                    "lr": rate[i],
                    "examples": done,
                    "progress": done / plan.examples,
                }
            )
        sums.zero_()
        counts[:] = 0
    return reports
