"""What `tune-stoppers replay` and `compare` print."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tune_stoppers.backtest.comparison import EXHAUSTED
from tune_stoppers.backtest.replay import ReplayResult
from tune_stoppers.report.terminal.tables import number, share

MEANINGS = {  # by how a column begins
    "area": "area: mean normalised regret ×100 over the budget (0: the best trial, 100: the "
    "typical one)",
    "regret": "regret @t ×100: after t full trainings per worker",
    "time to": "time to target: in units of no stopping's",
    "± se": "± se: standard error over the orders of the trials",
    "win": "win/tie/loss, p: against the baseline",
    "speed-up": "speed-up @t: the baseline's time to its regret after t, over the rule's",
    "savings": "savings: of the compute, on the whole sweep",
    "best": "best stopped: runs in which the sweep's best trial was",
    "started": f"started: share of the trials, ! where over {EXHAUSTED:.0%} in some run, after "
    "which a rule idles",
}
OVERALL = "overall: of the sweeps scored by regret, every family with the same weight"
LEGEND = "; ".join((*MEANINGS.values(), OVERALL)) + "."  # of all columns
BRIEF = ("rule", "area ×100", "time to target", "± se", "savings", "best stopped", "started")


def compared(
    table: pd.DataFrame, family: str, *, brief: bool = False
) -> tuple[list[str], list[list[str]]]:
    """One family of `Comparison.table` as text: header and rows, best score first.

    Columns of which nothing is known are left out; `brief`: also all but those of `BRIEF` and the
    regret at the last time, which fit into 100 columns of a terminal.
    """
    part = _family(table, family)
    names = [str(name) for name in part.columns]
    times = [name.removeprefix("regret_at_") for name in names if name.startswith("regret_at_")]
    by_regret = part["regret_at_" + times[0]].notna().any() if times else True
    header = ["rule", "area ×100" if by_regret else "time to target", "± se", "rank"]
    header += [f"regret @{time}" for time in times]
    header += ["win/tie/loss", "p", *(f"speed-up @{time}" for time in times)]
    header += ["savings", "best stopped", "started", "orderings"]
    rows = []
    for rule, row in part.sort_values(by="score", kind="stable").iterrows():
        scale = 100 if by_regret else 1
        cells = [str(rule), number(scale * row["score"], 2), number(scale * row["se"], 2)]
        cells += [number(row["rank"], 2)]
        cells += [number(100 * row[f"regret_at_{time}"], 2) for time in times]
        cells += [f"{row['wins']}/{row['ties']}/{row['losses']}", number(row["p"], 4)]
        cells += [number(row[f"speedup_{time}"], 2, "×") for time in times]
        pool = share(row["started"]) + ("!" if row["exhausted"] else "")
        cells += [share(row["savings"]), share(row["best_stopped"]), pool, str(row["orderings"])]
        rows.append(cells)
    told = [column for column in range(len(header)) if any(row[column] != "–" for row in rows)]
    if brief:
        shown = {*BRIEF, *(f"regret @{time}" for time in times[-1:])}
        told = [column for column in told if header[column] in shown]
    return [header[column] for column in told], [[row[column] for column in told] for row in rows]


def legend(header: Sequence[str]) -> str:
    """What the columns of `compared` mean, those that are shown."""
    return "; ".join(
        text
        for begins, text in MEANINGS.items()
        if any(column.startswith(begins) for column in header)
    )


def title_of(table: pd.DataFrame, family: str) -> str:
    """The family, what it holds and how it is scored; surrogates are called so."""
    first = _family(table, family).iloc[0]
    kind = "surrogate, not recorded runs" if first["surrogate"] else ""
    if family == "overall" and kind:
        kind = "surrogates among them"
    count = f"{first['tasks']} sweep{'s' if first['tasks'] > 1 else ''}"
    what = ", ".join(part for part in (count, str(first["scored_by"]), kind) if part)
    return f"{family} ({what})"


def replayed(result: ReplayResult, kind: str = "") -> list[tuple[str, str]]:
    """A replay as names and values, in the order in which people ask.

    `kind`: what the record was taken for, "a CSV file".
    """
    sweep, trials = result.sweep, result.trials
    started = int((trials["reports"] > 0).sum())
    endings = trials["ended_by"].replace("", "not ended").value_counts()
    surrogate = " (SURROGATE: predictions, not recorded runs)" if sweep.surrogate else ""
    whole = sum(int(curve.iterations[-1]) == sweep.max_t for curve in sweep)
    rows = [
        ("sweep", f"{sweep.name}{surrogate}"),
        ("objective", f"{result.metric} ({result.mode})"),
        ("recorded in full", f"{whole} of {len(sweep)} trials, to iteration {sweep.max_t}"),
        ("savings", f"{share(result.savings)} of the compute"),
        ("reports", f"{result.reports} of {sweep.reports}"),
        ("virtual time", f"{result.seconds:g} {result.costs.unit}"),
        ("best found", f"{result.best:.6g}"),
        ("best recorded", f"{result.best_recorded:.6g}"),
        ("regret", f"{result.regret:.4f} (0: the best trial, 1: the typical one)"),
        ("best trial stopped", "yes" if result.best_stopped else "no"),
        ("trials started", f"{started} of {len(trials)}"),
        ("ended by", ", ".join(f"{by} {count}" for by, count in endings.items())),
        ("paused", f"{int((trials['pauses'] > 0).sum())} trials"),
    ]
    reading = " ".join(filter(None, [f"As {kind}." if kind else "", result.reading]))
    if reading:
        rows.insert(1, ("read", reading))
    if sweep.target is not None:
        hit = result.time_to_target
        rows.append(("time to target", "not reached" if hit is None else f"{hit:g}"))
    if result.stalled:
        rows.append(("stalled", "yes: the scheduler started nothing more; Ray would wait for ever"))
    return rows


def _family(table: pd.DataFrame, family: str) -> pd.DataFrame:
    return table[table.index.get_level_values("family") == family].droplevel("family")
