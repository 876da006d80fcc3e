"""AutoScheduler where there are more configurations than can ever start.

python -m benchmarks.search_engine CURVES_DIR [--quick]
    [--out benchmarks/results/search_engine.md]

The same replays as `benchmarks.search_efficiency`, fewer orderings and rules: the engine is slower
to replay than the others are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import BOUND, OURS, THAW, asha, auto, bound_asha, freeze_thaw
from benchmarks.recorded import load
from benchmarks.search_command import Note, run
from tune_stoppers.backtest.compare import compare
from tune_stoppers.report.terminal.replays import LEGEND, compared, title_of
from tune_stoppers.report.terminal.tables import markdown

ORDERINGS = 3
ASHA = "Ray ASHA, eta 3, grace 5 %"
MODEL = f"{BOUND}, typical drop, order by the model"
RULES: dict[str, Callable[..., Any]] = {
    ASHA: partial(asha, 3, 0.05),
    OURS: auto,
    MODEL: partial(bound_asha, drop="typical", order="model"),
    THAW: freeze_thaw,
}


def measure(folder: Path, quick: bool, processes: int | None, note: Note) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, shown = load(folder, quick)
    began = time.monotonic()
    found = compare(
        sweeps,
        RULES,
        cost="seconds",
        whole=False,
        families=families,
        processes=processes,
        orderings=1 if quick else ORDERINGS,
        baseline=ASHA,
        unscored=shown,
    )
    note(f"after {time.monotonic() - began:.0f} s")
    table = found.table()
    text = [
        "8 workers, resume cost 0.5 reports, budget 4 full trainings per worker. " + LEGEND,
        f"{MODEL} is what AutoScheduler was before. Shown, not scored: "
        f"{', '.join(sorted(shown)) or 'none'}.",
    ]
    families_first = list(dict.fromkeys(table.index.get_level_values("family")))
    for family in sorted(families_first, key=lambda name: name != "overall"):
        text += [f"## {title_of(table, family)}", markdown(*compared(table, family))]
    return text


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    return run(measure, "search_engine", "Search efficiency: the engine", given)


if __name__ == "__main__":
    sys.exit(main())
