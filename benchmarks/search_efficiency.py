"""How fast rules find good trials: replays of published sweeps under ours, Ray's and Optuna's.

python -m benchmarks.search_efficiency CURVES_DIR [--quick]
    [--out benchmarks/results/search_efficiency.md]

`benchmarks.search_settings` and `benchmarks.search_left_out` have what else is compared.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.contestants import (
    ASHAS,
    BOUND,
    ORACLE,
    OTHERS,
    OURS,
    PARTS,
    SECOND,
    TUNED,
    TUNING_SEED,
    OracleScheduler,
    auto,
    best_ashas,
    bound_asha,
    tuned,
)
from benchmarks.recorded import HORIZONS, REPORTS, load
from benchmarks.search_command import Note, run
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.comparison import NO_STOPPING
from tune_stoppers.report.terminal.replays import LEGEND, compared, title_of
from tune_stoppers.report.terminal.tables import markdown, number

ORDERINGS, FEWER, SIDE = 30, 10, 5


def against_tuned(table: pd.DataFrame, rule: str) -> str:
    """A rule beside the best-tuned ASHA, by family."""
    rows = []
    for family in dict.fromkeys(table.index.get_level_values("family")):
        ours, theirs = table.loc[(family, rule)], table.loc[(family, TUNED)]
        change = 100 * (ours["score"] / theirs["score"] - 1) if theirs["score"] else math.nan
        row = [title_of(table, family), number(change, 1, " %")]
        row += [f"{ours['wins']}/{ours['ties']}/{ours['losses']}", number(ours["p"], 4)]
        gains = [f"{kind}_{t:g}" for kind in ("speedup", "curve_speedup") for t in (1, 2, 4)]
        rows.append(row + [number(ours[name], 2, "×") for name in gains])
    header = ["family", "score", "win/tie/loss", "p", *(f"speed-up @{t}" for t in (1, 2, 4))]
    return markdown([*header, *(f"of mean curves @{t}" for t in (1, 2, 4))], rows)


def measure(folder: Path, quick: bool, processes: int | None, note: Note) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, shown = load(folder, quick)
    orderings, fewer, side = (1, 1, 1) if quick else (ORDERINGS, FEWER, SIDE)
    each = partial(compare, cost="seconds", whole=False, families=families, processes=processes)

    began = time.monotonic()
    tuning = each(sweeps, ASHAS, orderings=fewer, seed=TUNING_SEED, unscored=shown)
    choice = best_ashas(tuning)
    note(f"tuned ASHA after {time.monotonic() - began:.0f} s")
    main_rules: dict[str, Callable[..., Any]] = {
        TUNED: tuned(choice, families, 0),
        SECOND: tuned(choice, families, 1),
        OURS: auto,
        BOUND: bound_asha,
    }
    counts = dict.fromkeys([NO_STOPPING, *main_rules], orderings)
    others = PARTS | {ORACLE: OracleScheduler} | ASHAS | OTHERS
    rules = main_rules | others
    counts |= dict.fromkeys(others, fewer) | dict.fromkeys([*PARTS, ORACLE], side)
    main = each(sweeps, rules, orderings=counts, baseline=TUNED, unscored=shown)
    took = time.monotonic() - began
    note(f"main table after {took:.0f} s")

    table = main.table()
    text = [
        "8 workers, resume cost 0.5 reports, budget 4 full trainings per worker. " + LEGEND,
        "Speed-ups to the baseline's regret: geometric means over runs; a rule that does not get "
        "there counts as if it did at the end of the budget. ASHA is tuned for each family on "
        f"{fewer} other orderings (seeds from {TUNING_SEED}): "
        + "; ".join(f"{f}: {a.removeprefix('Ray ASHA, ')}" for f, (a, _) in choice.items())
        + ".",
        f"Main table, with the tuning: {took / 60:.1f} minutes. Curves of over {REPORTS} reports "
        f"are thinned; trials of {', '.join(HORIZONS)} are compared at equal progress. Shown, not "
        f"scored: {', '.join(sorted(shown)) or 'none'}. The regret is that of the metric the rules "
        "see, the best over time. The defaults of BoundASHAScheduler were chosen on replays of "
        "TaskSet, DeBERTa and ImageNet sweeps, some of these among them, and those of the model "
        "on other orderings of TaskSet, LCBench and DeBERTa sweeps: there the figures are not out "
        "of sample.",
        f"{ORACLE}: trials start in the order of their recorded bests (where the sweep has a "
        "target, of the time to it) and run to their ends. No rule can know that; it says what "
        "knowing the configurations could be worth at most.",
    ]
    for name in (OURS, BOUND, NO_STOPPING, ORACLE):
        text += [
            f"## {name[0].upper() + name[1:]} against the best-tuned Ray ASHA",
            "score: change of the area (or time to target); negative is better. Of mean curves: "
            "the time to the regret of ASHA's mean curve, per task, then as above.",
            against_tuned(table, name),
        ]
    for family in dict.fromkeys(table.index.get_level_values("family")):
        text += [f"## {title_of(table, family)}", markdown(*compared(table, family))]
    return text


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    return run(measure, "search_efficiency", "Search efficiency", given)


if __name__ == "__main__":
    sys.exit(main())
