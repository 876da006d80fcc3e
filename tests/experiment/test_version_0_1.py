"""Experiments that version 0.1 wrote are read, judged again where the rule is the same, and
not restored without a word.

The two folders are of a sweep of eight trials under `AutoScheduler`, and one under
`PromotionASHAScheduler`, each with a patience and a divergence stopper, as 0.1 left them (without
checkpoints, event files and pickles).
"""

import importlib
import pickle
from pathlib import Path

import pytest

from tune_stoppers import Sweep, best_states, explain
from tune_stoppers.cli import main
from tune_stoppers.report import experiment_story, write_page
from tune_stoppers.report.data.explain import Explained, verify

HERE = Path(__file__).parent / "version_0_1"


@pytest.mark.parametrize(("name", "stopped"), [("auto", 4), ("promotion", 7)])
def test_it_is_explained_as_before(name: str, stopped: int) -> None:
    """Who ended, by whom, and the best of it."""
    told = explain(HERE / name)
    assert len(told) == 8
    scheduler = "AutoScheduler" if name == "auto" else "PromotionASHAScheduler"
    assert (told["cause"] == scheduler).sum() == stopped
    found = best_states(HERE / name, "loss", "min").set_index("trial_id")["best_value"]
    assert found.min() == pytest.approx(1 / 9, abs=1e-6)


@pytest.mark.parametrize("name", ["auto", "promotion"])
def test_its_journals_are_judged_again(name: str) -> None:
    """Every rule that decides as it did; of the one that does not, a line says so."""
    checked = {v.run.owner: v for v in map(verify, Explained.at(HERE / name).runs)}
    for owner in {"PatienceStopper", "DivergenceStopper", "PromotionASHAScheduler"} & set(checked):
        again = checked[owner].rerun
        assert again is not None
        assert again.checked > 0
        assert not again.differing
    if name == "auto":
        assert "version 2 of BoundASHA, and this is version 3" in checked["AutoScheduler"].why


def test_it_makes_a_page_and_a_replay(tmp_path: Path) -> None:
    """Both from the same folder."""
    write_page(experiment_story(HERE / "auto", "loss", "min"), tmp_path / "page.html")
    assert "266ba_00002" in (tmp_path / "page.html").read_text()
    sweep = Sweep.from_ray(HERE / "auto")
    assert (len(sweep), sweep.objective()) == (8, ("loss", "min"))


@pytest.mark.parametrize(
    "module",
    ["tune_stoppers.rules.bound_asha", "tune_stoppers.tune.results", "tune_stoppers.track"],
)
def test_a_module_of_it_is_refused_with_what_to_do(module: str) -> None:
    """That is what `Tuner.restore` meets in the pickle of a scheduler."""
    with pytest.raises(ModuleNotFoundError, match=r"of tune_stoppers 0\.1\. .* explain, report"):
        importlib.import_module(module)


def test_a_stopper_of_it_is_refused_with_what_to_do() -> None:
    """Its module has become a folder."""
    pickled = b"ctune_stoppers.tune.stoppers\nPatienceStopper\n."
    with pytest.raises(ModuleNotFoundError, match=r"is restored by that version"):
        pickle.loads(pickled)


def test_a_module_that_never_was_is_an_ordinary_mistake() -> None:
    """Nothing is said of versions."""
    with pytest.raises(
        ModuleNotFoundError, match=r"No module named 'tune_stoppers\.rules\.nothing'"
    ):
        importlib.import_module("tune_stoppers.rules.nothing")


def test_a_replay_takes_the_sweep_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The newest by default; where there is no other one, a line says so."""
    assert main(["replay", str(HERE / "auto"), "--generation", "1"]) == 2
    assert "has no sweep generation=1, only 0 (the newest)" in capsys.readouterr().err
