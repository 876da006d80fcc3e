"""How fast rules find good trials: replays of published sweeps under ours, Ray's and Optuna's.

python -m benchmarks.search_efficiency CURVES_DIR [--quick] [--out benchmarks/RESULTS.md]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import ray
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from benchmarks.results import insert
from tune_stoppers import AutoScheduler, BoundASHAScheduler
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.comparison import NO_STOPPING, Comparison
from tune_stoppers.backtest.optuna_pruner import OptunaPrunerScheduler
from tune_stoppers.backtest.sweep import Sweep
from tune_stoppers.backtest.thinning import PROGRESS, equal_progress, only_metrics, thin
from tune_stoppers.report.tables import LEGEND, compared, markdown, number, title_of

FAMILIES = ("taskset", "yahpo_lcbench", "opda", "algoperf", "mlperf", "peft", "mpl")
SCORED_TRIALS = 150  # a pool smaller than this is run dry within the budget
REPORTS = 60  # longer curves are thinned to so many
HORIZONS = {  # hyperparameters that say how long a trial was planned to be, in its steps
    "opda_deberta_base_mnli": "total_model_steps",
    "opda_alexnet_imagenet": "epochs",
}
AT_EQUAL_STEP = ("opda_alexnet_imagenet",)  # shown so as well

OURS, TUNED, SECOND = "AutoScheduler", "Ray ASHA, best-tuned", "Ray ASHA, second-best"
BOUND, ORACLE = "BoundASHAScheduler", "an oracle's order, no stopping"
OUTCOMES = (  # recorded beside the hyperparameters, and known only afterwards: no rule sees them
    "result.",
    "nan_train_loss",
    "run_status",
    "created_at",
    "last_step",
)
TUNING_SEED = 1000  # orders on which ASHA is tuned; those reported begin at 0
ORDERINGS, FEWER, SIDE = 30, 10, 5
TASKS = 3  # a family, in the other settings
SETTINGS = (  # workers, resume cost in reports, budget in full trainings per worker, times told
    (8, 0.0, 4.0, (1.0, 2.0, 4.0)),
    (8, 2.0, 4.0, (1.0, 2.0, 4.0)),
    (1, 0.5, 16.0, (4.0, 8.0, 16.0)),
    (32, 0.5, 2.0, (0.5, 1.0, 2.0)),
)


class KeepFewScheduler(FIFOScheduler):
    """Keeps of each trial's first report the best `share` so far, its own included."""

    def __init__(self, share: float = 0.05) -> None:
        super().__init__()
        self._share = share
        self._firsts: dict[str, float] = {}
        self._sign = 1.0

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        self._metric, self._sign = str(metric), -1.0 if mode == "max" else 1.0
        return True

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.trial_id in self._firsts:
            return str(TrialScheduler.CONTINUE)
        loss = self._sign * float(result[self._metric])
        self._firsts[trial.trial_id] = loss = loss if math.isfinite(loss) else math.inf
        better = sum(other < loss for other in self._firsts.values())
        keep = loss < math.inf and better <= self._share * (len(self._firsts) - 1)
        return str(TrialScheduler.CONTINUE if keep else TrialScheduler.STOP)


class OracleScheduler(AutoScheduler):
    """Starts the trials in the order of their recorded bests, and stops none: what order can do."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(sweep.max_t)
        metric, mode = sweep.objective()
        self._bests = {c.trial_id: float(np.nanmin(c.losses(metric, mode))) for c in sweep}

    def _pick(self, model: Any) -> Any:
        bests = [self._bests[trial.trial_id] for trial in self._held.trials]
        return self._held.release(int(np.argmin(bests)))

    def act(self, *given: Any) -> str:
        return str(TrialScheduler.CONTINUE)


def horizon(sweep: Sweep) -> dict[str, Any]:
    """How long a trial may be, in progress where trials differ in length."""
    if PROGRESS in sweep.metrics:
        return {"time_attr": PROGRESS, "max_t": 1.0}
    return {"max_t": sweep.max_t}


def asha(eta: int, five_percent: bool, sweep: Sweep) -> Any:
    """Ray's ASHA with its first rung at one report, or at 5 % of the horizon."""
    scale = 1 / sweep.max_t if PROGRESS in sweep.metrics else 1
    reports = max(1, math.ceil(0.05 * sweep.max_t)) if five_percent else 1
    return ASHAScheduler(**horizon(sweep), grace_period=reports * scale, reduction_factor=eta)


def optunas(make: Callable[[], Any]) -> Any:
    return OptunaPrunerScheduler(make())


def bound_asha(sweep: Sweep, **options: Any) -> Any:
    return BoundASHAScheduler(**horizon(sweep), **options)


def auto(sweep: Sweep) -> Any:
    return AutoScheduler(**horizon(sweep))


PARTS = {  # what AutoScheduler is made of, and what it leaves out
    f"{BOUND}, typical drop": partial(bound_asha, drop="typical"),
    f"{BOUND}, ordered by the model": partial(bound_asha, order="model"),
    f"{BOUND}, audited": partial(bound_asha, audit=10),
    f"{OURS}, audited": partial(bound_asha, drop="typical", order="model", audit=10),
}


def median(sweep: Sweep) -> Any:
    return MedianStoppingRule(time_attr="training_iteration", grace_period=1)


def hyperband(sweep: Sweep) -> Any:
    return HyperBandScheduler(max_t=sweep.max_t)


ASHAS = {
    f"Ray ASHA, eta {eta}, grace {'5 %' if five else '1'}": partial(asha, eta, five)
    for eta in (2, 3, 4)
    for five in (False, True)
}
OTHERS: dict[str, Callable[..., Any]] = {
    "Ray median": median,
    "Ray HyperBand": hyperband,
    "Optuna median": lambda: optunas(optuna.pruners.MedianPruner),
    "Optuna percentile (25 %)": lambda: optunas(lambda: optuna.pruners.PercentilePruner(25.0)),
    "Optuna successive halving": lambda: optunas(optuna.pruners.SuccessiveHalvingPruner),
    "keep 5 % after one report": KeepFewScheduler,
}


def load(folder: Path, quick: bool) -> tuple[list[Sweep], dict[str, str], set[str]]:
    """The sweeps as they are compared, their families, and the names of those only shown."""
    sweeps, families, shown = [], {}, set()
    paths = {f: sorted(folder.glob(f"{f}_*.parquet")) for f in FAMILIES}
    for family, found in paths.items():
        for path in found[:1] if quick else found:
            recorded = Sweep.from_parquet(path)
            recorded.name = path.stem
            variants = [in_reports(thin(without_outcomes(recorded), REPORTS))]
            if path.stem in HORIZONS:
                typical = int(np.median([len(curve) for curve in recorded]))
                equal = equal_progress(recorded, HORIZONS[path.stem], min(typical, REPORTS))
                by_step = variants if path.stem in AT_EQUAL_STEP else []
                variants = [equal, *by_step]
            for variant in variants:
                own = family
                if path.stem in HORIZONS and PROGRESS not in variant.metrics:
                    variant.name += "_at_equal_step"
                    own = variant.name
                metric, _ = variant.objective()
                sweep = only_metrics(variant, metric, PROGRESS)
                sweeps.append(sweep)
                families[sweep.name] = own
                if len(sweep) < SCORED_TRIALS or own != family:
                    shown.add(sweep.name)
    if not sweeps:
        raise SystemExit(f"error: {folder} holds no sweeps such as taskset_*.parquet.")
    return sweeps, families, shown


def without_outcomes(sweep: Sweep) -> Sweep:
    """Configurations as they were known when the trials began."""
    curves = [
        replace(curve, config={k: v for k, v in curve.config.items() if not k.startswith(OUTCOMES)})
        for curve in sweep
    ]
    sweep.curves = tuple(curves)
    return sweep


def in_reports(sweep: Sweep) -> Sweep:
    """Every report takes as long as any other, whatever was recorded."""
    curves = [replace(curve, seconds=np.arange(1.0, len(curve) + 1)) for curve in sweep]
    sweep.curves = tuple(curves)
    return sweep


def few_each(sweeps: list[Sweep], families: Mapping[str, str]) -> list[Sweep]:
    """The first sweeps of each family."""
    kept: dict[str, list[Sweep]] = {}
    for sweep in sweeps:
        kept.setdefault(families[sweep.name], []).append(sweep)
    return [sweep for of_family in kept.values() for sweep in of_family[:TASKS]]


def best_ashas(tuning: Comparison) -> dict[str, tuple[str, str]]:
    """Per family the two settings of ASHA with the best scores, best first."""
    scores = tuning.runs[tuning.runs["rule"] != NO_STOPPING]
    means = scores.groupby(["family", "rule"], sort=False)["score"].mean()
    order = {family: part.sort_values(kind="stable") for family, part in means.groupby("family")}
    return {str(f): (str(s.index[0][1]), str(s.index[1][1])) for f, s in order.items()}


def tuned(
    choice: Mapping[str, tuple[str, str]], families: Mapping[str, str], place: int
) -> Callable[[Sweep], Any]:
    """ASHA with the setting that suits each family."""
    return lambda sweep: ASHAS[choice[families[sweep.name]][place]](sweep)


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


def measure(
    folder: Path, quick: bool, processes: int | None, note: Callable[[str], None]
) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, shown = load(folder, quick)
    orderings, fewer, side = (1, 1, 1) if quick else (ORDERINGS, FEWER, SIDE)
    run = partial(compare, cost="seconds", whole=False, families=families, processes=processes)

    began = time.monotonic()
    tuning = run(sweeps, ASHAS, orderings=fewer, seed=TUNING_SEED, unscored=shown)
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
    main = run(sweeps, rules, orderings=counts, baseline=TUNED, unscored=shown)
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
        f"{ORACLE}: trials start in the order of their recorded bests and run to their ends. No "
        "rule can know that; it says what knowing the configurations could be worth at most.",
    ]
    for name in (OURS, BOUND, NO_STOPPING, ORACLE):
        text += [
            f"### {name[0].upper() + name[1:]} against the best-tuned Ray ASHA",
            "score: change of the area (or time to target); negative is better. Of mean curves: "
            "the time to the regret of ASHA's mean curve, per task, then as above.",
            against_tuned(table, name),
        ]
    for family in dict.fromkeys(table.index.get_level_values("family")):
        text += [f"### {title_of(table, family)}", markdown(*compared(table, family))]

    text += [
        "## Search efficiency: other settings",
        f"Of the scored sweeps {TASKS} a family; ASHA as tuned at 8 workers. At most as many "
        "trials are staged as there are workers (TUNE_MAX_PENDING_TRIALS_PG): with Ray's 200, as "
        "in the tables above, 200 new trials go before each that HyperBand resumes, and within the "
        "budget it resumes none. The other rules never pause: a resume costs them nothing.",
    ]
    scored = few_each([sweep for sweep in sweeps if sweep.name not in shown], families)
    few = {
        TUNED: main_rules[TUNED],
        "Ray HyperBand": hyperband,
        OURS: auto,
        BOUND: bound_asha,
    }
    for workers, resume, budget, at in SETTINGS if scored else ():
        found = run(
            scored,
            few,
            orderings=side,
            baseline=TUNED,
            workers=workers,
            resume_cost=resume,
            budget=budget,
            at=at,
            max_pending=workers,
        )
        note(f"{workers} workers, resume cost {resume:g} after {time.monotonic() - began:.0f} s")
        text += [
            f"### {workers} worker{'s' * (workers > 1)}, resume cost {resume:g} reports, "
            f"budget {budget:g}, {side} ordering{'s' * (side > 1)}",
            side_table(found),
        ]
    return text


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_efficiency")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--quick", action="store_true", help="one ordering, one task a family")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    parser.add_argument("--processes", type=int, help="default: one per available core")
    args = parser.parse_args(given)
    if not args.curves.is_dir():
        print(f"error: there is no folder {args.curves}.", file=sys.stderr)
        return 2
    options = (" --quick" if args.quick else "") + (f" --out {args.out}" if args.out else "")
    text = measure(
        args.curves, args.quick, args.processes, lambda line: print(line, file=sys.stderr)
    )
    head = [
        "## Search efficiency",
        f"`python -m benchmarks.search_efficiency CURVES_DIR{options}`, "
        f"{time.strftime('%Y-%m-%d')}, Ray {ray.__version__}, Optuna {optuna.__version__}.",
    ]
    section = "\n\n".join([*head, *text])
    if args.out is None:
        print(section)
    else:
        insert(args.out, "search_efficiency", section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
