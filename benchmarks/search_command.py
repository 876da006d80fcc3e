"""The command line that the search benchmarks share."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import ray

from benchmarks.results import insert

Note = Callable[[str], None]
Measure = Callable[[Path, bool, int | None, Note], list[str]]  # folder, quick, processes


def run(measure: Measure, module: str, title: str, given: Sequence[str] | None = None) -> int:
    """Run a benchmark and print its section, or write it to a file. 0: done; 2: a user's mistake.

    `measure` makes the text of the section, paragraph by paragraph.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--quick", action="store_true", help="one ordering, one task a family")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    parser.add_argument("--processes", type=int, help="default: one per available core")
    args = parser.parse_args(given)
    if not args.curves.is_dir():
        print(f"error: there is no folder {args.curves}.", file=sys.stderr)
        return 2
    options = (" --quick" if args.quick else "") + (f" --out {args.out}" if args.out else "")

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    text = measure(args.curves, args.quick, args.processes, note)
    head = [
        f"# {title}",
        f"`python -m benchmarks.{module} CURVES_DIR{options}`, "
        f"{time.strftime('%Y-%m-%d')}, Ray {ray.__version__}, Optuna {optuna.__version__}.",
    ]
    section = "\n\n".join([*head, *text])
    if args.out is None:
        print(section)
    else:
        insert(args.out, module, section)
    return 0
