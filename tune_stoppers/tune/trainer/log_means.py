"""What training logs say between two evaluations, as means."""

from collections.abc import Mapping
from typing import Any

from tune_stoppers.metrics import number
from tune_stoppers.result_keys import RAYS_OWN

LOGGED = {"loss": "train_loss", "grad_norm": "grad_norm", "learning_rate": "lr"}  # as reported
_COUNTS = frozenset({"epoch", "step", "num_tokens", "total_flos"})  # they grow: no mean of theirs
_SUMMARY = "train_runtime"  # in the log that ends a training


class LogMeans:
    """The mean of each metric over the training logs since the last report.

    A log counts if it is no evaluation and not the summary at the end of training. NaN and
    infinities enter the mean, so that a rule sees them; what is no number does not.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def take(self, logs: Mapping[str, Any]) -> None:
        """Remember a training log."""
        if _SUMMARY in logs or any(key.startswith("eval_") for key in logs):
            return
        for key, logged in logs.items():
            value = None if key in LOGGED or _is_taken(key) else number(logged)
            if value is not None:
                self._values.setdefault(key, []).append(value)

    def taken(self) -> dict[str, float]:
        """The means, and begin anew."""
        values, self._values = self._values, {}
        return {key: sum(found) / len(found) for key, found in values.items()}


def _is_taken(key: str) -> bool:
    """Whether the name is somebody else's: a count, or one that Ray writes itself."""
    return key in _COUNTS or key.split("/")[0] in RAYS_OWN
