"""`tune-stoppers advise`: what it prints, for people and machines, and a mistake in one line."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tune_stoppers import PatienceStopper
from tune_stoppers.cli import main
from tune_stoppers.expressions import parse
from tune_stoppers.recipes.recipe import NOISY

ROOT = Path(__file__).parents[2]
BASE = ("advise", "--dataset-size", "500", "--task", "classification")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_it_says_what_to_begin_with_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain text, one fact a line, however long: the numbers are those of `advice`."""
    status, out, err = told(capsys, *BASE, "--complexity", "small", "--model", "rnn")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "metric     accuracy",
        "mode       max",
        "patience   5",
        "min_delta  0.005",
        'call       PatienceStopper("accuracy", "max", patience=5, min_delta=0.005)',
        "why        accuracy is the usual measure of classification with a rnn; higher is better; "
        "the Trainer logs eval_accuracy where compute_metrics returns accuracy",
        "why        a small model begins with patience 3; 500 examples make evaluations noisy: "
        "patience +2, min_delta 0.005",
    ]


def test_the_defaults_are_a_medium_transformer(capsys: pytest.CaptureFixture[str]) -> None:
    """What a fine-tune usually is."""
    explicit = (*BASE, "--complexity", "medium", "--model", "transformer")
    assert told(capsys, *BASE) == told(capsys, *explicit)


def test_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json`, and a call that can be used as it is."""
    status, out, _ = told(capsys, *BASE, "--json")
    found = json.loads(out)
    assert status == 0
    assert list(found) == ["metric", "mode", "patience", "min_delta", "call", "why"]
    assert (found["patience"], found["min_delta"]) == (7, 0.005)
    stopper = parse(found["call"], {"PatienceStopper": PatienceStopper})
    assert stopper.rule.patience == 7


@pytest.mark.parametrize("task", ["sft", "dpo", "grpo", "rloo"])
def test_fine_tunes_get_a_stopper_of_what_trl_logs(
    capsys: pytest.CaptureFixture[str], task: str
) -> None:
    """For GRPO on the smoothed reward, with the patience of its recipe; min_delta is of a loss."""
    status, out, _ = told(capsys, "advise", "--dataset-size", "500", "--task", task, "--json")
    found = json.loads(out)
    stopper = parse(found["call"], {"PatienceStopper": PatienceStopper})
    assert status == 0
    assert f"recipes.{task}()" in found["why"][0]
    expected = (20, 0.0, NOISY) if task in ("grpo", "rloo") else (7, 0.005, None)
    assert (stopper.rule.patience, stopper.rule.min_delta, stopper.rule.smoothing) == expected
    assert stopper.rule.patience == found["patience"]


def test_an_unknown_task_gets_the_loss_and_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    """As in Python; what looks like markup is text."""
    status, out, _ = told(capsys, "advise", "--dataset-size", "9", "--task", "[red]qa")
    assert status == 0
    assert "metric     loss" in out
    assert "'[red]qa'; known are classification, generation, qa, summarization" in out


MISTAKES = {
    "no size": (("advise", "--task", "qa"), "--dataset-size"),
    "no task": (("advise", "--dataset-size", "9"), "--task"),
    "no number": (("advise", "--dataset-size", "many", "--task", "qa"), "--dataset-size"),
    "no examples": (("advise", "--dataset-size", "0", "--task", "qa"), "must be >= 1, got 0"),
    "complexity": ((*BASE, "--complexity", "huge"), "small, medium, large, got 'huge'"),
    "unknown option": ((*BASE, "--modle", "rnn"), "--modle"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    """On standard error, without a traceback."""
    status, out, err = told(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_it_answers_without_heavy_imports() -> None:
    """At once, in a shell."""
    code = (
        f"import sys; from tune_stoppers.cli import main; main({[*BASE]}); "
        "print([name for name in ('ray', 'torch', 'pandas', 'scipy') if name in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_in_a_terminal_the_names_stand_out() -> None:
    """Bold where somebody reads it, and nothing of the kind in a pipe."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tune_stoppers", *BASE]
    colourful = {"TERM": "xterm", "COLUMNS": "200"}
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS")}
    subprocess.run(command, stdout=theirs, env=plain | colourful, check=True, cwd=ROOT)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\x1b[1mmetric" in shown
    piped = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "\x1b" not in piped.stdout
