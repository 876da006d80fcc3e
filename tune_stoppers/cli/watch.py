"""`watch`: a running sweep, as a stream of events or as a live view."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tune_stoppers.cli.experiments import Experiment
from tune_stoppers.cli.shell import app, mistakes

if TYPE_CHECKING:
    from rich.console import Console

    from tune_stoppers.report.data.watching import Event, Watch

LEFT = 1  # exit status: the sweep had not ended
VIEW_SECONDS = 0.25  # between two looks at the keyboard


@app.command()
def watch(
    experiment: Experiment,
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines: one event a line, as it happens.")
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(min=0, help="Leave when nothing was heard for so many seconds."),
    ] = None,
) -> int:
    """Follow a running sweep to its end, from its first decision on.

    In a terminal: trials, best so far, saved so far, time left; "stop TRIAL why" asks for a trial
    to be stopped. Exit status: 0 the sweep has ended, 1 it had not (Ctrl-C, q, --idle), 2 a
    mistake.
    """
    from rich.console import Console

    from tune_stoppers.report.data.watching import Watch

    console = Console(highlight=False, markup=False)
    with mistakes("watch"):
        followed = Watch.at(experiment)
    try:
        if as_json or not console.is_interactive:
            return _stream(followed, as_json, idle)
        return _show(followed, idle, console)
    except KeyboardInterrupt:
        return LEFT
    except BrokenPipeError:  # whoever read has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return LEFT


def _stream(followed: Watch, as_json: bool, idle: float | None) -> int:
    begin = None
    while True:
        with mistakes("watch"):
            events = followed.poll()
        for event in events:
            begin = float(event["time"]) if begin is None else begin
            if line := _line(event, as_json, begin):
                print(line, flush=True)
        if followed.ended:
            return 0
        if _is_idle(followed, idle):
            return LEFT
        time.sleep(followed.pause)


def _line(event: Event, as_json: bool, begin: float) -> str:
    from tune_stoppers.report.terminal.tables import clean
    from tune_stoppers.report.terminal.watched import sentence

    if as_json:
        return json.dumps(clean(event), ensure_ascii=False)
    return sentence(event, begin)


def _show(followed: Watch, idle: float | None, console: Console) -> int:
    from rich.live import Live

    from tune_stoppers.report.terminal.watched import Prompt, view

    prompt, said = Prompt(), ""
    with _keys() as can_type, Live(console=console, auto_refresh=False) as live:
        due = 0.0
        while True:
            if due <= time.monotonic():
                with mistakes("watch"):
                    followed.poll()
                due = time.monotonic() + followed.pause
            typed = prompt.typed if can_type and not followed.ended else None
            live.update(view(followed, console.height, said, typed), refresh=True)
            if followed.ended:
                return 0
            if _is_idle(followed, idle):
                return LEFT
            for command in prompt.feed(_pressed(can_type)):
                if command in ("q", "quit"):
                    return LEFT
                said = _obey(followed, command)


def _obey(followed: Watch, command: str) -> str:
    """Do what was typed; what to say of it."""
    from tune_stoppers.experiment.stop_request import ask_to_stop
    from tune_stoppers.report.terminal.watched import HINT

    verb, _, rest = command.partition(" ")
    trial, _, why = rest.strip().partition(" ")
    if verb != "stop" or not trial:
        return HINT
    root, filesystem = followed.experiment.root, followed.experiment.filesystem
    try:
        trial_id = ask_to_stop(root, trial, why.strip(), filesystem=filesystem)
    except (ValueError, OSError) as error:
        return str(error)
    return f"Trial {trial_id} will be stopped at its next report."


def _is_idle(followed: Watch, idle: float | None) -> bool:
    return idle is not None and time.time() - followed.heard >= idle


@contextlib.contextmanager
def _keys() -> Iterator[bool]:
    """Keys one by one and unseen, where there is a keyboard; whether there is."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(can_type: bool) -> str:
    """The keys pressed by the time that the view is drawn again."""
    if not can_type:
        time.sleep(VIEW_SECONDS)
        return ""
    if not select.select([sys.stdin], [], [], VIEW_SECONDS)[0]:
        return ""
    return os.read(sys.stdin.fileno(), 1024).decode("utf-8", "replace")
