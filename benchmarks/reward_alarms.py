"""Which part of the recipes for training with rewards ends which run: healthy ones, broken ones.

The runs are those of `benchmarks.reward_runs`, as TRL logged them; the parts are judged on the
logs, so that other settings can be tried without training again. The settings in `recipes` were
chosen on the seeds below `REPORTED_FROM`; what is printed is of the others.

`python -m benchmarks.reward_alarms`
"""

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.results import insert
from tune_stoppers import recipes
from tune_stoppers.core import Action, Report, Rule
from tune_stoppers.metrics import sign_of

RUNS = Path(__file__).with_name("reward_runs.jsonl.gz")
CHARACTERS, SMOLLM2 = "characters", "SmolLM2-135M"
REPORTED_FROM = {CHARACTERS: 1, SMOLLM2: 0}  # nothing was chosen by the runs of SmolLM2


@dataclass(frozen=True)
class Setting:
    """How a run trains: the trainer, its reward or its pairs."""

    trainer: str  # grpo, rloo, dpo
    healthy: bool
    faster: float = 1.0  # multiple of the usual learning rate
    beta: float = 0.04
    data: str = "fitting"  # the reward, or what makes a completion the rejected one


SETTINGS: dict[str, Setting] = {
    "GRPO": Setting("grpo", True),
    "GRPO, beta 0": Setting("grpo", True, beta=0.0),
    "RLOO": Setting("rloo", True),
    "GRPO, rate × 30": Setting("grpo", False, faster=30),
    "GRPO, rate × 3, KL weight 1e-6": Setting("grpo", False, faster=3, beta=1e-6),
    "GRPO, constant reward": Setting("grpo", False, data="constant"),
    "GRPO, reward for length": Setting("grpo", False, faster=3, data="length"),
    "DPO": Setting("dpo", True, beta=0.1, data="misspelt"),
    "DPO, rate × 30": Setting("dpo", False, faster=30, beta=0.1, data="misspelt"),
    "DPO, beta 0.001": Setting("dpo", False, faster=3, beta=0.001, data="misspelt"),
    "DPO, labels by chance": Setting("dpo", False, beta=0.1, data="chance"),
    "DPO, equal answers": Setting("dpo", False, beta=0.1, data="same"),
}
RECIPES: dict[str, Callable[..., recipes.Recipe]] = {
    "grpo": recipes.grpo,
    "rloo": recipes.rloo,
    "dpo": recipes.dpo,
}


class Run(NamedTuple):
    """A run as it was recorded."""

    model: str
    setting: str
    seed: int
    seconds: float  # on a shared CPU: not to be compared
    curves: Mapping[str, list[list[float]]]  # {metric: [steps, values]}

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(max(steps[-1] for steps, _ in self.curves.values()))

    @property
    def reported(self) -> bool:
        """Whether no setting was chosen by it."""
        return self.seed >= REPORTED_FROM[self.model]


def recorded(path: Path = RUNS) -> list[Run]:
    """The runs in a file; none if it is not there."""
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [Run(**json.loads(line)) for line in lines]


def write(path: Path, runs: Sequence[Run]) -> None:
    """The same runs make the same file."""
    text = "".join(json.dumps(run._asdict(), separators=(",", ":")) + "\n" for run in runs)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def reports(run: Run, metric: str, sign: int) -> list[Report]:
    """What a rule sees of a run: one report a step, as `RuleCallback` makes it."""
    rows: dict[float, dict[str, float]] = {}
    for name, (steps, values) in run.curves.items():
        for step, value in zip(steps, values, strict=True):
            rows.setdefault(step, {})[name] = value
    return [
        Report("run", step, sign * row[metric] if metric in row else None, row)
        for step, row in sorted(rows.items())
    ]


def stopped_at(rule: Rule, seen: Sequence[Report], sign: int) -> tuple[int, str] | None:
    """The step at which `rule` ends a run, and why; None if it does not."""
    state = rule.init()
    for report in seen:
        state, decision = rule.update(state, report)
        if decision.action is Action.STOP:
            return int(report.step), decision.say(sign)
    return None


def alarms(run: Run, recipe: recipes.Recipe | None = None) -> dict[str, tuple[int, str]]:
    """The parts of the recipe that would end the run by themselves: when, and why."""
    recipe = recipe or RECIPES[SETTINGS[run.setting].trainer]()
    sign = sign_of(recipe.mode)
    seen = reports(run, recipe.metric, sign)
    found = {name: stopped_at(part, seen, sign) for name, part in recipe.parts.items()}
    return {name: alarm for name, alarm in found.items() if alarm is not None}


def table(runs: Sequence[Run]) -> str:
    """A line a setting: how many runs ended, at which step, by which part, and what it saved."""
    heads = (
        "model", "setting", "rate", "beta", "", "runs", "stopped", "median step", "ended first by",
        "any part that fired", "steps saved", "score when stopped", "at the end",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for model in REPORTED_FROM:
        for name, setting in SETTINGS.items():
            group = [r for r in runs if (r.model, r.setting) == (model, name) and r.reported]
            if group:
                lines.append(_line(model, name, setting, group))
    return "\n".join(lines)


def _line(model: str, name: str, setting: Setting, group: Sequence[Run]) -> str:
    fired = [alarms(run) for run in group]
    ends = [min((step, part) for part, (step, _) in found.items()) for found in fired if found]
    kept = [
        min((step for step, _ in found.values()), default=run.steps)
        for run, found in zip(group, fired, strict=True)
    ]
    saved = 1 - sum(kept) / sum(run.steps for run in group)
    scores = [_scores(run, end) for run, end in zip(group, kept, strict=True)]
    then, last = (median(score[i] for score in scores) for i in (0, 1))
    cells = [
        model,
        name,
        f"× {setting.faster:g}",
        f"{setting.beta:g}",
        "healthy" if setting.healthy else "broken",
        str(len(group)),
        str(len(ends)),
        f"{median(step for step, _ in ends):g} of {group[0].steps}" if ends else "–",
        _counted(part for _, part in ends),
        _counted(part for found in fired for part in found),
        f"{100 * saved:.0f} %",
        f"{then:.2f}",
        f"{last:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _counted(names: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(names).items())) or "–"


def _scores(run: Run, step: int) -> tuple[float, float]:
    """The mean reward of the five logs up to a step, and at the end; of DPO one accuracy each."""
    name, wide = ("reward", 5) if "reward" in run.curves else ("eval_rewards/accuracies", 1)
    steps, values = run.curves[name]
    seen = [value for at, value in zip(steps, values, strict=True) if at <= step] or values[:1]
    return _mean(seen[-wide:]), _mean(values[-wide:])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


ABOUT = """\
Short runs of TRL 1.16, each with its own seed: a language model of characters (0.5 million weights,
pretrained on docstrings; 40 steps of 16 completions of up to 24 characters, or of 16 pairs) and
SmolLM2-135M with LoRA (20 steps of 4 completions of up to 16 tokens, or of 4 pairs). The reward is
the share of words that docstrings have and a length near 20 characters; of a pair, one answer is
misspelt. Broken on purpose: the learning rate, the KL weight, a constant reward, the length alone
as reward, labels by chance, equal answers. `python -m benchmarks.reward_runs` trains and records;
here the parts of `recipes.grpo()`, `rloo()` and `dpo()` are judged on the logs. Settings were
chosen on seed 0 of the characters, which the table leaves out. The score is the mean reward of five
logs, of DPO the accuracy of one evaluation.
"""


def section(runs: Sequence[Run]) -> str:
    """What stands in benchmarks/results/reward_alarms.md."""
    command = "`python -m benchmarks.reward_alarms`"
    return f"# Alarms in training with rewards\n\n{command}\n\n{ABOUT}\n{table(runs)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward_alarms")
    parser.add_argument("path", type=Path, nargs="?", default=RUNS)
    parser.add_argument("--reasons", action="store_true", help="why each run was stopped")
    parser.add_argument("--out", type=Path, help="benchmarks/results/reward_alarms.md")
    given = parser.parse_args(arguments)
    runs = recorded(given.path)
    if given.reasons:
        for run in runs:
            for part, (step, reason) in alarms(run).items():
                print(f"{run.model}, {run.setting}, seed {run.seed}: {part}, step {step}: {reason}")
    if given.out is not None:
        insert(given.out, "reward_alarms", section(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
