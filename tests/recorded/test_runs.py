"""What trackers keep, cut into curves: what is missing, left out, named and timed."""

import math

import pytest

from tune_stoppers.recorded import runs
from tune_stoppers.recorded.runs import Run, TrackerError, curves_of, files_in, flat


def made(run_id: str, name: str = "", **metrics) -> Run:
    run = Run(run_id, name)
    for metric, values in metrics.items():
        for step, value in values.items():
            run.report(step, metric, value)
    return run


def test_a_row_for_each_step_and_what_was_not_logged_there_is_missing():
    """A NaN that was logged is a value, or missing where one asks for it."""
    run = made("a", loss={1: 3.0, 2: math.nan}, acc={2: 0.5, 4: 0.6})
    (curve,), said = curves_of([run], "loss")
    assert curve.iterations.tolist() == [1, 2, 4]
    assert [sorted(row) for row in curve.rows()] == [
        ["loss", "time_this_iter_s", "time_total_s", "training_iteration"],
        ["acc", "loss", "time_this_iter_s", "time_total_s", "training_iteration"],
        ["acc", "time_this_iter_s", "time_total_s", "training_iteration"],
    ]
    assert said == ""
    (curve,), _ = curves_of([run], "loss", nan_is_missing=True)
    assert curve.missing["loss"].tolist() == [False, True, True]


def test_runs_that_are_no_trials_are_left_out_and_counted():
    """Empty ones, and a sweep's parent, which does not report the metric."""
    found = [made("a", loss={1: 1.0}), made("b"), made("p", best={0: 1.0})]
    curves, said = curves_of(found, "loss")
    assert [curve.trial_id for curve in curves] == ["a"]
    assert said == "Left out, of 3 runs: 1 without a value, 1 without loss."
    assert len(curves_of(found, "los")[0]) == 2  # the sweep says that it has no such metric
    assert len(curves_of(found, None)[0]) == 2


def test_a_run_is_called_by_its_name_unless_another_shares_it():
    """Then, or where it is the id of another, by its id."""
    found = [made("1", "x", loss={1: 1.0}), made("2", "x", loss={1: 1.0})]
    found += [made("3", "y", loss={1: 1.0}), made("4", "3", loss={1: 1.0})]
    assert [curve.trial_id for curve in curves_of(found, None)[0]] == ["1", "2", "y", "4"]


def test_a_run_that_began_again_counts_as_it_went_the_last_time():
    """What it had reported from there on is dropped."""
    run = made("a", loss={1: 1.0, 2: 2.0, 3: 3.0})
    run.rewind("loss", 2)
    run.report(2, "loss", 5.0)
    run.rewind("other", 0)
    assert curves_of([run], None)[0][0].metrics["loss"].tolist() == [1.0, 5.0]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, None),
        ({1: 2.0, 2: 3.0, 4: 9.0}, [2.0, 3.0, 9.0]),
        ({4: 8.0}, [2.0, 4.0, 8.0]),
        ({1: 2.0}, [2.0, 4.0, 8.0]),
        ({1: 5.0, 2: 3.0}, [5.0, 5.0, 10.0]),
        ({1: -1.0, 2: math.nan, 4: 1e300}, None),
    ],
)
def test_seconds_never_run_backwards_and_gaps_are_filled(known, expected):
    """At an even pace; what is no time of a run is not taken."""
    run = Run("a")
    for step in (1, 2, 4):
        run.report(step, "loss", 1.0, known.get(step))
    seconds = curves_of([run], None)[0][0].seconds
    assert (None if seconds is None else seconds.tolist()) == expected


def test_a_value_logged_at_the_end_without_a_step_does_not_hold_up_the_first():
    """It stands at step 0, with the time of the end; alone it is all that is known."""
    run = Run("a")
    for step in (1, 2, 3):
        run.report(step, "loss", 1.0, 10.0 * step)
    run.report(0, "test_acc", 0.9, 31.0)
    assert curves_of([run], None)[0][0].seconds.tolist() == [0.0, 10.0, 20.0, 30.0]
    alone = Run("b")
    alone.report(0, "test_acc", 0.9, 31.0)
    assert curves_of([alone], None)[0][0].seconds.tolist() == [31.0]


def test_a_tracker_counts_by_itself():
    """What Ray logs as `training_iteration` may count from one where the tracker's step does from
    zero; a rule is told one of them."""
    run = made("a", loss={0: 1.0, 1: 0.5}, training_iteration={0: 1.0, 1: 2.0})
    (curve,) = curves_of([run], "loss")[0]
    assert [row["training_iteration"] for row in curve.rows()] == [0, 1]


def test_hyperparameters_are_flat_and_plain():
    """Lists and objects as their text, None left out by the curve."""
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2], "e": "x"}) == {
        "a/b": 1,
        "a/c": None,
        "d": "[1, 2]",
        "e": "x",
    }


def test_a_step_beyond_what_a_float_tells_apart_is_an_error():
    """As in any table."""
    with pytest.raises(TrackerError, match=r"run 'a': step 9223372036854775807 of loss"):
        made("a", loss={2**63 - 1: 1.0})


def test_files_are_found_and_no_link_leads_out(tmp_path, monkeypatch):
    """Nor is a whole disk looked through."""
    folder = tmp_path / "runs"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two").write_text("")
    (folder / "one").write_text("")
    (tmp_path / "secret").write_text("")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "in").symlink_to(folder / "one")
    (folder / "loop").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in files_in(folder)]
    assert found == ["in", "one", "b/two"]
    deep = folder.joinpath(*map(str, range(12)))
    deep.mkdir(parents=True)
    (deep / "deep").write_text("")
    assert "deep" not in [path.name for path in files_in(folder)]
    monkeypatch.setattr(runs, "MOST_FILES", 2)
    with pytest.raises(TrackerError, match="more than 2 files; name the folder of the runs"):
        list(files_in(folder))
