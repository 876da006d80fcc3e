"""Taking a state from live objects and putting it back, whatever wraps the model."""

from functools import partial

import pytest
import torch
from torch import nn

from tune_stoppers import BestStateKeeper, load_state, save_state
from tune_stoppers.training.snapshot import StateMismatchError


def trained(model, **options):
    """An AdamW with momenta for `model`, and a schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3)


def test_a_model_that_does_not_fit_is_told_by_name(tmp_path):
    """One error lists missing, unknown and differently shaped names, and changes no weight."""
    save_state(tmp_path / "state", nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}))
    other = nn.ModuleDict({"a": nn.Linear(3, 2), "c": nn.Linear(2, 2)})
    before = other["a"].bias.detach().clone()
    with pytest.raises(StateMismatchError) as error:
        load_state(tmp_path / "state", other)
    assert str(error.value) == (
        f"{tmp_path / 'state'}: the kept state does not fit the model: "
        "c.bias, c.weight missing in the kept state; "
        "b.bias, b.weight unknown to the model; "
        "a.weight (2, 2) kept, (2, 3) in the model of another shape"
    )
    assert torch.equal(other["a"].bias, before)


def test_a_long_list_of_names_is_cut(tmp_path):
    """Only the first few names are listed, with the number of the others."""
    save_state(tmp_path / "state", nn.Sequential())
    with pytest.raises(StateMismatchError, match=r"0\.bias, 0\.weight, 1\.bias and 7 more missing"):
        load_state(tmp_path / "state", nn.Sequential(*(nn.Linear(1, 1) for _ in range(5))))


@pytest.mark.parametrize("kind", ["optimizer", "scheduler"])
def test_a_part_that_was_not_kept_cannot_be_restored(kind):
    """Asking for a part that was not offered says what to do and changes nothing."""
    model, keeper = nn.Linear(1, 1), BestStateKeeper()
    parts = dict(zip(("optimizer", "scheduler"), trained(model), strict=True))
    keeper.offer(1, 1.0, model)
    nn.init.zeros_(model.weight)
    with pytest.raises(StateMismatchError, match=f"kept without its {kind}: pass {kind}="):
        keeper.restore(model, **{kind: parts[kind]})
    assert model.weight.item() == 0.0


def test_an_optimizer_that_does_not_fit_changes_no_weight():
    """When torch refuses the optimizer state, the weights stay as they are."""
    model, keeper = nn.Linear(1, 1), BestStateKeeper()
    keeper.offer(1, 1.0, model, *trained(model))
    nn.init.zeros_(model.weight)
    grouped = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])
    with pytest.raises(StateMismatchError, match="the kept optimizer state does not fit: "):
        keeper.restore(model, grouped)
    assert model.weight.item() == 0.0


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_wrappers_do_not_change_the_names(tmp_path, wrap):
    """A state kept through `torch.compile` or data parallel loads into the bare model, and back."""
    model, bare = nn.Linear(2, 2), nn.Linear(2, 2)
    save_state(tmp_path / "wrapped", wrap(model))
    load_state(tmp_path / "wrapped", bare)
    assert torch.equal(model.weight, bare.weight)
    save_state(tmp_path / "bare", bare)
    load_state(tmp_path / "bare", wrap(nn.Linear(2, 2)))


def test_trainable_only_includes_running_statistics(tmp_path):
    """Frozen weights are left out; statistics that move without a gradient are not."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    model(torch.randn(8, 2))
    save_state(tmp_path / "state", model, trainable_only=True)
    fresh = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    fresh.load_state_dict({**model.state_dict(), **fresh.state_dict()})
    fresh.requires_grad_(False)
    frozen = fresh[0].weight.clone()
    load_state(tmp_path / "state", fresh)
    assert torch.equal(fresh[0].weight, frozen)
    assert torch.equal(fresh[1].running_mean, model[1].running_mean)
    assert torch.equal(fresh[2].weight, model[2].weight)


def test_trainable_only_of_a_frozen_model_is_an_error():
    """Keeping nothing at all is refused instead of done in silence."""
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient"):
        BestStateKeeper(trainable_only=True).offer(1, 1.0, nn.Linear(1, 1).requires_grad_(False))


def test_a_module_keeps_its_own_extra_state(tmp_path):
    """What a module returns from `get_extra_state` comes back to it."""

    class Counting(nn.Linear):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    model, fresh = Counting(1, 1), Counting(1, 1)
    model.count = 3
    save_state(tmp_path / "state", model)
    load_state(tmp_path / "state", fresh)
    assert fresh.count == 3


def test_optimizer_state_is_cast_as_torch_does(tmp_path):
    """Momenta kept in float32 become those of a bfloat16 model."""
    model = nn.Linear(2, 2)
    optimizer, _ = trained(model)
    save_state(tmp_path / "state", model, optimizer)
    half = nn.Linear(2, 2).bfloat16()
    half_optimizer = torch.optim.AdamW(half.parameters())
    load_state(tmp_path / "state", half, half_optimizer)
    assert half_optimizer.state[half.weight]["exp_avg"].dtype == torch.bfloat16
    assert half_optimizer.param_groups[0]["lr"] == 0.1


def test_a_model_without_values_cannot_be_kept():
    """A parameter on the meta device is named instead of stored as nothing."""
    with pytest.raises(ValueError, match="cannot keep weight: it is on the meta device"):
        BestStateKeeper().offer(1, 1.0, nn.Linear(1, 1, device="meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_on_the_gpu_is_kept_as_it_was_when_offered():
    """The copy that the loop does not wait for holds the offered values, not later ones."""
    model, keeper = nn.Linear(2048, 2048, device="cuda"), BestStateKeeper()
    expected = model.weight.detach().cpu().clone()
    keeper.offer(1, 1.0, model)
    with torch.no_grad():
        for _ in range(100):
            model.weight.add_(1.0)
    keeper.restore(model)
    assert torch.equal(model.weight.cpu(), expected)
