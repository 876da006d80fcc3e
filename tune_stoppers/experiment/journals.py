"""The journals of an experiment: a run for each of our stoppers and schedulers that watched it.

Layout: `<experiment>/tune_stoppers/<birth>-<owner>-<uid>/journal-<n>.jsonl`. An experiment that was
begun again under an old name has another birth, and only the newest one's runs count.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs

from tune_stoppers.core import Action
from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.journal.layout import FOLDER, RUN, read_lines, segments_of
from tune_stoppers.journal.lines import FORGOT, Line
from tune_stoppers.journal.recorder import flush_all
from tune_stoppers.metrics import logger, number

_WORDS = tuple(action.value for action in Action)


@dataclass(frozen=True)
class Run:
    """What one stopper or scheduler wrote down."""

    birth: str  # of the experiment
    owner: str  # the class of the stopper or scheduler
    uid: str  # tells two of the same class apart
    lines: tuple[Line, ...]  # in the order written; each with its owner
    missing: int  # lines that were lost or torn

    @property
    def spec(self) -> Any:
        """The rule as `journal.spec` writes it; None where the journal does not say."""
        return next((line["spec"] for line in self.lines if line.get("spec")), None)

    @property
    def version(self) -> int | None:
        """Of the rule, where the journal says it: those of schedulers do."""
        said = (re.search(r"version (\d+)$", str(line.get("rule", ""))) for line in self.lines)
        return next((int(found[1]) for found in said if found), None)

    @property
    def sign(self) -> int:
        """-1 where the metric is maximised."""
        return next((line["sign"] for line in self.lines if line.get("sign") in (1, -1)), 1)


def runs_of(filesystem: pafs.FileSystem, root: str, *, every: bool = False) -> list[Run]:
    """The runs in the experiment folder `root`, of its newest birth unless `every` is asked for.

    What this process has still to write is written first. Lines that are torn, or are none of
    ours, are left out with a note; so is a run that cannot be read.
    """
    flush_all(root)
    selector = pafs.FileSelector(f"{root}/{FOLDER}", allow_not_found=True)
    named = [
        (match, info.path)
        for info in sorted(filesystem.get_file_info(selector), key=lambda info: info.base_name)
        if info.type is pafs.FileType.Directory and (match := RUN.fullmatch(info.base_name))
    ]
    newest = max((match["birth"] for match, _ in named), default="")
    runs = [
        _run(filesystem, root, path, **match.groupdict())
        for match, path in named
        if every or match["birth"] == newest
    ]
    return [run for run in runs if run is not None]


def merged(runs: Iterable[Run]) -> list[Line]:
    """The lines of all runs, oldest first."""
    lines = (line for run in runs for line in run.lines)
    return sorted(lines, key=lambda line: number(line.get("time")) or 0.0)


def objective_of(lines: Sequence[Line]) -> tuple[str | None, str | None]:
    """The metric and the mode that the journal names, None for what it does not."""
    metric = next((str(line["metric"]) for line in lines if line.get("metric")), None)
    mode = next((str(line["mode"]) for line in lines if line.get("mode")), None)
    of_metric = [line for line in lines if line.get("metric") == metric]
    for told in (of_metric, lines):
        signs = {line["sign"] for line in told if line.get("sign") in (1, -1)}
        if mode is None and len(signs) == 1:
            mode = "min" if signs == {1} else "max"
    return metric, mode


def _run(
    filesystem: pafs.FileSystem, root: str, folder: str, birth: str, owner: str, uid: str
) -> Run | None:
    segments = segments_of(filesystem, folder)
    if any(not is_inside(filesystem, segment.path, root) for segment in segments):
        logger.warning("%s leads out of the experiment's folder and is left out.", folder)
        return None
    try:
        numbered = read_lines(filesystem, segments)
    except (OSError, ValueError) as error:
        logger.warning("%s is left out.", error)
        return None
    lines = [numbered[number] for number in sorted(numbered)]
    sound = tuple({"owner": owner} | line for line in lines if is_sound(line))
    return Run(birth, owner, uid, sound, max(numbered, default=0) - len(sound))


def is_sound(line: Line) -> bool:
    """Whether a line has what every reader relies on."""
    if not _is_finite(line.get("time")) or not isinstance(line.get("trial"), str):
        return False
    if not all(isinstance(line.get(key, ""), str) for key in ("event", "owner")):
        return False
    if not _are_numbers(line.get("numbers", {})):
        return False
    if "action" in line:
        return line["action"] in _WORDS and _is_finite(line.get("step"))
    return "event" in line and (line["event"] != FORGOT or isinstance(line.get("trials"), list))


def _is_finite(value: Any) -> bool:
    known = number(value)
    return known is not None and math.isfinite(known)


def _are_numbers(numbers: Any) -> bool:
    """Whether these are numbers by name, and, in a combined decision, those of its parts."""
    if not isinstance(numbers, dict) or not isinstance(numbers.get("parts", []), list):
        return False
    return all(_are_numbers(part) for part in numbers.get("parts", ()))
