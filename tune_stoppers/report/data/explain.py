"""Why did it stop? An experiment's endings, and each trial's decisions and events in words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from tune_stoppers.core import BaseRule, SweepRule
from tune_stoppers.experiment.configs import differing, flat
from tune_stoppers.experiment.folder import Experiment, TrialRecord
from tune_stoppers.experiment.journals import Run, merged
from tune_stoppers.experiment.stop_request import meant
from tune_stoppers.journal.lines import Line
from tune_stoppers.journal.rerun import UNFIT, Rerun, judge_again, rerun
from tune_stoppers.journal.spec import from_spec
from tune_stoppers.metrics import lookup, number
from tune_stoppers.report.data.earlier import EarlierSweeps, earlier_of
from tune_stoppers.report.data.endings import ending_of, horizon_of, said_by
from tune_stoppers.report.data.horizons import horizon_notes
from tune_stoppers.report.data.journalled import UNSHOWN, time_attr_of, why_of
from tune_stoppers.report.data.savings import TrialCourse, costs_of
from tune_stoppers.report.data.standing import standing
from tune_stoppers.report.data.story import KINDS, Ending
from tune_stoppers.report.data.totals import Totals
from tune_stoppers.rules.sweep.expected_improvement import ExpectedImprovement

if TYPE_CHECKING:
    import pandas as pd

NO_JOURNAL = (
    "There is no journal: none of our stoppers and schedulers watched this experiment. Decisions, "
    "pauses, retries and what was compared are not known. Endings are those that the results tell."
)


@dataclass(frozen=True)
class TrialTold:
    """What is known of a trial's course and end."""

    record: TrialRecord
    ending: Ending
    lines: tuple[Line, ...]  # of all runs, oldest first
    counted: tuple[Line, ...]  # judged reports, of the runs that count as the first one does

    @property
    def trial_id(self) -> str:
        """Ray's id."""
        return self.record.trial_id

    @cached_property
    def decisions(self) -> list[Line]:
        """The judged reports."""
        return [line for line in self.lines if "action" in line]

    @cached_property
    def events(self) -> list[Line]:
        """What else happened, in words of the journal: rewinds, rollbacks, promotions, …"""
        return [line for line in self.lines if line.get("event", "") not in {"", *UNSHOWN}]

    @property
    def step(self) -> float | None:
        """The last step: as the first rule counts, else Ray's iterations."""
        if self.counted:
            return number(self.counted[-1]["step"])
        return number(self.record.rows[-1].get("training_iteration")) if self.record.rows else None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration at the last report."""
        return self.record.config_at(self.record.rows[-1] if self.record.rows else None)

    @cached_property
    def changes(self) -> list[str]:
        """How the configuration changed from report to report: by a rollback, or by PBT."""
        told, before = [], None
        for row in self.record.rows:
            now = self.record.config_at(row)
            if before is not None and now != before:
                at = number(row.get("training_iteration")) or 0.0
                told += [
                    f"{key} {lookup(before, key)} -> {lookup(now, key)} at {at:g}"
                    for key in differing(before, now)
                ]
            before = now
        return told

    @property
    def value(self) -> float | None:
        """The metric at the last step that was judged."""
        return number_of(self.counted[-1].get("value")) if self.counted else None


@dataclass(frozen=True)
class Explained:
    """An experiment as its results and journals tell it."""

    name: str
    runs: tuple[Run, ...]
    trials: tuple[TrialTold, ...]
    standing: tuple[str, ...] = ()  # what to know of trials that failed, run or wait

    @classmethod
    def at(
        cls,
        path: str | os.PathLike[str],
        filesystem: fs.FileSystem | None = None,
        generation: int = 0,
    ) -> Explained:
        """Read an experiment folder; `ExperimentError` (a `ValueError`) if it is none."""
        return cls.of(Experiment.at(path, filesystem, generation))

    @classmethod
    def of(cls, experiment: Experiment) -> Explained:
        """What its files say now."""
        runs, listing = experiment.runs(), experiment.listing()
        lines = merged(runs)
        records = experiment.trials(journal=lines)
        said, horizon = said_by(runs), horizon_of(records)
        of_trial: dict[str, list[Line]] = {}
        for line in lines:
            of_trial.setdefault(line["trial"], []).append(line)
        units = units_of(runs)
        main = next(iter(units.values()), "")
        trials = []
        for record in records:
            own = tuple(of_trial.get(record.trial_id, ()))
            counted = (line for line in own if "action" in line)
            trials.append(
                TrialTold(
                    record,
                    ending_of(experiment, record, said, horizon),
                    own,
                    tuple(line for line in counted if units.get(id(line), main) == main),
                )
            )
        told = tuple(standing(records, lines, listing))
        return cls(experiment.root.rpartition("/")[2], tuple(runs), tuple(trials), told)

    @cached_property
    def units(self) -> dict[int, str]:
        """What a line counts its step in, by the line's id, where its journal says so."""
        return units_of(self.runs)

    @cached_property
    def time_attr(self) -> str:
        """What counts as the step: what the journal counts in, else Ray's iterations."""
        return time_attr_of([trial.record for trial in self.trials], merged(self.runs))

    @cached_property
    def totals(self) -> Totals:
        """What the trials took, and what stopping them saved."""
        return Totals.of(costs_of(self.courses, self.time_attr))

    @property
    def courses(self) -> list[TrialCourse]:
        """The reports of each trial, and how it ended."""
        return [TrialCourse(trial.record.rows, trial.ending.kind) for trial in self.trials]

    @property
    def begin(self) -> float:
        """When the journal begins, in seconds since the epoch."""
        return min(
            (number(run.lines[0]["time"]) or 0.0 for run in self.runs if run.lines), default=0
        )

    @cached_property
    def notes(self) -> list[str]:
        """What to beware of: a `max_t` that does not fit the trials' time."""
        trials = [(trial.record, trial.ending) for trial in self.trials]
        return list(horizon_notes(merged(self.runs), trials))

    @cached_property
    def earlier(self) -> EarlierSweeps | None:
        """What earlier sweeps expected; None where no scheduler had a history."""
        return earlier_of(merged(self.runs))

    @cached_property
    def endings(self) -> dict[str, list[TrialTold]]:
        """Trials by the cause of their end: by kind, then the most frequent first."""
        found: dict[str, list[TrialTold]] = {}
        for trial in self.trials:
            found.setdefault(trial.ending.cause, []).append(trial)
        order = {kind: index for index, kind in enumerate(KINDS)}
        return dict(sorted(found.items(), key=lambda i: (order[i[1][0].ending.kind], -len(i[1]))))

    def trial(self, trial_id: str) -> TrialTold:
        """The trial with this id, or the only one named so. `ValueError` names others."""
        known = {trial.trial_id: trial for trial in self.trials}
        return known[meant(trial_id, {name: one.record.names for name, one in known.items()})]

    def reasons(self, lines: Sequence[Line]) -> Iterator[str]:
        """Why, for each of these decisions; where the journal is thinned, by judging again."""
        again: dict[int, str] = {}
        if any(not line.get("reason") for line in lines):
            again = self._again({id(line) for line in lines})
        for line in lines:
            yield why_of(line) or again.get(id(line), "the journal is thinned here: no reason kept")

    def _again(self, wanted: set[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for run in self.runs:
            try:
                rule = from_spec(run.spec)
                if older(rule, run):
                    continue
                judged = list(judge_again(rule, run.lines, run.sign))
            except UNFIT:
                continue  # a rule of a user's own, say: there are no words then
            found |= {
                id(line): decision.say(run.sign)
                for line, decision in judged
                if id(line) in wanted and decision is not None
            }
        return found


@dataclass(frozen=True)
class Verified:
    """What came of running a run's rule again over its journal."""

    run: Run
    rerun: Rerun | None  # None: it could not be
    why: str = ""  # not
    compared: Rerun | None = None  # of a rule that compares trials: what those came to

    @property
    def proves(self) -> bool:
        """Whether at least one decision was checked."""
        return self.rerun is not None and self.rerun.checked > 0

    @property
    def failed(self) -> bool:
        """Whether some decision, or some comparison, came out otherwise."""
        return any(again is not None and again.differing for again in (self.rerun, self.compared))


def verify(run: Run) -> Verified:
    """Run the rule of `run` again over the reports that it saw."""
    if run.spec is None:
        return Verified(run, None, "the journal does not say which rule it was")
    try:
        rule = from_spec(run.spec)
        if why := older(rule, run):
            return Verified(run, None, why)
        again = rerun(rule, run.lines, run.sign)
        if not isinstance(rule, ExpectedImprovement):
            return Verified(run, again)
        from tune_stoppers.report.data.compared_again import compare_again  # loads scipy

        return Verified(run, again, compared=compare_again(rule, run.lines, run.sign))
    except ValueError as error:
        return Verified(run, None, str(error))


def older(rule: BaseRule, run: Run) -> str:
    """Why `run` cannot be judged again by `rule`, which decides otherwise by now; "" if it can."""
    now = rule.version if isinstance(rule, SweepRule) else None
    if now is None or run.version in (None, now):
        return ""
    return (
        f"it was decided by version {run.version} of {type(rule).__name__}, and this is version "
        f"{now}, which decides otherwise: verify it with the tune_stoppers that ran it"
    )


def explain(
    path: str | os.PathLike[str],
    *,
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> pd.DataFrame:
    """One row per trial of an experiment: how it ended, by whom, and why.

    Columns: `trial_id`; `ending` ("stopped", "finished", "failed", "unfinished", or "unexplained":
    it was stopped, and nothing tells by whom; "unfinished" trials run, wait, are paused, never
    started or were cut off); `cause`, what to count by (the stopper or
    scheduler, say); `reason`, in full with the numbers; `step` and `value` at the last report
    judged (without a journal: Ray's iteration, and NaN); `decisions`, how many were journalled;
    `events` (rewinds, rollbacks, promotions, …), a text; `reports`; `status`; `changes` of the
    configuration ("lr 0.8 -> 0.4 at 6": from that iteration on), a text; `config/…` at the last
    report.

    Works on unfinished and crashed experiments, and on those of Ray's own schedulers, as far as
    their results tell. `filesystem`: pyarrow's, where the folder is not on one that its URI names.
    `generation`: which sweep, where the folder holds several: 0 is the newest, 1 the one before it.
    `ExperimentError` (a `ValueError`) if it is no experiment.
    """
    import pandas as pd

    rows = [_row(trial) for trial in Explained.at(path, filesystem, generation).trials]
    return pd.DataFrame(rows)


def _row(trial: TrialTold) -> dict[str, Any]:
    row = {
        "trial_id": trial.trial_id,
        "ending": trial.ending.kind,
        "cause": trial.ending.cause,
        "reason": trial.ending.reason,
        "step": trial.step,
        "value": trial.value,
        "decisions": len(trial.decisions),
        "events": ", ".join(str(line["event"]) for line in trial.events),
        "reports": len(trial.record.rows),
        "status": trial.record.status,
        "changes": "; ".join(trial.changes),
    }
    return row | {f"config/{key}": value for key, value in flat(trial.config).items()}


def units_of(runs: Sequence[Run]) -> dict[int, str]:
    """What each line of the runs counts its step in, by the line's id, where its run says so."""
    found: dict[int, str] = {}
    for run in runs:
        said = (line["time_attr"] for line in run.lines if isinstance(line.get("time_attr"), str))
        unit = next(said, None)
        if unit is not None:
            found |= {id(line): unit for line in run.lines}
    return found


def number_of(value: Any) -> float | None:
    """A value of a journal, where floats that JSON lacks are strings."""
    return float(value) if value in ("nan", "inf", "-inf") else number(value)
