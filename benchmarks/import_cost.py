"""What importing costs, each import in a fresh process: milliseconds and modules.

    python -m benchmarks.import_cost [--runs 5]

The best of the runs, which take turns; what Python loads at its own start does not count. A name
of `tune_stoppers` is loaded when it is first used, with what it needs.
"""

import argparse
import subprocess
import sys

from tune_stoppers.report.terminal.tables import markdown

MEASURE = """
import sys, time
before, began = len(sys.modules), time.perf_counter()
{statement}
took = time.perf_counter() - began
heavy = [name for name in ("ray", "torch", "transformers", "pandas") if name in sys.modules]
print(1e3 * took, len(sys.modules) - before, ", ".join(heavy) or "none", sep=";")
"""
STATEMENTS = (
    "import tune_stoppers",
    "import tune_stoppers.rules",
    "from tune_stoppers import EarlyStopping",
    "import ray.tune",
    "from tune_stoppers import PatienceStopper",
    "import ray.tune; from tune_stoppers import PatienceStopper",
    "from tune_stoppers import BoundASHAScheduler",
    "from tune_stoppers import replay",
)


def cost(statement: str) -> tuple[float, int, str]:
    """Milliseconds, modules loaded, and which heavy packages are among them."""
    command = [sys.executable, "-c", MEASURE.format(statement=statement)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    took, modules, heavy = said.strip().splitlines()[-1].split(";")
    return float(took), int(modules), heavy


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    runs = [{each: cost(each) for each in STATEMENTS} for _ in range(options.runs)]
    rows = []
    for statement in STATEMENTS:
        took = min(run[statement][0] for run in runs)
        _, modules, heavy = runs[0][statement]
        rows.append([f"`{statement}`", f"{took:,.1f}", f"{modules:,}", heavy])
    print(markdown(["statement", "ms", "modules", "heavy ones among them"], rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
