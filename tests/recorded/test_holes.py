"""Which NaN of a table are empty cells and which are diverged values."""

import math

import numpy as np
import pandas as pd
import pytest

from tune_stoppers import PatienceStopper, Sweep, replay

NAN = math.nan


def read(*trials: dict[str, list[float]], **options) -> list[list[float | None]]:
    """The metric `x` of each trial as a rule would see it; None where it was not reported."""
    frames = [
        pd.DataFrame({"trial_id": str(n), "training_iteration": range(1, 1 + len(t["x"]))} | t)
        for n, t in enumerate(trials)
    ]
    sweep = Sweep.from_frame(
        pd.concat(frames, ignore_index=True), metric="x", mode="min", **options
    )
    return [[row.get("x") for row in curve.rows()] for curve in sweep]


def same(got: list[float | None], wanted: list[float | None]) -> None:
    assert [v if v is None else str(v) for v in got] == [v if v is None else str(v) for v in wanted]


CASES = {
    "dense, the end diverged": ([3.0, 2.0, NAN, NAN], {}, [3.0, 2.0, NAN, NAN]),
    "dense, one in the middle": ([3.0, 2.0, NAN, 1.0, 0.5], {}, [3.0, 2.0, NAN, 1.0, 0.5]),
    "every second row": ([1.0, NAN, 0.5, NAN, 0.4], {}, [1.0, None, 0.5, None, 0.4]),
    "every second, none first": ([NAN, 0.5, NAN, 0.4], {}, [None, 0.5, None, 0.4]),
    "evaluations begin late": ([NAN, NAN, 3.0, 2.0, 1.0], {}, [None, None, 3.0, 2.0, 1.0]),
    "cut off before one was due": (
        [1.0, NAN, NAN, 0.5, NAN, NAN],
        {},
        [1.0, None, None, 0.5, None, None],
    ),
    "diverged where one was due": (
        [1.0, NAN, 0.5, NAN, NAN, NAN, NAN],
        {},
        [1.0, None, 0.5, None, NAN, None, NAN],
    ),
    "rows of another kind": (  # mostly there, and yet no value has diverged
        [1.0, 0.9, NAN, 0.8, 0.7, NAN, 0.6],
        {"train": [NAN, NAN, 2.0, NAN, NAN, 1.0, NAN]},
        [1.0, 0.9, None, 0.8, 0.7, None, 0.6],
    ),
    "a companion is there": (  # diverged at once, though rows without evaluations are many
        [1.0, NAN, NAN, 0.5, NAN, NAN, NAN, NAN],
        {"took": [1.0, NAN, NAN, 1.0, NAN, NAN, 1.0, NAN], "train": [1.0] * 8},
        [1.0, None, None, 0.5, None, None, NAN, None],
    ),
    "infinite is no hole": ([1.0, math.inf, NAN, NAN], {}, [1.0, math.inf, NAN, NAN]),
    "never anything": ([NAN, NAN], {}, [NAN, NAN]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_nan_is_read_by_how_the_trial_reports(case):
    """The rule that `from_frame` states, one trial at a time."""
    values, others, wanted = CASES[case]
    same(read({"x": values} | others)[0], wanted)


def test_a_trial_without_values_is_read_as_the_others_are():
    """Where others evaluate every third row from the third on, it has diverged there."""
    sound = [NAN, NAN, 3.0, NAN, NAN, 2.0, NAN, NAN, 1.0]
    got = read({"x": sound}, {"x": [NAN] * 7}, {"x": [NAN] * 2})
    same(got[1], [None, None, NAN, None, None, NAN, None])
    same(got[2], [None, None])


def test_trials_that_report_differently_are_each_read_by_their_own_rows():
    """One evaluates at every row and diverges, another at every fourth."""
    dense = [1.0] * 20 + [NAN]
    sparse = [1.0, NAN, NAN, NAN, 0.5, NAN, NAN, NAN, 0.4]
    got = read({"x": dense}, {"x": sparse})
    same(got[0], dense)
    same(got[1], [1.0, None, None, None, 0.5, None, None, None, 0.4])


def test_nan_can_be_said_to_be_the_one_or_the_other():
    """And nothing else."""
    same(read({"x": [1.0, NAN, 0.5]}, nan="value")[0], [1.0, NAN, 0.5])
    same(read({"x": [2.0, 1.0, NAN]}, nan="missing")[0], [2.0, 1.0, None])
    with pytest.raises(ValueError, match="nan must be 'auto', 'value' or 'missing', got 'hole'"):
        read({"x": [1.0]}, nan="hole")


def test_what_was_taken_for_what_is_said():
    """By the sweep, and by every replay of it; nothing is said of a record without gaps."""
    rows = [
        {"trial_id": t, "training_iteration": i, "x": 1.0 / i if i % 2 else NAN, "y": 1.0}
        for t in "ab"
        for i in range(1, 6)
    ]
    frame = pd.DataFrame(rows)
    frame.loc[len(frame) - 1, "x"] = NAN  # due at 5
    sweep = Sweep.from_frame(frame, metric="x", mode="min")
    said = "x: 5 of 10 rows have a value, 4 have none (4 NaN taken for empty cells), 1 diverged"
    assert said in sweep.reading
    assert said in repr(sweep)
    result = replay(sweep, stopper=PatienceStopper("x", "min", patience=9))
    assert said in repr(result)
    assert Sweep.from_frame(frame, metric="y", mode="min").reading == ""


def test_interleaved_rows_are_not_saved():
    """A rule that waits two evaluations does not stop trials that improve at each of theirs, also
    where a history begins with training alone and the rule is one that raises on a misspelling."""
    frame = pd.DataFrame(
        {
            "trial_id": np.repeat(["a", "b"], 30),
            "training_iteration": [*range(30), *range(30)],
            "train": 1.0,
            "eval": [3 / (i + 1) if i % 5 == 4 else NAN for _ in "ab" for i in range(30)],
        }
    )
    sweep = Sweep.from_frame(frame, metric="eval", mode="min")
    result = replay(sweep, stopper=PatienceStopper("eval", "min", patience=2))
    assert (result.reports, result.savings) == (60, 0.0)
