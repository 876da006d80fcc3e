"""What `small_sweeps` found, as tables and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.pools import LLM
from benchmarks.small_rules import ASHA, ASHA_LATE, MINE, ORACLE, RULES
from tune_stoppers.backtest.comparison import NO_STOPPING
from tune_stoppers.report.terminal.tables import markdown, number

KEYS = ["family", "sweep", "pool", "workers", "draw", "rule"]
RANDOM = "random search"
ALL = 64  # the size asked for where the whole sweep is meant
LEAST_GAP = 0.01  # between ASHA and an oracle; of less than that no share is told
Table = pd.DataFrame


def per_draw(runs: Table, column: str) -> Table:
    """A row per draw, a column per rule: means over sweeps and pools, then over families.

    Draws that some rule did not run are left out.
    """
    means = runs.groupby(["rule", "draw", "family", "sweep"], sort=False)[column].mean()
    means = means.groupby(["rule", "draw", "family"], sort=False).mean()
    return means.groupby(["rule", "draw"], sort=False).mean().unstack("rule").dropna()


def mean_se(values: npt.ArrayLike) -> tuple[float, float]:
    """The mean and its standard error over draws."""
    known = np.asarray(values, dtype=float)
    error = known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return float(known.mean()), float(error)


def ratio_se(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> tuple[float, float]:
    """The ratio of two means and its standard error, the draws paired (delta method)."""
    mine, others = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    below = others.mean()
    if not below > 0:
        return math.nan, math.nan
    ratio = float(mine.mean() / below)
    return ratio, mean_se((mine - ratio * others) / below)[1]


def cell(value: tuple[float, float], digits: int = 1, scale: float = 100.0) -> str:
    """A mean and its error."""
    mean, error = value
    if not math.isfinite(mean):
        return "–"
    shown = number(scale * mean, digits)
    return f"{shown} ± {number(scale * error, digits)}" if math.isfinite(error) else shown


def against(runs: Table) -> str:
    """Every rule beside both ASHAs: all columns of the benchmark."""
    wide = {name: per_draw(runs, name) for name in ("area", "final", "work", "wall", "killed")}
    wide["random"] = per_draw(runs, "random")
    speed = runs.groupby("rule")[["reports", "cpu"]].sum()
    rows = []
    for rule in ruled(runs):
        one = {name: mean_se(table[rule]) for name, table in wide.items()}
        area = wide["area"]
        rows.append(
            [
                rule,
                cell(one["area"]),
                cell(one["final"]),
                *(number(100 * one[name][0], 0, " %") for name in ("work", "wall", "killed")),
                number(100 * one["random"][0], 1),
                *(cell(ratio_se(area[rule], area[base]), 2, 1.0) for base in (ASHA, ASHA_LATE)),
                cell(ratio_se(wide["final"][rule], wide["final"][ASHA]), 2, 1.0),
                number(speed["reports"][rule] / speed["cpu"][rule], 0),
            ]
        )
    header = ["rule", "area", "final regret", "work", "wall time", "best killed"]
    header += ["random search, same work", "area ÷ ASHA", "area ÷ late ASHA", "final ÷ ASHA"]
    header.append("reports / s")
    return markdown(header, rows)


def by_family(runs: Table, column: str) -> str:
    """A row per rule, a column per family."""
    wide = {str(f): per_draw(part, column) for f, part in runs.groupby("family", sort=False)}
    rows = [
        [rule, *(cell(mean_se(table[rule])) if rule in table else "–" for table in wide.values())]
        for rule in ruled(runs)
    ]
    return markdown(["rule", *wide], rows)


def gap_closed(runs: Table) -> str:
    """Of what an oracle gains on ASHA's defaults, the share that ours gain, by family."""
    mine = [rule for rule in (ASHA_LATE, *MINE) if rule in set(runs["rule"])]
    rows = []
    for family, part in [*runs.groupby("family", sort=False), ("LLM families", llm(runs))]:
        if part.empty:
            continue
        area = per_draw(part, "area")
        gap = area[ASHA] - area[ORACLE]
        row = [str(family), number(100 * float(area[ASHA].mean()), 1)]
        row.append(number(100 * float(area[ORACLE].mean()), 1))
        told = [rule for rule in mine if rule in area and float(gap.mean()) > LEAST_GAP]
        shares = {rule: cell(ratio_se(area[ASHA] - area[rule], gap), 0) + " %" for rule in told}
        row += [shares.get(rule, "–") for rule in mine]
        rows.append(row)
    return markdown(["family", ASHA, ORACLE, *mine], rows)


def against_better(runs: Table) -> str:
    """The area beside the better of ASHA's defaults and no stopping, by family."""
    mine = [rule for rule in (ASHA_LATE, *MINE) if rule in set(runs["rule"])]
    rows = []
    for family, part in runs.groupby("family", sort=False):
        area = per_draw(part, "area")
        better = min((ASHA, NO_STOPPING), key=lambda rule: mean_se(area[rule])[0])
        cells = [
            cell(ratio_se(area[rule], area[better]), 2, 1.0) if rule in area else "–"
            for rule in mine
        ]
        rows.append([str(family), better, number(100 * float(area[better].mean()), 1), *cells])
    return markdown(["family", "the better one", "its area", *mine], rows)


def by_size(runs: Table, column: str, rules: Sequence[str]) -> str:
    """A row per pool and number of workers, a column per rule."""
    rows = []
    for (size, workers), part in runs.groupby(["pool", "workers"]):
        wide = per_draw(part, column)
        head = [f"{'all' if size == ALL else size}, {workers}"]
        rows.append(head + [cell(mean_se(wide[rule])) for rule in rules])
    return markdown(["configurations, workers", *rules], rows)


def ruled(runs: Table) -> list[str]:
    """The rules in the order of the benchmark."""
    found = set(runs["rule"])
    return [rule for rule in RULES if rule in found]


def llm(runs: Table) -> Table:
    """The runs of the fine-tunes of language models."""
    return runs[runs["family"].isin(LLM)]


def where(runs: Table, pools: Sequence[int], workers: Sequence[int]) -> Table:
    """The replays of these pools and numbers of workers, random search left out."""
    rows = runs["pool"].isin(pools) & runs["workers"].isin(workers)
    return runs[rows & ~runs["rule"].str.startswith(RANDOM)]


def section(runs: Table) -> list[str]:
    """The text, paragraph by paragraph."""
    main = where(runs, (16, 40, ALL), (4,))
    small = where(runs, (8,), (2,))
    every = where(runs, [*runs["pool"]], [*runs["workers"]])
    text = [LEGEND + fewer_draws(runs)]
    if len(llm(main)):
        text += ["## Fine-tunes of language models: 16, 40 and all configurations, 4 workers"]
        text += [families_of(llm(main)), against(llm(main))]
    if len(llm(small)):
        text += ["## The same: 8 configurations, 2 workers", against(llm(small))]
    if len(small):
        text += ["## By family: 8 configurations, 2 workers"]
        text += ["Area:", by_family(small, "area"), "Final regret:", by_family(small, "final")]
    if len(main):
        text += ["## By family: 16, 40 and all configurations, 4 workers"]
        text += ["Area:", by_family(main, "area"), "Final regret:", by_family(main, "final")]
        text += ["Work:", by_family(main, "work")]
        text += ["## By family: area ÷ the better of ASHA's defaults and no stopping"]
        text += [
            against_better(main),
            "## How much of what an oracle gains",
            GAP,
            gap_closed(main),
        ]
    if len(llm(every)):
        rules = [rule for rule in (NO_STOPPING, ASHA, ASHA_LATE, *MINE) if rule in set(every.rule)]
        text += ["## Fine-tunes of language models, by size: area"]
        text += [by_size(llm(every), "area", rules), "Final regret:"]
        text += [by_size(llm(every), "final", rules)]
    return text


def families_of(runs: Table) -> str:
    """Which families a table has, and how many sweeps of each."""
    counts = runs.groupby("family", sort=False)["sweep"].nunique()
    named = ", ".join(f"{family} ({count})" for family, count in counts.items())
    return f"Families, each with the same weight (sweeps): {named}. Draws: {runs.draw.nunique()}."


def fewer_draws(runs: Table) -> str:
    """The families that were drawn less often than others; "" if there is none."""
    draws = runs.groupby("family", sort=False)["draw"].nunique()
    fewer = ", ".join(f"{family} {n}" for family, n in draws.items() if n < draws.max())
    return f" Fewer draws: {fewer}." if fewer else ""


LEGEND = (
    "Pools are drawn at random, the same for every rule, and run until the rule wants no more. "
    "Regret: (best so far − the pool's best) / (the median trial's best − the pool's best), ×100; "
    "where the sweep has a target (`mlperf_llama2`, `algoperf`), 100 until it is reached, then 0, "
    "so that the area is the time to the target. Area: its mean over the time that no stopping "
    "takes in that pool; after a rule's end it stays where it is. Work: worker time as a share of "
    "all reports, a resume counting half a report. Best killed: pools whose best value was "
    "not reached. Random search: what training trials in random order finds with the same work. "
    "±: standard errors over draws; of ratios, the draws paired. ASHA: Ray's, at its defaults "
    "(first rung at one report, eta 4); late ASHA: first rung at 15 % of the horizon, eta 2. "
    "Reports / s: of CPU time, of the whole replay."
)
GAP = (
    "(ASHA's area − the rule's) / (ASHA's area − that of an oracle's order), where the oracle "
    "starts the trials in the order of their recorded bests (for a target, of the time to it) and "
    "stops none."
)


def picture(runs: Table, path: Path) -> None:
    """Work against final regret over the language-model families, with the frontier."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    every = llm(runs[runs["pool"].isin((16, 40, ALL)) & (runs["workers"] == 4)])
    points = {
        str(rule): (float(part["work"].mean()), 100 * float(part["final"].mean()))
        for rule, part in _averaged(every).groupby("rule", sort=False)
    }
    known = {rule: points[rule] for rule in RULES if rule in points and rule != ORACLE}
    figure, ax = pyplot.subplots(figsize=(9, 5), layout="constrained")
    line = sorted(at for rule, at in points.items() if rule.startswith(RANDOM))
    ax.plot(*zip(*line, strict=True), color="0.6", linestyle=":", label=RANDOM)
    front = _frontier(list(known.values()))
    ax.step(*zip(*front, strict=True), where="post", color="0.3", linewidth=0.8, label="frontier")
    for place, (rule, at) in enumerate(known.items(), start=1):
        color, mark = ("C3", "o") if rule in MINE else ("C0", "s")
        ax.plot(*at, mark, color=color, markersize=5, label=f"{place}  {rule}")
        ax.annotate(str(place), at, xytext=(4, 4), textcoords="offset points", fontsize=8)
    top = 1.4 * max(final for _, final in known.values())
    ax.set(xlim=(0, 1.05), ylim=(0, max(top, 1.0)))
    ax.set(xlabel="work, share of all reports", ylabel="final regret ×100")
    ax.set_title("Fine-tunes of language models: 16, 40 and all configurations, 4 workers")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "small_sweeps", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _averaged(runs: Table) -> Table:
    """Work and final regret by rule and family: every family has the same weight."""
    means = runs.groupby(["rule", "family", "sweep"], sort=False)[["work", "final"]].mean()
    return means.groupby(["rule", "family"], sort=False).mean().reset_index()


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both."""
    front: list[tuple[float, float]] = []
    for work, final in sorted(points):
        if not front or final < front[-1][1]:
            front.append((work, final))
    return front
