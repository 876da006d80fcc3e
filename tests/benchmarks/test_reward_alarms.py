"""The recipes for rewards on recorded runs of TRL: healthy ones train on, broken ones end."""

import pytest

from benchmarks.reward_alarms import (
    CHARACTERS,
    RUNS,
    SETTINGS,
    SMOLLM2,
    Run,
    alarms,
    main,
    recorded,
    table,
    write,
)
from tune_stoppers import recipes

MISSED = {"DPO, beta 0.001", "DPO, labels by chance"}  # in some of their runs, as RESULTS says
MISSED_RUN = (SMOLLM2, "DPO, rate × 30", 0)  # its accuracy is perfect


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Those in the repository."""
    found = recorded()
    assert {run.setting for run in found} == set(SETTINGS)
    return found


def test_healthy_runs_train_on_and_broken_ones_end(runs: list[Run]) -> None:
    """Every recorded run, whether settings were chosen by it or not."""
    for run in runs:
        stopped = bool(alarms(run))
        if SETTINGS[run.setting].healthy:
            assert not stopped, run[:3]
        elif run.setting not in MISSED and run[:3] != MISSED_RUN:
            assert stopped, run[:3]


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("GRPO, rate × 30", "kl"),
        ("GRPO, rate × 3, KL weight 1e-6", "kl"),
        ("GRPO, constant reward", "zero std"),
        ("DPO, rate × 30", "worse than untrained"),
        ("DPO, equal answers", "stalled"),
    ],
)
def test_the_part_that_is_there_for_it_fires(runs: list[Run], setting: str, part: str) -> None:
    """In each of the runs, and before its end."""
    group = [run for run in runs if run.setting == setting and run[:3] != MISSED_RUN]
    assert group
    for run in group:
        step, reason = alarms(run)[part]
        assert step < run.steps
        assert "in a row" in reason or "without improvement" in reason


def test_a_limit_out_of_reach_ends_nothing_and_a_tight_one_healthy_runs(runs: list[Run]) -> None:
    """The settings matter: these are real curves."""
    healthy = [run for run in runs if run[:2] == (CHARACTERS, "GRPO")]
    assert not any("kl" in alarms(run, recipes.grpo(max_kl=None)) for run in runs)
    assert all("kl" in alarms(run, recipes.grpo(max_kl=0.01)) for run in healthy)


def test_the_table_is_of_runs_that_nothing_was_chosen_by(runs: list[Run], tmp_path, capsys) -> None:
    """A line a setting; the same runs make the same file."""
    write(tmp_path / "runs.gz", runs)
    assert (tmp_path / "runs.gz").read_bytes() == RUNS.read_bytes()
    assert recorded(tmp_path / "gone.gz") == []
    main([])
    shown = capsys.readouterr().out.strip()
    assert shown == table(runs)
    reported = [run for run in runs if run.reported]
    assert len(shown.splitlines()) == 2 + len({run[:2] for run in reported})
    assert sum(int(line.split("|")[6]) for line in shown.splitlines()[2:]) == len(reported)
