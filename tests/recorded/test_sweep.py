"""Recorded sweeps: reading, checking and writing the table."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.air._internal.json import SafeFallbackEncoder

from tests.stand_ins.watched import watched, write_results
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.rules import Patience
from tune_stoppers.tune.reader import ResultReader


def table(**changes) -> pd.DataFrame:
    """Two trials of three and two reports."""
    columns = {
        "trial_id": ["a", "a", "a", "b", "b"],
        "training_iteration": [1, 2, 3, 1, 2],
        "step": [10.0, 20.0, 30.0, 10.0, 20.0],
        "time_total_s": [1.0, 2.5, 4.0, 2.0, 4.0],
        "loss": [3.0, 2.0, math.nan, 4.0, 1.0],
        "config/lr": [0.1, 0.1, 0.1, 0.2, 0.2],
        "config/note": ["x", "x", "x", None, None],
    }
    return pd.DataFrame(columns | changes)


def test_a_frame_becomes_one_curve_per_trial():
    """Trials keep the order of appearance, their rows, and the hyperparameters they have."""
    sweep = Sweep.from_frame(table(), metric="loss", mode="min")
    assert sweep.trial_ids == ["a", "b"]
    assert sweep.configs == {"a": {"lr": 0.1, "note": "x"}, "b": {"lr": 0.2}}
    assert (len(sweep), sweep.reports, sweep.max_t, sweep.metrics) == (2, 5, 3, ("loss",))
    assert sweep.curves[1].rows()[1] == {
        "training_iteration": 2,
        "step": 20.0,
        "loss": 1.0,
        "time_total_s": 4.0,
        "time_this_iter_s": 2.0,
    }


def test_interleaved_trials_are_told_apart():
    """Rows may come in the order in which the trials reported."""
    mixed = table().iloc[[3, 0, 1, 4, 2]].reset_index(drop=True)
    sweep = Sweep.from_frame(mixed, metric="loss", mode="min")
    assert [curve.iterations.tolist() for curve in sweep] == [[1, 2], [1, 2, 3]]


def test_a_null_is_no_report_and_a_nan_is_a_value():
    """None leaves the key out of what a rule sees; NaN stays, unless the table says otherwise."""
    frame = table(accuracy=pd.Series([0.1, None, 0.3, None, 0.5], dtype=object))
    rows = Sweep.from_frame(frame, metric="loss", mode="min").curves[0].rows()
    assert "accuracy" not in rows[1]
    assert math.isnan(rows[2]["loss"])
    sparse = Sweep.from_frame(frame, metric="loss", mode="min", nan="missing")
    assert "loss" not in sparse.curves[0].rows()[2]


BROKEN = {
    "iteration twice": ({"training_iteration": [1, 2, 2, 1, 2]}, r"row 2 \(trial 'a'\).*twice"),
    "iteration falls": ({"training_iteration": [1, 3, 2, 1, 2]}, r"row 2 .*grow.*got 2 after 3"),
    "iteration is not whole": ({"training_iteration": [1, 2, 2.5, 1, 2]}, r"row 2 .*whole.*2\.5"),
    "text in a metric": ({"loss": [3.0, "bad", 1.0, 4.0, 1.0]}, r"row 1 .*number, got 'bad'"),
    "time runs backwards": ({"time_total_s": [1.0, 2.0, 1.5, 1.0, 2.0]}, r"row 2 .*2 to 1\.5"),
    "time beyond all bounds": (
        {"time_total_s": [1.0, 1e308, None, 1.0, 2.0]},
        r"row 1 .*at most 1e\+12, got 1e\+308",
    ),
    "config changes": ({"config/lr": [0.1, 0.1, 0.1, 0.2, 0.3]}, r"row 4 .*0\.3 after 0\.2"),
    "trial without id": ({"trial_id": ["a", None, "a", "b", "b"]}, r"row 1: trial_id is missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_refused_with_its_row(case):
    """The error says which row breaks which rule, and the value it found."""
    changes, message = BROKEN[case]
    with pytest.raises(ValueError, match=message):
        Sweep.from_frame(table(**changes), metric="loss", mode="min")


def test_missing_columns_and_empty_tables_are_refused():
    """The key columns, a metric and a row are the least that a sweep has."""
    with pytest.raises(ValueError, match="lacks the column 'training_iteration'"):
        Sweep.from_frame(table().drop(columns=["training_iteration", "step"]), metric="loss")
    with pytest.raises(ValueError, match="no metric column"):
        Sweep.from_frame(table()[["trial_id", "training_iteration"]])
    with pytest.raises(ValueError, match="empty"):
        Sweep.from_frame(table().iloc[:0], metric="loss", mode="min")


def test_an_unknown_metric_names_its_neighbour_and_no_mode_is_guessed():
    """A typing error is met with the likely name; a metric without mode is refused."""
    with pytest.raises(ValueError, match="no metric 'los'; did you mean 'loss'"):
        Sweep.from_frame(table(), metric="los", mode="min")
    with pytest.raises(ValueError, match=r"mode must be 'min' or 'max'.*None"):
        Sweep.from_frame(table(), metric="loss")
    with pytest.raises(ValueError, match="does not say what it optimises"):
        Sweep.from_frame(table()).objective()


def test_times_of_a_surrogate_may_fall_and_gaps_are_filled_evenly():
    """Predicted times are made to rise; a time not recorded lies between its neighbours."""
    falling = table(time_total_s=[1.0, 3.0, 2.0, 1.0, 2.0])
    sweep = Sweep.from_frame(falling, metric="loss", mode="min", surrogate=True)
    assert sweep.curves[0].seconds.tolist() == [1.0, 3.0, 3.0]
    gaps = table(time_total_s=[math.nan, 4.0, math.nan, 1.0, 2.0])
    sweep = Sweep.from_frame(gaps, metric="loss", mode="min")
    assert sweep.curves[0].seconds.tolist() == [2.0, 4.0, 6.0]


def test_a_parquet_file_gives_the_sweep_back(tmp_path):
    """Table, description, nulls and NaNs survive the way to disk and back."""
    frame = table(accuracy=pd.Series([0.1, None, 0.3, None, 0.5], dtype=object))
    sweep = Sweep.from_frame(
        frame,
        metric="loss",
        mode="min",
        name="two",
        modes={"accuracy": "max"},
        target=1.5,
        surrogate=True,
        description={"source": "here"},
    )
    sweep.to_parquet(tmp_path / "two.parquet")
    again = Sweep.from_parquet(tmp_path / "two.parquet")
    pd.testing.assert_frame_equal(again.frame, sweep.frame)
    np.testing.assert_equal([curve.rows() for curve in again], [curve.rows() for curve in sweep])
    for name in ("name", "metric", "mode", "modes", "target", "surrogate", "description"):
        assert getattr(again, name) == getattr(sweep, name), name
    assert again.configs == sweep.configs
    assert Sweep.from_parquet(tmp_path / "two.parquet", metric="accuracy").mode == "max"


def write_trial(folder: Path, rows: list[dict], config: dict | None, tail: str = "") -> None:
    folder.mkdir(parents=True)
    lines = [json.dumps({"trial_id": folder.name, "pid": 7, "done": False} | row) for row in rows]
    (folder / "result.json").write_text("\n".join(lines) + "\n" + tail)
    if config is not None:
        (folder / "params.json").write_text(json.dumps(config))


def test_a_ray_folder_is_read_from_its_json(tmp_path):
    """Nested metrics and parameters are flattened; what Ray adds is no metric; half a last line,
    trials that never reported and a stretch that was run twice do no harm."""
    rows = [
        {"training_iteration": i, "time_total_s": float(i), "eval": {"loss": 1 / i}, "tag": "x"}
        for i in (1, 2, 3)
    ]
    again = [rows[1] | {"eval": {"loss": 9.0}}]
    write_trial(tmp_path / "t1", rows + again, {"opt": {"lr": 0.1}}, tail='{"training_it')
    write_trial(tmp_path / "t2", [rows[0] | {"extra": None}], None)
    (tmp_path / "t3").mkdir()
    (tmp_path / "tuner.pkl").write_bytes(b"never read")
    sweep = Sweep.from_ray(tmp_path, metric="eval/loss", mode="min")
    assert sweep.trial_ids == ["t1", "t2"]
    assert sweep.configs["t1"] == {"opt/lr": 0.1}
    assert sweep.metrics == ("eval/loss", "extra")
    assert [row["eval/loss"] for row in sweep.curves[0].rows()] == [1.0, 9.0]
    assert Sweep.from_ray(tmp_path.as_uri(), metric="eval/loss", mode="min").reports == 3


CELLS = {  # of a report, and whether a rule judges it: what Ray writes of each differs
    "a number": (0.5, True),
    "None": (None, False),
    "text": ("n/a", False),
    "NaN": (math.nan, True),
    "numpy's NaN": (np.float64("nan"), True),
    "a short NaN": (np.float32("nan"), True),
    "infinity": (math.inf, True),
    "a truth value": (True, True),
}


@pytest.mark.parametrize("case", CELLS)
def test_a_ray_folder_is_read_as_the_rule_read_it_live(case, tmp_path):
    """Each report of the replay is judged, or left out, as the same report was live."""
    cell, judged = CELLS[case]
    live = [{"training_iteration": i, "train": 1.0, "loss": 3.0 / i} for i in range(1, 5)]
    live[2]["loss"] = cell
    del live[3]["loss"]
    reader = ResultReader(
        "test", Patience(9), metric="loss", mode="min", time_attr="training_iteration",
        on_missing="skip",
    )  # fmt: skip
    read_live = [reader.read("t", row).report.loss for row in live]
    (tmp_path / "t").mkdir()
    with (tmp_path / "t" / "result.json").open("w") as file:
        for row in live:
            json.dump(row | {"trial_id": "t"}, file, cls=SafeFallbackEncoder)  # as Ray's logger
            file.write("\n")
    sweep = Sweep.from_ray(tmp_path, metric="loss", mode="min")
    replayed = [reader.read("t", row).report.loss for row in sweep.curves[0].rows()]
    np.testing.assert_equal(replayed, read_live)
    assert (read_live[2] is not None) == judged
    assert read_live[3] is None
    missing = Sweep.from_ray(tmp_path, metric="loss", mode="min", nan="missing")
    kept = judged and not (isinstance(cell, float | np.floating) and math.isnan(cell))
    assert ("loss" in missing.curves[0].rows()[2]) == kept


def test_the_objective_of_a_ray_folder_is_that_of_its_journal(tmp_path):
    """Where none is given; and it is said. A metric that is given keeps its own mode."""
    folder = watched(tmp_path / "sweep")
    sweep = Sweep.from_ray(folder)
    assert (sweep.metric, sweep.mode) == ("loss", "min")
    assert sweep.reading == "Metric loss (min), as the experiment's journal says."
    assert Sweep.from_ray(folder, metric="loss").mode == "min"
    assert Sweep.from_ray(folder, metric="loss", mode="max").mode == "max"
    bare = write_results(tmp_path / "bare")
    assert Sweep.from_ray(bare).metric is None


def test_a_folder_that_is_no_experiment_is_refused(tmp_path):
    """A folder that is not there and one without trials are errors that say so."""
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        Sweep.from_ray(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no Ray Tune experiment"):
        Sweep.from_ray(tmp_path)
    (tmp_path / "t0").mkdir()
    (tmp_path / "t0" / "params.json").write_text("{}")
    with pytest.raises(ValueError, match="no trial that reported"):
        Sweep.from_ray(tmp_path)


def test_a_torn_line_is_left_out(tmp_path):
    """What a kill cut off does not keep the rest from being read."""
    write_trial(tmp_path / "t1", [{"training_iteration": 1, "loss": 1.0}], {})
    results = tmp_path / "t1" / "result.json"
    results.write_text("{broken\n" + results.read_text())
    assert Sweep.from_ray(tmp_path).reports == 1


SPARSE = [2.0, None, None, 1.0, math.nan, None]  # reported, and not, as Arrow tells apart
KEYS = {"trial_id": ["a"] * 6, "training_iteration": range(1, 7), "train": [1.0] * 6}


def test_parquet_tells_a_null_from_a_nan(tmp_path):
    """Also in a column of which most is neither; pandas' floats are read as its frame is."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(KEYS | {"loss": pa.array(SPARSE)}), path)
    rows = Sweep.from_parquet(path, metric="loss", mode="min").curves[0].rows()
    assert [str(row.get("loss")) for row in rows] == ["2.0", "None", "None", "1.0", "nan", "None"]

    frame = pd.DataFrame(KEYS | {"loss": [2.0, 1.0, math.nan, 0.5, math.nan, math.nan]})
    frame.to_parquet(path)
    for nan in ("auto", "value", "missing"):
        of_frame = Sweep.from_frame(frame, metric="loss", mode="min", nan=nan)
        of_file = Sweep.from_parquet(path, metric="loss", mode="min", nan=nan)
        np.testing.assert_equal(of_file.curves[0].rows(), of_frame.curves[0].rows())
    nullable = frame.assign(loss=pd.array(SPARSE[:4] + [None] * 2, dtype="Float64"))
    nullable.to_parquet(path)
    for read in (
        lambda **o: Sweep.from_parquet(path, **o),
        lambda **o: Sweep.from_frame(nullable, **o),
    ):
        rows = read(metric="loss", mode="min", nan="value").curves[0].rows()
        assert [row.get("loss") for row in rows] == [2.0, None, None, 1.0, None, None]


def test_a_sweep_of_ours_keeps_what_it_holds(tmp_path):
    """NaN between values are not guessed at anew when the file of a sweep is read."""
    frame = pd.DataFrame(KEYS | {"loss": [2.0, math.nan, math.nan, 1.0, math.nan, math.nan]})
    for nan, missing in (("value", 0), ("missing", 4), ("auto", 4)):
        Sweep.from_frame(frame, metric="loss", mode="min", nan=nan).to_parquet(tmp_path / "s")
        again = Sweep.from_parquet(tmp_path / "s")
        assert sum("loss" not in row for row in again.curves[0].rows()) == missing


def test_csv_tells_an_empty_cell_from_a_nan(tmp_path):
    """By ",", ";" or tab; numbers, texts and ids stay what they are."""
    lines = ["run_id,step,loss,lr,opt", "007,1,2.0,1e-3,adam", "007,2,,1e-3,adam"]
    lines += ["007,3,NaN,1e-3,adam", "7e0,1,null,2,", "7e0,2,-Infinity,2,", ""]
    for separator in ",;\t":
        path = tmp_path / "history.csv"
        path.write_text("\n".join(lines).replace(",", separator), encoding="utf-8-sig")
        sweep = Sweep.from_csv(path, metric="loss", mode="max")
        found = [[str(row.get("loss")) for row in curve.rows()] for curve in sweep]
        assert found == [["2.0", "None", "nan"], ["None", "-inf"]]
        assert sweep.configs == {"007": {"lr": 0.001, "opt": "adam"}, "7e0": {"lr": 2.0}}
        assert sweep.name == "history"
        assert "loss: 1 of 5 rows have a value, 2 have none, 2 diverged" in sweep.reading
    missing = Sweep.from_csv(path, metric="loss", mode="max", nan="missing")
    assert "loss" not in missing.curves[0].rows()[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("run,step,loss\n", "no rows"),
        ("run,step,loss\na,1\n", "row 0 has 2 cells, and there are 3 columns"),
        ("step,loss\n1,2\n", "trial='COLUMN'"),
    ],
)
def test_a_csv_that_is_no_history_is_refused(text, said, tmp_path):
    """In a line that says what is wrong."""
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        Sweep.from_csv(path, metric="loss", mode="min")


def published() -> list[Path]:
    """One recorded sweep per family, from beside the checkout or TUNE_STOPPERS_CURVES."""
    default = Path(__file__).parents[2].parent / "shared" / "curves"
    files = sorted(Path(os.environ.get("TUNE_STOPPERS_CURVES", default)).glob("*.parquet"))
    return list({path.name.split("_")[0]: path for path in files}.values())


@pytest.mark.skipif(not published(), reason="no recorded sweeps; set TUNE_STOPPERS_CURVES")
def test_the_published_sweeps_are_read():
    """Each names its metric, has the reports that it lists, and says whether it is a surrogate."""
    for path in published():
        sweep = Sweep.from_parquet(path)
        assert sweep.metric in sweep.metrics
        assert sweep.reports == len(pd.read_parquet(path, columns=["trial_id"]))
        assert sweep.surrogate == path.name.startswith("yahpo")


def test_what_arrow_does_not_know_is_refused(tmp_path, monkeypatch):
    """A damaged file may ask for integers of 128 bits, say."""

    def read_table(path):
        raise pa.ArrowNotImplementedError("Integers with more than 64 bits not implemented")

    monkeypatch.setattr(pq, "read_table", read_table)
    with pytest.raises(ValueError, match=r"x.parquet' cannot be read: Integers with more than 64"):
        Sweep.from_parquet(tmp_path / "x.parquet")


def test_what_was_a_number_to_a_rule_is_one_in_the_sweep(tmp_path):
    """An array of one element, a Fraction, a truth value, as Ray writes them."""
    trial = tmp_path / "t"
    trial.mkdir()
    (trial / "params.json").write_text("{}")
    rows = ({"array": [0.5], "fraction": "1/4", "flag": True, "word": "abc"},) * 2
    text = "".join(
        json.dumps({"trial_id": "t", "training_iteration": n} | row) + "\n"
        for n, row in enumerate(rows, start=1)
    )
    (trial / "result.json").write_text(text)
    (curve,) = Sweep.from_ray(tmp_path, metric="array", mode="min")
    found = {name: values.tolist() for name, values in curve.metrics.items()}
    assert found == {"array": [0.5, 0.5], "fraction": [0.25, 0.25], "flag": [1.0, 1.0]}


def test_a_target_is_of_the_metric_it_was_written_for(tmp_path):
    """Judged by another one, the sweep has none."""
    path = tmp_path / "s.parquet"
    frame = table(acc=[0.1, 0.2, 0.3, 0.1, 0.2], loss=[3.0, 2.0, 1.0, 4.0, 1.0])
    Sweep.from_frame(frame, metric="loss", mode="min", target=1.5).to_parquet(path)
    assert Sweep.from_parquet(path).target == 1.5
    assert Sweep.from_parquet(path, metric="loss").target == 1.5
    assert Sweep.from_parquet(path, metric="acc", mode="max").target is None


def test_ids_are_texts():
    """1 and "1" name one trial, as in two exports put together."""
    columns = {"trial_id": [1, 1, "1", "2"], "training_iteration": [1, 2, 3, 1]}
    frame = pd.DataFrame(columns | {"loss": [3.0, 2.0, 1.0, 4.0]})
    sweep = Sweep.from_frame(frame, metric="loss", mode="min")
    assert {c.trial_id: c.metrics["loss"].tolist() for c in sweep} == {
        "1": [3.0, 2.0, 1.0],
        "2": [4.0],
    }


def test_words_for_nothing_are_texts_among_texts(tmp_path):
    """A run called "none", and a schedule that is "None"; among numbers they are empty cells."""
    path = tmp_path / "h.csv"
    path.write_text("trial_id,training_iteration,loss,config/schedule\nnone,1,NA,None\nx,1,2,cos\n")
    sweep = Sweep.from_csv(path, metric="loss", mode="min")
    assert sweep.configs == {"none": {"schedule": "None"}, "x": {"schedule": "cos"}}
    assert [row.get("loss") for curve in sweep for row in curve.rows()] == [None, 2.0]
