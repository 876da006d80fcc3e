"""`checkpoint_config`: which checkpoints Ray is to keep."""

import logging
import os
import shutil
from typing import Literal

from tune_stoppers.core import Mode, require, require_number
from tune_stoppers.metrics import check_metric
from tune_stoppers.tune.restore.mending import RestorableCheckpointConfig

logger = logging.getLogger("tune_stoppers")


def checkpoint_config(
    metric: str,
    mode: Mode,
    *,
    keep: int | Literal["best+last", "all"] = "best+last",
    every: int = 0,
    trials: int | None = None,
    checkpoint_bytes: float | None = None,
    storage_path: str | os.PathLike[str] | None = None,
) -> RestorableCheckpointConfig:
    """Ray's `CheckpointConfig` that keeps each trial's best checkpoint, whatever comes later.

    Ray goes by the metric in the report that brings the checkpoint, or at which it saves a class
    trainable: never report a checkpoint without it, or Ray takes that one for the best. (Of class
    trainables, one of our stoppers or schedulers keeps the best even so.) Ray never
    deletes a trial's last checkpoint.

    Ray writes a snapshot of the sweep at every n-th checkpoint of a trial, n being `keep` (1 for
    "best+last"), and every ten seconds. After a kill the checkpoint that it names may be gone. This
    config then has the folder mended before `Tuner.restore` reads it: the trial continues from its
    newest whole checkpoint, or from zero if there is none.

    Args:
        metric: a name at the top of the reports. For a nested one ("eval/loss") Ray 2.60 keeps
            the newest instead of the best, without a word: `ValueError`.
        mode: "min" or "max"; required.
        keep: "best+last" (two folders a trial), the number n of best ones to keep beside the last
            (n + 1 folders), or "all".
        every: for class trainables alone: Ray saves them at each `every`-th iteration, and at
            their end. With 0 only at their end, and when they are paused. Functions report their
            checkpoints themselves, and Ray refuses other values for them.
        trials, checkpoint_bytes: if given, the space that the sweep will take is logged now.
        storage_path: if given too, and local, a disk with less free space is warned of.
    """
    check_metric("checkpoint_config", metric, mode)
    require_number("every", every, at_least=0, integer=True)
    if keep == "all":
        return RestorableCheckpointConfig(checkpoint_frequency=every)
    count = 1 if keep == "best+last" else keep
    if not isinstance(count, int):
        raise ValueError(f'keep must be "best+last", "all" or a number of best ones, got {keep!r}.')
    require_number("keep", count, at_least=1, integer=True)
    require(
        "/" not in metric,
        f"Ray keeps the newest checkpoint, not the best, if the metric is nested, got {metric!r}: "
        f'report it at the top, as {metric.replace("/", "_")!r}, or give keep="all".',
    )
    if trials is not None and checkpoint_bytes is not None:
        _say_space(count + 1, trials, checkpoint_bytes, storage_path)
    return RestorableCheckpointConfig(
        num_to_keep=count,
        checkpoint_score_attribute=metric,
        checkpoint_score_order=mode,
        checkpoint_frequency=every,
    )


def _say_space(
    folders: int, trials: int, size: float, storage_path: str | os.PathLike[str] | None
) -> None:
    """Log what the checkpoints of a sweep take; warn if the disk has less."""
    require_number("trials", trials, at_least=1, integer=True)
    require_number("checkpoint_bytes", size, at_least=0)
    total = trials * folders * size
    text = f"Checkpoints: {trials} trials x {folders} x {size / 1e9:.3g} GB = {total / 1e9:.3g} GB"
    if storage_path is not None and os.path.isdir(storage_path):
        free = shutil.disk_usage(storage_path).free
        if free < total:
            logger.warning(
                "%s, and %s has %.3g GB left: keep fewer, or LoRA adapters alone.",
                *(text, os.fspath(storage_path), free / 1e9),
            )
            return
    logger.info("%s.", text)
