"""The journals of an experiment: a run for each stopper and scheduler of ours that watched it.

Layout: `<experiment>/tune_stoppers/<birth>-<owner>-<uid>/journal-<n>.jsonl`. An experiment that was
begun again under an old name has another birth, and only the newest one's runs count.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs

from tune_stoppers.core import Action
from tune_stoppers.journal import Line
from tune_stoppers.metrics import logger, number
from tune_stoppers.recorder import read_lines, segments_of
from tune_stoppers.rules.fold import FORGOT
from tune_stoppers.tune.state import FOLDER

_NAME = re.compile(r"(?P<birth>.+)-(?P<owner>\w+)-(?P<uid>[0-9a-f]{8})")
_ACTIONS = frozenset(action.value for action in Action)


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
        """The rule as `rules.spec` writes it; None where the journal does not say."""
        return next((line["spec"] for line in self.lines if line.get("spec")), None)

    @property
    def sign(self) -> int:
        """-1 where the metric is maximised."""
        return next((line["sign"] for line in self.lines if line.get("sign") in (1, -1)), 1)


def runs_of(filesystem: pafs.FileSystem, root: str, *, every: bool = False) -> list[Run]:
    """The runs in the experiment folder `root`, of its newest birth unless `every` is asked for.

    Lines that are torn, or are none of ours, are left out with a note; so is a run that cannot be
    read.
    """
    selector = pafs.FileSelector(f"{root}/{FOLDER}", allow_not_found=True)
    named = [
        (match, info.path)
        for info in sorted(filesystem.get_file_info(selector), key=lambda info: info.base_name)
        if info.type is pafs.FileType.Directory and (match := _NAME.fullmatch(info.base_name))
    ]
    newest = max((match["birth"] for match, _ in named), default="")
    runs = [
        _run(filesystem, path, **match.groupdict())
        for match, path in named
        if every or match["birth"] == newest
    ]
    return [run for run in runs if run is not None]


def merged(runs: Iterable[Run]) -> list[Line]:
    """The lines of all runs, oldest first."""
    lines = (line for run in runs for line in run.lines)
    return sorted(lines, key=lambda line: number(line.get("time")) or 0.0)


def _run(filesystem: pafs.FileSystem, folder: str, birth: str, owner: str, uid: str) -> Run | None:
    try:
        numbered = read_lines(filesystem, segments_of(filesystem, folder))
    except (OSError, ValueError) as error:
        logger.warning("%s is left out.", error)
        return None
    lines = [numbered[place] for place in sorted(numbered)]
    sound = tuple({"owner": owner} | line for line in lines if _is_sound(line))
    return Run(birth, owner, uid, sound, max(numbered, default=0) - len(sound))


def _is_sound(line: Line) -> bool:
    """Whether a line has what every reader relies on."""
    if number(line.get("time")) is None or not isinstance(line.get("trial"), str):
        return False
    if "action" in line:
        step = number(line.get("step"))
        return line["action"] in _ACTIONS and step is not None and math.isfinite(step)
    numbers, trials = line.get("numbers", {}), line.get("trials", [])
    if not isinstance(line.get("event"), str) or not isinstance(numbers, dict):
        return False
    return line["event"] != FORGOT or isinstance(trials, list)
