"""Decisions on disk, and back."""

import copy
import json
import math
import pickle

import pytest

from tune_stoppers.core import Action, Decision, Report
from tune_stoppers.journal.lines import Journal, line_of, read_journal
from tune_stoppers.rules import Patience, Threshold

STOP = Decision(Action.STOP, "{x:loss} is past {y:loss}", "Threshold", {"x": -0.9, "y": -0.8})


@pytest.fixture
def journal(tmp_path):
    """A journal in a folder that does not exist yet, closed afterwards."""
    one = Journal(tmp_path / "logs" / "decisions.jsonl")
    yield one
    one.close()


def test_a_line_says_who_decided_what_and_why():
    """In the user's units, with the numbers compared in loss units."""
    line = line_of("ThresholdStopper", "t1", 3, 0.9, STOP, sign=-1)
    assert line.pop("time") > 1.7e9
    assert line == {
        "trial": "t1",
        "step": 3,
        "value": 0.9,
        "action": "STOP",
        "rule": "Threshold",
        "reason": "0.9 is past 0.8",
        "numbers": {"x": -0.9, "y": -0.8},
        "owner": "ThresholdStopper",
    }


def test_flags_are_there_where_they_apply():
    """An ordinary line is not cluttered with them."""
    rule = Threshold(1.0, scope="sweep")
    _, decision = rule.update(rule.init(), Report("t", 1, 0.5))
    line = line_of("o", "t", 1, 0.5, decision, event="rewind", dry_run=True)
    assert (line["event"], line["dry_run"], line["ends_sweep"]) == ("rewind", True, True)
    assert not {"event", "dry_run", "ends_sweep"} & line_of("o", "t", 1, 0.5, STOP).keys()


def test_what_is_written_can_be_read(journal):
    """In order, and each line is on disk once it is written."""
    for step in (1, 2):
        journal.write(line_of("o", "tü", step, 0.5, STOP))
        assert [line["step"] for line in read_journal(journal.path)] == list(range(1, step + 1))
    assert read_journal(journal.path)[0]["trial"] == "tü"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_strings(journal, value):
    """JSON has none: every line is read by any JSON parser."""
    rule = Patience(1)
    _, decision = rule.update(rule.init(), Report("t", 1, value))
    journal.write(line_of("o", "t", 1, value, decision))

    def refuse(constant):
        raise AssertionError(constant)

    (text,) = journal.path.read_text().splitlines()
    assert json.loads(text, parse_constant=refuse)["value"] == str(value)


def test_two_journals_may_share_a_file(journal):
    """Lines of several stoppers stay whole."""
    other = Journal(journal.path)
    for step in range(3):
        journal.write(line_of("a", "t", step, 0.5, STOP))
        other.write(line_of("b", "t", step, 0.5, STOP))
    other.close()
    assert [line["owner"] for line in read_journal(journal.path)] == ["a", "b"] * 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda j: pickle.loads(pickle.dumps(j))])
def test_a_copy_goes_on_where_the_journal_ended(journal, copied):
    """Ray copies and pickles stoppers, open files or not."""
    journal.write(line_of("o", "t", 1, 0.5, STOP))
    other = copied(journal)
    other.write(line_of("o", "t", 2, 0.5, STOP))
    other.close()
    assert [line["step"] for line in read_journal(journal.path)] == [1, 2]


def test_a_closed_journal_opens_again(journal):
    """Closing is no end."""
    for step in (1, 2):
        journal.write(line_of("o", "t", step, 0.5, STOP))
        journal.close()
    assert len(read_journal(journal.path)) == 2


def test_a_line_that_a_crash_cut_off_costs_only_itself(journal, caplog):
    """What follows starts on a line of its own, and reading names the torn one."""
    journal.write(line_of("o", "t", 1, 0.5, STOP))
    journal.close()
    with journal.path.open("ab") as file:
        file.write('{"trial": "ü'.encode()[:-1])
    journal.write(line_of("o", "t", 2, 0.5, STOP))
    assert [line["step"] for line in read_journal(journal.path)] == [1, 2]
    assert "line 2 is torn" in caplog.text


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    """Ray changes the working directory; the journal does not move with it."""
    monkeypatch.chdir(tmp_path)
    one = Journal("decisions.jsonl")
    monkeypatch.chdir("/")
    one.write(line_of("o", "t", 1, 0.5, STOP))
    one.close()
    assert (tmp_path / "decisions.jsonl").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    """A journal is asked for, so losing it silently is worse than failing."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file" / "decisions.jsonl").write({"a": 1})


def test_a_forgotten_journal_leaks_no_file(tmp_path, recwarn):
    """A journal that is dropped without close() gives its file back without a warning."""
    Journal(tmp_path / "decisions.jsonl").write({"a": 1})
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]
