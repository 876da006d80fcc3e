"""Ray's snapshot of an experiment, written by hand: the part of it that is text."""

import json
from pathlib import Path
from typing import Any

PICKLE = {"_type": "CLOUDPICKLE_FALLBACK", "value": "no pickle"}


def listed(
    trial_id: str,
    status: str,
    folder: str | None = None,
    *,
    started: bool = True,
    failures: int = 0,
    config: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
) -> list[str]:
    """A trial in it; `last`: its last result, a row of `result.json`."""
    said = {
        "trial_id": trial_id,
        "status": status,
        "trainable_name": "train",
        "relative_logdir": folder,
        "custom_trial_name": None,
        "config": config or {},
        "storage": PICKLE,
    }
    met = {
        "start_time": 1000.0 if started else None,
        "num_failures": failures,
        "last_result": last or {},
        "checkpoint_manager": PICKLE,
    }
    return [json.dumps(said), json.dumps(met)]


def snapshot(
    root: Path, *trials: list[str], time: str = "2026-01-02_03-04-05", most_pending: int = 200
) -> Path:
    """The file; `most_pending`: how many trials Ray makes before there is a free worker."""
    runner = {"_max_pending_trials": most_pending, "_stopper": PICKLE}
    path = root / f"experiment_state-{time}.json"
    path.write_text(json.dumps({"trial_data": list(trials), "runner_data": runner}))
    return path
