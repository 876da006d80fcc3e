"""Trials of an Optuna study: their intermediate values, from a study or from where it is stored."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tune_stoppers.metrics import closest
from tune_stoppers.recorded.mlflow_store import is_database
from tune_stoppers.recorded.runs import Kept, Run, TrackerError

TABLES = frozenset({"studies", "trials", "trial_intermediate_values"})
METRIC = "value"  # where the study has no name for its objective
LONGEST_LINE = 2**20  # bytes, of a journal's first


def is_journal(path: Path) -> bool:
    """Whether the file begins as a journal of Optuna."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_LINE)
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "op_code" in first and "worker_id" in first


def read(source: Any, study: str | None = None) -> Kept:
    """The trials of `source`: an `optuna.Study`, a path (SQLite or journal), or a storage URL.

    `study`: its name, where a storage holds several. `TrackerError` where there is none, or where
    it has several objectives, which have no intermediate values.
    """
    try:
        import optuna  # an extra
    except ImportError as error:
        raise ImportError(
            "A study of Optuna is read by Optuna: pip install 'tune_stoppers[optuna]'."
        ) from error
    if not isinstance(source, optuna.Study):
        source = _loaded(source, study)
    if len(source.directions) > 1:
        raise TrackerError(
            f"study {source.study_name!r} has {len(source.directions)} objectives; Optuna keeps "
            "intermediate values of one only."
        )
    metric = (source.metric_names or [METRIC])[0]
    trials = source.get_trials(deepcopy=False)
    runs = [_run(trial, metric) for trial in trials]
    if not any(run.metrics for run in runs):
        raise TrackerError(
            f"study {source.study_name!r} has no intermediate values; its objective has to call "
            "trial.report(value, step)."
        )
    pruned = sum(trial.state.name == "PRUNED" for trial in trials)
    said = f"Study {source.study_name!r}: time by Optuna's step."
    if pruned:
        said += f" Pruned: {pruned}; what would have become of these is not known."
    mode = "min" if source.direction.name == "MINIMIZE" else "max"
    return Kept(runs, said, metric, mode, source.study_name)


def _run(trial: Any, metric: str) -> Run:
    run = Run(str(trial.number), config=dict(trial.params))
    values, took = trial.intermediate_values, trial.duration
    before = -1 if min(values, default=1) == 0 else 0  # where the trial began
    length = max(values, default=0) - before
    for step, value in values.items():
        value = math.nan if value is None else float(value)
        share = (step - before) / length  # Optuna knows when a trial began and ended, no more
        run.report(step, metric, value, None if took is None else share * took.total_seconds())
    return run


def _loaded(source: str | os.PathLike[str], name: str | None) -> Any:
    """The study of that name, or the only one, of a storage."""
    import optuna

    text = os.fspath(source)
    try:
        storage: Any = text if "://" in text else _storage(Path(text).expanduser())
        names = optuna.get_all_study_names(storage)
    except TrackerError:
        raise
    except Exception as error:  # a damaged file: of SQLAlchemy, Optuna, KeyError of its journal
        raise TrackerError(f"{text} cannot be read as a storage of Optuna: {error!r}.") from error
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        what = f"no study {name!r}.{closest(name, names)} It has" if name else "several studies"
        if not names:
            raise TrackerError(f"{text} holds no study of Optuna.")
        raise TrackerError(
            f"{text} has {what}: {', '.join(map(repr, names[:20]))}. Name one: study= (on the "
            "command line --study)."
        )
    return optuna.load_study(study_name=name, storage=storage)


def _storage(path: Path) -> Any:
    """The storage in a file, which is only read."""
    import optuna

    if is_database(path):
        uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
        return optuna.storages.RDBStorage(
            "sqlite://",
            engine_kwargs={"creator": lambda: sqlite3.connect(uri, uri=True)},
            skip_table_creation=True,
        )
    if is_journal(path):
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        return optuna.storages.JournalStorage(backend)
    raise TrackerError(f"{path} is neither an SQLite database nor a journal of Optuna.")
