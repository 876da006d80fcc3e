"""A large experiment is read once: what was learnt is kept as long as it has not changed."""

import json

import pytest

from tests.stand_ins.folders import trial
from tune_stoppers.history import History, cache
from tune_stoppers.recorded.sweep import Sweep


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The cache folder, where every experiment counts as large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "FEWEST_FILES", 1)
    return tmp_path / "cache" / "tune_stoppers" / "history"


@pytest.fixture
def folder(tmp_path):
    """An experiment of four trials."""
    for place, lr in enumerate((0.1, 0.2, 0.3, 0.4)):
        trial(tmp_path / "runs" / "one", f"t{place}", [1.0, lr], {"lr": lr})
    return tmp_path / "runs"


def read(folder):
    return History.of(folder, metric="loss", mode="min")


def test_it_is_read_once(folder, kept, monkeypatch):
    """And what is kept is the same as what was read."""
    first = read(folder)
    monkeypatch.setattr(Sweep, "from_ray", None)
    with pytest.raises(TypeError):
        History.of(folder, metric="loss", mode="max")  # of another objective nothing is known
    monkeypatch.setattr(Sweep, "from_ray", lambda path: pytest.fail("read again"))
    assert read(folder / "one") == first
    assert len(list(kept.iterdir())) == 1


def test_it_is_read_again_once_it_has_changed(folder, kept):
    """A trial that runs on, another trial; of one experiment one file is kept."""
    assert read(folder).sweeps[0].done == (1.0, 1.0, 1.0, 1.0)
    trial(folder / "one", "t1", [0.01, 0.01], {"lr": 0.2}, first=3)
    assert read(folder).sweeps[0].done == (0.5, 1.0, 0.5, 0.5)
    trial(folder / "one", "t9", [0.5], {"lr": 0.2})
    assert read(folder).sweeps[0].trials == 5
    assert len(list(kept.iterdir())) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"key": 1}', '{"key": 1, "sweep": {}}', "[" * 9999]
)
def test_a_damaged_file_is_read_past(folder, kept, text):
    """Whatever is in it."""
    first = read(folder)
    (file,) = kept.iterdir()
    file.write_text(text)
    assert read(folder) == first
    whole = json.loads(file.read_text())
    whole["sweep"]["scores"] = "none"
    file.write_text(json.dumps(whole))
    assert read(folder) == first


def test_a_cache_that_cannot_be_written_is_no_error(folder, kept):
    """A file lies where the folder should be."""
    kept.parent.parent.mkdir()
    kept.parent.write_text("")
    assert len(read(folder).sweeps) == 1


def test_small_experiments_are_not_kept(folder, kept, monkeypatch):
    """They are read in no time."""
    monkeypatch.setattr(cache, "FEWEST_FILES", 200)
    read(folder)
    assert not kept.exists()
