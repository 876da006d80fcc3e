"""What `tune-stoppers best` prints: each trial's best state and where it lies."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from tune_stoppers.core import Mode
from tune_stoppers.metrics import sign_of
from tune_stoppers.report.journalled import objective_of, time_attr_of
from tune_stoppers.tune.experiment import Experiment, ExperimentError
from tune_stoppers.tune.results import best_states


@dataclass(frozen=True)
class Best:
    """The trials of an experiment, best first."""

    metric: str
    mode: Mode
    states: pd.DataFrame  # as `best_states` gives them

    @property
    def headline(self) -> list[str]:
        """The best trial, and the best state that was kept."""
        rows = self.states.to_dict("records")
        first = rows[0]
        if not math.isfinite(first["best_value"]):
            return [f"no trial has a finite {self.metric}"]
        where = f"{self.metric} {first['best_value']:.6g} at step {first['best_step']:g}"
        lines = [f"best: trial {first['trial_id']}, {where}"]
        kept = [row for row in rows if row["checkpoint"]]
        if not kept:
            return [*lines, "no checkpoint of any trial exists"]
        best = min(kept, key=lambda row: sign_of(self.mode) * row["checkpoint_value"])
        value = f"{self.metric} {best['checkpoint_value']:.6g} at step {best['checkpoint_step']:g}"
        return [*lines, f"kept: trial {best['trial_id']}, {value}: {best['checkpoint']}"]

    @property
    def facts(self) -> dict[str, Any]:
        """The same for machines."""
        trials = json.loads(self.states.to_json(orient="records"))
        return {"metric": self.metric, "mode": self.mode, "trials": trials}

    def table(self, top: int) -> tuple[list[str], list[list[str]]]:
        """The `top` trials, best first."""
        rows = [
            [
                str(row["trial_id"]),
                _number(row["best_value"]),
                _number(row["best_step"]),
                _number(row["checkpoint_value"]),
                _number(row["checkpoint_step"]),
                str(row["status"]),
            ]
            for row in self.states.head(top).to_dict("records")
        ]
        return ["trial", self.metric, "at step", "kept", "at step", "status"], rows


def best_of(
    path: str,
    metric: str | None = None,
    mode: str | None = None,
    time_attr: str | None = None,
    generation: int = 0,
) -> Best:
    """The best states of an experiment, whose objective is given or named by a journal.

    `ExperimentError` (a `ValueError`) if neither is so, and as `best_states` does.
    """
    experiment = Experiment.at(path, generation=generation)
    lines = experiment.journal()
    said_metric, said_mode = objective_of(lines)
    if metric in (None, said_metric):
        mode = mode or said_mode
    metric = metric or said_metric
    if metric is None or mode is None:
        raise ExperimentError("the experiment does not say: give --metric NAME --mode min or max.")
    if time_attr is None:
        time_attr = time_attr_of(experiment.trials(), lines)
    wanted: Literal["min", "max"] = mode  # type: ignore[assignment]  # best_states checks it
    states = best_states(path, metric, wanted, time_attr=time_attr, generation=generation)
    order = (sign_of(wanted) * states["best_value"]).sort_values(kind="stable").index
    return Best(metric, wanted, states.loc[order].reset_index(drop=True))


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "–"
