"""Ray Train V2 inside a Tune trial: telling such trials by what they report."""

from collections.abc import Mapping
from typing import Any

from tune_stoppers.result_keys import CHECKPOINT_NAME, TRAIN_CHECKPOINT

REFUSAL = (
    "its checkpoints are those of a Ray Train run inside the trial, from which Tune cannot resume: "
    "use a stopper, or a scheduler that only stops"
)


def has_train_workers(result: Mapping[str, Any]) -> bool:
    """Whether a result, nested or flat, comes from a Ray Train run inside the trial.

    That is, with a checkpoint that Ray Train keeps and Tune does not know. A scheduler that pauses
    trials or rolls them back must leave such a trial alone; `REFUSAL` is what to tell the user.
    (A run that never reports a checkpoint has, to Tune, none to go back to either.)
    """
    return bool(result.get(TRAIN_CHECKPOINT)) and not result.get(CHECKPOINT_NAME)
