"""Ray results to reports: metric, mode and time_attr are known here and nowhere else.

Ray hands a stopper the nested result (``result["eval"]["loss"]``) and a scheduler the flat one
(``result["eval/loss"]``); the same metric name, "eval/loss", reads both.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tune_stoppers.core import Mode, OnMissing, Report
from tune_stoppers.metrics import MetricReader, Reads, logger
from tune_stoppers.result_keys import CHECKPOINT_NAME, CLOCKS, DONE, RAYS_OWN, SINCE_RESTORE


def clocks_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's clocks in a result: what a trial needs to continue from the checkpoint there."""
    return {key: result[key] for key in CLOCKS if isinstance(result.get(key), int | float)}


class Reading(NamedTuple):
    """A report with what Ray says about it."""

    report: Report
    checkpoint: bool  # the report came with a checkpoint
    since_restore: int | None  # reports since the trial's process last started
    done: bool  # the trial has ended


def warn_out_of_order(
    owner: str, trial_id: str, time_attr: str, step: float, newest: float | None
) -> None:
    """Say that a trial's clock runs backwards, though it has not restarted."""
    logger.warning(
        "%s: trial %s reports %s = %g after %g without having restarted; such reports are left "
        "out.",
        *(owner, trial_id, time_attr, step, newest),
    )


class ResultReader:
    """Reads the results that Ray hands to stoppers and schedulers."""

    def __init__(
        self,
        owner: str,
        rule: Reads,
        *,
        metric: str | None,
        mode: Mode,
        time_attr: str,
        on_missing: OnMissing,
    ) -> None:
        if not isinstance(time_attr, str) or not time_attr:
            raise TypeError(f"{owner} time_attr must be the name of a metric, got {time_attr!r}.")
        self.time_attr = time_attr
        hidden = RAYS_OWN - {time_attr}
        self.metrics = MetricReader(owner, rule, metric, mode, on_missing, hidden)

    def read(self, trial_id: str, result: Mapping[str, Any]) -> Reading | None:
        """The report in `result`; None if it has nothing to judge.

        That is: the trial returned without ever having reported (Ray then makes up a result of
        its own), or the result has no time while that is neutral.
        """
        if self.time_attr not in result and all(key in RAYS_OWN for key in result):
            return None
        step = self.metrics.value(trial_id, result, self.time_attr)
        if step is None or not math.isfinite(step):
            return None
        # a class trainable's results do not say: any of them may have a checkpoint
        saved = CHECKPOINT_NAME not in result or bool(result[CHECKPOINT_NAME])
        since = result.get(SINCE_RESTORE)
        restored = since if isinstance(since, int) else None
        report = self.metrics.read(trial_id, step, result)
        return Reading(report, saved, restored, bool(result.get(DONE)))
