"""Sweeps that are broken on purpose: what is left of them.

python -m benchmarks.faults kills --number 100 --seed 0

Drivers, each with a Ray of its own, are killed (SIGKILL to the whole process group) at random
moments and started again until their sweeps have ended; every sweep is killed up to five times.
`tests.faults.invariants` says what must hold afterwards. "forgotten": trials that Ray's snapshot
did not have, or had not seen report, at a restore. The exit status is the number of violations;
the folder of a sweep that has one stays.
"""

import argparse
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.invariants import violations
from tests.faults.killing import break_sweeps, random_kills, runs
from tests.faults.sweep_to_break import NAMES, cases
from tune_stoppers.journal.lines import FORGOT, RESTORED
from tune_stoppers.report.terminal.tables import markdown

EACH = 5  # kills of a sweep


@dataclass
class Tally:
    """What came of the sweeps of one kind."""

    sweeps: int = 0
    kills: int = 0
    trials: int = 0
    counted: Counter[str] = field(default_factory=Counter)  # lines of the journals, by kind
    violations: list[str] = field(default_factory=list)

    def figures(self) -> list[int]:
        """A row of the table."""
        counted = [self.counted[kind] for kind in (RESTORED, "decision", FORGOT)]
        return [self.sweeps, self.kills, *counted, self.trials, len(self.violations)]


def kill(name: str, number: int, seed: int) -> Tally:
    """Kill sweeps of one kind until `number` kills have come in time."""
    tally = Tally()
    while tally.kills < number:
        storage, found = Path(tempfile.mkdtemp(prefix=f"{name}-{seed}-")), len(tally.violations)
        _kill_one(storage, name, min(EACH, number - tally.kills), seed, tally)
        if len(tally.violations) == found:
            shutil.rmtree(storage)
        else:
            print(f"{name}, seed {seed}: what is left of it lies in {storage}", flush=True)
        seed += 1
    return tally


def _kill_one(storage: Path, name: str, each: int, seed: int, tally: Tally) -> None:
    tally.sweeps += 1
    try:
        deaths = break_sweeps(storage, random_kills(seed, each, [name]), [name])
    except AssertionError as error:  # it failed, or came to a stand
        tally.kills += 1
        tally.violations.append(f"{name}, seed {seed}: {error}")
        return
    tally.kills += len(deaths)
    tally.trials += len(cases(name))
    tally.violations += [f"seed {seed}, {text}" for text in violations(storage, name, deaths)]
    for line in runs(storage, name)[0].lines:
        kind = "decision" if "action" in line else line["event"]
        tally.counted[kind] += len(line["trials"]) if kind == FORGOT else 1


def main() -> int:
    """Print the table, a row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kills"])
    parser.add_argument("--number", type=int, default=100, help="of kills in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures: dict[str, list[int]] = {}
    for place, name in enumerate(NAMES):
        share = options.number // len(NAMES) + (place < options.number % len(NAMES))
        tally = kill(name, share, 1000 * options.seed + 100 * place)
        print(*tally.violations, f"{name}: {tally.kills} kills", sep="\n", flush=True)
        figures[name] = tally.figures()
    figures["all"] = [sum(column) for column in zip(*figures.values(), strict=True)]
    header = ["sweep", "sweeps", "kills", "restores", "decisions", "forgotten", "trials"]
    rows = [[name, *map(str, row)] for name, row in figures.items()]
    print(markdown([*header, "violations"], rows))
    return figures["all"][-1]


if __name__ == "__main__":
    raise SystemExit(main())
