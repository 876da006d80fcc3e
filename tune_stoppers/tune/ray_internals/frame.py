"""What Ray's controller holds in variables of its own while it asks a stopper or a scheduler."""

import sys
from typing import Any

from tune_stoppers.tune.ray_internals.types import Trial

FRAMES = 16  # how far up Ray's controller may be: combined stoppers nest


def calling_trial(trial_id: str) -> Trial | None:
    """Ray's `Trial` with this id, from the call in progress; None outside of Ray's controller.

    A stopper is told neither its experiment's folder nor its storage, and the controller that
    asks holds the trial in a variable of its own, `trial`. This is private to Ray: where it
    changes, stoppers continue without a journal, and a test fails.
    """
    frame = sys._getframe(1)
    for _ in range(FRAMES):
        trial = frame.f_locals.get("trial")
        if getattr(trial, "trial_id", None) == trial_id and hasattr(trial, "storage"):
            return trial
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def calling_result(trial_id: str) -> dict[str, Any] | None:
    """The result that Ray's loggers will write, from the call in progress; None outside of it.

    A scheduler is given a flat copy of it. The controller holds both, as `result` and
    `flat_result`. This is private to Ray: where it changes, `result.json` lacks the reasons of
    schedulers, and a test fails.
    """
    frame = sys._getframe(1)
    for _ in range(FRAMES):
        held = frame.f_locals
        if "flat_result" in held and getattr(held.get("trial"), "trial_id", None) == trial_id:
            result = held.get("result")
            return result if isinstance(result, dict) else None
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None
