"""The live view in words, and what is typed into it."""

import pytest
from rich.console import Console

from tests.stand_ins import folders
from tune_stoppers.report.data.watching import Watch
from tune_stoppers.report.terminal.watched import HINT, Prompt, headline, sentence, view


@pytest.fixture
def watch(tmp_path):
    """A sweep of four trials, of which nobody has written how they were judged."""
    found = Watch.at(folders.sweep(tmp_path))
    found.poll()
    return found


def shown(watch, height=40, **typed):
    """The window as text."""
    console = Console(width=120, height=height, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(view(watch, height, **typed))
        return console.export_text()


def test_the_view_has_the_trials_and_what_was_spent(watch):
    """And says that the sweep has ended."""
    assert headline(watch)[0].endswith("4 trials: 3 TERMINATED, 1 ERROR")
    text = shown(watch)
    assert "3 of 3 evaluations without improvement" in text
    assert "aaaaa_00003" in text
    assert "the sweep has ended" in text
    assert HINT not in text


def test_a_small_window_shows_some_of_the_trials_and_counts_the_others(watch):
    """The line to type into stays in sight."""
    text = shown(watch, height=11, typed="stop aaa", said="No trial")
    assert "and 2 more" in text
    assert text.rstrip().endswith("> stop aaa")
    assert "No trial" in text


def test_a_folder_without_trials_says_so(tmp_path):
    """Ray has only just begun."""
    (tmp_path / "tuner.pkl").touch()
    found = Watch.at(tmp_path)
    found.poll()
    assert "no trial has begun yet" in shown(found)


@pytest.mark.parametrize(
    ("keys", "lines", "left"),
    [
        ("stop a why\n", ["stop a why"], ""),
        ("stpo\x7f\x7fop a\r", ["stop a"], ""),
        ("\n\n  \n", [], ""),
        ("q\nst", ["q"], "st"),
        ("\x1b[A\x00", [], "[A"),
        ("\x7f", [], ""),
    ],
)
def test_keys_become_lines(keys, lines, left):
    """Also one by one, with mistakes taken back."""
    prompt = Prompt()
    assert [line for key in keys for line in prompt.feed(key)] == lines
    assert prompt.typed == left


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (folders.stop_line("a", 3) | {"kind": "decision"}, "+3 s  a step 3: STOP, PatienceStopper"),
        (folders.stop_line("a", 3, dry_run=True) | {"kind": "decision"}, "STOP (dry run)"),
        (
            {"kind": "event", "time": folders.BEGIN, "trial": "a", "event": "given up"}
            | {"numbers": {"why": "it has diverged: 9"}},
            "+0 s  a: given up: it has diverged: 9",
        ),
        (
            {"kind": "event", "time": folders.BEGIN, "trial": "a", "event": "resumed"}
            | {"numbers": {"why": "goes on at once: as the best so far"}},
            "+0 s  a: goes on at once: as the best so far",
        ),
        ({"kind": "status", "time": folders.BEGIN, "trial": "a", "status": "ERROR"}, "a: ERROR"),
        ({"kind": "end", "trials": {"TERMINATED": 2}}, "the sweep has ended: 2 TERMINATED"),
    ],
)
def test_an_event_is_a_sentence(event, expected):
    """For those who read the stream, instead of a program."""
    assert expected in sentence(event, folders.BEGIN)


def test_decisions_to_continue_and_accounts_are_no_sentence():
    """They would bury the others."""
    cost = {"kind": "event", "trial": "a", "event": "cost", "numbers": {"cost": 4.2}}
    assert sentence(cost, folders.BEGIN) == ""
    line = folders.stop_line("a", 3) | {"kind": "decision", "action": "CONTINUE"}
    assert sentence(line, folders.BEGIN) == ""
