"""Histories as trackers export them: which column is what."""

import math

import numpy as np
import pandas as pd
import pytest

from tune_stoppers import Sweep

NAN = math.nan


def history(**changes) -> pd.DataFrame:
    """Two runs as `run.history()` gives them, rows of training and of evaluation apart."""
    rows = []
    for run, lr in (("sage-1", 0.1), ("dust-2", 0.2)):
        for step in range(6):
            trained = {"train/loss": 3.0 / (step + 1)}
            tested = {"eval/loss": 2.0 / step} if step else {"eval/loss": NAN}
            row = {"Name": run, "_step": step, "_runtime": 2.0 * step, "_timestamp": 1e9 + step}
            rows.append(row | (tested if step % 2 else trained) | {"lr": lr, "tags": "x", "k": "s"})
    frame = pd.DataFrame(rows)
    frame["k"] = [f"note {n}" for n in range(len(frame))]
    return frame.assign(**changes)


def test_an_export_is_read_as_it_is():
    """Columns by the names that trackers give them, constants as hyperparameters, text left out;
    and it is said what was taken for what."""
    sweep = Sweep.from_frame(history(), metric="eval/loss", mode="min")
    assert sweep.trial_ids == ["sage-1", "dust-2"]
    assert sweep.metrics == ("train/loss", "eval/loss")
    assert sweep.configs == {"sage-1": {"lr": 0.1, "tags": "x"}, "dust-2": {"lr": 0.2, "tags": "x"}}
    assert sweep.curves[0].iterations.tolist() == [0, 1, 2, 3, 4, 5]
    assert sweep.curves[1].seconds.tolist() == [0, 2, 4, 6, 8, 10]
    assert [row.get("eval/loss") for row in sweep.curves[0].rows()][:4] == [None, 2.0, None, 2 / 3]
    assert sweep.reading == (
        "Trials by 'Name', time by '_step', seconds by '_runtime'. Hyperparameters: lr, tags. "
        "Left out: _timestamp, k. eval/loss: 6 of 12 rows have a value, 6 have none (6 NaN taken "
        "for empty cells), 0 diverged (NaN or infinite)."
    )


@pytest.mark.parametrize("trial", ["run_id", "run", "trial_id", "Run ID", "id"])
@pytest.mark.parametrize("time", ["step", "global_step", "training_iteration", "epoch"])
def test_other_known_names(trial, time):
    """In any combination."""
    frame = history().rename(columns={"Name": trial, "_step": time})
    sweep = Sweep.from_frame(frame, metric="eval/loss", mode="min")
    assert (len(sweep), sweep.max_t) == (2, 5)


def test_columns_can_be_named():
    """Whatever they are called; an id goes before a name where both are there."""
    frame = history().rename(columns={"Name": "who", "_step": "when", "_runtime": "clock"})
    named = {"trial": "who", "time": "when", "seconds": "clock", "config": ["tags"]}
    sweep = Sweep.from_frame(frame, metric="eval/loss", mode="min", **named)
    assert sweep.configs["dust-2"] == {"lr": 0.2, "tags": "x"}
    assert sweep.has_times
    both = history().assign(run_id=np.repeat(["r1", "r2"], 6))
    assert Sweep.from_frame(both, metric="eval/loss", mode="min").trial_ids == ["r1", "r2"]


def test_columns_that_only_look_like_it_are_not_taken():
    """The id of a row is no trial's, a run's whole time no clock, a metric no hyperparameter."""
    frame = history().drop(columns="_runtime")
    frame = frame.assign(id=range(12), Runtime=60.0, params_norm=range(12))
    sweep = Sweep.from_frame(frame, metric="eval/loss", mode="min")
    assert sweep.trial_ids == ["sage-1", "dust-2"]
    assert not sweep.has_times
    assert "params_norm" in sweep.metrics


def test_a_clock_with_gaps_from_step_zero_on():
    """Only the first row, at step 0, may have a time: those after it take none that is known."""
    frame = history(_runtime=[0.5] + [NAN] * 5 + [0.0, 1.0, NAN, 3.0, NAN, 5.0])
    sweep = Sweep.from_frame(frame, metric="eval/loss", mode="min", seconds="_runtime")
    assert [c.seconds.tolist() for c in sweep] == [[0.5] * 6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]


def test_what_cannot_be_found_is_named():
    """With the parameter that takes it, and what the table has."""
    frame = history()
    with pytest.raises(ValueError, match=r"lacks the column 'trial_id'.*trial='COLUMN'.*_step"):
        Sweep.from_frame(frame.drop(columns="Name"), metric="eval/loss", mode="min")
    with pytest.raises(ValueError, match=r"'training_iteration'.*time='COLUMN'.*--time"):
        Sweep.from_frame(frame.drop(columns="_step"), metric="eval/loss", mode="min")
    with pytest.raises(ValueError, match=r"no column 'Nam'. Did you mean 'Name'"):
        Sweep.from_frame(frame, metric="eval/loss", mode="min", trial="Nam")
    twice = pd.concat([frame, frame[["lr"]]], axis=1)
    with pytest.raises(ValueError, match="has the column 'lr' twice"):
        Sweep.from_frame(twice, metric="eval/loss", mode="min")


def test_rows_of_one_step_are_one_report():
    """Training and evaluation of a step, if no metric is in both; else it is there twice."""
    rows = [{"run": "a", "step": step, "train": 1.0 / step, "eval": NAN} for step in (1, 2, 3)] + [
        {"run": "a", "step": step, "train": NAN, "eval": 2.0 / step} for step in (2, 3)
    ]
    frame = pd.DataFrame(rows).sort_values("step", kind="stable")
    curve = Sweep.from_frame(frame, metric="eval", mode="min").curves[0]
    assert [(row["train"], row.get("eval")) for row in curve.rows()] == [
        (1.0, None),
        (0.5, 1.0),
        (1 / 3, 2 / 3),
    ]
    frame.loc[frame["eval"].notna(), "train"] = 7.0
    with pytest.raises(ValueError, match="2 is there twice"):
        Sweep.from_frame(frame, metric="eval", mode="min")


def test_epochs_with_fractions_number_the_rows():
    """Ray's iterations are whole; the epochs are kept, for `time_attr`."""
    frame = history().rename(columns={"_step": "epoch"})
    frame["epoch"] = frame["epoch"] / 4
    curve = Sweep.from_frame(frame, metric="eval/loss", mode="min").curves[0]
    assert curve.iterations.tolist() == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in curve.rows()] == [0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_hyperparameters_by_prefix():
    """As MLflow and Optuna export them, also where runs have one row each."""
    frame = pd.DataFrame(
        {"run_id": ["a", "b"], "step": [1, 1], "params.lr": [0.1, 0.2], "loss": [1.0, 2.0]}
    )
    sweep = Sweep.from_frame(frame, metric="loss", mode="min")
    assert sweep.configs == {"a": {"lr": 0.1}, "b": {"lr": 0.2}}
    assert sweep.metrics == ("loss",)


def test_a_table_with_the_names_of_a_sweep_keeps_constant_metrics():
    """Only an export has its hyperparameters among the metrics; text is left out of both."""
    frame = pd.DataFrame(
        {
            "trial_id": ["a", "a"],
            "training_iteration": [1, 2],
            "loss": [1.0, 1.0],
            "host": ["n1", "n2"],
        }
    )
    sweep = Sweep.from_frame(frame, metric="loss", mode="min")
    assert (sweep.metrics, sweep.configs) == (("loss",), {"a": {}})
    assert "Left out, as text: host." in sweep.reading


def test_words_that_are_numbers():
    """Trackers give a NaN and an infinity as text; None beside them was not reported."""
    frame = pd.DataFrame(
        {
            "trial_id": ["a"] * 4,
            "training_iteration": [1, 2, 3, 4],
            "loss": [1.0, None, "Infinity", "NaN"],
        }
    )
    rows = Sweep.from_frame(frame, metric="loss", mode="min").curves[0].rows()
    assert [str(row.get("loss")) for row in rows] == ["1.0", "None", "inf", "nan"]


def test_a_chart_with_a_column_per_run():
    """`RUN - METRIC`, with the bounds that W&B adds; a run has the steps that it logged, and may
    have " - " in its name."""
    frame = pd.DataFrame(
        {
            "Step": [0, 1, 2],
            "sage-1 - eval/loss": [3.0, 2.0, 1.0],
            "sage-1 - eval/loss__MIN": [3.0, 2.0, 1.0],
            "sage-1 - eval/loss__MAX": [3.0, 2.0, 1.0],
            "dust - 2 - _step": [0, 1, NAN],
            "dust-2 - eval/loss": [4.0, 5.0, NAN],
            "adam - lr 0.1 - eval/loss": [6.0, NAN, NAN],
        }
    ).drop(columns="dust - 2 - _step")
    sweep = Sweep.from_frame(frame, metric="eval/loss", mode="min")
    assert {c.trial_id: c.metrics["eval/loss"].tolist() for c in sweep} == {
        "sage-1": [3.0, 2.0, 1.0],
        "dust-2": [4.0, 5.0],
        "adam - lr 0.1": [6.0],
    }


def test_a_row_per_value():
    """As MLflow's metric history: what was not logged at a step was not reported."""
    rows = [("r", 1, "train", 2.0), ("r", 2, "train", 1.0), ("r", 2, "eval", 5.0)]
    frame = pd.DataFrame(rows, columns=["run_id", "step", "key", "value"])
    curve = Sweep.from_frame(frame, metric="eval", mode="min").curves[0]
    assert [row.get("eval") for row in curve.rows()] == [None, 5.0]
    frame.loc[3] = ("r", 2, "eval", 6.0)
    with pytest.raises(ValueError, match="'r' has 'eval' twice at step 2"):
        Sweep.from_frame(frame, metric="eval", mode="min")


@pytest.mark.parametrize("name", ["step", "loss"])
@pytest.mark.parametrize("huge", [10**400, -(10**400)], ids=["plus", "minus"])
def test_an_integer_that_no_float_can_hold_is_refused(name: str, huge: int):
    """In words; as a time in seconds, which is only told, it counts as none."""
    cells = {"trial_id": ["a"], "step": [1], "loss": [1.0], "time_total_s": [huge]}
    frame = pd.DataFrame({key: pd.Series(values, dtype=object) for key, values in cells.items()})
    assert len(Sweep.from_frame(frame)) == 1
    frame[name] = pd.Series([huge], dtype=object)
    with pytest.raises(ValueError, match="has an integer that is too large for a float"):
        Sweep.from_frame(frame)
