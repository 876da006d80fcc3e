"""Putting a kept state back: all of what is asked for, or nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tune_stoppers.training.snapshot import (
    Snapshot,
    Stateful,
    StateMismatchError,
    clone,
    copied,
    set_rng_state,
    split_tied,
    trained_names,
    unwrap,
)

_SHOWN_NAMES = 3  # of the names that an error could list


def put_back(
    snapshot: Snapshot,
    model: nn.Module | None,
    optimizer: Stateful | None,
    scheduler: Stateful | None,
    *,
    random_state: bool | None = None,
) -> None:
    """Load `snapshot`, which stays as it is: all of what is asked for, or nothing at all.

    `StateMismatchError` names what does not fit; model, optimizer and scheduler are then as they
    were. The random generators are set with the optimizer, or as `random_state` says.
    """
    load_model = None if model is None else _model_loader(snapshot, model)
    put_back_parts(snapshot.optimizer, optimizer, snapshot.scheduler, scheduler, load_model)
    if snapshot.rng and (optimizer is not None if random_state is None else random_state):
        set_rng_state(snapshot.rng)


def put_back_parts(
    kept_optimizer: dict[str, Any] | None,
    optimizer: Stateful | None,
    kept_scheduler: dict[str, Any] | None,
    scheduler: Stateful | None,
    load_model: Callable[[], None] | None,
) -> None:
    """Load optimizer and scheduler, then the model by `load_model`, which has checked that it can.

    What is checked beforehand comes first; an error after that puts the two back as they were.
    """
    parts = {"optimizer": (optimizer, kept_optimizer), "scheduler": (scheduler, kept_scheduler)}
    for kind, (target, kept) in parts.items():
        if target is not None and kept is None:
            raise StateMismatchError(
                f"the state was kept without its {kind}: pass {kind}= when keeping it, or leave "
                "it out when restoring"
            )
    for kind, (target, kept) in parts.items():
        if target is not None and kept is not None:
            check_part(kind, target, kept)
    with _unchanged_by_errors(optimizer, scheduler):
        for kind, (target, kept) in parts.items():
            if target is not None:
                # it continues with the very tensors and lists that it is given, hence the copy
                _load(kind, target, copied(kept, clone))
        if load_model is not None:
            load_model()


@contextmanager
def _unchanged_by_errors(*targets: Stateful | None) -> Iterator[None]:
    """Optimizers and schedulers as they were, should the block raise.

    torch's put new objects in the stead of their attributes, so the attributes are enough; what
    has others inside, as a SequentialLR has, is given its former state too.
    """
    before = [
        (
            target,
            dict(getattr(target, "__dict__", {})),
            None if isinstance(target, Optimizer) else copied(target.state_dict(), clone),
        )
        for target in map(_inner, targets)
        if target is not None
    ]
    try:
        yield
    except BaseException:
        for target, attributes, state in before:
            if attributes:
                vars(target).clear()
                vars(target).update(attributes)
            if state is not None:
                target.load_state_dict(state)
        raise


def _inner(target: Stateful | None) -> Stateful | None:
    """The optimizer inside Accelerate's wrapper."""
    wrapped = getattr(target, "optimizer", None)
    return wrapped if isinstance(target, Optimizer) and isinstance(wrapped, Optimizer) else target


def _load(kind: str, target: Stateful, state: dict[str, Any]) -> None:
    try:
        target.load_state_dict(state)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise StateMismatchError(f"the kept {kind} state does not fit: {error}") from error


# -- whether a kept state fits -----------------------------------------------------------------


def _model_loader(snapshot: Snapshot, model: nn.Module) -> Callable[[], None]:
    """Loads the weights; whether they fit has been checked by then."""
    model = unwrap(model)
    tensors = {**snapshot.weights, **{n: snapshot.weights[at] for n, at in snapshot.tied.items()}}
    extra = copied(snapshot.module_extra, clone)
    check_fits(model, {**tensors, **extra}, snapshot.trainable_only)

    def load() -> None:
        before = {name: value for name, value in model.state_dict().items() if name in extra}
        try:
            model.load_state_dict(extra, strict=False)  # the only ones that may still refuse
        except BaseException:
            model.load_state_dict(before, strict=False)
            raise
        model.load_state_dict(tensors, strict=False)

    return load


def check_fits(model: nn.Module, kept: Mapping[str, Any], trainable_only: bool = False) -> None:
    """`StateMismatchError` unless `kept` has just the names and shapes of the model's state.

    A name may be absent if it is another one of the same tensor.
    """
    own = model.state_dict()
    wanted = trained_names(model) & own.keys() if trainable_only else own.keys()
    _check_names_and_shapes("the model", own, kept, wanted - kept.keys() - _tied_to(own, kept))


def check_names_and_shapes(what: str, own: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """`StateMismatchError` unless `own`, the state of `what`, and `kept` agree in both."""
    _check_names_and_shapes(what, own, kept, own.keys() - kept.keys())


def _check_names_and_shapes(
    what: str, own: Mapping[str, Any], kept: Mapping[str, Any], missing: Set[str]
) -> None:
    shapes = [
        f"{name} {tuple(kept[name].shape)} kept, {tuple(own[name].shape)} in {what}"
        for name in kept.keys() & own.keys()
        if isinstance(own[name], Tensor)
        and isinstance(kept[name], Tensor)
        and kept[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} is a {type(kept[name]).__name__}, not a tensor"
        for name in kept.keys() & own.keys()
        if isinstance(own[name], Tensor) and not isinstance(kept[name], Tensor)
    ]
    problems = {
        "missing in the kept state": sorted(missing),
        f"unknown to {what}": sorted(kept.keys() - own.keys()),
        "of another shape": sorted(shapes),
        "of another kind": sorted(kinds),
    }
    found = [f"{_some(names)} {problem}" for problem, names in problems.items() if names]
    if found:
        raise StateMismatchError(f"the kept state does not fit {what}: {'; '.join(found)}")


def _tied_to(own: Mapping[str, Any], kept: Mapping[str, Any]) -> set[str]:
    """The names in `own` whose tensor also has a name that is kept."""
    tensors = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    _, tied = split_tied({name: value for name, value in tensors.items() if not value.is_meta})
    present = {tied.get(name, name) for name in kept}
    return {name for name in own if tied.get(name, name) in present}


# of torch's optimizers: tensors that have the shape of their parameter
_PER_WEIGHT = {
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg"),
    *("grad_avg", "acc_delta", "sum", "ax", "prev"),
}


def check_part(kind: str, target: Stateful, kept: Mapping[str, Any]) -> None:
    """`StateMismatchError` if torch would take a state that does not belong to the target.

    torch compares the number of groups and of their parameters, but neither the shapes of an
    optimizer's moments, nor what kind of schedule a state is of.
    """
    if isinstance(target, Optimizer):
        _check_optimizer(target, kept)
    elif isinstance(target, LRScheduler):
        _check_schedule(target, kept)


def _check_optimizer(optimizer: Optimizer, kept: Mapping[str, Any]) -> None:
    groups, states = kept.get("param_groups"), kept.get("state")
    if not isinstance(groups, list) or not isinstance(states, Mapping):
        raise StateMismatchError(
            "the kept optimizer state does not fit: it has "
            f"{_some(sorted(map(str, kept)))}, not state and param_groups"
        )
    sizes = [len(group["params"]) for group in groups]
    own_sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != own_sizes:
        raise StateMismatchError(
            "the kept optimizer state does not fit: groups of "
            f"{', '.join(map(str, sizes))} parameters kept, of {', '.join(map(str, own_sizes))} "
            "in the optimizer"
        )
    keys = [index for group in groups for index in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shapes = [
        f"{name} of parameter {number} {tuple(value.shape)} kept, {tuple(parameter.shape)} "
        "in the optimizer"
        for number, (key, parameter) in enumerate(zip(keys, parameters, strict=True))
        for name, value in (states.get(key) or {}).items()
        if name in _PER_WEIGHT and isinstance(value, Tensor) and value.shape != parameter.shape
    ]
    if shapes:
        raise StateMismatchError(f"the kept optimizer state does not fit: {_some(shapes)}")


def _check_schedule(scheduler: LRScheduler, kept: Mapping[str, Any]) -> None:
    def public(names: Iterable[str]) -> set[str]:
        return {name for name in names if not name.startswith("_") and name != "verbose"}

    own = scheduler.state_dict()
    missing, unknown = public(own) - public(kept), public(kept) - public(own)
    rates = len(kept.get("base_lrs", [])), len(own.get("base_lrs", []))
    inside = kept.get("_schedulers") or [], getattr(scheduler, "_schedulers", [])
    problems = [
        *([f"{_some(sorted(missing))} missing in it"] if missing else []),
        *([f"{_some(sorted(unknown))} unknown to {type(scheduler).__name__}"] if unknown else []),
        *([f"base_lrs of {rates[0]} groups, not of {rates[1]}"] if rates[0] != rates[1] else []),
    ]
    if len(inside[0]) != len(inside[1]):
        problems.append(f"{len(inside[0])} schedules in it, not {len(inside[1])}")
    if problems:
        raise StateMismatchError(f"the kept scheduler state does not fit: {'; '.join(problems)}")
    for state, inner in zip(*inside, strict=True):
        _check_schedule(inner, state)


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
