"""What a path holds: which kind of recorded sweep, found out by what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tune_stoppers.recorded import files, mlflow_store, optuna_study, tensorboard_log, wandb_log
from tune_stoppers.recorded.runs import files_in
from tune_stoppers.recorded.sweep import Sweep

OPTUNA_FILES = (".log", ".journal", ".jsonl", ".json")
DATABASES = (".db", ".sqlite", ".sqlite3")
KNOWN = (
    "a Parquet or CSV file, the folder of a Ray Tune experiment, runs of W&B (.wandb), MLflow "
    "(mlflow.db, mlruns) or TensorBoard (event files), or a study of Optuna (SQLite or journal)"
)


class Kind(NamedTuple):
    """A kind of record, and where it lies."""

    what: str  # "a CSV file"
    read: Callable[..., Sweep]
    path: str | Path
    takes: tuple[str, ...] = ()  # keywords beside metric, mode and nan

    def sweep(self, **keywords: Any) -> Sweep:
        """Read it. ValueError for a keyword that is given and means nothing here."""
        for key, value in keywords.items():
            if value and key not in self.takes and key not in ("metric", "mode", "nan"):
                raise ValueError(f"{_option(key)}; {self.path} was taken for {self.what}.")
        common = ("metric", "mode", "nan", *self.takes)
        given = {key: value for key, value in keywords.items() if key in common}
        if "study" in given:
            named = "experiment" if self.read == Sweep.from_mlflow else "study_name"
            given[named] = given.pop("study")
        return self.read(self.path, **given)


TABLE = ("trial", "time", "seconds")


def _option(key: str) -> str:
    if key in TABLE:
        return "--trial, --time, --seconds are for tables"
    return "--study is for Optuna and MLflow" if key == "study" else f"--{key} is not for this"


def kind_at(path: str | os.PathLike[str]) -> Kind:
    """The kind of record at a path or URI. `ValueError` where it is none, or several."""
    text = os.fspath(path)
    if "://" in text:
        return Kind("a Ray Tune experiment", Sweep.from_ray, text, ("generation",))
    local = Path(text).expanduser()
    return _of_folder(local, text) if local.is_dir() else _of_file(local)


def _of_file(path: Path) -> Kind:
    found = _file(path)
    if found is None:
        named = "no Parquet file, nor anything" if path.suffix == ".parquet" else "nothing"
        raise ValueError(f"{path.name} is {named} that can be read here: give {KNOWN}.")
    return found


def _file(path: Path) -> Kind | None:
    """The kind of a file; None if it is none of them."""
    if files.is_parquet(path):
        return Kind("a Parquet file", Sweep.from_parquet, path, TABLE)
    if files.is_csv(path):
        return Kind("a CSV file", Sweep.from_csv, path, TABLE)
    if wandb_log.is_log(path):
        return Kind("a run of W&B", Sweep.from_wandb, path)
    if tensorboard_log.is_events(path):
        return Kind("a run of TensorBoard", Sweep.from_tensorboard, path)
    if mlflow_store.is_database(path):
        tables = mlflow_store.tables_of(path)
        if tables >= optuna_study.TABLES:
            return Kind("an Optuna study", Sweep.from_optuna, path, ("study",))
        if tables >= mlflow_store.TABLES:
            return Kind("a store of MLflow", Sweep.from_mlflow, path, ("study",))
        shown = ", ".join(sorted(tables)[:10]) or "none"
        raise ValueError(
            f"{path} is an SQLite database of neither Optuna nor MLflow: its tables are {shown}."
        )
    if optuna_study.is_journal(path):
        return Kind("an Optuna study", Sweep.from_optuna, path, ("study",))
    return None


def _of_folder(folder: Path, text: str) -> Kind:
    ray = Kind("a Ray Tune experiment", Sweep.from_ray, text, ("generation",))
    if _is_ray(folder):
        return ray
    found = _trackers(folder)
    found |= {kind.what: (kind, Path(kind.path)) for kind in _beside(folder, found)}
    if not found:
        return ray  # its reader says what is missing
    if len(found) > 1:
        seen = "; ".join(f"{what} ({example})" for what, (_, example) in found.items())
        raise ValueError(f"{text} holds several records, name one of them: {seen}.")
    ((kind, _),) = found.values()
    return kind


def _is_ray(folder: Path) -> bool:
    names = os.listdir(folder)
    if any(name.startswith("experiment_state-") or name == "tuner.pkl" for name in names):
        return True
    return any((folder / name / "result.json").is_file() for name in names)


def _trackers(folder: Path) -> dict[str, tuple[Kind, Path]]:
    """The trackers whose files lie in the folder, at any depth, with the first file of each."""
    of_runs: dict[Path, str] = {}  # folders of runs of W&B and MLflow: what is in them is theirs
    first: dict[str, Path] = {}
    events: list[Path] = []
    for path in files_in(folder):
        if path.suffix == wandb_log.SUFFIX:
            first.setdefault("runs of W&B", path)
            of_runs[path.parent] = "W&B"
        elif path.name == mlflow_store.META and (path.parent / mlflow_store.METRICS).is_dir():
            first.setdefault("a store of MLflow", path)
            of_runs[path.parent] = "MLflow"
        elif tensorboard_log.is_events(path):
            events.append(path)
    own = [path for path in events if of_runs.keys().isdisjoint(path.parents)]
    if own:
        first["runs of TensorBoard"] = own[0]
    readers = {
        "runs of W&B": (Sweep.from_wandb, ()),
        "a store of MLflow": (Sweep.from_mlflow, ("study",)),
        "runs of TensorBoard": (Sweep.from_tensorboard, ()),
    }
    return {
        what: (Kind(what, read, folder, takes), first[what])
        for what, (read, takes) in readers.items()
        if what in first
    }


def _beside(folder: Path, found: dict[str, Any]) -> list[Kind]:
    """The databases and journals right in the folder; where there are no runs, tables too."""
    kinds = []
    for path in sorted(folder.iterdir()):
        database = path.suffix in DATABASES
        table = not found and (files.is_csv(path) or path.suffix == ".parquet")
        if path.is_file() and (database or table or path.suffix in OPTUNA_FILES):
            try:
                kind = _file(path)
            except (ValueError, OSError):
                continue  # a database of something else
            if kind is not None:
                kinds.append(kind._replace(what=f"{kind.what}, {path.name}"))
    if any(kind.read == Sweep.from_mlflow for kind in kinds):
        found.pop("a store of MLflow", None)  # beside it, artifacts
    return kinds
