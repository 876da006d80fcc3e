"""Keep a training run's best state, in memory or on disk, and put it back."""

import math
import numbers
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from tune_stoppers.training.restoring import put_back
from tune_stoppers.training.snapshot import InMemory, Snapshot, Stateful, take
from tune_stoppers.training.state_files import (
    StateFileError,
    read_extra,
    read_state,
    temporary_name,
    write_state,
)

Keep = Literal["best", "best+last"]

_FOLDER = re.compile(r"\d{6,}-step-.+")


class NoBestStateError(RuntimeError):
    """Nothing finite was ever offered, so there is no best state to restore."""


@dataclass(frozen=True)
class _Kept:
    step: float
    loss: float
    epoch: float | None
    serial: int  # counts what was kept: an earlier state wins a tie, the highest is the last
    state: InMemory | Path

    def read(self) -> Snapshot:
        return read_state(self.state) if isinstance(self.state, Path) else self.state.read()


class BestStateKeeper:
    """Keeps the state with the lowest loss: model, optimizer, LR scheduler and RNG.

    In memory without `directory`; with it on disk, where a process killed at any moment leaves a
    whole best state, and a keeper made later on the same folder goes on from it. One keeper at a
    time writes to a folder (with data parallel: rank 0's).

    - `keep`: `"best"`, or `"best+last"` for also the state offered last, whatever its loss.
    - `top_k`: how many of the best states to keep; restore one of them by its step.
    - `trainable_only`: keep only what training moves. `None`: for PEFT models yes, else no.

    A full disk or a folder that cannot be written costs no training: the offer is declined with
    a warning, given once until an offer succeeds again, and the former best stays. A damaged
    state in the folder is left where it is, with a warning; to restore it is an error.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        keep: Keep = "best",
        top_k: int = 1,
        trainable_only: bool | None = None,
    ) -> None:
        if keep not in ("best", "best+last"):
            raise ValueError(f'keep must be "best" or "best+last", got {keep!r}')
        if isinstance(top_k, bool) or not isinstance(top_k, int):
            raise TypeError(f"top_k must be an int, got {type(top_k).__name__}")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self._directory = None if directory is None else Path(directory).absolute()
        self._keep_last = keep == "best+last"
        self._top_k = top_k
        self._trainable_only = trainable_only
        self._kept: list[_Kept] = []
        self._damaged: list[StateFileError] = []
        self._serial = 0
        if self._directory is not None:
            self._find(self._directory)
        self._offered: float | None = None  # the step of the last offer that was dealt with
        self._warned = False

    @property
    def directory(self) -> Path | None:
        """The folder it writes to; `None`: it keeps in memory."""
        return self._directory

    @property
    def best_step(self) -> float | None:
        """The step of the best state; `None` when nothing finite was offered."""
        best = self._best()
        return None if best is None else best.step

    @property
    def best_loss(self) -> float | None:
        """The loss of the best state; `None` when nothing finite was offered."""
        best = self._best()
        return None if best is None else best.loss

    @property
    def best_epoch(self) -> float | None:
        """The epoch that was offered with the best state."""
        best = self._best()
        return None if best is None else best.epoch

    @property
    def last_step(self) -> float | None:
        """With `keep="best+last"` the step offered last, of any loss; else `None`."""
        if not (self._keep_last and self._kept):
            return None
        return max(self._kept, key=lambda kept: kept.serial).step

    @property
    def steps(self) -> tuple[float, ...]:
        """The steps of the states at hand, best first."""
        return tuple(kept.step for kept in _ranked(self._kept))

    def offer(
        self,
        step: float,
        loss: float,
        model: nn.Module,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
        *,
        epoch: float | None = None,
    ) -> bool:
        """Keep the present state if it is wanted; True when it is the new best.

        Lower is better, strictly: a tie keeps the earlier state, and NaN or an infinity is never
        best. The step of the previous offer again changes nothing and is never a new best.
        """
        step, loss = _number("step", step), _number("loss", loss)
        epoch = None if epoch is None else _number("epoch", epoch)
        if not math.isfinite(step):
            raise ValueError(f"step must be finite, got {step}")
        if step == self._offered:
            return False
        best = self._best()
        is_best = math.isfinite(loss) and (best is None or loss < best.loss)
        if self._is_wanted(loss):
            live = take(
                model,
                optimizer,
                scheduler,
                self._trainable_only,
                {"step": step, "loss": loss, "epoch": epoch, "serial": self._serial + 1},
            )
            try:
                self._add(live)
            except OSError as error:
                self._warn(f"state of step {step} not kept, the former best stays: {error}")
                return False
            try:
                self._let_go()
            except OSError as error:
                self._warn(f"a state that is no longer needed could not be removed: {error}")
            else:
                self._warned = False
        self._offered = step
        return is_best

    def restore(
        self,
        model: nn.Module,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
        *,
        step: float | None = None,
    ) -> float:
        """Put the best state back, or that of `step` (one of `steps`); return its step.

        With the optimizer the random generators go back too, so that training goes on exactly as
        it did from there; for the weights alone they are left as they are. Raises
        `NoBestStateError` if nothing finite was offered, `StateMismatchError` if the state does
        not fit, `StateFileError` if its files are damaged.
        """
        kept = self._best() if step is None else self._at(step)
        if kept is None and self._damaged:
            raise self._damaged[-1]
        if kept is None:
            raise NoBestStateError(
                "no best state: no finite loss has been offered yet"
                + (f" to the keeper in {self._directory}" if self._directory else "")
            )
        put_back(kept.read(), model, optimizer, scheduler)
        return kept.step

    @contextmanager
    def restoring(
        self,
        model: nn.Module,
        optimizer: Stateful | None = None,
        scheduler: Stateful | None = None,
    ) -> Iterator["BestStateKeeper"]:
        """Restore the best state however the block ends: by itself, by an exception or Ctrl-C.

        A block that raises before anything finite was offered leaves the model as it is.
        """
        try:
            yield self
        except BaseException:
            if self._best() is not None:
                self.restore(model, optimizer, scheduler)
            raise
        self.restore(model, optimizer, scheduler)

    def _best(self) -> _Kept | None:
        ranked = _ranked(self._kept)
        return ranked[0] if ranked and math.isfinite(ranked[0].loss) else None

    def _at(self, step: float) -> _Kept:
        for kept in sorted(self._kept, key=lambda kept: -kept.serial):  # the newest, if rewound
            if kept.step == step:
                return kept
        raise KeyError(f"no state of step {step} is kept; kept steps: {list(self.steps)}")

    def _is_wanted(self, loss: float) -> bool:
        if self._keep_last:
            return True
        finite = sorted(kept.loss for kept in self._kept if math.isfinite(kept.loss))
        return math.isfinite(loss) and (len(finite) < self._top_k or loss < finite[self._top_k - 1])

    def _add(self, live: Snapshot) -> None:
        state: InMemory | Path
        if self._directory is None:
            state = InMemory(live)
        else:
            state = self._directory / f"{live.extra['serial']:06d}-step-{live.extra['step']}"
            write_state(live, state)
        self._kept.append(_Kept(**live.extra, state=state))
        self._serial = live.extra["serial"]

    def _let_go(self) -> None:
        """Remove what the newest state has made surplus, which is whole by now."""
        finite = [kept for kept in _ranked(self._kept) if math.isfinite(kept.loss)]
        wanted = {kept.serial for kept in finite[: self._top_k]}
        if self._keep_last:
            wanted.add(self._serial)
        surplus = [kept for kept in self._kept if kept.serial not in wanted]
        self._kept = [kept for kept in self._kept if kept.serial in wanted]
        if self._directory is None:
            return
        for kept in surplus:
            if isinstance(kept.state, Path):
                _remove(kept.state)
        for leftover in self._directory.glob(".[0-9]*-step-*.tmp"):  # of a process that was killed
            shutil.rmtree(leftover)

    def _find(self, directory: Path) -> None:
        """Take up the states in the folder, which need not exist yet."""
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError(f"directory must be a folder, {directory} is a file")
        for folder in sorted(directory.glob("*-step-*")):
            if not (folder.is_dir() and _FOLDER.fullmatch(folder.name)):
                continue
            self._serial = max(self._serial, int(folder.name.partition("-")[0]))
            try:
                self._kept.append(_read_kept(folder))
            except StateFileError as error:
                self._damaged.append(error)
                warnings.warn(
                    f"BestStateKeeper: a kept state is left out: {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def _warn(self, message: str) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(f"BestStateKeeper: {message}", RuntimeWarning, stacklevel=3)


def _ranked(states: list[_Kept]) -> list[_Kept]:
    """Best first; an earlier state before a later one of equal loss, non-finite ones at the end."""
    return sorted(states, key=lambda k: (k.loss if math.isfinite(k.loss) else math.inf, k.serial))


def _number(name: str, value: object) -> Any:
    """`value` as a plain int or float; one-element tensors and arrays count as numbers."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be one real number, got {type(value).__name__}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _read_kept(folder: Path) -> _Kept:
    extra = read_extra(folder)
    try:
        named = {name: extra[name] for name in ("step", "loss", "serial")}
    except KeyError as error:
        raise StateFileError(f"{folder}: not written by a keeper: lacks {error}") from error
    return _Kept(**named, epoch=extra.get("epoch"), state=folder)


def _remove(folder: Path) -> None:
    """Remove a state so that a half-removed one is never mistaken for a whole one."""
    doomed = temporary_name(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)
