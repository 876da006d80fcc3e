"""A Ray Tune experiment on disk: its trials, their reports, checkpoints and endings.

Reads `params.json`, `result.json`, `error.txt`, our own journal and, where a folder holds more than
one sweep, the trials' ids in Ray's experiment state. Nothing is unpickled.
"""

import logging
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pyarrow import fs

from tune_stoppers.core import require_number
from tune_stoppers.journal import (
    ENDED,
    GIVEN_UP,
    UNJUDGED,
    USER,
    Line,
    asks_to_stop,
    parse_lines,
    parsed,
)
from tune_stoppers.metrics import number
from tune_stoppers.recorder import LARGEST_FILE
from tune_stoppers.tune.generations import generations
from tune_stoppers.tune.inside import is_inside
from tune_stoppers.tune.judged import judged_trials
from tune_stoppers.tune.reader import STOP_REASON
from tune_stoppers.tune.runs import Run, merged, runs_of
from tune_stoppers.tune.state import asked

if TYPE_CHECKING:
    from ray.tune import ResultGrid

logger = logging.getLogger("tune_stoppers")

RESULTS, PARAMS, ERROR, PICKLED_ERROR = "result.json", "params.json", "error.txt", "error.pkl"
FAILED_AT = re.compile(r"^Failure # \d+ \(occurred at ([\d_-]+)\)", re.MULTILINE)  # in ERROR
TRIAL_FOLDER = re.compile(r"_([0-9a-f]{5,8}(?:_\d{5})?)_\d+(?=_|$)")  # name_<trial id>_<n>_…
BIRTH = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")  # there too

# what the files of a trial say of its end
TERMINATED, FAILED, UNKNOWN = "TERMINATED", "ERROR", "UNKNOWN"


_TOLD: set[str] = set()  # of which earlier sweeps has been told


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
    status: str  # TERMINATED, ERROR; UNKNOWN: unfinished, or returned without anybody noting it
    reason: str | None = None  # why one of ours stopped it


@dataclass(frozen=True)
class Experiment:
    """An experiment folder on any filesystem that pyarrow reaches."""

    filesystem: fs.FileSystem = field(repr=False)
    root: str
    generation: int = 0  # which sweep, of several in the folder: 0 is the newest, 1 the one before

    @classmethod
    def at(
        cls,
        path: str | os.PathLike[str],
        filesystem: fs.FileSystem | None = None,
        generation: int = 0,
    ) -> "Experiment":
        """The experiment at a local path, a URI (s3://…, gs://…, file://…), or on `filesystem`."""
        require_number("generation", generation, at_least=0, integer=True)
        text = os.fspath(path)
        if filesystem is not None:
            root = text
        elif "://" in text:
            filesystem, root = fs.FileSystem.from_uri(text)
        else:
            filesystem, root = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
        if filesystem.get_file_info(root).type is not fs.FileType.Directory:
            raise ExperimentError(f"{text} is not a folder; give the folder of an experiment.")
        return cls(filesystem, root.rstrip("/"), generation)

    @classmethod
    def of(cls, results: "ResultGrid") -> "Experiment":
        """The experiment that Ray's results are of, in the sweep that they are of."""
        newest = cls(results.filesystem, results.experiment_path.rstrip("/"))
        folders = {posixpath.basename(result.path) for result in results if result.path}
        own = (r for r in newest._found if posixpath.basename(r.folder) in folders)
        generation = max((newest._number(record.trial_id) for record in own), default=0)
        return replace(newest, generation=generation) if generation else newest

    def trials(
        self, statuses: Mapping[str, str] | None = None, journal: list[Line] | None = None
    ) -> list[TrialRecord]:
        """Every trial of the sweep that has a folder, in order of folder names.

        Where an earlier sweep lies in the folder as well, one warning says so.

        Of one that has several, as Ray forgot it in a kill and made it again, the newest counts.
        A folder without results or parameters, which a kill may leave, is that of a trial if a
        journal of ours has judged it.

        `statuses`: what is known better than the files can say, by trial folder's name.
        `journal`: what `journal` gave, if it has been read already.
        `ExperimentError` if this is no experiment.
        """
        lines = self.journal() if journal is None else journal
        if not self._found:
            raise ExperimentError(
                f"{self.root} is no Ray Tune experiment: no folder in it has a {PARAMS}."
            )
        records = [r for r in self._found if self._number(r.trial_id) == self.generation]
        if not records:
            raise ExperimentError(
                f"{self.root} has no sweep generation={self.generation}, only 0 (the newest) to "
                f"{max(self._numbers.values(), default=0)}."
            )
        self._tell_of_earlier()
        return self._with_endings(records, statuses or {}, lines)

    def journal(self) -> list[Line]:
        """The lines of all journals that our stoppers and schedulers wrote here, oldest first."""
        return merged(self.runs())

    def runs(self) -> list[Run]:
        """What each of our stoppers and schedulers wrote of this sweep."""
        others = {t for t, number in self._numbers.items() if number != self.generation}
        if not others:
            newest = max((run.birth for run in self._runs), default="")
            return [run for run in self._runs if run.birth == newest]
        own = {t for t, number in self._numbers.items() if number == self.generation}
        runs = [
            replace(run, lines=tuple(line for line in run.lines if line["trial"] not in others))
            for run in self._runs
        ]
        return [run for run in runs if any(line["trial"] in own for line in run.lines)]

    @cached_property
    def _runs(self) -> list[Run]:
        return runs_of(self.filesystem, self.root, every=True)

    @cached_property
    def _found(self) -> list[TrialRecord]:
        """The trials of all sweeps in the folder, without their endings."""
        judged = judged_trials(merged(self._runs))
        found = [self._trial(folder, judged) for folder in self._folders(self.root)]
        newest = {r.trial_id: r for r in sorted(filter(None, found), key=_birth)}
        return sorted(newest.values(), key=lambda record: record.folder)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The generation of each trial."""
        births = {record.trial_id: _birth(record) for record in self._found}
        return generations(self.filesystem, self.root, births)

    def _number(self, trial_id: str) -> int:
        return self._numbers.get(trial_id, 0)

    @property
    def earlier(self) -> str:
        """That there is an earlier sweep in the folder, and how to see it; "" if there is none."""
        before = self.generation + 1
        count = sum(number == before for number in self._numbers.values())
        if not count:
            return ""
        return (
            f"The folder also holds an earlier sweep, of {count} trials, which is left out. To see "
            f"it: generation={before}, or `tune-stoppers explain`, `report` or `best` with "
            f"--generation {before}."
        )

    def _tell_of_earlier(self) -> None:
        told = f"{self.root}: {self.earlier}"
        if self.earlier and told not in _TOLD:
            _TOLD.add(told)
            logger.warning("%s", told)

    def is_folder(self, path: str) -> bool:
        """Whether `path` is a folder in the storage that the experiment lies in, not elsewhere."""
        inside = is_inside(self.filesystem, path, posixpath.dirname(self.root))
        return inside and self.filesystem.get_file_info(path).type is fs.FileType.Directory

    def is_file(self, path: str) -> bool:
        """Whether `path` is a file in this folder, not a link to elsewhere."""
        if self.filesystem.get_file_info(path).type is not fs.FileType.File:
            return False
        return self._is_ours(path)

    def _is_ours(self, path: str) -> bool:
        if is_inside(self.filesystem, path, self.root):
            return True
        logger.warning("%s leads out of the experiment's folder and is left out.", path)
        return False

    def _folders(self, path: str) -> Iterator[str]:
        for info in self.filesystem.get_file_info(fs.FileSelector(path)):
            if info.type is fs.FileType.Directory and self._is_ours(info.path):
                yield info.path

    def _trial(self, folder: str, judged: Collection[str]) -> TrialRecord | None:
        config = self._json(f"{folder}/{PARAMS}")
        rows = self._rows(f"{folder}/{RESULTS}")
        name = folder.rsplit("/", 1)[-1]
        named = TRIAL_FOLDER.search(name)
        if config is None and not rows and not (named and named[1] in judged):
            return None  # a folder of something else
        known = next((str(row["trial_id"]) for row in rows if "trial_id" in row), None)
        inner = [path.rsplit("/", 1)[-1] for path in self._folders(folder)]
        return TrialRecord(
            trial_id=known or (named[1] if named else name),
            folder=folder,
            config=config or {},
            rows=rows,
            checkpoints=frozenset(name for name in inner if name.startswith("checkpoint_")),
            status=self._status(folder, rows),
            reason=str(rows[-1][STOP_REASON]) if rows and rows[-1].get(STOP_REASON) else None,
        )

    def _status(self, folder: str, rows: list[dict[str, Any]]) -> str:
        """How the trial ended, by its own files.

        Ray marks a report as done if it ends the trial by it; that of a function that returns is
        not marked. A failure that the trial went on after is not its end.
        """
        last = rows[-1] if rows else {}
        if last.get("done") or STOP_REASON in last:
            return TERMINATED
        if self._failed(folder, str(last.get("date", ""))):
            return FAILED
        return TERMINATED if (number(last.get("progress")) or 0) >= 1 else UNKNOWN

    def _failed(self, folder: str, reported: str) -> bool:
        """Whether the last failure came after the last report."""
        text = self._text(f"{folder}/{ERROR}")
        if text is None:
            return self.is_file(f"{folder}/{PICKLED_ERROR}")
        failures = FAILED_AT.findall(text)
        return not failures or failures[-1] >= reported  # both as Ray writes dates

    def _with_endings(
        self, records: list[TrialRecord], statuses: Mapping[str, str], journal: list[Line]
    ) -> list[TrialRecord]:
        """Fill in endings that the trials' own files do not tell."""
        ended = _ended(journal, {record.trial_id: record for record in records})
        filled = []
        for record in records:
            status, reason = record.status, record.reason
            if status == UNKNOWN:
                status = statuses.get(posixpath.basename(record.folder), UNKNOWN)
            if record.trial_id in ended and status != FAILED:
                status, reason = TERMINATED, reason or ended[record.trial_id]
            filled.append(replace(record, status=status, reason=reason))
        return filled

    def _text(self, path: str) -> str | None:
        if not self.is_file(path):
            return None
        size = self.filesystem.get_file_info(path).size or 0
        if size > LARGEST_FILE:
            told = "%s has %d bytes, of which at most %d are read: it is left out."
            logger.warning(told, path, size, LARGEST_FILE)
            return None
        with self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.read()).decode("utf-8", errors="replace")

    def _json(self, path: str) -> dict[str, Any] | None:
        text = self._text(path)
        if text is None:
            return None
        try:
            data = parsed(text)
        except ValueError:
            logger.warning("%s is torn and is left out.", path)
            return None
        return data if isinstance(data, dict) else None

    def _rows(self, path: str) -> list[dict[str, Any]]:
        return parse_lines(self._text(path) or "", path)


def _birth(record: TrialRecord) -> str:
    """When the trial's folder was made, as Ray writes it at the end of its name."""
    dated = BIRTH.search(record.folder)
    return dated[0] if dated else ""


class _End(NamedTuple):
    time: float  # seconds since the epoch
    step: float
    reason: str | None


def _ended(journal: list[Line], records: Mapping[str, TrialRecord]) -> dict[str, str | None]:
    """Those of `records` that the journal saw end, and that did not go on after it, and why."""
    ends: dict[str, _End] = {}
    judged: dict[str, float] = {}  # where each trial was last
    for line in journal:
        trial_id, event = str(line.get("trial")), line.get("event")
        time, step = number(line.get("time")) or 0.0, number(line.get("step")) or 0.0
        if "action" in line:
            judged[trial_id] = step
        if asks_to_stop(line):
            ends[trial_id] = _End(time, step, f"{line.get('owner')}: {line.get('reason')}")
        elif event in (ENDED, UNJUDGED):
            known = ends.get(trial_id)
            ends[trial_id] = _End(time, step, known.reason if known else None)
        elif event in (GIVEN_UP, USER):  # it may have been waiting, and reports nothing more
            why = str((line.get("numbers") or {}).get("why", ""))
            told = asked(why) if event == USER else why
            ends[trial_id] = _End(time, judged.get(trial_id, 0.0), told)
        elif "action" in line and trial_id in ends and step > ends[trial_id].step:
            del ends[trial_id]  # judged at a later report
    return {
        trial_id: end.reason
        for trial_id, end in ends.items()
        if trial_id in records and _last_time(records[trial_id]) <= end.time + 1
    }


def _last_time(record: TrialRecord) -> float:
    """When the trial last reported, in whole seconds since the epoch."""
    value = number(record.rows[-1].get("timestamp")) if record.rows else None
    return value or 0.0
