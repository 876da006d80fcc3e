"""A state is put back whole or not at all, and resumes a plain loop bit for bit."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tune_stoppers import load_state, save_state
from tune_stoppers.training.snapshot import StateMismatchError

Parts = tuple[Any, Any, Any]


def made(width: int = 3, groups: int = 1) -> Parts:
    """Model, optimizer with momenta, and a schedule of two parts."""
    model = nn.Sequential(nn.Linear(2, width), nn.Dropout(0.5), nn.Linear(width, 1))
    parameters = list(model.parameters())
    cut = len(parameters) // groups
    optimizer = torch.optim.AdamW(
        [{"params": parameters[g * cut : (g + 1) * cut]} for g in range(groups)], lr=0.05
    )
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[3])
    return model, optimizer, schedule


def steps(parts: Parts, count: int) -> list[float]:
    """The losses of training on noise from three generators."""
    model, optimizer, schedule = parts
    losses = []
    for _ in range(count):
        batch = torch.randn(4, 2) * random.random() + float(np.random.rand())
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def seen(parts: Parts) -> list[str]:
    """All that could have been changed, as text."""
    return [repr(copy.deepcopy(part.state_dict())) for part in parts] + [
        str(torch.get_rng_state().sum()),
        str(random.getstate()),
    ]


def test_a_plain_loop_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Weights, momenta, schedule, dropout, and all three generators; with what was added."""
    torch.manual_seed(0)
    whole = made()
    steps(whole, 5)
    save_state(tmp_path / "state", *whole, step=5, best=[0.5, None], mask=torch.arange(3))
    expected = steps(whole, 6)
    fresh = made()
    steps(fresh, 2)
    extra = load_state(tmp_path / "state", *fresh)
    assert steps(fresh, 6) == expected
    assert (extra["step"], extra["best"], extra["mask"].tolist()) == (5, [0.5, None], [0, 1, 2])


@pytest.mark.parametrize(("given", "same"), [(None, False), (True, True)])
def test_the_generators_go_with_the_optimizer_or_as_told(
    tmp_path: Path, given: bool | None, same: bool
) -> None:
    """Weights alone leave them as they are, unless asked."""
    model, _, _ = made()
    save_state(tmp_path / "state", model)
    expected = torch.rand(1)
    load_state(tmp_path / "state", model, random_state=given)
    assert torch.equal(torch.rand(1), expected) is same


def test_what_was_added_can_be_read_alone(tmp_path: Path) -> None:
    """Without a model; a folder that is not empty is refused."""
    save_state(tmp_path, nn.Linear(1, 1), step=3)
    assert load_state(tmp_path) == {"step": 3}
    with pytest.raises(FileExistsError, match="is not empty"):
        save_state(tmp_path, nn.Linear(1, 1))


def wider() -> Parts:
    return made(width=4)


def other_optimizer() -> Parts:
    """The same groups, but moments of other shapes."""
    model, _, _ = made()
    strange = [nn.Parameter(torch.zeros(5)) for _ in model.parameters()]
    optimizer = torch.optim.AdamW(strange, lr=0.05)
    return model, optimizer, made()[2]


def grouped() -> Parts:
    model, _, schedule = made()
    return model, made(groups=2)[1], schedule


def other_schedule() -> Parts:
    model, optimizer, _ = made()
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3)


def shorter_sequence() -> Parts:
    """A sequence of three, where two were kept."""
    model, optimizer, _ = made()
    inner = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1) for _ in range(3)]
    sequence = torch.optim.lr_scheduler.SequentialLR(optimizer, inner, milestones=[1, 2])
    return model, optimizer, sequence


class Halfway:
    """Fails when a part of it has been loaded."""

    def __init__(self) -> None:
        self.inner = {"count": 0}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.inner)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner["count"] = -1
        self.inner["count"] = state["count"]


def failing_halfway() -> Parts:
    """The optimizer has been loaded by then."""
    model, optimizer, _ = made()
    return model, optimizer, Halfway()


class Picky(nn.Linear):
    """Refuses its extra state."""

    def get_extra_state(self) -> Any:
        return {"kind": "picky"}

    def set_extra_state(self, state: Any) -> None:
        raise ValueError("not mine")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (wider, r"0\.bias \(3,\) kept, \(4,\) in the model"),
        (other_optimizer, r"exp_avg of parameter 0 \(3, 2\) kept, \(5,\) in the optimizer"),
        (grouped, "groups of 4 parameters kept, of 2, 2 in the optimizer"),
        (other_schedule, r"gamma, step_size missing in it"),
        (shorter_sequence, "2 schedules in it, not 3"),
        (failing_halfway, "scheduler state does not fit: 'count'"),
    ],
)
@pytest.mark.parametrize("way", ["ours", "torch"])
def test_what_does_not_fit_changes_nothing(
    tmp_path: Path, make: Callable[[], Parts], said: str, way: str
) -> None:
    """Neither model, optimizer, schedule nor generators, whichever of them it is."""
    torch.manual_seed(0)
    whole = made()
    steps(whole, 4)
    if way == "ours":
        save_state(tmp_path / "state", *whole)
    else:
        (tmp_path / "state").mkdir()
        names = ("model", "optimizer", "scheduler")
        saved = {name: part.state_dict() for name, part in zip(names, whole, strict=True)}
        torch.save(saved, tmp_path / "state" / "checkpoint.pt")
    target = make()
    before = seen(target)
    with pytest.raises(StateMismatchError, match=said) as error:
        load_state(tmp_path / "state", *target)
    assert str(tmp_path / "state") in str(error.value)
    assert seen(target) == before


def test_a_module_that_refuses_its_extra_state_changes_nothing(tmp_path: Path) -> None:
    """The optimizer, loaded by then, is put back."""
    model = Picky(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    save_state(tmp_path / "state", model, optimizer)
    fresh = Picky(1, 1)
    other = torch.optim.SGD(fresh.parameters(), lr=0.5)
    before = repr(fresh.state_dict()), repr(other.state_dict())
    with pytest.raises(ValueError, match="not mine"):
        load_state(tmp_path / "state", fresh, other)
    assert (repr(fresh.state_dict()), repr(other.state_dict())) == before
