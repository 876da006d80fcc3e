"""Keep a training run's best state, in memory or on disk, and put it back.

Over 350 lines: memory and disk keep the same promises, side by side.
"""

import math
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from torch import nn

from tune_stoppers.training.kept_states import (
    FOLDER,
    KeptState,
    plain_number,
    ranked,
    read_kept,
    remove_folder,
)
from tune_stoppers.training.restoring import put_back
from tune_stoppers.training.snapshot import InMemory, Snapshot, Stateful, own_generators, take
from tune_stoppers.training.state_files import StateFileError, write_state

Keep = Literal["best", "best+last"]


class NoBestStateError(RuntimeError):
    """Nothing finite was ever offered, so there is no best state to restore."""


class BestStateKeeper:
    """Keeps the state with the lowest loss: model, optimizer, LR scheduler and RNG.

    In memory without `directory`; with it on disk, where a process killed at any moment leaves a
    whole best state, which a keeper made later on the same folder finds and restores. One keeper
    at a time writes to a folder (with data parallel: rank 0's).

    A folder may hold the states of an earlier run. They count as this run's own if it resumes
    that run: its rule was given that run's state (`EarlyStopping.load_state_dict`, or the
    Trainer's checkpoint), or one of the states was restored first, or `resume=True` says so.
    Otherwise the run begins anew: the earlier states stay where they are, and are neither
    restored nor removed, which a warning says. Without a rule, a first step after all those kept
    resumes, and the warning says that instead. A rule that resumes one run in the folder, or the
    memory, of another is refused.

    - `keep`: `"best"`, or `"best+last"` for also the state offered last, whatever its loss.
    - `top_k`: how many of the best states to keep; restore one of them by its step.
    - `trainable_only`: keep only what training moves. `None`: for PEFT models yes, else no.
    - `resume`: the states in the folder, if there are any, are this run's own.
    - `fresh`: this run begins anew, whatever the folder, or the memory, holds of others.

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
        resume: bool = False,
        fresh: bool = False,
    ) -> None:
        if resume and fresh:
            raise ValueError(
                "a run either continues from the states kept, or begins anew: "
                "give resume=True or fresh=True, not both"
            )
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
        self._resume, self._fresh = resume, fresh
        self._kept: list[KeptState] = []  # of this run
        self._elsewhere: list[KeptState] = []  # in the folder, but of other runs
        self._run = uuid.uuid4().hex
        self._damaged: list[StateFileError] = []
        self._serial = 0
        if self._directory is not None:
            self._find(self._directory)
        self._undecided = bool(self._kept)  # whether those found are this run's
        self._restored = False  # one of those found: so they are
        if fresh:
            self._begin_anew()
        self._offered: float | None = None  # the step of the last offer that was dealt with
        self._warned = False
        self._follows = False  # another process writes to the folder

    @property
    def directory(self) -> Path | None:
        """The folder it writes to; `None`: it keeps in memory."""
        return self._directory

    @property
    def run(self) -> str:
        """Which run the states at hand are of: a name that differs from run to run."""
        return self._run

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
        self._look()
        return tuple(kept.step for kept in ranked(self._kept))

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
        step, loss = plain_number("step", step), plain_number("loss", loss)
        epoch = None if epoch is None else plain_number("epoch", epoch)
        if not math.isfinite(step):
            raise ValueError(f"step must be finite, got {step}")
        if step == self._offered:
            return False
        self._decide(step)
        best = self._best()
        is_best = math.isfinite(loss) and (best is None or loss < best.loss)
        if self._is_wanted(loss):
            live = take(
                model,
                optimizer,
                scheduler,
                self._trainable_only,
                {
                    "step": step,
                    "loss": loss,
                    "epoch": epoch,
                    "serial": self._serial + 1,
                    "run": self._run,
                },
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

        With the optimizer the random generators go back too, so that training continues exactly as
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
        with own_generators() if self._follows else nullcontext():  # those kept are the writer's
            put_back(kept.read(), model, optimizer, scheduler)
        self._restored |= self._undecided
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

    def follow(self, run: str | None) -> None:
        """Go by what another process, rank 0 say, writes into the folder as `run`.

        The folder is read anew before a state is restored; the random generators stay this
        process's own.
        """
        self._follows = True
        self._run = self._run if run is None else run

    def _look(self) -> None:
        if not self._follows or self._directory is None:
            return
        run, self._kept, self._elsewhere, self._damaged = self._run, [], [], []
        self._find(self._directory)
        self.take_up(run)

    # -- whose states they are -----------------------------------------------------------------

    def join(self, run: str | None, best: tuple[float, float] | None) -> None:
        """The run that offers from now on is `run`, or a new one; its best so far: step and loss.

        Its own states, told by `run` or else by its best, are taken up. Where there are only
        those of other runs, a new run begins anew beside them, with a warning, and `ValueError`
        refuses one that continues: what it would restore is not what its rule calls the best. The
        same holds in memory, where the states of another run would be lost.
        """
        known = [*self._kept, *self._elsewhere]
        own = next((kept.run for kept in known if kept.run == run), None)
        if own is None:
            own = next((kept.run for kept in known if (kept.step, kept.loss) == best), None)
        theirs, resumes = self._kept, self._resume or self._restored
        self._undecided = self._restored = False
        self._offered = None
        if own is not None:
            self.take_up(own)
        elif theirs and not resumes:
            if not self._fresh:
                self._object(best)
            self._begin_anew()

    def take_up(self, run: str) -> None:
        """Go by the states that `run` kept, and by no other's; there may be none."""
        known = [*self._kept, *self._elsewhere]
        self._run = run
        self._kept = [kept for kept in known if kept.run == run]
        self._elsewhere = [kept for kept in known if kept.run != run]

    def _begin_anew(self) -> None:
        self._undecided = False
        self.take_up(uuid.uuid4().hex)
        if self._directory is None:
            self._elsewhere = []  # nobody could ask for them any more

    def _object(self, best: tuple[float, float] | None) -> None:
        """Refuse what contradicts itself or would lose states; else say what is done."""
        if best is None and self._directory is not None:
            self._say(
                f"{self._theirs()}, which stay there; this run begins anew beside them. To "
                "continue from them, resume=True; to begin anew without this warning, "
                "fresh=True."
            )
            return
        mine = (
            "" if best is None else f", and this run's best is loss {best[1]:g} at step {best[0]:g}"
        )
        raise ValueError(
            f"BestStateKeeper: {self._theirs()}{mine}. To continue from them, "
            "BestStateKeeper(..., resume=True); to begin anew, fresh=True"
            + (" or a keeper for each run." if self._directory is None else ".")
        )

    def _theirs(self) -> str:
        best = self._best()
        what = (
            "nothing finite" if best is None else f"best loss {best.loss:g} at step {best.step:g}"
        )
        return f"{self._directory or 'the keeper'} holds the states of another run ({what})"

    def _decide(self, step: float) -> None:
        """At the first offer: whether the states found in the folder are of this run."""
        undecided, self._undecided = self._undecided, False
        if not undecided or self._resume or self._restored:
            return
        if step > max(kept.step for kept in self._kept):
            self._say(
                f"this run continues from the states in {self._directory}, as its first step "
                f"{step:g} is after theirs. To say so, resume=True; to begin anew, "
                "fresh=True."
            )
            return
        self._object(None)
        self._begin_anew()

    def _say(self, message: str) -> None:
        warnings.warn(f"BestStateKeeper: {message}", RuntimeWarning, stacklevel=4)

    # -- what is kept --------------------------------------------------------------------------

    def _best(self) -> KeptState | None:
        self._look()
        best = next(iter(ranked(self._kept)), None)
        return best if best is not None and math.isfinite(best.loss) else None

    def _at(self, step: float) -> KeptState:
        self._look()
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
        self._kept.append(KeptState(**live.extra, state=state))
        self._serial = live.extra["serial"]

    def _let_go(self) -> None:
        """Remove what the newest state has made surplus, which is whole by now."""
        finite = [kept for kept in ranked(self._kept) if math.isfinite(kept.loss)]
        wanted = {kept.serial for kept in finite[: self._top_k]}
        if self._keep_last:
            wanted.add(self._serial)
        surplus = [kept for kept in self._kept if kept.serial not in wanted]
        self._kept = [kept for kept in self._kept if kept.serial in wanted]
        if self._directory is None:
            return
        for kept in surplus:
            if isinstance(kept.state, Path):
                remove_folder(kept.state)
        for leftover in self._directory.glob(".[0-9]*-step-*.tmp"):  # of a process that was killed
            shutil.rmtree(leftover)

    def _find(self, directory: Path) -> None:
        """Take up the states in the folder, which need not exist yet."""
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError(f"directory must be a folder, {directory} is a file")
        for folder in sorted(directory.glob("*-step-*")):
            if not (folder.is_dir() and FOLDER.fullmatch(folder.name)):
                continue
            self._serial = max(self._serial, int(folder.name.partition("-")[0]))
            try:
                self._kept.append(read_kept(folder))
            except StateFileError as error:
                self._damaged.append(error)
                warnings.warn(
                    f"BestStateKeeper: a kept state is left out: {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )
        if self._kept:  # a folder shows what the last run kept
            self.take_up(max(self._kept, key=lambda kept: kept.serial).run)

    def _warn(self, message: str) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(f"BestStateKeeper: {message}", RuntimeWarning, stacklevel=3)
