"""The command itself: its application, its exit status, and what its commands share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    help="Early stopping and pruning for Ray Tune: what rules would have done to recorded sweeps, "
    "and why the trials of a sweep ended.",
)

Generation = Annotated[
    int,
    typer.Option(min=0, help="Which sweep, if the folder holds several: 0 is the newest."),
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
PATIENCE_SECONDS = 2.0  # after which a command says what it is doing


# Typer carries its own copy of click, or uses the installed one: the class is reached from here.
BadUsage: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class UsageError(Exception):
    """Something that the user asked for cannot be done."""


def _version(asked: bool) -> None:
    if asked:
        import tune_stoppers

        typer.echo(f"tune_stoppers {tune_stoppers.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it and end."),
    ] = False,
) -> None:
    """Commands are listed below; each has its own --help."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0: done, 1: broken off or a check failed, 2: a user's mistake, in a line."""
    try:
        status = app(args=arguments, prog_name="tune-stoppers", standalone_mode=False)
    except UsageError as error:
        message = str(error)
    except BadUsage as error:
        message = f"{error.format_message().rstrip('.')}. See tune-stoppers --help."
    except typer.Abort:
        print("broken off", file=sys.stderr)
        return 1
    else:
        return int(status or 0)
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


@contextmanager
def mistakes(where: str) -> Iterator[None]:
    """What a constructor or a reader refuses is the user's mistake, and the message says which."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        # the last two: an extra is not installed; no such ~user
        notes = "; ".join(getattr(error, "__notes__", []))
        raise UsageError(f"{where}: {error}" + (f" ({notes})" if notes else "")) from error


@contextmanager
def working(what: str) -> Iterator[None]:
    """In a terminal, say what is being done once it has taken two seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    status = console.status(what)
    timer = threading.Timer(PATIENCE_SECONDS, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
