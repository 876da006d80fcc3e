"""Recording a sweep from real training, and the recorded sweep that the package carries."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tune_stoppers
from experiments import record_sweep
from experiments.record_sweep import (
    MODES,
    Partial,
    Plan,
    characters,
    configuration,
    eval_windows,
    main,
    rate_share,
    split,
    stdlib_pairs,
    train,
)
from tune_stoppers.recorded.sweep import Sweep

ROOT = Path(record_sweep.__file__).parents[1]
EXAMPLE = Path(tune_stoppers.__file__).parent / "backtest" / "example.parquet"
SMALL = ["--trials", "3", "--steps", "4", "--eval-every", "2", "--processes", "1", "--seed", "7"]
PLAN = Plan(steps=4, eval_every=2, seed=7)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials of four steps, recorded by the command line."""
    out = tmp_path_factory.mktemp("recorded") / "small.parquet"
    command = [sys.executable, "-m", "experiments.record_sweep", *SMALL, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3/3: trial" in done.stdout
    return out


def test_small_recording_loads(recorded: Path) -> None:
    """A row per evaluation with every metric, the configurations, and what is to be minimised."""
    sweep = Sweep.from_parquet(recorded)
    assert (sweep.name, sweep.metric, sweep.mode, sweep.modes) == (
        "small",
        "eval_loss",
        "min",
        MODES,
    )
    assert sweep.trial_ids == ["t000", "t001", "t002"]
    assert sweep.frame["step"].tolist() == [2, 4] * 3
    assert sweep.has_times
    assert sweep.configs["t001"] == configuration(seed=7, index=1)
    assert "--trials 3 --steps 4 --eval-every 2 --seed 7" in sweep.description["source"]
    assert list(recorded.parent.iterdir()) == [recorded]  # no partial record is left


@pytest.mark.stress
def test_recording_goes_on_and_repeats(recorded: Path, tmp_path: Path) -> None:
    """After a kill only what is missing is trained, and the same seed gives the same losses."""
    parts = split(stdlib_pairs(), PLAN.seed)
    finished = train(1, PLAN, characters(parts.train), eval_windows(characters(parts.eval)))
    finished["rows"][-1]["time_total_s"] = 1234.0  # to know it again
    out = tmp_path / "new" / "small.parquet"
    partial = Partial(out.with_name("small.parquet.partial.jsonl"), PLAN)
    partial.add(finished)
    with partial.path.open("a") as file:
        file.write('{"trial": 0, "config"')  # killed while it wrote

    assert main([*SMALL, "--out", str(out)]) == 0
    first, again = Sweep.from_parquet(recorded).frame, Sweep.from_parquet(out).frame
    assert again["time_total_s"].max() == 1234.0
    drop = "time_total_s"
    pd.testing.assert_frame_equal(again.drop(columns=drop), first.drop(columns=drop))


def test_partial_record_survives_kill_after_kill(tmp_path: Path) -> None:
    """A line that was cut off is lost, and neither those before it nor those after it."""
    path = tmp_path / "out.parquet.partial.jsonl"
    for index in range(3):
        Partial(path, PLAN).add({"trial": index})
        with path.open("a") as file:
            file.write('{"trial"')
    assert sorted(Partial(path, PLAN).records) == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1"),
        (["--trials", "many"], "invalid int value: 'many'"),
        (["--steps", "5", "--eval-every", "2"], "--steps 5 must be a multiple of --eval-every 2"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--sede", "1"], "--sede"),
    ],
)
def test_bad_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: list[str], message: str
) -> None:
    """A mistake is one line that says what to do, status 2, and nothing is written."""
    assert message in refused(capsys, *given, "--out", str(tmp_path / "out.parquet"))
    assert list(tmp_path.iterdir()) == []


def refused(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """What is said about the arguments; they must be refused with status 2."""
    assert main(list(given)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file at --out is refused and left as it is."""
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    assert "exists: give another --out" in refused(capsys, "--out", str(out))
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({"steps": 8, "seed": 7}) + "\n", "was recorded with {'steps': 8, 'seed': 7}"),
        ("nonsense\n", "is no partial record"),
    ],
)
def test_foreign_partial_record_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str
) -> None:
    """A partial record under other settings, or of something else, is refused and kept."""
    partial = tmp_path / "out.parquet.partial.jsonl"
    partial.write_text(content)
    assert message in refused(capsys, *SMALL, "--out", str(tmp_path / "out.parquet"))
    assert partial.read_text() == content


def test_unwritable_folder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An --out that cannot be written says so before the first trial."""
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out.parquet"
    assert "cannot write" in refused(capsys, *SMALL, "--out", str(out))


@pytest.mark.parametrize(
    ("schedule", "warmup", "progress", "share"),
    [
        ("constant", 0.2, 0.1, 0.5),
        ("constant", 0.2, 1.0, 1.0),
        ("linear", 0.0, 0.25, 0.75),
        ("linear", 0.2, 0.6, 0.5),
        ("cosine", 0.0, 0.5, 0.5),
        ("cosine", 0.2, 1.0, 0.0),
        ("wsd", 0.1, 0.8, 1.0),
        ("wsd", 0.1, 0.9, 0.5),
    ],
)
def test_rate_follows_its_schedule(
    schedule: str, warmup: float, progress: float, share: float
) -> None:
    """Warm-up is linear; then constant, or down to 0 at the end in the schedule's own way."""
    assert rate_share(schedule, warmup, progress) == pytest.approx(share)


@pytest.fixture(scope="module")
def example() -> Sweep:
    return Sweep.from_parquet(EXAMPLE)


def test_example_is_a_whole_sweep(example: Sweep) -> None:
    """At least 128 trials of at least 30 evaluations, all at the same steps, in order of time."""
    assert len(example) >= 128
    assert (example.metric, example.mode, example.modes) == ("eval_loss", "min", MODES)
    assert not example.surrogate
    steps = example.curves[0].steps
    assert steps is not None
    assert len(steps) >= 30
    for curve in example:
        np.testing.assert_array_equal(curve.steps, steps)
        assert (curve.durations() > 0).all()


def test_example_has_good_dead_and_diverged_trials(example: Sweep) -> None:
    """Some trials learn, some hardly move, some blow up, and those at NaN stay there."""
    losses = np.array([curve.metrics["eval_loss"] for curve in example])
    last = losses[:, -1]
    diverged = ~np.isfinite(last)
    assert 0.02 <= diverged.mean() <= 0.3
    assert not (np.isnan(losses[:, :-1]) & ~np.isnan(losses[:, 1:])).any()
    assert (last < 2.2).sum() >= 5
    assert ((losses[:, 0] - last < 0.5) & (last > 4)).any()
    assert (last[~diverged] > 10).any()


def test_example_is_small_plain_data(example: Sweep, tmp_path: Path) -> None:
    """Under 500 KB of text and numbers, described, without a path, and the same when rewritten."""
    assert EXAMPLE.stat().st_size < 500_000
    schema = pq.read_schema(EXAMPLE)
    assert list(schema.metadata) == [b"sweep"]
    assert {field.type for field in schema} <= {
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
    }
    assert {"source", "licence", "kind", "step_unit", "notes"} <= set(example.description)
    assert "/" not in str(example.description)
    example.to_parquet(tmp_path / "again.parquet")
    again = Sweep.from_parquet(tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(again.frame, example.frame)
    assert again.description == example.description
