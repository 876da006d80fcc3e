"""What a comparison found: every run, tables per family and overall, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tune_stoppers.backtest.score import (
    RegretCurve,
    average_ranks,
    geometric_mean,
    mean_and_se,
    mean_curve,
    ratio,
    speedup,
    time_to,
    value_at,
    wilcoxon_p,
    wins_ties_losses,
)

NO_STOPPING = "no stopping"
OVERALL = "overall"
EXHAUSTED = 0.7  # share of the pool; beyond it a rule begins to run out of trials to start
Key = tuple[str, str, int]  # sweep, rule, ordering


def finish(
    runs: pd.DataFrame,
    curves: Mapping[Key, RegretCurve],
    baseline: str,
    at: Sequence[float],
    budget: float,
) -> pd.DataFrame:
    """Add what needs several runs: `score`, `speedup_…` and `exhausted`."""
    runs = runs.assign(exhausted=runs["started"] > EXHAUSTED)
    spent = runs["time_to_target"].fillna(budget)
    usual = spent.where(runs["rule"] == NO_STOPPING).groupby(runs["sweep"]).transform("mean")
    targeted = runs["scored_by"] != "regret"
    runs["score"] = np.where(targeted, spent / usual, runs["auc"])
    keys = list(zip(runs["sweep"], runs["rule"], runs["ordering"], strict=True))
    times = dict(zip(keys, spent, strict=True))

    def gain(key: Key, by_target: bool, time: float) -> float:
        base = (key[0], baseline, key[2])
        if base not in curves:
            return math.nan
        if by_target:
            return ratio(times[base], times[key], budget)
        return speedup(curves[base], curves[key], at=time, budget=budget)

    for time in at:
        runs[f"speedup_{time:g}"] = [
            gain(key, by_target, time) for key, by_target in zip(keys, targeted, strict=True)
        ]
    return runs


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of `compare`.

    `runs`: a row per replay. `family, sweep, surrogate, scored, trials, rule, ordering`;
    `scored_by` (regret or time to target); `score`, lower is better: `auc`, the area under the
    regret over the budget, or the time to the target in units of no stopping's mean;
    `regret_at_…`; `speedup_…`, see `score.speedup`; `time_to_target` in full trainings, NaN where
    not reached within the budget; `regret_end`, `savings`, `best_stopped`, over the whole sweep if
    it was run (`savings` is NaN otherwise); regrets and `best_stopped` are NaN where the time to a
    target is what counts; `started`, the share of the trials started within the
    budget, and `exhausted`, whether that is over 70 %: the rule then idles for want of trials and
    its scores at the end of the budget are not to be trusted; `reports`; `stalled`; `notes`, what
    the rule warned of, and what was left out of its history.
    `curves`: regret over time, by (sweep, rule, ordering).
    """

    runs: pd.DataFrame
    curves: dict[Key, RegretCurve]
    baseline: str
    budget: float
    at: tuple[float, ...]
    workers: int

    @property
    def notes(self) -> list[str]:
        """What is to be said of rules, each once: a `max_t` that does not fit a sweep's time, a
        sweep that was in its own history.
        """
        warned = self.runs[self.runs["notes"] != ""].drop_duplicates(["rule", "notes"])
        cells = zip(warned["rule"], warned["sweep"], warned["notes"], strict=True)
        return [f"{rule} on {sweep}: {note}" for rule, sweep, note in cells]

    def table(self) -> pd.DataFrame:
        """A row per family and rule, families first, then "overall" over the scored sweeps.

        `score` and `se` (its standard error over orderings): means over tasks; overall, over
        families scored by regret, if there are any, each with the same weight. `rank`: mean over
        (task, ordering) that every rule ran. `wins, ties, losses`: of (task, ordering) pairs
        against the baseline; `p`: Wilcoxon's signed-rank test on the task means. `regret_at_…`,
        `savings`, `best_stopped`, `started`, `exhausted`: means over tasks (overall: families).
        `speedup_…`: geometric mean over runs (overall: over families) of the speed-up to the
        baseline's regret; `curve_speedup_…`: the same from the tasks' mean regret curves.
        """
        families = [self._part(part, str(name)) for name, part in self.runs.groupby("family")]
        scored = self.runs[self.runs["scored"]]
        if len(scored):
            families.append(self._part(scored, OVERALL))
        return pd.concat(families).set_index(["family", "rule"])

    def recommendation(self) -> str:
        """The rule that served best, what it saves and what it risks; then the scores behind it."""
        runs = self.runs[self.runs["scored"]] if self.runs["scored"].any() else self.runs
        by_regret = runs[runs["scored_by"] == "regret"]
        part, what = (by_regret, "regret") if len(by_regret) else (runs, "time to target")
        scores = self._per_ordering(part)
        order = scores.mean().sort_values(kind="stable").index
        best = str(order[0])
        mine = part[part["rule"] == best]
        times = _count(len(mine), "replay")
        if what == "regret":
            risk = f"it stopped the best trial in {mine['best_stopped'].mean():.0%} of {times}"
            risk += f" and ended at a regret of {mine['regret_end'].mean():.2g}"
            scale = "mean regret (0: the best trial, 1: the typical one)"
        else:
            risk = f"it did not reach the target in {mine['time_to_target'].isna().mean():.0%} of "
            risk += times
            scale = "time to target (1: without stopping)"
        if mine["savings"].notna().all():
            risk = f"it saves {mine['savings'].mean():.0%} of the compute; {risk}"
        text = f"{best} served best: {risk}. Its {scale} is {scores[best].mean():.3g}"
        if best != self.baseline:
            text += f", against {scores[self.baseline].mean():.3g} with {self.baseline}"
        surrogate = ", surrogates among them" if part["surrogate"].any() else ""
        text += f", over {self.budget:g} full trainings per worker "
        text += f"({_count(part['sweep'].nunique(), 'sweep')}{surrogate}, "
        text += f"{_count(self.workers, 'worker')})."
        equals = [str(rule) for rule in order[1:] if not _differ(scores[best], scores[rule])]
        if equals:
            text += f" Within the noise of these replays: {'; '.join(equals)}."
        return text

    def _part(self, part: pd.DataFrame, name: str) -> pd.DataFrame:
        """The rows of `table` for one family, or for all."""
        main = part[part["scored_by"] == "regret"]
        main = main if len(main) else part
        wide = part.pivot_table(index=["sweep", "ordering"], columns="rule", values="score")
        ranks = average_ranks(wide)
        per_ordering = self._per_ordering(main)
        rows = []
        for rule in dict.fromkeys(part["rule"]):
            mine = part[part["rule"] == rule]
            score, se = mean_and_se(per_ordering[rule].dropna().tolist())
            pairs = pd.DataFrame({"ours": wide[rule], "theirs": wide[self.baseline]}).dropna()
            won = wins_ties_losses(pairs["ours"], pairs["theirs"])
            tasks = pairs.groupby("sweep").mean()
            p = wilcoxon_p(tasks["ours"].tolist(), tasks["theirs"].tolist())
            row = {
                "family": name,
                "rule": rule,
                "tasks": mine["sweep"].nunique(),
                "orderings": mine["ordering"].nunique(),
                "scored_by": " and ".join(sorted(set(part["scored_by"]))),
                "surrogate": bool(mine["surrogate"].any()),
                "score": score,
                "se": se,
                "rank": ranks.get(rule, math.nan),
                "wins": won[0],
                "ties": won[1],
                "losses": won[2],
                "p": math.nan if rule == self.baseline else p,
            }
            row |= {f"regret_at_{t:g}": _mean(mine, f"regret_at_{t:g}") for t in self.at}
            row |= {f"speedup_{t:g}": _geometric(mine, f"speedup_{t:g}") for t in self.at}
            row |= {f"curve_speedup_{t:g}": self._curve_speedup(mine, rule, t) for t in self.at}
            for column in ("savings", "best_stopped", "regret_end", "started", "exhausted"):
                row[column] = _mean(mine, column)
            rows.append(row)
        return pd.DataFrame(rows)

    def _per_ordering(self, part: pd.DataFrame) -> pd.DataFrame:
        """Per ordering (rows) and rule: the score, mean over tasks, then over families."""
        tasks = part.groupby(["rule", "ordering", "family"])["score"].mean()
        return tasks.groupby(["ordering", "rule"]).mean().unstack("rule")

    def _curve_speedup(self, mine: pd.DataFrame, rule: str, at: float) -> float:
        """How many times sooner the rule's mean curve is at the regret of the baseline's."""
        gains: dict[str, list[float]] = {}
        for (family, sweep), runs in mine.groupby(["family", "sweep"]):
            if runs["scored_by"].iloc[0] != "regret":
                continue
            own, base = (self._mean_curve(str(sweep), name) for name in (rule, self.baseline))
            level = value_at(base, at)
            gain = ratio(time_to(base, level), time_to(own, level), self.budget)
            gains.setdefault(str(family), []).append(gain)
        return geometric_mean([geometric_mean(of_family) for of_family in gains.values()])

    def _mean_curve(self, sweep: str, rule: str) -> RegretCurve:
        return mean_curve([c for key, c in self.curves.items() if key[:2] == (sweep, rule)])


def _mean(runs: pd.DataFrame, column: str) -> float:
    """Over runs of a task, tasks of a family, families: so that no family outweighs another."""
    tasks = runs.groupby(["family", "sweep"])[column].mean()
    return float(tasks.groupby("family").mean().mean())


def _geometric(runs: pd.DataFrame, column: str) -> float:
    known = runs[runs[column].notna()]
    return float(np.exp(_mean(known.assign(log=np.log(known[column])), "log")))


def _differ(best: pd.Series, other: pd.Series) -> bool:
    """Whether the mean difference over shared orderings is more than two standard errors."""
    mean, se = mean_and_se((other - best).dropna().tolist())
    return math.isfinite(se) and mean > 2 * se


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
