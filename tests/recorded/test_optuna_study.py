"""Trials of an Optuna study, from a study or from where it is stored."""

import math
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tune_stoppers import Sweep

STATES = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def quiet():
    """Optuna says each study and trial."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


def fill(storage=None, name: str = "mine", **options) -> optuna.Study:
    """Three trials: whole, pruned as it diverged, without a report."""
    study = optuna.create_study(
        storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler(seed=0), **options
    )
    for values in ([3.0, 2.0, 1.0], [3.0, math.nan], []):
        trial = study.ask()
        trial.suggest_float("lr", 0.1, 0.1)
        trial.suggest_categorical("optim", ["adamw"])
        for step, value in enumerate(values):
            trial.report(value, step)
        if len(values) == 2:
            study.tell(trial, state=STATES.PRUNED)
        else:
            study.tell(trial, 1.0)
    return study


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.mark.filterwarnings("ignore:.*set_metric_names:optuna.exceptions.ExperimentalWarning")
def test_a_study_is_read():
    """Its metric and direction are known; a NaN is a value; the trial without one is left out."""
    study = fill(direction="maximize")
    sweep = Sweep.from_optuna(study)
    assert (sweep.name, sweep.metric, sweep.mode) == ("mine", "value", "max")
    assert sweep.configs == {"0": {"lr": 0.1, "optim": "adamw"}, "1": {"lr": 0.1, "optim": "adamw"}}
    assert [curve.iterations.tolist() for curve in sweep] == [[0, 1, 2], [0, 1]]
    assert repr(sweep.curves[1].metrics["value"].tolist()) == "[3.0, nan]"
    took = study.trials[0].duration.total_seconds()
    assert sweep.curves[0].seconds.tolist() == pytest.approx([took / 3, took * 2 / 3, took])
    assert sweep.reading == (
        "Study 'mine': time by Optuna's step. Pruned: 1; what would have "
        "become of these is not known. Left out, of 3 runs: 1 without a value. "
        "value: 4 of 5 rows have a value, 0 have none, 1 diverged (NaN or infinite)."
    )
    study.set_metric_names(["f1"])
    assert Sweep.from_optuna(study).metric == "f1"
    assert Sweep.from_optuna(study, metric="f1", mode="min").mode == "min"


@pytest.mark.parametrize("kind", ["sqlite", "url", "journal"])
def test_a_storage_is_read_and_not_written(kind, tmp_path):
    """A file as Optuna leaves it, or its URL."""
    path = tmp_path / "a study#1.db"
    url = f"sqlite:///{path}"
    fill(journal(path) if kind == "journal" else url)
    before = path.read_bytes()
    path.chmod(0o400)
    sweep = Sweep.from_optuna(url if kind == "url" else path)
    assert (len(sweep), sweep.metric, sweep.mode) == (2, "value", "min")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_of_several_studies_one_is_to_be_named(tmp_path):
    """All of them are listed."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    for name in ("lora", "full"):
        fill(url, name)
    path = tmp_path / "x.db"
    with pytest.raises(ValueError, match=r"has several studies: '\w+', '\w+'\. Name one"):
        Sweep.from_optuna(path)
    with pytest.raises(ValueError, match=r"no study 'lra'\. Did you mean 'lora'\?"):
        Sweep.from_optuna(path, study_name="lra")
    assert Sweep.from_optuna(path, study_name="full").name == "full"


def test_what_has_no_curves_is_said():
    """Two objectives, or an objective that reports nothing."""
    with pytest.raises(ValueError, match="2 objectives; Optuna keeps intermediate values of one"):
        Sweep.from_optuna(optuna.create_study(directions=["minimize", "maximize"]))
    silent = optuna.create_study()
    silent.tell(silent.ask(), 1.0)
    with pytest.raises(ValueError, match="no intermediate values; its objective has to call"):
        Sweep.from_optuna(silent)


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "sqlite": b"SQLite format 3\0" + b"\xff" * 5000,
    "a journal that breaks off": b'{"op_code":0,"worker_id":"x","study_name":"a"}\n'
    b'{"op_code":4,"worker_id":"x"}\n{"op_c\n{"op_code"\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_storage_is_one_error(name, tmp_path):
    """That names the file."""
    path = tmp_path / "study"
    path.write_bytes(HOSTILE[name])
    expected = "is neither an SQLite database nor a journal|cannot be read as a storage of Optuna"
    with pytest.raises(ValueError, match=expected) as caught:
        Sweep.from_optuna(path)
    assert str(path) in str(caught.value)


def test_a_storage_without_a_study(tmp_path):
    """Says so, as a path where there is nothing does."""
    path = tmp_path / "x.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    with pytest.raises(ValueError, match="holds no study of Optuna"):
        Sweep.from_optuna(path)
    with pytest.raises(ValueError, match=r"nowhere"):
        Sweep.from_optuna(tmp_path / "nowhere")
