"""An experiment folder as Ray leaves it, with the journals that ours write beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune_stoppers.core import Report, Rule
from tune_stoppers.core.track import Track
from tune_stoppers.journal.lines import Line, as_text, event_line, line_of
from tune_stoppers.journal.spec import to_spec
from tune_stoppers.rules import Patience

BIRTH, OLDER = "2026-05-01_12-00-00", "2026-04-30_12-00-00"
BEGIN = 1_777_636_800.0
CURVES = {  # loss; stops under Patience(2): flat at step 3
    "flat": [1.0, 1.0, 1.0],
    "falling": [1.0, 0.5, 0.25, 0.125],
    "deep": [0.9, 0.45, 0.225, 0.1],
    "broken": [1.0, 0.8],
    "running": [1.0],
    "51e27": [],
}


def write_results(folder: Path, curves: dict[str, list[float]] = CURVES) -> Path:
    """The trials' folders: flat ended on a report, broken failed, the others say nothing."""
    for place, (trial, losses) in enumerate(curves.items()):
        trial_folder = folder / f"train_{trial}_{place}"
        trial_folder.mkdir(parents=True)
        (trial_folder / "params.json").write_text(json.dumps({"lr": 0.1 * (place + 1)}))
        rows = [
            {"trial_id": trial, "loss": loss, "training_iteration": step, "done": False}
            | {"timestamp": int(BEGIN) + step, "date": f"2026-05-01_12-00-{step:02}"}
            for step, loss in enumerate(losses, start=1)
        ]
        if trial == "flat":
            rows[-1]["done"] = True
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (trial_folder / "result.json").write_text(text)
        if trial == "broken":
            told = "Failure # 1 (occurred at 2026-05-01_12-00-09)\nValueError: out of luck\n"
            (trial_folder / "error.txt").write_text(told)
    return folder


def journal_of(
    rule: Rule, owner: str, curves: dict[str, list[float]] = CURVES, dry_run: bool = False
) -> list[Line]:
    """What a stopper with `rule` writes down, a second for each report, the trials in turn."""
    lines = [event_line(owner, "", "begins", rule=repr(rule), spec=to_spec(rule), sign=1)]
    lines[0] |= {"metric": "loss", "time_attr": "training_iteration", "time": BEGIN}
    tracks = {trial: Track(rule) for trial in curves}
    for step in range(1, 1 + max(map(len, curves.values()))):
        for trial, losses in curves.items():
            if step > len(losses):
                continue
            loss = losses[step - 1]
            judged = tracks[trial].update(Report(trial, step, loss))
            given: dict[str, Any] = {"dry_run": dry_run, "now": BEGIN + step}
            lines.append(line_of(owner, trial, step, loss, judged.decision, **given))
    return lines


def write_journal(folder: Path, run: str, lines: Sequence[Line], start: int = 1) -> Path:
    """A segment of a run's journal."""
    path = folder / "tune_stoppers" / run / f"journal-{start:012d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(as_text(line) for line in lines))
    return path


def watched(folder: Path, rule: Rule = Patience(2), owner: str = "PatienceStopper") -> Path:  # noqa: B008
    """An experiment that a stopper of ours has watched."""
    write_results(folder)
    write_journal(folder, f"{BIRTH}-{owner}-0123abcd", journal_of(rule, owner))
    return folder
