"""Which report foretells a trial's best: the metric itself, the training loss, the gradient norm?

    python -m benchmarks.early_signals CURVES_DIR

For each sweep that reports more than its own metric: Kendall's tau between what trials report at
10, 20 and 40 % of the sweep's horizon and the best value of its metric that they reach later, over
the trials that report both; "ties" is the share of pairs of trials that the metric cannot tell
apart at 20 %. A signal that beats the metric early could sharpen a pruner; no other can.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown

AGES = (0.1, 0.2, 0.4)
SIGNALS = ("train_loss", "train_ctc_loss", "grad_norm")
LEAST = 20  # trials


def tau(now: list[float], later: list[float]) -> float:
    """Kendall's tau over trials where both are finite; NaN for fewer than `LEAST`."""
    pairs = [(a, b) for a, b in zip(now, later, strict=True) if np.isfinite(a) and np.isfinite(b)]
    if len(pairs) < LEAST:
        return float("nan")
    return float(kendalltau(*zip(*pairs, strict=True)).statistic)


def rows_of(sweep: Sweep) -> list[list[str]]:
    """A row for the metric, and one for each signal."""
    metric, mode = sweep.objective()
    found = []
    for name in (metric, *(name for name in SIGNALS if name in sweep.metrics)):
        cells, ties = [], ""
        for age in AGES:
            now, later = [], []
            for curve in sweep:
                if name not in curve.metrics:
                    continue
                losses = curve.losses(metric, mode)
                seen = int(np.searchsorted(curve.iterations, age * sweep.max_t, side="right"))
                if 0 < seen < len(curve):
                    values = losses[:seen] if name == metric else curve.metrics[name][:seen]
                    finite = values[np.isfinite(values)]
                    now.append(float(finite[-1]) if finite.size else np.nan)
                    later.append(float(np.nanmin(losses[seen:])))
            cells.append(f"{tau(now, later):.2f}")
            if name == metric and age == AGES[1]:
                known = np.array(now)
                ties = f"{np.mean(known[:, None] == known[None, :]):.0%}"
        found.append([sweep.name if name == metric else "", name, *cells, ties])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    rows = []
    for path in sorted(parser.parse_args().curves.glob("*.parquet")):
        sweep = Sweep.from_parquet(path)
        sweep.name = path.stem
        if len(sweep) >= LEAST and any(name in sweep.metrics for name in SIGNALS):
            rows += rows_of(sweep)
    ages = [f"tau at {age:.0%}" for age in AGES]
    print(markdown(["sweep", "signal", *ages, "ties"], rows))


if __name__ == "__main__":
    main()
