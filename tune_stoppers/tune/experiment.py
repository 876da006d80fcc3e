"""A Ray Tune experiment on disk: its trials, their reports and checkpoints.

Reads `params.json`, `result.json`, `error.txt` and, for the status of each trial alone, the plain
JSON of the newest `experiment_state-*.json`. Nothing is unpickled.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyarrow import fs

logger = logging.getLogger("tune_stoppers")

RESULTS, PARAMS, ERROR, STATE = "result.json", "params.json", "error.txt", "experiment_state-"


class ExperimentError(ValueError):
    """A folder that is no Ray Tune experiment, or one that has nothing of what was asked for."""


@dataclass(frozen=True)
class TrialRecord:
    """What the folder of one trial says."""

    trial_id: str
    folder: str  # on the experiment's filesystem
    config: dict[str, Any]
    rows: list[dict[str, Any]]  # one a report, in the order reported
    checkpoints: frozenset[str]  # names of the folders that exist
    status: str  # Ray's: PENDING, RUNNING, PAUSED, TERMINATED, ERROR; or UNKNOWN


@dataclass(frozen=True)
class Experiment:
    """An experiment folder on any filesystem that pyarrow reaches."""

    filesystem: fs.FileSystem = field(repr=False)
    root: str

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "Experiment":
        """The experiment at a local path or a URI (s3://…, gs://…, file://…)."""
        text = os.fspath(path)
        if "://" in text:
            filesystem, root = fs.FileSystem.from_uri(text)
        else:
            filesystem, root = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
        if filesystem.get_file_info(root).type is not fs.FileType.Directory:
            raise ExperimentError(f"{text} is not a folder; give the folder of an experiment.")
        return cls(filesystem, root.rstrip("/"))

    def trials(self) -> list[TrialRecord]:
        """Every trial that has a folder. `ExperimentError` if this is no experiment."""
        statuses = self._statuses()
        records = [self._trial(folder, statuses) for folder in self._folders(self.root)]
        found = [record for record in records if record is not None]
        if not found and not statuses:
            raise ExperimentError(
                f"{self.root} is no Ray Tune experiment: no folder in it has a {PARAMS}."
            )
        return sorted(found, key=lambda record: record.folder)

    def _folders(self, path: str) -> Iterator[str]:
        for info in self.filesystem.get_file_info(fs.FileSelector(path)):
            if info.type is fs.FileType.Directory:
                yield info.path

    def _trial(self, folder: str, statuses: dict[str, str]) -> TrialRecord | None:
        config = self._json(f"{folder}/{PARAMS}")
        rows = self._rows(f"{folder}/{RESULTS}")
        if config is None and not rows:
            return None  # a folder of something else
        name = folder.rsplit("/", 1)[-1]
        trial_id = next((str(row["trial_id"]) for row in rows if "trial_id" in row), None)
        if trial_id is None:
            trial_id = next((known for known in statuses if known in name), name)
        inner = [path.rsplit("/", 1)[-1] for path in self._folders(folder)]
        return TrialRecord(
            trial_id=trial_id,
            folder=folder,
            config=config or {},
            rows=rows,
            checkpoints=frozenset(name for name in inner if name.startswith("checkpoint_")),
            status=statuses.get(trial_id) or self._inferred(folder, rows),
        )

    def _inferred(self, folder: str, rows: list[dict[str, Any]]) -> str:
        if self.filesystem.get_file_info(f"{folder}/{ERROR}").type is fs.FileType.File:
            return "ERROR"
        return "TERMINATED" if rows and rows[-1].get("done") else "UNKNOWN"

    def _text(self, path: str) -> str | None:
        if self.filesystem.get_file_info(path).type is not fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.read()).decode("utf-8", errors="replace")

    def _json(self, path: str) -> dict[str, Any] | None:
        text = self._text(path)
        if text is None:
            return None
        try:
            data = json.loads(text)
        except ValueError:
            logger.warning("%s is torn and is left out.", path)
            return None
        return data if isinstance(data, dict) else None

    def _rows(self, path: str) -> list[dict[str, Any]]:
        rows = []
        for number, line in enumerate((self._text(path) or "").splitlines(), start=1):
            try:
                row = json.loads(line)
            except ValueError:
                logger.warning("%s: line %d is torn and is left out.", path, number)
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def _statuses(self) -> dict[str, str]:
        """Trial id to status, out of the newest experiment state."""
        infos = self.filesystem.get_file_info(fs.FileSelector(self.root))
        states = sorted(i.path for i in infos if i.base_name.startswith(STATE))
        if not states:
            return {}
        state = self._json(states[-1]) or {}
        statuses = {}
        for entry in state.get("trial_data", []):
            try:
                trial = json.loads(entry[0])
                statuses[str(trial["trial_id"])] = str(trial["status"])
            except (ValueError, TypeError, KeyError, IndexError):
                logger.warning("%s: the state of a trial is unreadable.", states[-1])
        return statuses
