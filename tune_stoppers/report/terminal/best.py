"""What `tune-stoppers best` prints: each trial's best state and where it lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from tune_stoppers.core import Mode
from tune_stoppers.experiment.best_states import best_rows, frame_of
from tune_stoppers.experiment.counting import time_attr_of
from tune_stoppers.experiment.folder import Experiment, ExperimentError
from tune_stoppers.metrics import sign_of
from tune_stoppers.report.data.journalled import objective_of
from tune_stoppers.report.data.standing import standing


@dataclass(frozen=True)
class Best:
    """The trials of an experiment, best first."""

    metric: str
    mode: Mode
    time_attr: str
    states: list[dict[str, Any]]  # as `best_states` gives them
    standing: tuple[str, ...] = ()  # trials that failed, diverged, run or wait, in sentences

    @property
    def headline(self) -> list[str]:
        """The best trial, the best state that was kept, and what else to know."""
        return [*self._found(), *([" ".join(self.standing)] if self.standing else [])]

    def _found(self) -> list[str]:
        first = self.states[0]
        if not math.isfinite(first["best_value"]):
            return [f"no trial has a finite {self.metric} of a trained model"]
        where = f"{self.metric} {first['best_value']:.6g} at {self._unit} {first['best_step']:g}"
        lines = [f"best: trial {first['trial_id']}, {where}"]
        kept = [row for row in self.states if row["checkpoint"]]
        if not kept:
            return [*lines, "no checkpoint of any trial exists"]
        best = min(kept, key=lambda row: sign_of(self.mode) * row["checkpoint_value"])
        value = f"{self.metric} {best['checkpoint_value']:.6g} "
        value += f"at {self._unit} {best['checkpoint_step']:g}"
        lines.append(f"kept: trial {best['trial_id']}, {value}: {best['checkpoint']}")
        return [*lines, *_configs(best, same=first is best)]

    @property
    def _unit(self) -> str:
        return "step" if self.time_attr == "training_iteration" else self.time_attr

    @property
    def facts(self) -> dict[str, Any]:
        """The same for machines."""
        trials = frame_of(self.states).to_dict("records")
        return {
            "metric": self.metric,
            "mode": self.mode,
            "time_attr": self.time_attr,
            "standing": list(self.standing),
            "trials": trials,
        }

    def table(self, top: int) -> tuple[list[str], list[list[str]]]:
        """The `top` trials, best first."""
        rows = [
            [
                str(row["trial_id"]),
                _number(row["best_value"]),
                _number(row["best_step"]),
                _number(row["checkpoint_value"]),
                _number(row["checkpoint_step"]),
                f"{row['status']}, diverged" if row["diverged"] else str(row["status"]),
            ]
            for row in self.states[:top]
        ]
        at = f"at {self._unit}"
        return ["trial", self.metric, at, "kept", at, "status"], rows


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
    lines, listing = experiment.journal(), experiment.listing()
    said_metric, said_mode = objective_of(lines)
    if metric in (None, said_metric):
        mode = mode or said_mode
    metric = metric or said_metric
    if metric is None or mode is None:
        raise ExperimentError("the experiment does not say: give --metric NAME --mode min or max.")
    records = experiment.trials(journal=lines)
    time_attr = time_attr or time_attr_of(records, lines)
    wanted: Literal["min", "max"] = mode  # type: ignore[assignment]  # best_states checks it
    states = best_rows(path, metric, wanted, time_attr, generation=generation)
    known = tuple(standing(records, lines, listing, sum(row["diverged"] for row in states)))
    sign = sign_of(wanted)
    states.sort(key=lambda row: (math.isnan(row["best_value"]), sign * row["best_value"]))
    return Best(metric, wanted, time_attr, states, known)


def _configs(kept: dict[Any, Any], same: bool) -> list[str]:
    """Where the trial changed its configuration: what the state that was kept was trained with.

    `same`: the best report is of the trial whose state was kept.
    """
    others = {"last_config": "the trial ended with"}
    others |= {"best_config": "the best report had"} if same else {}
    lines = []
    for name, what in others.items():
        differ = {
            key: value
            for key, value in kept.items()
            if str(key).startswith(f"{name}/") and value != kept.get(str(key).partition("_")[2])
        }
        if told := _config_in(differ, name):
            lines.append(f"{what} {told}")
    return [f"trained with {_config_in(kept, 'config')}", *lines] if lines else []


def _config_in(row: dict[Any, Any], name: str) -> str:
    """The configuration in the columns `name/…`, of which a trial may lack some."""
    own = {
        str(key).partition("/")[2]: value
        for key, value in row.items()
        if str(key).startswith(f"{name}/") and value == value and value is not None
    }
    return ", ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in own.items()
    )


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "–"
