"""The story of a Ray Tune experiment: from its results, and from the journal where there is one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pyarrow import fs

from tune_stoppers.core import Mode
from tune_stoppers.experiment.best_states import best_rows
from tune_stoppers.experiment.configs import differing, flat
from tune_stoppers.experiment.diverged import is_untrained
from tune_stoppers.experiment.folder import Experiment, ExperimentError, TrialRecord
from tune_stoppers.experiment.grid import Results
from tune_stoppers.experiment.journals import Run as Journal
from tune_stoppers.journal.lines import Line, asks_to_stop
from tune_stoppers.metrics import closest, flat_keys, lookup, recorded
from tune_stoppers.report import compute
from tune_stoppers.report.data.earlier import earlier_of
from tune_stoppers.report.data.endings import NO_END, Said, ending_of, horizon_of, said_by
from tune_stoppers.report.data.horizons import horizon_notes
from tune_stoppers.report.data.journalled import (
    TIMES,
    events_of,
    numbers_of,
    objective_of,
    rule_of,
    step_of,
    thresholds_of,
    time_attr_of,
    why_of,
    would_stop,
)
from tune_stoppers.report.data.rows import Row, at, made_again, seconds, spans_of, value
from tune_stoppers.report.data.savings import TrialCourse, costs_of, horizons_of
from tune_stoppers.report.data.standing import standing
from tune_stoppers.report.data.story import (
    EXTRAS,
    Ending,
    Points,
    Span,
    Story,
    TrialStory,
    Would,
    best_point,
)
from tune_stoppers.report.data.totals import Cost
from tune_stoppers.result_keys import RAYS_OWN, WOULD_STOP_REASON

NO_JOURNAL = (
    "There is no journal: pauses, retries and decisions to continue were not recorded. Causes are "
    "those that the results carry (stop_reason) or that follow from how the results end."
)


def experiment_story(
    results: Results | str | os.PathLike[str],
    metric: str | None = None,
    mode: Mode | None = None,
    *,
    time_attr: str | None = None,
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> Story:
    """The story of an experiment, finished or not.

    Args:
        results: what `Tuner.fit` gave, or the experiment's folder (a local path or a URI).
        metric, mode: the objective; default: what the journal says.
        time_attr: what counts as the step; default: what the journal counts in, else
            `training_iteration`.
        filesystem: pyarrow's, where the folder is not on one that its URI names.
        generation: which sweep, where the folder holds several: 0 is the newest.

    `ExperimentError` (a `ValueError`) if this is no experiment, if no trial reported, or if the
    objective or the time is not known or was never reported: it names what was.
    """
    if isinstance(results, (str, os.PathLike)):
        place = os.fspath(results)
        experiment = Experiment.at(place, filesystem, generation)
        place = place if "://" in place else os.path.abspath(os.path.expanduser(place))
    else:
        place = results.experiment_path
        experiment = Experiment.of(results)
    lines, listing = experiment.journal(), experiment.listing()
    records = experiment.trials(journal=lines)
    metric, mode = _objective(experiment, records, lines, metric, mode)
    time_attr = time_attr or time_attr_of(records, lines)
    _check_time_attr(experiment, records, time_attr)
    known = best_rows(results, metric, mode, time_attr, filesystem, generation)
    of_trial: dict[str, list[Line]] = {}
    for line in lines:
        of_trial.setdefault(str(line.get("trial")), []).append(line)
    runs = [
        _Run.of(replace(record, status=row["status"]), row, metric, time_attr)
        for record, row in zip(records, known, strict=True)
    ]
    begin = min((span.begin for run in runs for span in run.spans), default=math.nan)
    said, horizon = _said(lines, {r.record.trial_id: r.last for r in runs}), horizon_of(records)
    endings = [ending_of(experiment, run.record, said, horizon) for run in runs]
    courses = [
        TrialCourse(run.record.rows, ending.kind) for run, ending in zip(runs, endings, strict=True)
    ]
    trials = tuple(
        _trial(run, of_trial.get(run.record.trial_id, []), ending, cost, mode, begin)
        for run, ending, cost in zip(runs, endings, costs_of(courses, time_attr), strict=True)
    )
    diverged = sum(trial.diverged for trial in trials)
    attr = "" if time_attr == "training_iteration" else f", time_attr={time_attr!r}"
    load = (
        "from tune_stoppers import best_state\n\n"
        f"best = best_state({place!r}, {metric!r}, {mode!r}{attr})\nbest.restore(model)"
    )
    return Story(
        name=experiment.root.rpartition("/")[2],
        source="experiment",
        place=place,
        rule=rule_of(lines),
        metric=metric,
        mode=mode,
        time_attr=time_attr,
        clock="s",
        trials=trials,
        basis=compute.basis(horizons_of(courses, time_attr), time_attr),
        rungs=tuple(sorted(set(numbers_of(lines, "rung")))),
        thresholds=thresholds_of(lines, mode),
        standing=tuple(standing([run.record for run in runs], lines, listing, diverged)),
        notes=(
            *filter(None, [experiment.earlier]),
            *_notes(lines, trials, runs),
            *horizon_notes(lines, _ended(runs, trials)),
        ),
        earlier=earlier_of(lines),
        load=load if any(trial.checkpoint for trial in trials) else "",
    )


class _Run(NamedTuple):
    """A trial's rows put in order."""

    record: TrialRecord
    known: dict[Any, Any]  # the trial's row of `best_states`
    time_attr: str
    rows: list[Row]  # as last run: none is followed by one that repeats it
    points: list[tuple[int, float]]  # (index in rows, value) of those with the metric
    times: dict[int, float]  # end of a report, by id of the row, seconds since the epoch
    spans: list[Span]  # seconds since the epoch

    @classmethod
    def of(cls, record: TrialRecord, known: dict[Any, Any], metric: str, time_attr: str) -> _Run:
        steps = [(row, recorded(lookup(row, time_attr))) for row in record.rows]
        timed = [row for row, step in steps if step is not None and math.isfinite(step)]
        rows: list[Row] = []
        for row in timed:
            while rows and made_again(rows[-1], row, time_attr):
                rows.pop()
            rows.append(row)
        values = [(index, value(row, metric)) for index, row in enumerate(rows)]
        times, spans = spans_of(timed, time_attr)
        points = [(index, value) for index, value in values if value is not None]
        return cls(record, known, time_attr, rows, points, times, spans)

    @property
    def last(self) -> float:
        """The last step; NaN without a report."""
        return at(self.rows[-1], self.time_attr) if self.rows else math.nan

    @property
    def untrained(self) -> float:
        """The last step at which the model had not trained yet."""
        before = [row for row in self.rows if is_untrained(row, self.rows, self.time_attr)]
        return max((at(row, self.time_attr) for row in before), default=-math.inf)

    def step(self, index: int) -> float:
        return at(self.rows[index], self.time_attr)

    def series(self, key: str) -> Points:
        found = [(self.step(i), value(row, key)) for i, row in enumerate(self.rows)]
        return tuple((step, value) for step, value in found if value is not None)


def _trial(
    run: _Run, lines: Sequence[Line], ending: Ending, cost: Cost, mode: Mode, begin: float
) -> TrialStory:
    record = run.record
    curve = tuple((run.step(index), value) for index, value in run.points)
    best_step, best_value = best_point(curve, mode)
    if math.isnan(run.known["best_value"]):  # it diverged: what there is was not trained
        best_step = best_value = math.nan
    config = record.config_at(_row_at(run, best_step))
    return TrialStory(
        **vars(cost),
        trial_id=record.trial_id,
        config=flat(config),
        last_config={key: lookup(record.config, key) for key in differing(config, record.config)},
        curve=curve,
        times=tuple(
            run.times.get(id(run.rows[index]), math.nan) - begin for index, _ in run.points
        ),
        ending=ending,
        best_step=best_step,
        best_value=best_value,
        last_step=run.last,
        reports=len(record.rows),
        untrained=run.untrained,
        extras={key: points for key in EXTRAS if (points := run.series(key))},
        checkpoint=run.known["checkpoint"],
        checkpoint_config=_checkpoint_config(run.known, config),
        checkpoint_step=run.known["checkpoint_step"],
        checkpoint_value=run.known["checkpoint_value"],
        spans=tuple(
            Span(s.begin - begin, s.end - begin, s.host, s.opening, s.step) for s in run.spans
        ),
        events=tuple(events_of(lines, begin)),
        would=_would(run, lines),
    )


def _row_at(run: _Run, step: float) -> Row | None:
    """The report at `step`; None if there is none, as `step` is NaN."""
    return next((row for row in run.rows if at(row, run.time_attr) == step), None)


def _checkpoint_config(known: Mapping[Any, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the checkpoint's configuration is not as in `config`, that of the best report."""
    if not known["checkpoint"]:
        return {}
    own = {key: known.get(f"config/{key}") for key in flat(config)}
    return {key: own[key] for key in differing(config, own) if own[key] == own[key]}  # no gap


def _said(lines: Sequence[Line], lasts: Mapping[str, float]) -> Said:
    """What the journal says of endings, less decisions to stop after which a trial continued: those
    of a stopper that was not the only one asked. `lasts`: the last step of each trial."""
    of_owner: dict[str, list[Line]] = {}
    for line in lines:
        trial_id, owner = line.get("trial"), line.get("owner")
        if not isinstance(trial_id, str) or not isinstance(owner, str):
            continue
        if not asks_to_stop(line) or not step_of(line) < lasts.get(trial_id, math.nan):
            of_owner.setdefault(owner, []).append({"time": 0.0} | line)
    return said_by([Journal("", owner, "", tuple(own), 0) for owner, own in of_owner.items()])


def _would(run: _Run, lines: Sequence[Line]) -> Would | None:
    """The first decision to stop that a dry run did not take."""
    found = [
        (run.step(i), str(row[WOULD_STOP_REASON]))
        for i, row in enumerate(run.rows)
        if row.get(WOULD_STOP_REASON)
    ][:1]
    found += [
        (step_of(line), f"{line.get('owner')}: {why_of(line)}")
        for line in lines
        if would_stop(line)
    ]
    if not found:
        return None
    step, reason = min(found)
    later = [row for row in run.rows if at(row, run.time_attr) > step]
    return Would(step, reason, sum(seconds(row) for row in later), len(later))


def _objective(
    experiment: Experiment,
    records: Sequence[TrialRecord],
    lines: Sequence[Line],
    metric: str | None,
    mode: str | None,
) -> tuple[str, Mode]:
    """What is asked for, else what the journal says; the mode is never guessed."""
    said_metric, said_mode = objective_of(lines)
    if metric is None or said_metric in (None, metric):
        metric, mode = metric or said_metric, mode or said_mode
    rows = [row for record in records for row in record.rows]
    if not rows:
        raise ExperimentError(f"{experiment.root} holds no trial that reported.")
    names = _metrics(rows)
    if metric is None or mode not in ("min", "max"):
        got = "" if mode in (None, "min", "max") else f", got mode {mode!r}"
        raise ExperimentError(
            f"{experiment.root} does not say what it optimises; give a metric (one of "
            f"{', '.join(names)}) and its mode (min or max){got}."
        )
    if all(recorded(lookup(row, metric)) is None for row in rows):
        raise ExperimentError(
            f"No report in {experiment.root} has {metric!r}; they have: {', '.join(names)}."
            f"{closest(metric, names)}"
        )
    return metric, "min" if mode == "min" else "max"


def _metrics(rows: Sequence[Row]) -> list[str]:
    """The numbers that trials report themselves."""
    keys = dict.fromkeys(key for row in rows for key in flat_keys(row))
    own = [key for key in keys if key not in RAYS_OWN and not key.startswith("config/")]
    return [key for key in own if any(recorded(lookup(row, key)) is not None for row in rows)]


def _check_time_attr(
    experiment: Experiment, records: Sequence[TrialRecord], time_attr: str
) -> None:
    rows = [row for record in records for row in record.rows]
    if not any(recorded(lookup(row, time_attr)) is not None for row in rows):
        counted = any(recorded(row.get(TIMES[0])) is not None for row in rows)
        names = [*(TIMES[:1] if counted else ()), *_metrics(rows)]
        raise ExperimentError(
            f"No report in {experiment.root} has the time {time_attr!r}; they have: "
            f"{', '.join(names)}.{closest(time_attr, names)}"
        )


def _ended(runs: Sequence[_Run], trials: Sequence[TrialStory]) -> list[tuple[TrialRecord, Ending]]:
    return [(run.record, trial.ending) for run, trial in zip(runs, trials, strict=True)]


def _notes(
    lines: Sequence[Line], trials: Sequence[TrialStory], runs: Sequence[_Run]
) -> Iterator[str]:
    if not lines:
        yield NO_JOURNAL
    unexplained = sum(trial.ending.kind == "unexplained" for trial in trials)
    if unexplained:
        yield (
            f"{unexplained} trials were ended before the last step and no cause was recorded: "
            "most likely a scheduler of Ray's, or the trial's own shorter course. If the latter, "
            "nothing was saved on them."
        )
    silent = sum(not trial.curve for trial in trials)
    if silent:
        yield f"{silent} trials never reported the metric."
    open_ = sum(trial.ending.cause == NO_END for trial in trials)
    if open_:
        yield f"Of {open_} trials no end was recorded: they run, wait, or were cut off."
    if any(run.rows and not run.spans for run in runs):
        yield "Some results carry no time stamps: those trials are not on the time line."
