"""The published sweeps that search benchmarks replay, and the one that comes with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tune_stoppers.backtest.compare import example_path
from tune_stoppers.backtest.thinning import PROGRESS, equal_progress, only_metrics, thin
from tune_stoppers.recorded.sweep import Sweep

FAMILIES = ("taskset", "yahpo_lcbench", "opda", "algoperf", "mlperf", "peft", "mpl")
OWN = "own"  # the family of the sweep that comes with the package
SCORED_TRIALS = 150  # a pool smaller than this is run dry within the budget
REPORTS = 60  # longer curves are thinned to so many
HORIZONS = {  # hyperparameters that say how long a trial was planned to be, in its steps
    "opda_deberta_base_mnli": "total_model_steps",
    "opda_alexnet_imagenet": "epochs",
}
AT_EQUAL_STEP = ("opda_alexnet_imagenet",)  # shown so as well
OUTCOMES = (  # recorded beside the hyperparameters, and known only afterwards: no rule sees them
    "result.",
    "nan_train_loss",
    "run_status",
    "created_at",
    "last_step",
)


def load(folder: Path, quick: bool) -> tuple[list[Sweep], dict[str, str], set[str]]:
    """The sweeps as they are compared, their families, and the names of those only shown.

    `folder` holds files such as taskset_*.parquet; our own recorded sweep comes last.
    """
    sweeps, families, shown = [], {}, set()
    paths = {f: sorted(folder.glob(f"{f}_*.parquet")) for f in FAMILIES} | {OWN: [example_path()]}
    for family, found in paths.items():
        for path in found[:1] if quick else found:
            recorded = Sweep.from_parquet(path)
            recorded.name = path.stem if family != OWN else OWN
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
    if len(sweeps) < 2:
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


def few_each(sweeps: list[Sweep], families: Mapping[str, str], most: int) -> list[Sweep]:
    """The first `most` sweeps of each family."""
    kept: dict[str, list[Sweep]] = {}
    for sweep in sweeps:
        kept.setdefault(families[sweep.name], []).append(sweep)
    return [sweep for of_family in kept.values() for sweep in of_family[:most]]


def horizon(sweep: Sweep) -> dict[str, Any]:
    """How long a trial may be, in progress where trials differ in length."""
    if PROGRESS in sweep.metrics:
        return {"time_attr": PROGRESS, "max_t": 1.0}
    return {"max_t": sweep.max_t}
