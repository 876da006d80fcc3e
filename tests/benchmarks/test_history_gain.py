"""What a history is worth, on sweeps where that is known."""

from dataclasses import replace

import pandas as pd

from benchmarks.history_gain import (
    COLD,
    KNOWN,
    NEGATED,
    POINTS,
    SHUFFLED,
    TPE,
    WARM,
    runs_of,
    shuffled,
    table,
    tpe,
    without,
)
from benchmarks.pools import Task
from benchmarks.small_rules import ASHA
from tune_stoppers.recorded.sweep import Sweep


def a_task(name: str, shift: float) -> Task:
    """Thirty trials whose end the learning rate decides, the same in each task."""
    rows = [
        {
            "trial_id": f"t{i:02d}",
            "training_iteration": t,
            "time_total_s": float(t),
            "loss": abs(i - 12) + shift * t / 10 + 20 / t,
            "config/lr": 10.0 ** (-6 + (i + shift) / 6),
        }
        for i in range(30)
        for t in range(1, 13)
    ]
    return Task("lora", Sweep.from_frame(pd.DataFrame(rows), name=name, metric="loss", mode="min"))


def test_sweeps_of_other_families_are_a_history_where_they_are_asked_for() -> None:
    """A sweep without relatives is left out otherwise."""
    mine, other = a_task("a", 0.0), replace(a_task("b", 0.3), family="taskset")
    assert runs_of([mine], [12], 1).empty
    runs = runs_of([mine], [12], 1, beside=[mine, other])
    assert f"AutoScheduler, {KNOWN}" in set(runs["rule"])


def test_a_history_that_is_right_finds_the_best_sooner() -> None:
    """Than none, and than one that is mixed up; the table has a row for each."""
    runs = runs_of([a_task("one", 0.1), a_task("two", 0.2)], [16], 2)
    area = runs.groupby("rule")["area"].mean()
    auto = {name: area[f"AutoScheduler, {name}"] for name in (COLD, KNOWN, SHUFFLED)}
    assert auto[KNOWN] < auto[COLD]
    assert auto[KNOWN] < auto[SHUFFLED]
    assert table(runs).count("lora") == 4


def test_what_is_known_is_not_the_pool_itself() -> None:
    """The trials asked about are left out, and a shuffled sweep keeps its curves."""
    sweep = a_task("one", 0.0).sweep
    assert len(without(sweep, [sweep.curves[0].config]).curves) == 29
    mixed = shuffled(sweep, 0)
    assert [c.trial_id for c in mixed.curves] == [c.trial_id for c in sweep.curves]
    assert [c.config for c in mixed.curves] != [c.config for c in sweep.curves]


def test_what_can_be_done_by_hand_is_measured_too() -> None:
    """Ray's ASHA in the order of the history, and with a TPE that is told of earlier trials."""
    tasks = [a_task("one", 0.1), a_task("two", 0.2)]
    runs = runs_of(tasks, [16], 1, workers=(1, 8), everything=True)
    assert set(runs["workers"]) == {1, 8}
    area = runs.groupby("rule")["area"].mean()
    assert area[f"{ASHA}, {POINTS}"] < area[ASHA]
    rules = {f"{ASHA}, {TPE}", f"{ASHA}, {WARM}", f"AutoScheduler, {NEGATED}"}
    assert rules <= set(area.index)
    warm = tpe([tasks[0].sweep], tasks[1].sweep, 0)
    assert 20 < len(warm._evaluated_rewards) == len(warm._points_to_evaluate) < 30
