"""What knowing the configurations could be worth: an oracle's order beside the best-tuned ASHA.

python -m benchmarks.how_far CURVES_DIR [--quick]
    [--out benchmarks/results/how_far.md]

The same replays as in `benchmarks.search_efficiency` (8 workers) and `benchmarks.search_settings`
(1 and 32), of these two rules alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import (
    ASHAS,
    ORACLE,
    TUNED,
    TUNING_SEED,
    OracleScheduler,
    best_ashas,
    tuned,
)
from benchmarks.recorded import few_each, load
from benchmarks.search_command import Note, run
from benchmarks.search_efficiency import FEWER, SIDE, against_tuned
from benchmarks.search_settings import SETTINGS, TASKS, side_table
from tune_stoppers.backtest.compare import compare


def measure(folder: Path, quick: bool, processes: int | None, note: Note) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, shown = load(folder, quick)
    tuning_orders, orderings = (1, 1) if quick else (FEWER, SIDE)
    each = partial(
        compare, cost="seconds", whole=False, families=families, processes=processes, unscored=shown
    )
    tuning = each(sweeps, ASHAS, orderings=tuning_orders, seed=TUNING_SEED)
    choice = best_ashas(tuning)
    note("tuned ASHA")
    rules: dict[str, Callable[..., Any]] = {
        TUNED: tuned(choice, families, 0),
        ORACLE: OracleScheduler,
    }
    table = each(sweeps, rules, orderings=orderings, baseline=TUNED).table()
    text = [
        "The oracle starts the trials in the order of their recorded bests (where the sweep has a "
        "target, of the time that each takes to it) and lets each run to its end. ASHA is tuned "
        f"for each family on {tuning_orders} other orderings; {orderings} orderings; score: change "
        "of the area, or of the time to target, against it.",
        "## 8 workers, all sweeps",
        against_tuned(table, ORACLE),
    ]
    few = few_each([sweep for sweep in sweeps if sweep.name not in shown], families, TASKS)
    for workers, resume, budget, at in SETTINGS:
        if workers == 8:
            continue
        found = each(
            few,
            rules,
            orderings=orderings,
            baseline=TUNED,
            workers=workers,
            resume_cost=resume,
            budget=budget,
            at=at,
            max_pending=workers,
        )
        note(f"{workers} workers")
        what = f"{workers} worker{'s' * (workers > 1)}, {TASKS} sweeps a family, budget {budget:g}"
        text += [f"## {what}", side_table(found)]
    return text


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    return run(measure, "how_far", "How far the order of the trials could go", given)


if __name__ == "__main__":
    sys.exit(main())
