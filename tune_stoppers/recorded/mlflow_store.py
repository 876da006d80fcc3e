"""Runs of MLflow from a local store: its SQLite database, or the folder of its file store.

Both are read as they lie there, without MLflow: it refuses a database of another version until
it has been migrated, and since 3.7 it opens no file store. Nothing is written.
Sources: `mlflow/store/tracking/dbmodels/models.py` and `file_store.py`.
"""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from tune_stoppers.metrics import closest
from tune_stoppers.recorded.files import number_in
from tune_stoppers.recorded.runs import Kept, Run, TrackerError, files_in

SQLITE = b"SQLite format 3\0"  # how such a file begins
TABLES = frozenset({"experiments", "runs", "metrics", "params"})
META, METRICS, PARAMS, TRASH = "meta.yaml", "metrics", "params", ".trash"
SYSTEM = "system/"  # before the metrics of the machine: their steps count samples, not training
ACTIVE = "active"
LARGEST_TEXT = 2**20  # bytes, of a description or a parameter
INFINITE = sys.float_info.max  # how the database keeps an infinity


class Value(NamedTuple):
    """One value of a metric."""

    metric: str
    time: int  # milliseconds since 1970
    step: int
    value: float


class Kind(NamedTuple):
    """A run, and the values that it logged."""

    run: Run
    experiment: str
    start: int | None  # milliseconds since 1970
    values: list[Value]


def is_database(path: Path) -> bool:
    """Whether the file begins as one of SQLite."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be read only; `TrackerError` where it cannot be."""
    try:
        uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            yield connection
    except sqlite3.Error as error:
        raise TrackerError(f"{path} cannot be read as an SQLite database: {error}.") from error


def tables_of(path: Path) -> frozenset[str]:
    """The tables of a database; views are none."""
    with opened(path) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return frozenset(str(name) for (name,) in rows)


def read(path: Path, experiment: str | None = None) -> Kept:
    """The runs of a store: of one experiment, named where several have runs.

    `path`: a database, a file store, or the folder that holds `mlflow.db` or `mlruns`.
    """
    database = path / "mlflow.db"
    if path.is_dir() and database.is_file() and tables_of(database) >= TABLES:
        path = database
    kind = "database" if path.is_file() else "file store"
    found = [_trained(each) for each in (_database(path) if path.is_file() else _folder(path))]
    found = [each for each in found if each.values]
    if not found:
        raise TrackerError(f"{path} holds no run of MLflow that logged a metric.")
    names = list(dict.fromkeys(each.experiment for each in found))
    if experiment is None and len(names) > 1:
        raise TrackerError(
            f"{path} holds runs of {len(names)} experiments; name one: experiment= (on the command "
            f"line --study), one of {', '.join(map(repr, names[:20]))}."
        )
    if experiment is not None and experiment not in names:
        raise TrackerError(
            f"{path} has no runs of an experiment {experiment!r}.{closest(experiment, names)} "
            f"It has: {', '.join(map(repr, names[:20]))}."
        )
    chosen = [each for each in found if experiment in (None, each.experiment)]
    name = experiment or names[0]
    said = f"Experiment {name!r} of a {kind}: time by MLflow's step"
    stepped = {value.metric for each in chosen for value in each.values if value.step != 0}
    if not stepped:
        said += ", numbered, as all values were logged without one"
    return Kept([_run(each, stepped) for each in chosen], f"{said}.", name=name)


def _trained(kind: Kind) -> Kind:
    values = [value for value in kind.values if not value.metric.startswith(SYSTEM)]
    return kind._replace(values=values)


def _run(kind: Kind, stepped: Collection[str]) -> Run:
    """The run with a step for each value: those without one stand where the run had come to.

    Where no metric has steps, the values of each are numbered; one that has a single value stands
    where the others had come to.
    """
    logged = Counter(value.metric for value in kind.values)
    counts: Counter[str] = Counter()
    newest = 0 if stepped else 1
    for metric, time, step, value in sorted(kind.values, key=lambda v: (v.time, v.step)):
        if metric not in stepped:
            counts[metric] += 1
            step = newest if stepped or logged[metric] == 1 else counts[metric]
        newest = max(newest, step)
        seconds = None if kind.start is None else (time - kind.start) / 1000
        kind.run.report(step, metric, value, seconds)
    return kind.run


def _database(path: Path) -> list[Kind]:
    missing = TABLES - tables_of(path)
    if missing:
        raise TrackerError(f"{path} is no store of MLflow: it has no table {sorted(missing)[0]!r}.")
    with opened(path) as connection:
        kinds = {
            str(run_id): Kind(Run(str(run_id), str(name or "")), str(experiment), start, [])
            for run_id, name, experiment, start in connection.execute(
                "SELECT r.run_uuid, r.name, e.name, r.start_time FROM runs r "
                "JOIN experiments e ON e.experiment_id = r.experiment_id "
                "WHERE r.lifecycle_stage = ? AND e.lifecycle_stage = ? "
                "ORDER BY r.start_time, r.run_uuid",
                (ACTIVE, ACTIVE),
            )
        }
        for run_id, key, value in connection.execute("SELECT run_uuid, key, value FROM params"):
            if run_id in kinds:
                kinds[run_id].run.config[str(key)] = _parameter(str(value))
        rows = connection.execute(
            "SELECT run_uuid, key, timestamp, step, value, is_nan FROM metrics"
        )
        for run_id, key, time, step, value, is_nan in rows:
            if run_id in kinds:
                try:
                    known = Value(str(key), int(time), int(step), _of_database(value, is_nan))
                except (TypeError, ValueError, OverflowError) as error:
                    raise TrackerError(f"{path}: run {run_id!r}, metric {key!r}: {error}") from None
                kinds[run_id].values.append(known)
    return list(kinds.values())


def _of_database(value: Any, is_nan: Any) -> float:
    if is_nan:
        return math.nan
    number = float(value)
    return math.copysign(math.inf, number) if abs(number) >= INFINITE else number


def _folder(path: Path) -> list[Kind]:
    """The runs whose folders lie in `path`: each has a description and a folder of metrics."""
    kinds: dict[Path, Kind] = {}
    names: dict[Path, str | None] = {}
    for file in files_in(path):
        if file.name != META or TRASH in file.parts:
            continue
        said = _described(file)
        here = file.parent
        if "run_id" not in said and "run_uuid" not in said:
            names[here] = str(said.get("name", here.name))
            if said.get("lifecycle_stage", ACTIVE) != ACTIVE:
                names[here] = None
        elif said.get("lifecycle_stage", ACTIVE) == ACTIVE:
            run_id = str(said.get("run_id") or said.get("run_uuid"))
            name = str(said.get("run_name") or "")
            start = said.get("start_time")
            start = start if type(start) is int else None
            kinds[here] = Kind(Run(run_id, name), here.parent.name, start, [])
    alive = {here: k for here, k in kinds.items() if names.get(here.parent, "") is not None}
    ordered = sorted(alive.items(), key=lambda item: (item[1].start or 0, item[1].run.run_id))
    return [
        _filled(kind._replace(experiment=names.get(here.parent) or kind.experiment), here)
        for here, kind in ordered
    ]


def _filled(kind: Kind, folder: Path) -> Kind:
    for file in files_in(folder):
        above, *name = file.relative_to(folder).parts
        key = "/".join(name)
        if above == PARAMS and name:
            kind.run.config[key] = _parameter(_text(file))
        elif above == METRICS and name:
            kind.values.extend(_values(file, key))
    return kind


def _values(path: Path, metric: str) -> Iterator[Value]:
    """A line for each value: time, value, step; of old versions without the step."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(LARGEST_TEXT), ""), start=1):
            if not line.endswith("\n"):
                return  # being written, or cut off
            words = line.split()
            try:
                step = int(words[2]) if len(words) > 2 else 0
                yield Value(metric, int(words[0]), step, float(words[1]))
            except (ValueError, IndexError):
                raise TrackerError(
                    f"{path}: line {number} is no value of MLflow (time, value, step): "
                    f"{line.strip()[:60]!r}."
                ) from None


def _described(path: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TrackerError(f"{path} is no YAML: {str(error).splitlines()[0]}.") from error
    return said if isinstance(said, dict) else {}


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise TrackerError(f"{path} is larger than {LARGEST_TEXT} bytes.")
    return data.decode("utf-8", "replace")


def _parameter(text: str) -> Any:
    """A hyperparameter as it was before MLflow made it a text."""
    if text in ("True", "False"):
        return text == "True"
    if text == "None":
        return None
    number = number_in(text)
    return text if number is None else number
