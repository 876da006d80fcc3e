"""Settings that were chosen without a family, reported on it.

python -m benchmarks.search_left_out CURVES_DIR [--quick]
    [--out benchmarks/results/search_left_out.md]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from benchmarks.contestants import (
    ASHAS,
    OURS,
    TUNED,
    TUNING_SEED,
    auto,
    best_ashas,
    bound_asha,
    tuned,
)
from benchmarks.recorded import load
from benchmarks.search_command import Note, run
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.comparison import NO_STOPPING, OVERALL
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.replays import title_of
from tune_stoppers.report.terminal.tables import markdown, number

ORDERINGS, TUNING, CHOOSING = 30, 10, 5
LEFT_OUT = "chosen without the family"
DROPS: tuple[Literal["own", "typical"], ...] = ("own", "typical")
ORDERS: tuple[Literal["given", "model"], ...] = ("given", "model")
VARIANTS: dict[str, Callable[[Sweep], Any]] = {
    f"{drop} drop, {order} order, {f'audit {audit}' if audit else 'no audit'}": partial(
        bound_asha, drop=drop, order=order, audit=audit
    )
    for drop, order, audit in product(DROPS, ORDERS, (None, 10))
}


def chosen_without(table: pd.DataFrame, families: list[str]) -> dict[str, str]:
    """For each family the variant that does best on the others: by the mean logarithm of scores."""
    scores = table["score"].unstack("rule")[[*VARIANTS]].loc[families]
    logs = scores.map(lambda score: math.log(max(score, 1e-3)))
    return {family: str(logs.drop(index=family).mean().idxmin()) for family in families}


def rule_without(choice: Mapping[str, str], families: Mapping[str, str]) -> Callable[[Sweep], Any]:
    """Each family under the variant chosen without it."""
    return lambda sweep: VARIANTS[choice[families[sweep.name]]](sweep)


def measure(folder: Path, quick: bool, processes: int | None, note: Note) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, shown = load(folder, quick)
    scored = [sweep for sweep in sweeps if sweep.name not in shown]
    orderings, tuning, choosing = (1, 1, 1) if quick else (ORDERINGS, TUNING, CHOOSING)
    each = partial(
        compare, scored, cost="seconds", whole=False, families=families, processes=processes
    )
    began = time.monotonic()
    ashas = best_ashas(each(rules=ASHAS, orderings=tuning, seed=TUNING_SEED))
    note(f"tuned ASHA after {time.monotonic() - began:.0f} s")
    variants = each(rules=VARIANTS, orderings=choosing, seed=TUNING_SEED).table()
    named = [f for f in dict.fromkeys(variants.index.get_level_values("family")) if f != OVERALL]
    choice = chosen_without(variants, named)
    note(f"chose among {len(VARIANTS)} variants after {time.monotonic() - began:.0f} s")
    rules = {TUNED: tuned(ashas, families, 0), OURS: auto, LEFT_OUT: rule_without(choice, families)}
    table = each(rules=rules, orderings=orderings, baseline=TUNED).table()
    rows = []
    for family in [*named, OVERALL]:
        own = table.loc[family]
        scale = 1 if own.loc[TUNED, "scored_by"] == "time to target" else 100
        cells = [title_of(table, family), choice.get(family, "–")]
        for rule in (NO_STOPPING, TUNED, OURS, LEFT_OUT):
            cells.append(
                f"{scale * own.loc[rule, 'score']:.2f} ± {scale * own.loc[rule, 'se']:.2f}"
            )
        cells += [number(own.loc[LEFT_OUT, f"speedup_{t:g}"], 2, "×") for t in (1, 2, 4)]
        rows.append(cells)
    header = ["family", "chosen without it", NO_STOPPING, TUNED, OURS, LEFT_OUT]
    tried = [
        [name, *(number(variants.loc[(family, name), "score"], 3) for family in named)]
        for name in VARIANTS
    ]
    return [
        f"8 workers, resume cost 0.5 reports, budget 4. Of the {len(VARIANTS)} variants of "
        "BoundASHAScheduler below (AutoScheduler is: typical drop, model order, no audit) each "
        "family gets the one that does best on all the others (mean logarithm of the scores of "
        f"{choosing} orderings, seeds from {TUNING_SEED}), and is then replayed in {orderings} "
        "other orderings. Score: area under the regret ×100, or time to target in units of no "
        "stopping's; ± one standard error. Speed-ups are those of the last column over the "
        "best-tuned Ray ASHA.",
        markdown([*header, *(f"speed-up @{t}" for t in (1, 2, 4))], rows),
        "The scores that it was chosen by:",
        markdown(["variant", *named], tried),
        f"All of it: {(time.monotonic() - began) / 60:.0f} minutes.",
    ]


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    return run(measure, "search_left_out", "Search efficiency: settings chosen elsewhere", given)


if __name__ == "__main__":
    sys.exit(main())
