"""What earlier sweeps say of the next one before it begins: ranks, calibration, controls.

python -m benchmarks.history_prior CURVES_DIR [--families lora taskset] [--quick]
    [--out benchmarks/results/history_prior.md]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, norm, rankdata

from benchmarks.recorded import without_outcomes
from benchmarks.results import insert
from tune_stoppers.history import History
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve, Floats
from tune_stoppers.report.terminal.tables import markdown, number

FAMILIES = ("lora", "taskset", "yahpo_lcbench")
POOL, STARTS, DRAWS = 60, (1, 4, 8), 40  # configurations, first starts compared, pools drawn
RUNGS, ETA = (1 / 16, 1 / 4), 4  # of the halving that cuts a history off


def load(folder: Path, family: str) -> list[Sweep]:
    """The sweeps of a family."""
    return [
        without_outcomes(Sweep.from_parquet(path))
        for path in sorted(folder.glob(f"{family}_*.parquet"))
    ]


def of_trials(sweep: Sweep, curves: Sequence[Curve], mode: str | None = None) -> Sweep:
    """The same sweep with other trials."""
    metric, own = sweep.objective()
    return Sweep(curves, name=sweep.name, metric=metric, mode=mode or own)


def shuffled(sweep: Sweep) -> Sweep:
    """Outcomes dealt out anew among the configurations."""
    order = np.random.default_rng(len(sweep)).permutation(len(sweep))
    dealt = zip(sweep.curves, order, strict=True)
    return of_trials(sweep, [replace(c, config=sweep.curves[other].config) for c, other in dealt])


def negated(sweep: Sweep) -> Sweep:
    """The worst is the best."""
    _, mode = sweep.objective()
    return of_trials(sweep, sweep.curves, "max" if mode == "min" else "min")


def halved(sweep: Sweep) -> Sweep:
    """As successive halving leaves it: a quarter of the trials passes each rung, the rest stop."""
    metric, mode = sweep.objective()
    curves = list(sweep.curves)
    alive = list(range(len(curves)))
    for rung in RUNGS:
        end = max(round(rung * sweep.max_t), 1)
        order = sorted(alive, key=lambda i: best_until(sweep.curves[i], metric, mode, end))
        alive = order[: -(-len(order) // ETA)]
        for stopped in order[len(alive) :]:
            curves[stopped] = first_rows(sweep.curves[stopped], end)
    return of_trials(sweep, curves)


def best_until(curve: Curve, metric: str, mode: str, end: float) -> float:
    """The best loss up to an iteration."""
    seen = curve.losses(metric, mode)[curve.iterations <= end]
    return float(np.min(seen, initial=np.inf))


def first_rows(curve: Curve, end: int) -> Curve:
    """The trial stopped at an iteration, or at its first report."""
    rows = max(int((curve.iterations <= end).sum()), 1)
    return replace(
        curve,
        iterations=curve.iterations[:rows],
        metrics={name: values[:rows] for name, values in curve.metrics.items()},
        steps=None if curve.steps is None else curve.steps[:rows],
        seconds=None if curve.seconds is None else curve.seconds[:rows],
        missing={name: gone[:rows] for name, gone in curve.missing.items()},
    )


VARIANTS: dict[str, Callable[[Sweep], Sweep]] = {
    "all other sweeps": lambda sweep: sweep,
    "the same, cut off by halving": halved,
    "control: shuffled": shuffled,
    "control: negated": negated,
}


def judged(sweep: Sweep, history: Sequence[Sweep], draws: int) -> dict[str, float]:
    """How well the prior ranks the sweep's trials, and how much a start in its order gains."""
    metric, mode = sweep.objective()
    finals = np.array([best_until(c, metric, mode, np.inf) for c in sweep.curves])
    first = np.array([c.losses(metric, mode)[0] for c in sweep.curves])
    finals = np.minimum(finals, np.median(first[np.isfinite(first)]))
    began = time.process_time()
    prior = History.of(history).prior([curve.config for curve in sweep.curves])
    took = time.process_time() - began
    scores = norm.ppf((rankdata(finals) - 0.5) / len(finals))
    row = {"tau": float(kendalltau(prior.expected, finals)[0]), "seconds": took}
    misses = (scores - prior.expected) / prior.sd
    row |= {"sd": float(prior.sd.mean()), "error / sd": float(np.sqrt((misses**2).mean()))}
    rng = np.random.default_rng(0)
    pools = [rng.permutation(len(finals))[:POOL] for _ in range(draws)]
    for count in STARTS:
        row[f"first {count}"] = float(
            np.mean([regret(finals, prior.expected, pool, count) for pool in pools])
        )
        row[f"any {count}"] = float(
            np.mean([regret(finals, rng.random(len(finals)), pool, count) for pool in pools])
        )
    return row


def regret(finals: Floats, order: Floats, pool: Any, count: int) -> float:
    """Of the best of the first `count` in that order, in units of the median less the best."""
    own = finals[pool]
    best = own[np.argsort(order[pool], kind="stable")[:count]].min()
    return float((best - own.min()) / (np.median(own) - own.min() or 1.0))


def measure(
    folder: Path, families: Sequence[str], quick: bool, note: Callable[[str], None]
) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    rows = []
    for family in families:
        sweeps = load(folder, family)
        # TaskSet tried the same configurations on each task: half are known, the others asked about
        same = len(sweeps) > 1 and sweeps[0].curves[0].config == sweeps[1].curves[0].config
        known = [of_trials(s, s.curves[1::2]) if same else s for s in sweeps]
        for place in range(2 if quick else len(sweeps)):
            asked = sweeps[place]
            asked = of_trials(asked, asked.curves[0::2]) if same else asked
            others = [sweep for other, sweep in enumerate(known) if other != place]
            histories = {name: list(map(change, others)) for name, change in VARIANTS.items()}
            histories["one other sweep"] = others[:1]
            for name, history in histories.items():
                row = judged(asked, history, DRAWS)
                rows.append({"family": family, "history": name, "sweep": asked.name} | row)
            note(f"{asked.name}: tau {rows[-len(histories)]['tau']:.2f}")
    frame = pd.DataFrame(rows)
    means = frame.groupby(["family", "history"], sort=False).mean(numeric_only=True)
    spread = frame.groupby(["family", "history"], sort=False)["tau"].agg(["min", "max"])
    lines = []
    for key, mean in means.iterrows():
        assert isinstance(key, tuple)
        low, high = spread.loc[key]
        cells = [f"{mean['tau']:.2f} ({low:.2f} to {high:.2f})"]
        cells += [
            f"{number(mean[f'first {c}'], 2)} ({number(mean[f'any {c}'], 2)})" for c in STARTS
        ]
        cells += [f"{mean['sd']:.2f}", f"{mean['error / sd']:.2f}", f"{mean['seconds']:.1f}"]
        lines.append([*map(str, key), *cells])
    header = ["family", "history", "Kendall's tau"]
    header += [f"regret of the first {count}" for count in STARTS]
    header += ["sd", "error / sd", "CPU seconds"]
    return [
        "One sweep is left out at a time; the history is what the column says. Kendall's tau of "
        "`Prior.expected` with the trials' final best losses: the mean over the sweeps, and the "
        f"least and largest. Regret of the first trials in that order, of {DRAWS} pools of {POOL}: "
        "best of them less best of all, in units of the median less the best; beside it in "
        "brackets, of any as many. Error / sd: 1 would be a belief that is as wrong as it says; "
        "both in normal scores. Of TaskSet, whose tasks have the same configurations, the history "
        "knows one half and is asked about the other. LCBench: predictions of a surrogate.",
        markdown(header, lines),
    ]


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history_prior")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--families", nargs="+", default=FAMILIES, help="beginnings of file names")
    parser.add_argument("--quick", action="store_true", help="two sweeps of each family")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    args = parser.parse_args(given)
    missing = [f for f in args.families if len(list(args.curves.glob(f"{f}_*.parquet"))) < 2]
    if missing:
        print(f"error: {args.curves} holds no two sweeps {missing[0]}_*.parquet.", file=sys.stderr)
        return 2

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    text = measure(args.curves, args.families, args.quick, note)
    options = (" --quick" if args.quick else "") + (f" --out {args.out}" if args.out else "")
    command = f"`python -m benchmarks.history_prior CURVES_DIR{options}`"
    section = "\n\n".join(["# What a history knows beforehand", command, *text])
    if args.out:
        insert(args.out, "history_prior", section)
    else:
        print(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
