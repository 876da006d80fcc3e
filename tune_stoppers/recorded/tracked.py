"""The readers of `Sweep` for what trackers keep on disk: W&B, MLflow, TensorBoard, Optuna."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tune_stoppers.recorded.runs import Kept, TrackerError, curves_of
from tune_stoppers.recorded.table import NaN


class TrackedSweeps:
    """What `Sweep` inherits.

    Common to all: a row for each step at which a run logged something; `training_iteration` is the
    tracker's step. A metric that was not logged at a step is missing there, and a NaN that was
    logged is a value (`nan="missing"`: it is missing too). Runs without a value, and those without
    `metric` where others have it, are left out; `reading` says how many. Nothing is written,
    unpickled or sent, and no link is followed out of the folder. What a run logged again after it
    had gone back counts once, as it went the last time.
    """

    @classmethod
    def from_wandb(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        target: float | None = None,
        nan: NaN = "auto",
    ) -> Self:
        """A sweep from runs of Weights & Biases: what they leave on disk, offline or not.

        `path`: the `wandb` folder, one with several of them, a run's folder in it, or a `.wandb`
        file; also a table that the web page exports, a CSV file, as `from_csv` reads it. `wandb`
        need not be installed. A value in a logged dict is named with dots, as W&B shows it.
        """
        from tune_stoppers.recorded import wandb_log
        from tune_stoppers.recorded.files import is_csv

        own: dict[str, Any] = {"metric": metric, "mode": mode, "target": target, "nan": nan}
        if is_csv(path):
            made: Self = cls.from_csv(path, name=name, **own)  # type: ignore[attr-defined]
            return made
        return cls._tracked(path, wandb_log.read, name=name, **own)

    @classmethod
    def from_mlflow(
        cls,
        path: str | os.PathLike[str],
        *,
        experiment: str | None = None,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        target: float | None = None,
        nan: NaN = "auto",
    ) -> Self:
        """A sweep from the runs of one experiment in a local store of MLflow.

        `path`: `mlflow.db` or another SQLite database of MLflow's, `mlruns`, or the folder that
        holds one of them (`mlflow.db` goes first). `experiment`: its name, where several have runs.
        Deleted runs are left out. MLflow need not be installed. Values that were all logged without
        a step are numbered in the order of their times.
        """
        from tune_stoppers.recorded import mlflow_store

        return cls._tracked(
            path,
            lambda found: mlflow_store.read(found, experiment),
            metric=metric,
            mode=mode,
            name=name,
            target=target,
            nan=nan,
        )

    @classmethod
    def from_tensorboard(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        target: float | None = None,
        nan: NaN = "auto",
    ) -> Self:
        """A sweep from a folder of TensorBoard runs: each folder with event files in it is a run.

        TensorBoard need not be installed. Metrics are called as their tags; `train` and
        `validation` of one Keras run are one run, "validation/epoch_loss" its metric.
        Hyperparameters are those that `add_hparams` wrote.
        """
        from tune_stoppers.recorded import tensorboard_log

        own: dict[str, Any] = {"metric": metric, "mode": mode, "target": target, "nan": nan}
        return cls._tracked(path, tensorboard_log.read, name=name, **own)

    @classmethod
    def from_optuna(
        cls,
        study: Any,
        *,
        study_name: str | None = None,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        target: float | None = None,
        nan: NaN = "auto",
    ) -> Self:
        """A sweep from an Optuna study whose objective reported intermediate values.

        `study`: an `optuna.Study`, the SQLite or journal file that it is stored in, or a storage
        URL; `study_name`: where a storage holds several. The metric is called as in
        `study.set_metric_names`, else "value"; metric and mode are the study's. Needs `optuna`.
        """
        from tune_stoppers.recorded import optuna_study

        kept = optuna_study.read(study, study_name)
        if metric is None or metric == kept.metric:
            metric, mode = kept.metric, mode or kept.mode
        return cls._of(kept, name or kept.name, metric, mode, target, nan)

    @classmethod
    def _tracked(
        cls,
        path: str | os.PathLike[str],
        read: Callable[[Path], Kept],
        *,
        name: str | None,
        metric: str | None,
        mode: str | None,
        target: float | None,
        nan: NaN,
    ) -> Self:
        found = Path(path).expanduser()
        if not found.exists():
            raise TrackerError(f"there is nothing at {path}.")
        kept = read(found)
        return cls._of(kept, name or kept.name or _stem(found), metric, mode, target, nan)

    @classmethod
    def _of(
        cls,
        kept: Kept,
        name: str,
        metric: str | None,
        mode: str | None,
        target: float | None,
        nan: NaN,
    ) -> Self:
        if nan not in ("auto", "value", "missing"):
            raise ValueError(f"nan must be 'auto', 'value' or 'missing', got {nan!r}.")
        curves, left_out = curves_of(kept.runs, metric, nan_is_missing=nan == "missing")
        taken = " ".join(filter(None, [kept.said, left_out]))
        own = {"metric": metric, "mode": mode, "target": target, "taken": taken}
        return cls(curves, name=name, **own)  # type: ignore[call-arg]


def _stem(path: str | os.PathLike[str]) -> str:
    """What a sweep is called by where it lies: the file's name, or the folder's."""
    whole = os.path.abspath(os.fspath(path))
    return os.path.splitext(os.path.basename(whole))[0] or "sweep"
