"""The best state of every trial of an experiment: which it was, and where it lies."""

import logging
import math
import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyarrow import fs

from tune_stoppers.core import Mode
from tune_stoppers.experiment.best_state import BestState
from tune_stoppers.experiment.checkpoint_reports import (
    CheckpointFacts,
    Row,
    checkpoint_reports,
    folder_of,
)
from tune_stoppers.experiment.class_checkpoints import claims_in
from tune_stoppers.experiment.configs import Config, differing, flat
from tune_stoppers.experiment.counting import time_attr_of
from tune_stoppers.experiment.diverged import creditable, has_diverged
from tune_stoppers.experiment.folder import Experiment, ExperimentError, TrialRecord
from tune_stoppers.experiment.grid import Results, registered_in
from tune_stoppers.experiment.journalled_checkpoints import saved_in
from tune_stoppers.experiment.journals import Run, merged
from tune_stoppers.experiment.listed import FAILED, TERMINATED
from tune_stoppers.experiment.stop_request import meant
from tune_stoppers.metrics import check_metric, closest, flat_keys, lookup, recorded, sign_of
from tune_stoppers.result_keys import TRAINING_ITERATION

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("tune_stoppers")


def best_states(
    results: Results | str | os.PathLike[str],
    metric: str,
    mode: Mode,
    *,
    time_attr: str | None = None,
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> "pd.DataFrame":
    """One row per trial: its best report, its best checkpoint, how it ended and why.

    Columns: `trial_id`; `best_step`, `best_value` of the best report; `checkpoint_step`,
    `checkpoint_value`, `checkpoint` of the best report whose checkpoint still exists (these
    differ when the best report came without one); `diverged` (the last value reported is not
    finite); `status`; `reason` (why one of our stoppers or schedulers stopped it); `reports`;
    `config/…`.

    `config/…` is the configuration that the best checkpoint was trained with, or the best report
    where there is no checkpoint. A rollback, or Ray's PBT, changes a trial's configuration: what
    differs in some trial at the best report, or at the trial's end, has columns `best_config/…`
    and `last_config/…` too. Each report says its own; one that does not (a result that was lost)
    takes it from our journal, else from the trial's end.

    Status: TERMINATED (stopped, or returned), ERROR (failed, and was not tried again), or RUNNING,
    PAUSED, PENDING, as Ray's newest snapshot has it: a killed sweep's stays so. Trials that wait
    have rows too. UNKNOWN where no snapshot tells, and our journal did not see the trial end.

    Ray can lose results of a trial that it restores or resumes: of those that came with a
    checkpoint that still exists, what our journal kept counts too, if that stopper or
    scheduler had the same metric and `time_attr`; not in `reports`.

    Values that are not finite never win; of equal values the first does. A trial that diverged at
    once is not credited with the evaluation before its first step. A trial without a finite
    report, or without a checkpoint, has NaN and None there. The checkpoints of a Ray Train run
    inside the trial are found if they lie in the same storage path as the experiment.

    Results of class trainables (`save_checkpoint`) do not name the checkpoints that Ray saves.
    Our journal does, and so does a `ResultGrid`. A folder alone, without a journal, does not say
    which report a checkpoint belongs to. Such checkpoints are left out, with a warning: give
    `tune.Tuner.restore(path, trainable).get_results()` instead of the path.

    Args:
        results: what `Tuner.fit` gave, or the experiment's folder (a local path or a URI), of a
            finished or an unfinished run.
        metric: what trials reported, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required.
        time_attr: what counts as the step; default: what the journal counts in, else
            `training_iteration`.
        filesystem: pyarrow's, where the folder is not on one that its URI names
            (`RunConfig(storage_filesystem=...)`).
        generation: which sweep, where the folder holds several, as one that was begun anew leaves
            the trials of the one before: 0 is the newest, 1 the one before it.

    `ExperimentError` (a `ValueError`) if the path is no experiment or if no trial reported the
    metric.
    """
    return frame_of(best_rows(results, metric, mode, time_attr, filesystem, generation))


def best_rows(
    results: Results | str | os.PathLike[str],
    metric: str,
    mode: Mode,
    time_attr: str | None = None,
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> list[dict[str, Any]]:
    """The rows of `best_states`, each with all columns; pandas, half a second, is not needed."""
    read = _Read.of(results, filesystem, generation)
    found = read.scan(metric, mode, time_attr)
    if said := _unknown(found):
        logger.warning("%s:%s", read.experiment.root, said)
    rows = [one.row | one.columns(found) for one in found]
    columns = dict.fromkeys((column for row in rows for column in row), math.nan)
    return [columns | row for row in rows]


def frame_of(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """Those rows as `best_states` gives them."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for column in ("checkpoint", "reason"):  # None stays None instead of becoming NaN
        if rows:
            frame[column] = pd.Series([row[column] for row in rows], dtype=object)
    return frame


def best_state(
    results: Results | str | os.PathLike[str],
    metric: str,
    mode: Mode,
    *,
    trial_id: str | None = None,
    time_attr: str | None = None,
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> BestState:
    """The best checkpoint of all trials, or of `trial_id`.

    ::

        best_state(results, "eval_loss", "min").restore(model)

    Args:
        results, metric, mode, time_attr, filesystem, generation: as for `best_states`.
        trial_id: also its name in Ray's tables ("train_3a5e0_00002"), or how its id alone begins
            or ends; None: the best of all trials.

    `ExperimentError` if there is none: no finite value of the metric was ever reported together
    with a checkpoint that still exists.
    """
    read = _Read.of(results, filesystem, generation)
    found = read.scan(metric, mode, time_attr)
    if trial_id is not None:
        trial_id = meant(trial_id, {trial.trial_id: trial.names for trial in read.trials})
        found = [one for one in found if one.row["trial_id"] == trial_id]
    states = [one.state for one in found if one.state is not None]
    if not states:
        which = "No trial" if trial_id is None else f"Trial {trial_id}"
        no = "" if trial_id is None else "no "
        gone = sum(one.row["diverged"] for one in found)
        note = f" {gone} of {len(found)} diverged." if gone else ""
        raise ExperimentError(
            f"No best state in {read.experiment.root}: {which} has {no}finite {metric!r} reported "
            f"together with a checkpoint that still exists.{note}{_unknown(found)}"
        )
    if said := _unknown(found):
        logger.warning("%s: left out of the best.%s", read.experiment.root, said)
    return min(states, key=lambda state: sign_of(mode) * state.value)


class _Found(NamedTuple):
    """What is found of a trial."""

    row: dict[str, Any]  # of `best_states`, without the configurations
    state: BestState | None
    configs: dict[str, Config]  # of the state (or of the best report), that report, and the last
    unknown: int  # checkpoints whose report is not known

    def columns(self, found: "list[_Found]") -> dict[str, Any]:
        """The configurations; of the best report's and the last, what differs in some trial."""
        columns = {f"config/{key}": value for key, value in flat(self.configs["config"]).items()}
        for name in ("best_config", "last_config"):
            differ = (differing(one.configs["config"], one.configs[name]) for one in found)
            keys = dict.fromkeys(key for keys in differ for key in keys)
            columns |= {f"{name}/{key}": lookup(self.configs[name], key) for key in keys}
        return columns


@dataclass(frozen=True)
class _Read:
    """An experiment as it was found."""

    experiment: Experiment
    trials: list[TrialRecord]
    runs: list[Run]
    registered: dict[str, dict[str, Row]]  # what a `ResultGrid` knows: by trial's folder and name

    @classmethod
    def of(
        cls,
        results: Results | str | os.PathLike[str],
        filesystem: fs.FileSystem | None,
        generation: int,
    ) -> "_Read":
        ended: dict[str, str] = {}
        registered: dict[str, dict[str, Row]] = {}
        if isinstance(results, (str, os.PathLike)):
            experiment = Experiment.at(results, filesystem, generation)
        else:
            experiment = Experiment.of(results)
            ended = {
                posixpath.basename(result.path): FAILED if result.error else TERMINATED
                for result in results
                if result.error or (result.metrics or {}).get("done")
            }
            for folder, name, metrics in registered_in(results):
                if TRAINING_ITERATION in metrics:  # Ray can be told to keep the score alone
                    registered.setdefault(posixpath.basename(folder), {})[name] = metrics
        runs = experiment.runs()
        return cls(experiment, experiment.trials(ended, merged(runs)), runs, registered)

    def scan(self, metric: str, mode: Mode, time_attr: str | None) -> list[_Found]:
        """Each trial's best, in the order of `trials`."""
        check_metric("best_states", metric, mode)
        time_attr = time_attr or time_attr_of(self.trials, merged(self.runs))
        rows = [row for trial in self.trials for row in trial.rows]
        if rows and not any(lookup(row, metric) is not None for row in rows):
            keys = sorted(set(flat_keys(rows[-1])))
            shown = [key for key in keys if not key.startswith("config/")]
            raise ExperimentError(
                f"No report in {self.experiment.root} has {metric!r}; they have: "
                f"{', '.join(shown)}.{closest(metric, shown)}"
            )
        there = {trial.trial_id: trial.checkpoints for trial in self.trials}
        saved, claims = saved_in(self.runs, there, metric, time_attr), claims_in(merged(self.runs))
        found = []
        for trial in self.trials:
            trial_id, folder = trial.trial_id, posixpath.basename(trial.folder)
            known = CheckpointFacts(
                saved.get(trial_id, {}), claims.get(trial_id, {}), self.registered.get(folder, {})
            )
            found.append(_best_of(self.experiment, trial, known, metric, mode, time_attr))
        return found


def _unknown(found: list[_Found]) -> str:
    """What to do about checkpoints of which it is not known to which report they belong, or ""."""
    count = sum(one.unknown for one in found)
    if not count:
        return ""
    return (
        f" Of {count} checkpoints of class trainables nothing in the folder says which report they "
        "belong to: the journal of our stoppers and schedulers would. Ray knows: give the "
        "ResultGrid instead of the path; of a sweep that has ended it is "
        "tune.Tuner.restore(path, trainable).get_results()."
    )


def _best_of(
    experiment: Experiment,
    trial: TrialRecord,
    known: CheckpointFacts,
    metric: str,
    mode: Mode,
    time_attr: str,
) -> _Found:
    there = checkpoint_reports(experiment, trial, known, metric, time_attr)
    credited = creditable(trial.rows, metric, time_attr)
    counted = {id(row) for row in credited}
    untrained = [row.get(TRAINING_ITERATION) for row in trial.rows if id(row) not in counted]
    lost = [row for row in there.lost if row.get(TRAINING_ITERATION) not in untrained]
    best = _best_row([*credited, *lost], metric, mode)
    rows = [row for row in there.rows if row.get(TRAINING_ITERATION) not in untrained]
    saved = _best_row(rows, metric, mode)
    row: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "best_step": _value(best, time_attr),
        "best_value": _value(best, metric),
        "checkpoint_step": _value(saved, time_attr),
        "checkpoint_value": _value(saved, metric),
        "checkpoint": folder_of(trial, saved) if saved else None,
        "diverged": has_diverged(trial.rows, metric),
        "status": trial.status,
        "reason": trial.reason,
        "reports": len(trial.rows),
    }
    configs = {
        "config": trial.config_at(saved or best),
        "best_config": trial.config_at(best),
        "last_config": trial.config,
    }
    if saved is None:
        return _Found(row, None, configs, there.unknown)
    state = BestState(
        trial_id=trial.trial_id,
        step=row["checkpoint_step"],
        value=row["checkpoint_value"],
        config=configs["config"],
        checkpoint=row["checkpoint"],
        metrics=saved,
        filesystem=experiment.filesystem,
    )
    return _Found(row, state, configs, there.unknown)


def _best_row(rows: list[Row], metric: str, mode: Mode) -> Row | None:
    finite = [row for row in rows if math.isfinite(_value(row, metric))]
    return min(finite, key=lambda row: sign_of(mode) * _value(row, metric), default=None)


def _value(row: Row | None, key: str) -> float:
    value = None if row is None else recorded(lookup(row, key))
    return math.nan if value is None else value
