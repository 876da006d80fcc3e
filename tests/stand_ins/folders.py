"""Experiment folders as Ray leaves them, written by hand: small, and the same every time."""

import json
from pathlib import Path
from typing import Any

BEGIN = 1_700_000_000  # seconds since the epoch


def trial(
    folder: Path,
    trial_id: str,
    losses: list[float | None],
    config: dict[str, Any] | None = None,
    *,
    begin: float = 0.0,
    done: bool = False,
    reason: str | None = None,
    error: str | None = None,
    checkpoints: tuple[int, ...] = (),
    first: int = 1,
    **more: Any,
) -> list[dict[str, Any]]:
    """One trial that reports once a second from `begin` on; its rows, appended to its results.

    `done`, `reason`: of the last row; `checkpoints`: steps whose folders exist; `more`: keys of
    every row.
    """
    here = folder / f"train_{trial_id}_1_x_2026-01-01_00-00-00"
    here.mkdir(parents=True, exist_ok=True)
    (here / "params.json").write_text(json.dumps(config or {}))
    rows = []
    for place, loss in enumerate(losses):
        step = first + place
        row = {
            "loss": loss,
            "trial_id": trial_id,
            "training_iteration": step,
            "timestamp": int(BEGIN + begin + place + 1),
            "time_this_iter_s": 1.0,
            "time_total_s": float(step),
            "time_since_restore": place + 1.0,
            "iterations_since_restore": place + 1,
            "hostname": "node",
            "pid": 100 + int(begin),
            "date": "2026-01-01_00-00-00",
            "done": False,
            "checkpoint_dir_name": None,
        } | more
        if step in checkpoints:
            row["checkpoint_dir_name"] = f"checkpoint_{step:06d}"
            (here / row["checkpoint_dir_name"]).mkdir(exist_ok=True)
        rows.append(row)
    if rows:
        rows[-1]["done"] = done
        if reason:
            rows[-1]["stop_reason"] = reason
    with (here / "result.json").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    if error:
        (here / "error.txt").write_text(f"Failure # 1 (occurred at 2026-01-02_00-00-00)\n{error}\n")
    return rows


def journal(folder: Path, *lines: dict[str, Any]) -> Path:
    """Our journal in the experiment's folder."""
    run = "2026-01-01_00-00-00-Test-00000000"
    path = folder / "tune_stoppers" / run / "journal-000000000001.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def stop_line(trial_id: str, step: int, **more: Any) -> dict[str, Any]:
    """A decision to stop."""
    return {
        "time": BEGIN + step,
        "trial": trial_id,
        "step": step,
        "action": "STOP",
        "rule": "Patience",
        "reason": "3 of 3 evaluations without improvement",
        "numbers": {},
        "owner": "PatienceStopper",
    } | more


def sweep(folder: Path) -> Path:
    """Four trials: one that runs through and is best, one stopped with and one without a reason,
    one that failed."""
    why = "PatienceStopper: 3 of 3 evaluations without improvement, value 1, best 0.9 at step 2"
    trial(
        folder,
        "aaaaa_00000",
        [2.0, 1.5, 1.0, 0.8, 0.5, 0.6],
        {"lr": 1e-3, "opt": "adam", "epochs": 3},
        checkpoints=(5, 6),
        done=True,
    )
    trial(
        folder,
        "aaaaa_00001",
        [2.0, 0.9, 1.0],
        {"lr": 1e-1, "opt": "sgd", "epochs": 3},
        begin=0.5,
        done=True,
        reason=why,
    )
    trial(
        folder,
        "aaaaa_00002",
        [3.0, None],
        {"lr": 1e-4, "opt": "<script>alert(1)</script>", "epochs": 3},
        begin=3,
        done=True,
    )
    trial(
        folder,
        "aaaaa_00003",
        [2.5],
        {"lr": 1e-2, "opt": "sgd", "epochs": 3},
        begin=6,
        error="RuntimeError: <b>out of memory</b>",
    )
    return folder
