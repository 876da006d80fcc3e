"""Recording a sweep of LoRA fine-tunes, and the recordings that the package carries."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.lora_spaces import configuration
from experiments.record_lora_sweep import MODES, main
from tests.stand_ins.tiny_folder import counting_data, tiny_folder
from tune_stoppers import Sweep, example_path

LORA = sorted(example_path("lora").glob("*.parquet"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a tiny model and its data."""
    folder = tmp_path_factory.mktemp("tiny")
    counting_data().save(folder / "data.npz")
    model = tiny_folder(folder / "model")
    given = ["docstring", "--space", "short", "--trials", "4", "--examples", "64"]
    given += ["--evaluations", "2", "--data", str(folder / "data.npz"), "--model", str(model)]
    return given


def test_a_sweep_is_recorded(made: list[str], tmp_path: Path) -> None:
    """Trials in order, each to its end, described, and the same again from the same command."""
    outs = [tmp_path / "new" / f"{name}.parquet" for name in ("one", "again")]
    for out in outs:
        assert main([*made, "--out", str(out)]) == 0
    sweep, again = map(Sweep.from_parquet, outs)
    assert (sweep.name, sweep.metric, sweep.mode, sweep.modes) == ("one", "eval_loss", "min", MODES)
    assert sweep.trial_ids == ["00", "01", "02", "03"]
    assert sweep.configs["02"] == configuration("short", seed=0, index=2)
    assert sweep.frame["progress"].tolist() == [0.5, 1.0] * 4
    assert "--space short --trials 4 --seed 0" in sweep.description["source"]
    pd.testing.assert_frame_equal(sweep.frame, again.frame)
    assert sorted(p.name for p in outs[0].parent.iterdir()) == ["again.parquet", "one.parquet"]


def test_a_training_seed_keeps_the_configurations(made: list[str], tmp_path: Path) -> None:
    """It changes first weights and orders, and so the losses: their noise can be measured."""
    frames = []
    for seed in ("0", "1"):
        out = tmp_path / f"{seed}.parquet"
        assert main([*made, "--training-seed", seed, "--out", str(out)]) == 0
        frames.append(Sweep.from_parquet(out).frame)
    configs = [name for name in frames[0] if name.startswith("config/")]
    pd.testing.assert_frame_equal(frames[0][configs], frames[1][configs])
    assert (frames[0]["eval_loss"] != frames[1]["eval_loss"]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1"),
        (["--space", "tall"], "invalid choice: 'tall'"),
        (["--examples", "40"], "examples must be a multiple of 32"),
        (["--data", "/absent.npz"], "/absent.npz"),
        (["--model", "/absent"], "/absent"),
    ],
)
def test_bad_arguments_are_one_line(
    made: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    given: list[str],
    message: str,
) -> None:
    """A mistake is one line that says what to do, status 2, and no file is written."""
    assert main([*made, "--out", str(tmp_path / "out.parquet"), *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(
    made: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file at --out is refused and left as it is."""
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    assert main([*made, "--out", str(out)]) == 2
    assert "exists: give another --out" in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("path", LORA, ids=lambda path: path.stem)
def test_a_recording_is_a_whole_sweep(path: Path) -> None:
    """24 evaluations at equal progress of every trial, good ones and poor ones, in a small file."""
    sweep = Sweep.from_parquet(path)
    assert path.stat().st_size < 300_000
    assert (sweep.metric, sweep.mode) == ("eval_loss", "min")
    assert set(MODES) <= set(sweep.metrics)
    assert all(len(curve) == 24 for curve in sweep)
    assert (sweep.frame.groupby("training_iteration")["progress"].agg(np.ptp) < 0.01).all()
    assert sweep.frame["progress"].max() == 1
    assert "/" not in str(sweep.description.get("source"))
    bests = sweep.frame.groupby("trial_id")["eval_loss"].min()
    assert bests.median() > 1.003 * bests.min()
