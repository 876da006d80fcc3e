"""Other workers, resume costs and searchers: which rule finds good trials soonest there.

python -m benchmarks.search_settings CURVES_DIR [--quick]
    [--out benchmarks/results/search_settings.md]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune.search.optuna import OptunaSearch

from benchmarks.contestants import (
    ASHAS,
    BOUND,
    ORACLE,
    OURS,
    PROMOTION,
    THAW,
    TUNED,
    TUNING_SEED,
    OracleScheduler,
    auto,
    best_ashas,
    bound_asha,
    freeze_thaw,
    hyperband,
    promotion,
    tuned,
)
from benchmarks.recorded import OWN, few_each, load
from benchmarks.search_command import Note, run
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.comparison import Comparison
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown, number

ORDERINGS, TUNING = 5, 10
TASKS = 3  # a family
SETTINGS = (  # workers, resume cost in reports, budget in full trainings per worker, times told
    (8, 0.5, 4.0, (1.0, 2.0, 4.0)),
    (8, 0.0, 4.0, (1.0, 2.0, 4.0)),
    (8, 2.0, 4.0, (1.0, 2.0, 4.0)),
    (1, 0.5, 16.0, (4.0, 8.0, 16.0)),
    (32, 0.5, 2.0, (0.5, 1.0, 2.0)),
)


def side_table(found: Comparison) -> str:
    """Scores, speed-ups over the baseline and pools at another setting, by family."""
    rows = []
    for _, row in found.table().reset_index().iterrows():
        scale = 100 if row["scored_by"] != "time to target" else 1
        cells = [
            row["family"],
            row["rule"],
            number(scale * row["score"], 2),
            number(scale * row["se"], 2),
        ]
        cells += [number(row["rank"], 2)]
        cells += [number(row[f"speedup_{t:g}"], 2, "×") for t in found.at]
        rows.append([*cells, f"{row['started']:.0%}" + ("!" if row["exhausted"] else "")])
    header = ["family", "rule", "score", "± se", "rank"]
    return markdown([*header, *(f"speed-up @{t:g}" for t in found.at), "started"], rows)


def improving(sweep: Sweep, seed: int) -> OptunaSearch:
    """A searcher that learns as it goes: Optuna's default, a tree-structured Parzen estimator."""
    return OptunaSearch(seed=seed)


def measure(folder: Path, quick: bool, processes: int | None, note: Note) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, shown = load(folder, quick)
    scored = few_each([sweep for sweep in sweeps if sweep.name not in shown], families, TASKS)
    chosen = [*scored, *(sweep for sweep in sweeps if families[sweep.name] == OWN)]
    orderings, tuning = (1, 1) if quick else (ORDERINGS, TUNING)
    each = partial(
        compare,
        chosen,
        cost="seconds",
        whole=False,
        families=families,
        unscored=shown,
        processes=processes,
    )

    began = time.monotonic()
    choice = best_ashas(each(rules=ASHAS, orderings=tuning, seed=TUNING_SEED))
    note(f"tuned ASHA after {time.monotonic() - began:.0f} s")
    rules: dict[str, Callable[..., Any]] = {
        TUNED: tuned(choice, families, 0),
        "Ray HyperBand": hyperband,
        OURS: auto,
        BOUND: bound_asha,
        PROMOTION: promotion,
        THAW: freeze_thaw,
        ORACLE: OracleScheduler,
    }
    text = [
        f"Of the scored sweeps {TASKS} a family, and our own recorded sweep (`{OWN}`: 144 trials, "
        "shown, not scored). Score: area under the regret ×100, or time to target in units of no "
        "stopping's. ASHA is tuned for each family at 8 workers on other orderings: "
        + "; ".join(f"{f}: {a.removeprefix('Ray ASHA, ')}" for f, (a, _) in choice.items())
        + ". At most as many trials are staged as there are workers "
        "(TUNE_MAX_PENDING_TRIALS_PG): with Ray's 200, so many new trials go before each that "
        "HyperBand resumes, and within the budget it resumes none. Only HyperBand, promotion and "
        "freeze-thaw pause: a resume costs the others nothing.",
    ]
    for workers, resume, budget, at in SETTINGS:
        found = each(
            rules=rules,
            orderings=orderings,
            baseline=TUNED,
            workers=workers,
            resume_cost=resume,
            budget=budget,
            at=at,
            max_pending=workers,
        )
        what = f"{workers} worker{'s' * (workers > 1)}, resume cost {resume:g} reports"
        note(f"{what} after {time.monotonic() - began:.0f} s")
        text += [f"## {what}, budget {budget:g}, orderings: {orderings}", side_table(found)]

    ordered = {name: rules[name] for name in (TUNED, "Ray HyperBand", OURS, BOUND)}
    found = each(rules=ordered, orderings=orderings, baseline=TUNED, searcher=improving)
    note(f"improving searcher after {time.monotonic() - began:.0f} s")
    text += [
        f"## A searcher that improves: 8 workers, budget 4, orderings: {orderings}",
        "Optuna's TPE suggests, the nearest recorded configuration not used yet stands in. "
        f"{OURS} leaves the order to it, and holds no trial back.",
        side_table(found),
    ]
    text.append(f"All of it: {(time.monotonic() - began) / 60:.0f} minutes.")
    return text


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    return run(measure, "search_settings", "Search efficiency: other settings", given)


if __name__ == "__main__":
    sys.exit(main())
