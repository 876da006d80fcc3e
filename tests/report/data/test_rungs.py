"""The rungs of a sweep: who came, who was stopped, at which values."""

import math

import pytest

from tests.stand_ins.folders import journal, stop_line, trial
from tune_stoppers.report import experiment_story
from tune_stoppers.report.data.rungs import RungRow, rungs_of

WHY = "PatienceStopper: 3 of 3"


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_who_came_and_who_was_stopped_at_which_value(mode, sign, tmp_path):
    """Rungs at 2 and 4: of five trials one fails before the first, one diverges there, one is
    stopped there, one between them; one comes to the second, which it reaches late."""
    curves = {
        "a0000": [3.0, 2.0, 1.5, 1.2, 1.0],
        "b0000": [3.0, 2.5],
        "c0000": [3.0, 2.2, 2.1],
        "d0000": [3.0, None],
    }
    for name, losses in curves.items():
        values = [None if loss is None else sign * loss for loss in losses]
        trial(tmp_path, name, values, done=True, reason=None if name == "a0000" else WHY)
    trial(tmp_path, "e0000", [sign * 9.0], error="RuntimeError: x")
    journal(tmp_path, *(stop_line("b0000", 2, numbers={"rung": rung}) for rung in (2.0, 4.0, 99.0)))
    first, second = rungs_of(experiment_story(tmp_path, "loss", mode))
    assert first == RungRow(2.0, 4, 2, sign * 2.5, sign * 2.2, 1, 9)
    assert (second.step, second.came, second.stopped) == (4.0, 1, 0)
    assert math.isnan(second.best_stopped)
    assert second.worst_continued == sign * 1.2
    assert second.reports == 4 + 2 + 3 + 2 + 1


def test_a_dry_run_counts_who_would_have_been_stopped(tmp_path):
    """At the rung at which that was."""
    for name in ("a0000", "b0000"):
        trial(tmp_path, name, [3.0, 2.0, 1.0], done=True)
    journal(tmp_path, stop_line("b0000", 2, numbers={"rung": 2.0}, dry_run=True))
    (row,) = rungs_of(experiment_story(tmp_path, "loss", "min"))
    assert (row.came, row.stopped, row.best_stopped) == (2, 1, 2.0)
