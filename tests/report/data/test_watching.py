"""A running sweep told as it goes: events in order, the best so far, and its end."""

import math
import time

import pytest

from tests.stand_ins import folders
from tests.stand_ins.snapshots import listed, snapshot
from tune_stoppers.experiment.folder import Experiment, ExperimentError
from tune_stoppers.report.data import watching
from tune_stoppers.report.data.explain import Explained
from tune_stoppers.report.data.watching import Watch, seconds_left

DIRECTORY = "train_{}_1_x_2026-01-01_00-00-00"
BEGINS = {
    **{"time": folders.BEGIN, "trial": "", "event": "begins", "owner": "Test"},
    **{"metric": "loss", "sign": 1, "time_attr": "training_iteration", "planned": 2},
}


def decision(trial, step, value, action="CONTINUE", **more):
    """A line of the journal."""
    line = {"time": folders.BEGIN + step, "trial": trial, "step": step, "value": value}
    return line | {"action": action, "reason": "so it is", "owner": "Test", "numbers": {}} | more


def kinds(events, *, but=()):
    """Kind and trial of each."""
    return [(e["kind"], e.get("trial", "")) for e in events if e["kind"] not in but]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Two trials in mid-course, under a scheduler that has planned two; each poll reads it all."""
    monkeypatch.setattr(watching, "READ_SECONDS", {True: 0.0, False: 0.0})
    monkeypatch.setattr(watching, "READ_SHARE", 0)
    rows = {t: folders.trial(tmp_path, f"aaaaa_0000{t}", [2.0, 1.0]) for t in (0, 1)}
    folders.journal(
        tmp_path, BEGINS, decision("aaaaa_00000", 1, 2.0), decision("aaaaa_00001", 1, 3.0)
    )
    note(tmp_path, rows, "RUNNING", "RUNNING")
    return tmp_path, rows


def note(folder, rows, *statuses):
    """Ray's snapshot."""
    trials = [
        listed(f"aaaaa_0000{t}", status, DIRECTORY.format(f"aaaaa_0000{t}"), last=rows[t][-1])
        for t, status in enumerate(statuses)
    ]
    snapshot(folder, *trials)


def test_what_happens_is_told_once_and_in_order_until_the_end(sweep):
    """The end comes with Ray's word that every planned trial has ended."""
    folder, rows = sweep
    watch = Watch.at(folder)
    assert kinds(watch.poll()) == [
        ("event", ""),
        ("decision", "aaaaa_00000"),
        ("best", "aaaaa_00000"),
        ("decision", "aaaaa_00001"),
        ("status", "aaaaa_00000"),
        ("status", "aaaaa_00001"),
    ]
    assert watch.poll() == []
    folders.journal(
        folder,
        decision("aaaaa_00001", 2, 1.0),
        decision("aaaaa_00000", 2, 2.5, "STOP"),
    )
    assert kinds(watch.poll()) == [
        ("decision", "aaaaa_00001"),
        ("best", "aaaaa_00001"),
        ("decision", "aaaaa_00000"),
        ("status", "aaaaa_00000"),
    ]
    assert not watch.ended
    note(folder, rows, "TERMINATED", "TERMINATED")
    *_, end = watch.poll()
    assert watch.ended
    assert (end["kind"], end["trials"]) == ("end", {"TERMINATED": 2})
    assert (end["best"]["trial"], end["best"]["value"]) == ("aaaaa_00001", 1.0)
    assert end["spent_s"] == 4.0


def test_it_has_not_ended_while_trials_are_to_come(sweep):
    """A searcher may make one after the other."""
    folder, rows = sweep
    folders.journal(folder, {**BEGINS, "planned": 3})
    note(folder, rows, "TERMINATED", "TERMINATED")
    watch = Watch.at(folder)
    watch.poll()
    assert not watch.ended


def test_without_a_plan_it_has_ended_once_it_has_been_quiet(sweep, monkeypatch):
    """A stopper's journal does not say how many trials there will be."""
    folder, rows = sweep
    (journal,) = folder.glob("tune_stoppers/*/journal-*")
    journal.write_text(journal.read_text().replace('"planned": 2', '"planned": 0'))
    note(folder, rows, "TERMINATED", "TERMINATED")
    watch = Watch.at(folder)
    monkeypatch.setattr(time, "time", lambda: folders.BEGIN + 5.0)
    watch.poll()
    assert not watch.ended
    monkeypatch.setattr(time, "time", lambda: folders.BEGIN + 60.0)
    watch.poll()
    assert watch.ended


def test_the_best_is_the_highest_where_the_metric_is_maximised(sweep):
    """And values of another metric, or that are not finite, are no best."""
    folder, _ = sweep
    (journal,) = folder.glob("tune_stoppers/*/journal-*")
    journal.write_text(journal.read_text().replace('"sign": 1', '"sign": -1'))
    folders.journal(folder, decision("aaaaa_00000", 2, "inf"), decision("aaaaa_00000", 3, "nan"))
    other = journal.parent.parent / "2026-01-01_00-00-00-Other-11111111"
    other.mkdir()
    late = folders.BEGIN + 9
    lines = [{**BEGINS, "metric": "f1", "time": late}, decision("aaaaa_00000", 9, 99.0, time=late)]
    (other / journal.name).write_text("".join(map(folders.json.dumps, lines)).replace("}{", "}\n{"))
    watch = Watch.at(folder)
    watch.poll()
    assert (watch.best["trial"], watch.best["value"]) == ("aaaaa_00001", 3.0)


def test_a_folder_where_nothing_has_begun_is_waited_for_and_another_refused(tmp_path):
    """Ray writes `tuner.pkl` before the first trial."""
    with pytest.raises(ExperimentError, match="no Ray Tune experiment"):
        Watch.at(tmp_path)
    with pytest.raises(ExperimentError, match="not a folder"):
        Watch.at(tmp_path / "none")
    (tmp_path / "tuner.pkl").touch()
    watch = Watch.at(tmp_path)
    assert watch.poll() == []
    assert not watch.ended


def test_the_time_left_is_what_open_trials_have_left_over_the_workers(tmp_path):
    """One has run to its end, one is half through, a third has not started."""
    rows = {
        0: folders.trial(tmp_path, "aaaaa_00000", [2.0] * 10, done=True),
        1: folders.trial(tmp_path, "aaaaa_00001", [2.0] * 4),
        2: [{}],
    }
    folders.journal(tmp_path, {**BEGINS, "planned": 3})
    note(tmp_path, rows, "TERMINATED", "RUNNING", "PENDING")
    told = Explained.of(Experiment.at(tmp_path))
    spent = told.totals.spent
    assert spent == 14.0
    assert seconds_left(told) == pytest.approx(6.0 + spent / 1)


def test_the_time_left_is_not_known_before_a_trial_has_ended(tmp_path):
    """Nobody tells how far they go; and nothing is left where all have ended."""
    rows = {0: folders.trial(tmp_path, "aaaaa_00000", [2.0] * 3)}
    note(tmp_path, rows, "RUNNING")
    assert math.isnan(seconds_left(Explained.of(Experiment.at(tmp_path))))
    note(tmp_path, rows, "TERMINATED")
    assert seconds_left(Explained.of(Experiment.at(tmp_path))) == 0.0
