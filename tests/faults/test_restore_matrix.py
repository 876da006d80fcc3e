"""Sweeps that were interrupted, or had failures, and are restored in every way that Ray offers."""

from collections.abc import Callable, Iterable
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from tests.faults.invariants import unsound
from tests.faults.killing import runs
from tests.faults.sweep_to_break import SCHEDULERS, SMOOTH, STEEP, descend, endings
from tests.stand_ins.ray_runs import end_uploads
from tune_stoppers.journal.lines import RESTORED

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    # Optuna's, of a trial that Ray has do steps again
    pytest.mark.filterwarnings("ignore:The reported value is ignored:UserWarning"),
]

TRIALS, STEPS = 4, 8
BREAKS_AT = 4  # step of the first trial to come there, or reports of all before the sweep breaks
LARGEST_RATE = 1.2  # above 1 a trial diverges


class Cell(NamedTuple):
    """One of the ways."""

    scheduler: str
    searcher: str
    resume: str
    saves: bool

    def __str__(self) -> str:
        saves = "saves" if self.saves else "saves nothing"
        return f"{self.scheduler}-{self.searcher}-{self.resume}-{saves}"


SCHEDULED = ("bound", "promotion", "rollback", "rule")
STRESSED = ("freeze-thaw",)  # in `make stress` alone
SEARCHERS = ("basic", "optuna")
RESUMES = ("unfinished", "resume_errored", "restart_errored")
IMPOSSIBLE = ("optuna", "restart_errored")  # in Ray: see the last test


def every(schedulers: Iterable[str]) -> list[Cell]:
    cells = product(schedulers, SEARCHERS, RESUMES, (True, False))
    return [Cell(*cell) for cell in cells if cell[1:3] != IMPOSSIBLE]


ALL = every(SCHEDULED)
PAIRWISE = [
    Cell(SCHEDULED[i], SEARCHERS[(i + j) % 2 if j < 2 else 0], RESUMES[j], (i // 2 + j) % 2 == 0)
    for i, j in product(range(4), range(3))
]
CELLS = [
    pytest.param(cell, marks=[] if cell in PAIRWISE else pytest.mark.stress, id=str(cell))
    for cell in [*ALL, *every(STRESSED)]
]


def test_every_pair_is_tried() -> None:
    """Whatever two things of a cell one asks for, `make test` has a cell with both."""
    for first, second in combinations(range(4), 2):
        wanted = {(cell[first], cell[second]) for cell in ALL}
        assert {(cell[first], cell[second]) for cell in PAIRWISE} == wanted


class Breaks(tune.Callback):
    """Ends the sweep, once, as a bug in the driver would."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.reports = marker, 0

    def on_trial_result(self, *args: Any, **kwargs: Any) -> None:
        self.reports += 1
        if self.reports > BREAKS_AT and not self.marker.exists():
            self.marker.touch()
            raise RuntimeError("the driver breaks")


def trainable(marker: Path, fails: bool) -> Callable[[dict[str, Any]], None]:
    """The first trial to come to step `BREAKS_AT` fails, if any is to."""

    def before(step: int) -> None:
        if fails and step == BREAKS_AT and not marker.exists():
            marker.touch()
            raise RuntimeError("a lost node, say")

    def train(config: dict[str, Any]) -> None:
        descend(config["case"], STEPS, before)

    return tune.with_resources(train, {"cpu": 2})  # one after another


def space(cell: Cell) -> dict[str, Any]:
    every = {"every": 1 if cell.saves else STEPS + 1}
    if cell.searcher == "basic":
        known = STEEP if cell.scheduler == "rollback" else SMOOTH
        return {"case": tune.grid_search([case | every for case in known[:TRIALS]])}
    return {
        "case": {"floor": tune.uniform(0, 1), "lr": tune.loguniform(0.01, LARGEST_RATE)} | every
    }


def tuner_of(
    train: Any, storage: Path, cell: Cell, scheduler: Any, callbacks: list[tune.Callback] | None
) -> tune.Tuner:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    basic = cell.searcher == "basic"
    return tune.Tuner(
        train,
        param_space=space(cell),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            scheduler=scheduler,
            search_alg=None if basic else OptunaSearch(seed=5),
            num_samples=1 if basic else TRIALS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep", storage_path=str(storage), verbose=0, callbacks=callbacks
        ),
    )


@pytest.mark.parametrize("cell", CELLS)
def test_a_restored_sweep_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    """Every trial ends; none is judged twice, none counts twice, and the decisions are the rule's.

    With `restart_errored` the trial that failed is another one, and leaves nothing behind.
    """
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    breaks, marker = cell.resume == "unfinished", tmp_path / "broken"
    train = trainable(marker, fails=not breaks)
    scheduler = SCHEDULERS[cell.scheduler]()
    tuner = tuner_of(train, tmp_path, cell, scheduler, [Breaks(marker)] if breaks else None)
    if breaks:
        with pytest.raises(Exception, match="the driver breaks"):
            tuner.fit()
        end_uploads()
    else:
        assert tuner.fit().num_errors == 1
    how = {} if breaks else {cell.resume: True}
    results = tune.Tuner.restore(str(tmp_path / "sweep"), train, **how).fit()
    assert not results.errors
    outcome = endings(results)
    assert len(outcome) == TRIALS
    (run,) = runs(tmp_path, "sweep")
    assert [line.get("event") for line in run.lines].count(RESTORED) == 1
    rates = {trial: began_with(cell, end["case"]) for trial, end in outcome.items()}
    assert list(unsound(tmp_path / "sweep", cell.scheduler, outcome, rates)) == []


def began_with(cell: Cell, case: dict[str, Any]) -> float:
    """The rate before any rollback halved it."""
    if cell.searcher == "basic" and cell.scheduler == "rollback":
        return STEEP[case["number"]]["lr"]
    return case["lr"]


@pytest.mark.stress
def test_ray_cannot_restart_a_failed_trial_of_optuna(tmp_path: Path) -> None:
    """Its `OptunaSearch` does not know the new id; if this fails, the matrix can have the cells."""
    train = trainable(tmp_path / "broken", fails=True)
    cell = Cell("none of ours", *IMPOSSIBLE, saves=True)
    assert tuner_of(train, tmp_path, cell, None, None).fit().num_errors == 1
    restored = tune.Tuner.restore(str(tmp_path / "sweep"), train, restart_errored=True)
    with pytest.raises(Exception, match="KeyError"):
        restored.fit()
