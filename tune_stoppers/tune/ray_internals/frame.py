"""Which trial is a stopper being asked about? Ray tells it the id alone."""

import sys

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
