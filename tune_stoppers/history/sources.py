"""Where earlier sweeps are read from: experiments' folders, files, recorded sweeps."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyarrow import fs

from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.experiment.uris import at_uri
from tune_stoppers.history.cache import Cache
from tune_stoppers.history.past_sweep import PastSweep, Trial, content_of
from tune_stoppers.metrics import closest
from tune_stoppers.recorded import files
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve
from tune_stoppers.surrogate.encoding import Floats

Source = str | os.PathLike[str] | Sweep
LORA = "lora"  # the name of the sweeps that come with the package
LORA_FOLDER = Path(__file__).parents[1] / "backtest" / LORA
PROGRESS = "progress"
TAKES = (
    "history takes a Ray experiment's folder, a folder of experiments, a Parquet or CSV file, a "
    f"Sweep, {LORA!r}, or a list of these"
)


def read(
    sources: Source | Sequence[Source], metric: str | None, mode: str | None
) -> tuple[list[PastSweep], list[str]]:
    """The sweeps of all sources, each once, and what is to be said of those of no use.

    `ValueError` for a path where there is nothing and for a file that cannot be read.
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f"mode must be 'min' or 'max', got {mode!r}.")
    given = sources if isinstance(sources, (list, tuple)) else [sources]
    reader = _Reader(metric, mode)
    found: dict[object, PastSweep] = {}
    for sweep in (s for source in given for s in reader.sweeps(source)):
        first = found.setdefault(sweep.identity, sweep)
        if first is not sweep:
            reader.said.append(f"{sweep.name} is {first.name} again: it counts once.")
    return list(found.values()), reader.said


def contents_of(sweep: Sweep) -> frozenset[str]:
    """The `content` of a past sweep that was learnt from this one, by whatever metric."""
    return frozenset(_content(sweep, metric) for metric in sweep.metrics) - {""}


class _Reader:
    """Reads one source after another; what was read before is not read again."""

    def __init__(self, metric: str | None, mode: str | None) -> None:
        self.said: list[str] = []
        self._metric, self._mode = metric, mode
        self._seen: set[object] = set()

    def sweeps(self, source: object) -> Iterator[PastSweep]:
        if isinstance(source, Sweep):
            if self._is_new(id(source)):
                yield from self._learnt(source)
        elif source == LORA:
            for path in sorted(LORA_FOLDER.glob("*.parquet")):
                yield from self._file(str(path))
        elif isinstance(source, (str, os.PathLike)):
            yield from self._at(os.fspath(source))
        else:
            raise TypeError(f"{TAKES}; got {source!r}.")

    def _at(self, path: str) -> Iterator[PastSweep]:
        if "://" in path:
            try:
                filesystem, root = at_uri(path)
                kind = filesystem.get_file_info(root).type
            except (ValueError, OSError) as error:
                raise ValueError(f"history: {path} cannot be read: {error}") from error
        else:
            path = os.path.abspath(os.path.expanduser(path))
            filesystem, root = fs.LocalFileSystem(), path
            kind = filesystem.get_file_info(root).type
        if kind is fs.FileType.Directory:
            yield from self._folder(filesystem, root.rstrip("/"), path.rstrip("/"))
        elif kind is fs.FileType.NotFound:
            raise ValueError(f"history: there is nothing at {path}.{_beside(path)} {TAKES}.")
        elif isinstance(filesystem, fs.LocalFileSystem):
            yield from self._file(root)
        else:
            raise ValueError(f"history: {path} is a file: copy it here, folders are read remotely.")

    def _folder(self, filesystem: fs.FileSystem, root: str, shown: str) -> Iterator[PastSweep]:
        """The experiment, or all experiments and recorded sweeps right in the folder."""
        try:
            yield from self._experiment(filesystem, root, shown)
            return
        except ExperimentError as error:
            why = _sentence(error)
        found = 0
        for info in sorted(filesystem.get_file_info(fs.FileSelector(root)), key=lambda i: i.path):
            if not is_inside(filesystem, info.path, root):
                continue  # a link elsewhere
            try:
                if info.type is fs.FileType.Directory:
                    inner = f"{shown}/{posixpath.basename(info.path)}"
                    yield from self._experiment(filesystem, info.path, inner)
                elif isinstance(filesystem, fs.LocalFileSystem) and _reader_of(info.path):
                    yield from self._file(info.path)
                else:
                    continue
                found += 1
            except ExperimentError:
                continue  # a folder of something else
            except (ValueError, OSError) as error:
                found += 1
                self.said.append(f"{_sentence(error)} It is left out of the history.")
        if not found:
            self.said.append(f"{why} Nor are there any in it: nothing is learnt from it.")

    def _experiment(self, filesystem: fs.FileSystem, root: str, shown: str) -> Iterator[PastSweep]:
        """One experiment; `ExperimentError` if it is none."""
        if not self._is_new((filesystem.type_name, root)):
            return
        cache = Cache(filesystem, root, self._metric, self._mode)
        if kept := cache.read():
            yield kept
            return
        for sweep in self._learnt(Sweep.from_ray(shown)):
            cache.write(sweep)
            yield sweep

    def _file(self, path: str) -> Iterator[PastSweep]:
        reader = _reader_of(path)
        if reader is None:
            raise ValueError(f"history: {path} is neither a Parquet nor a CSV file. {TAKES}.")
        if not self._is_new(("local", path)):
            return
        try:
            sweep = reader(path)
        except (ValueError, OSError) as error:
            what = str(error) if path in str(error) else f"{path} cannot be read: {error}"
            raise ValueError(f"history: {what}") from error
        yield from self._learnt(sweep)

    def _learnt(self, sweep: Sweep) -> Iterator[PastSweep]:
        """What is kept of the sweep; nothing, and a sentence, if it is of no use."""
        try:
            yield _past(sweep, self._metric, self._mode)
        except ValueError as error:
            self.said.append(f"{_sentence(error)} It is left out of the history.")

    def _is_new(self, key: object) -> bool:
        new = key not in self._seen
        self._seen.add(key)
        return new


def _reader_of(path: str) -> Callable[[str], Sweep] | None:
    if files.is_csv(path):
        return Sweep.from_csv
    return Sweep.from_parquet if files.is_parquet(path) else None


def _beside(path: str) -> str:
    """' Did you mean …?' for what lies beside a path where there is nothing."""
    above, name = os.path.split(path.rstrip("/"))
    try:
        there = os.listdir(above)
    except OSError:
        return ""
    return closest(name, there)


def _sentence(error: Exception) -> str:
    text = str(error).strip()
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _past(sweep: Sweep, metric: str | None, mode: str | None) -> PastSweep:
    """Judged by `metric` if the sweep reported it, else by its own objective."""
    if metric is None or metric not in sweep.metrics:
        metric, mode = sweep.objective()
    else:
        metric, mode = sweep.objective(metric, mode)
    past = PastSweep.of(sweep.name, _trials(sweep, metric, mode))
    return replace(past, content=_content(sweep, metric))


def _content(sweep: Sweep, metric: str) -> str:
    return content_of(c.metrics[metric] for c in sweep if metric in c.metrics)


def _trials(sweep: Sweep, metric: str, mode: str) -> Iterator[Trial]:
    for curve in sweep:
        there = ~curve.missing.get(metric, np.zeros(len(curve), dtype=bool))
        if metric in curve.metrics and there.any():
            losses = curve.losses(metric, mode)
            yield Trial(curve.config, _shares(curve, sweep.max_t)[there], losses[there])


def _shares(curve: Curve, max_t: int) -> Floats:
    """The share of the horizon at each report: the trial's own progress, where it reports that."""
    progress = curve.metrics.get(PROGRESS)
    if progress is not None and ((progress >= 0) & (progress <= 1)).all():
        return np.maximum.accumulate(progress)
    return np.asarray(curve.iterations / max_t)
