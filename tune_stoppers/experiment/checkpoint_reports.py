"""Of each checkpoint of a trial that still exists, the report that it came with."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tune_stoppers.experiment.class_checkpoints import Claim, is_of_a_class, rightful
from tune_stoppers.experiment.folder import Experiment, TrialRecord
from tune_stoppers.experiment.journalled_checkpoints import Saved
from tune_stoppers.experiment.listed import FAILED, TERMINATED
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import (
    CHECKPOINT_NAME,
    TIMESTAMP,
    TRAIN_CHECKPOINT,
    TRAINING_ITERATION,
)

Row = dict[str, Any]
NUMBERED = re.compile(r"checkpoint_\d+")  # as Ray names them


@dataclass(frozen=True)
class CheckpointFacts:
    """What is known of a trial's checkpoints beside its results, each by its name."""

    saved: Mapping[str, Saved] = field(default_factory=dict)  # what journals judged there
    claims: Mapping[str, list[Claim]] = field(default_factory=dict)  # a class trainable's
    registered: Mapping[str, Row] = field(default_factory=dict)  # what a `ResultGrid` has of them

    def claim(self, name: str, written: partial[float | None]) -> Claim | None:
        """The report that a class trainable's checkpoint belongs to, if a journal knows it.

        Under PBT Ray may save more than once at a report: only the first name was promised.
        """
        if NUMBERED.fullmatch(name):  # of one length, so in the order of their numbers
            name = max((known for known in self.claims if known <= name), default=name)
        claims = self.claims.get(name)
        return rightful(claims, written) if claims else None


@dataclass(frozen=True)
class CheckpointReports:
    """The reports of a trial's checkpoints."""

    rows: list[Row]  # of those that exist
    lost: list[Row]  # of these, the ones that are not in the results
    unknown: int  # checkpoints of a class trainable whose report is not known


def checkpoint_reports(
    experiment: Experiment, trial: TrialRecord, known: CheckpointFacts, metric: str, time_attr: str
) -> CheckpointReports:
    """By the trial's results, and by what else is `known`; journals judged `metric`."""
    # a folder may come twice, if the trial went back and wrote over it: the newest row tells
    told = {folder_of(trial, row): row for row in trial.rows}
    by_class, lost, torn = is_of_a_class(trial.rows), [], 0
    # Ray saves a class trainable after its report: until the next one, the folder may be torn
    runs = trial.status not in (TERMINATED, FAILED)
    newest = max((c[-1] for c in known.claims.values()), default=None) if runs else None
    for name in trial.checkpoints:
        folder = f"{trial.folder}/{name}"
        claim = known.claim(name, partial(experiment.written, folder)) if by_class else None
        row, saved = told.get(folder), known.saved.get(name)
        if row is None and (registered := known.registered.get(name)) is not None:
            row = _row_of(registered, trial.rows)
            lost += [] if row else [registered]
            told[folder] = (row or registered) | {CHECKPOINT_NAME: name}
        elif claim is not None and claim == newest:
            torn += 1
        elif row is None and claim is not None and (row := claim.row_in(trial.rows)):
            told[folder] = row | {CHECKPOINT_NAME: name}
        elif saved is not None and saved.replaces(row, metric, time_attr) and _fits(saved, claim):
            told[folder] = saved.row
            lost.append(saved.row)
    unknown = sum(
        f"{trial.folder}/{name}" not in told
        for name in trial.checkpoints
        if by_class and NUMBERED.fullmatch(name)
    )
    return CheckpointReports(list(_existing(experiment, trial, told)), lost, unknown - torn)


def folder_of(trial: TrialRecord, row: Mapping[str, Any]) -> str | None:
    """Where the checkpoint that came with a report lies: with Tune, or with Ray Train."""
    name = row.get(CHECKPOINT_NAME)
    if name:
        return f"{trial.folder}/{name}"
    path = row.get(TRAIN_CHECKPOINT)
    return path if isinstance(path, str) and path else None


def _fits(saved: Saved, claim: Claim | None) -> bool:
    return claim is None or claim.iteration == number(saved.row.get(TRAINING_ITERATION))


def _row_of(registered: Row, rows: Iterable[Row]) -> Row | None:
    """The report in the results that Ray has `registered` with a checkpoint."""
    wanted = [registered.get(key) for key in (TRAINING_ITERATION, TIMESTAMP)]
    same = (row for row in rows if [row.get(k) for k in (TRAINING_ITERATION, TIMESTAMP)] == wanted)
    return next(same, None)


def _existing(
    experiment: Experiment, trial: TrialRecord, told: Mapping[str | None, Row]
) -> Iterator[Row]:
    """Those of the reports in `told`, by folder, whose folder still exists."""
    for folder, row in told.items():
        if row.get(CHECKPOINT_NAME):
            if str(row[CHECKPOINT_NAME]) in trial.checkpoints:
                yield row
        elif folder is not None and experiment.is_folder(folder):
            yield row
