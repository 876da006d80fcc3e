"""A Ray Tune experiment on disk: its trials, their reports, checkpoints and endings.

Reads `params.json`, `result.json`, `error.txt`, our own journal and, of Ray's snapshots, the text.
Nothing is unpickled.

Over 350 lines, as what is known of a trial is put together from several of its files at once.
"""

import logging
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pyarrow import fs

from tune_stoppers.core import require_number
from tune_stoppers.experiment.configs import Config, Configs, journalled_configs
from tune_stoppers.experiment.generations import generations
from tune_stoppers.experiment.grid import Results
from tune_stoppers.experiment.journals import Run, merged, runs_of
from tune_stoppers.experiment.judged import ended_in, judged_trials, over_in, waiting_trials
from tune_stoppers.experiment.listed import (
    FAILED,
    PENDING,
    TERMINATED,
    UNFINISHED,
    Listed,
    Listing,
    listing,
)
from tune_stoppers.experiment.own_keys import in_shares, reason_in, share_of
from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.experiment.uris import at_uri
from tune_stoppers.journal.layout import LARGEST_FILE
from tune_stoppers.journal.lines import Line, parse_lines, parsed
from tune_stoppers.metrics import number

logger = logging.getLogger("tune_stoppers")

RESULTS, PARAMS, ERROR, PICKLED_ERROR = "result.json", "params.json", "error.txt", "error.pkl"
NO_NAME = re.compile(r"^\.+|[^\w.,=+-]")  # what the name of a trial's folder does not have
SNAPSHOT = re.compile(r"experiment_state-.+\.json")
FAILED_AT = re.compile(r"^Failure # \d+ \(occurred at ([\d_-]+)\)", re.MULTILINE)  # in ERROR
TRIAL_FOLDER = re.compile(r"_([0-9a-f]{5,8}(?:_\d{5})?)_\d+(?=_|$)")  # name_<trial id>_<n>_…
BIRTH = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")  # there too

UNKNOWN = "UNKNOWN"  # the status of a trial whose end nothing tells


_TOLD: set[str] = set()  # of which earlier sweeps has been told


class ExperimentError(ValueError):
    """A folder that is no Ray Tune experiment, or one that has nothing of what was asked for."""


@dataclass(frozen=True)
class TrialRecord:
    """What the folder of one trial says."""

    trial_id: str
    folder: str  # on the experiment's filesystem
    config: Config  # the last one that the trial had
    rows: list[dict[str, Any]]  # one a report, in the order reported
    checkpoints: frozenset[str]  # names of the folders that exist
    status: str  # as Ray calls it; UNKNOWN: unfinished, or returned without anybody noting it
    reason: str | None = None  # why one of our stoppers or schedulers stopped it
    listed: Listed | None = None  # what Ray's newest snapshot says of it

    @property
    def cut(self) -> bool:
        """Whether it was ended while it ran or waited, not by a report of its own."""
        cut = self.listed is not None and self.listed.cut
        return cut and self.status == TERMINATED and not (self.rows and self.rows[-1].get("done"))

    @property
    def names(self) -> tuple[str, ...]:
        """What else it is called: by its folder, and in Ray's tables."""
        return (posixpath.basename(self.folder), *([self.listed.name] if self.listed else []))

    configs: Configs = ()  # those that a journal saw the trial take up, oldest first

    def config_at(self, row: Mapping[str, Any] | None) -> Config:
        """The configuration under which `row` was reported; without one, the trial's last.

        A row says so itself. Of one that does not, a journal may know it.
        """
        if row is None:
            return self.config
        own, reported = row.get("config"), number(row.get("timestamp"))
        if isinstance(own, dict):
            return own
        if reported is None or not self.configs:
            return self.config
        before = [config for since, config in self.configs if since <= reported]
        return before[-1] if before else self.configs[0][1]


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
        """The experiment at a local path, a URI (s3://…, gs://…, file://…), or on `filesystem`.

        A URI may have blanks and other characters as they are, or escaped ("%20").
        """
        require_number("generation", generation, at_least=0, integer=True)
        text = os.fspath(path)
        if filesystem is not None:
            root = text
        elif "://" in text:
            filesystem, root = at_uri(text)
        else:
            filesystem, root = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
        if filesystem.get_file_info(root).type is not fs.FileType.Directory:
            raise ExperimentError(f"{text} is not a folder; give the folder of an experiment.")
        return cls(filesystem, root.rstrip("/"), generation)

    @classmethod
    def of(cls, results: Results) -> "Experiment":
        """The experiment that Ray's results are of, in the sweep that they are of."""
        newest = cls(results.filesystem, results.experiment_path.rstrip("/"))
        folders = {posixpath.basename(result.path) for result in results if result.path}
        own = (r for r in newest._found if posixpath.basename(r.folder) in folders)
        generation = max((newest._number(record.trial_id) for record in own), default=0)
        return replace(newest, generation=generation) if generation else newest

    def trials(
        self,
        statuses: Mapping[str, str] | None = None,
        journal: list[Line] | None = None,
    ) -> list[TrialRecord]:
        """Every trial of the sweep, also one that has not started, in order of folder names.

        Where an earlier sweep lies in the folder as well, one warning says so.

        Of one that has several folders, as Ray forgot it in a kill and made it again, the newest
        counts. A folder without results or parameters, which a kill or a failed start may leave,
        is that of a trial if it holds an error, if Ray's newest snapshot lists it, or if our
        journal has judged it. Trials without a folder are those that the snapshot or a scheduler's
        journal knows of.

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
        owners, waiting = {str(line.get("owner")) for line in lines}, waiting_trials(lines)
        records = [self._with_status(r, owners, r.trial_id in waiting) for r in records]
        configs = journalled_configs(lines)
        records = [replace(r, configs=configs.get(r.trial_id, ())) for r in records]
        return self._with_endings(records, statuses or {}, lines)

    def listing(self) -> Listing:
        """What Ray's newest snapshot says of the trials; empty where it tells of another sweep."""
        return Listing() if self.generation else self._listing

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
    def _listing(self) -> Listing:
        files = self.filesystem.get_file_info(fs.FileSelector(self.root))
        named = [info.path for info in files if SNAPSHOT.fullmatch(info.base_name)]
        return listing(self._json(max(named))) if named else Listing()

    @cached_property
    def _found(self) -> list[TrialRecord]:
        """The trials of all sweeps in the folder, without their endings."""
        newest = max((run.birth for run in self._runs), default="")
        waiting = waiting_trials(merged(run for run in self._runs if run.birth == newest))
        known = judged_trials(merged(self._runs)) | waiting
        listed = self._listing.trials
        named = {one.folder: one for one in listed.values() if one.folder}
        found = [
            self._trial(folder, known, named.get(posixpath.basename(folder)))
            for folder in self._folders(self.root)
        ]
        of_id = {r.trial_id: r for r in sorted(filter(None, found), key=_birth)}
        if of_id or listed:
            for trial_id in sorted(waiting | set(listed)):
                of_id.setdefault(trial_id, self._without_folder(trial_id, listed.get(trial_id)))
        return sorted(of_id.values(), key=lambda record: record.folder)

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

    def written(self, folder: str) -> float | None:
        """When the newest file in `folder` was written, in seconds since the epoch, if known."""
        inside = self.filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
        times = [info.mtime_ns for info in inside if info.type is fs.FileType.File]
        return max((time / 1e9 for time in times if time is not None), default=None)

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

    def _trial(
        self, folder: str, known: Collection[str], listed: Listed | None
    ) -> TrialRecord | None:
        config = self._json(f"{folder}/{PARAMS}")
        rows = self._rows(f"{folder}/{RESULTS}")
        name = folder.rsplit("/", 1)[-1]
        named = TRIAL_FOLDER.search(name)
        known_to = listed is not None or (named is not None and named[1] in known)
        if config is None and not rows and not known_to and not self._failures(folder):
            return None  # a folder of something else
        own = next((str(row["trial_id"]) for row in rows if "trial_id" in row), None)
        inner = [path.rsplit("/", 1)[-1] for path in self._folders(folder)]
        if listed is not None and own not in (None, listed.trial_id):
            listed = None  # the folder is another trial's
        if listed is not None:
            own = listed.trial_id
            config = listed.config if config is None else config
        return TrialRecord(
            trial_id=own or (named[1] if named else name),
            folder=folder,
            config=config if config is not None else _config_of(rows),
            rows=rows,
            checkpoints=frozenset(name for name in inner if name.startswith("checkpoint_")),
            status=UNKNOWN,
            listed=listed,
        )

    def _without_folder(self, trial_id: str, listed: Listed | None) -> TrialRecord:
        """A trial that has left nothing yet."""
        folder = (listed.folder or listed.name) if listed else trial_id
        return TrialRecord(
            trial_id=trial_id,
            folder=f"{self.root}/{NO_NAME.sub('_', folder)}",
            config=listed.config if listed else {},
            rows=[],
            checkpoints=frozenset(),
            status=UNKNOWN,
            listed=listed,
        )

    def _with_status(
        self, record: TrialRecord, owners: Collection[str], waiting: bool
    ) -> TrialRecord:
        """How the trial stands, by Ray's snapshot if that is as new as its files, else by these.

        Ray marks a report as done if it ends the trial by it; that of a function that returns is
        not marked. A failure after which the trial continued is not its end.
        """
        last = record.rows[-1] if record.rows else None
        reason, listed = reason_in(last, owners), record.listed
        done = reason is not None or bool(last and last.get("done"))
        waiting = waiting and not record.rows and not record.checkpoints
        status = listed.status if listed else PENDING if waiting else UNKNOWN
        if listed is None or status in UNFINISHED or not listed.tells(last):
            if self._failed(record, done):
                status = FAILED
            elif done:
                status = TERMINATED
            elif status not in UNFINISHED:
                status = UNKNOWN
        return replace(record, status=status, reason=reason)

    def _failed(self, record: TrialRecord, done: bool) -> bool:
        """Whether the last failure came after the last report, and was not known to be tried again.

        Both are dated in whole seconds: if a report ended the trial, in the same one, it was later.
        """
        failures = self._failures(record.folder)
        if failures is None:
            return not done and self.is_file(f"{record.folder}/{PICKLED_ERROR}")
        listed = record.listed
        if listed and listed.status in UNFINISHED and 0 < len(failures) <= listed.failures:
            return False
        reported = str(record.rows[-1].get("date", "")) if record.rows else ""
        if not failures or done:
            return not done or any(failure > reported for failure in failures[-1:])
        return failures[-1] >= reported  # both as Ray writes dates

    def _failures(self, folder: str) -> list[str] | None:
        """When the trial in `folder` failed; None if no error was kept."""
        text = self._text(f"{folder}/{ERROR}")
        return None if text is None else FAILED_AT.findall(text)

    def _with_endings(
        self, records: list[TrialRecord], statuses: Mapping[str, str], journal: list[Line]
    ) -> list[TrialRecord]:
        """Fill in endings that the trials' own files do not tell."""
        ended = ended_in(journal, {record.trial_id: _last_time(record) for record in records})
        over = next(filter(None, map(over_in, journal)), None)
        shares = in_shares(row for record in records for row in record.rows)
        filled = []
        for record in records:
            status, reason = record.status, record.reason
            told = statuses.get(posixpath.basename(record.folder), status)
            if status in (UNKNOWN, *UNFINISHED) or told == FAILED:
                status = told
            through = shares and bool(record.rows) and share_of(record.rows[-1]) == 1
            if through and status in (UNKNOWN, *UNFINISHED):
                status = TERMINATED
            if record.trial_id in ended and status != FAILED:
                status, reason = TERMINATED, reason or ended[record.trial_id]
            now = replace(record, status=status, reason=reason)
            filled.append(replace(now, reason=reason or over) if now.cut else now)
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


def _config_of(rows: list[dict[str, Any]]) -> Config:
    """The trial's last configuration, by its reports."""
    said = (row.get("config") for row in reversed(rows))
    return next((config for config in said if isinstance(config, dict)), {})


def _birth(record: TrialRecord) -> str:
    """When the trial's folder was made, as Ray writes it at the end of its name."""
    dated = BIRTH.search(record.folder)
    return dated[0] if dated else ""


def _last_time(record: TrialRecord) -> float:
    """When the trial last reported, in whole seconds since the epoch."""
    value = number(record.rows[-1].get("timestamp")) if record.rows else None
    return value or 0.0
