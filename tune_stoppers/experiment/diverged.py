"""Trials that came to nothing finite, and what was measured before they were trained at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tune_stoppers.metrics import lookup, recorded

Row = Mapping[str, Any]
R = TypeVar("R", bound=Row)


def has_diverged(rows: Sequence[Row], metric: str) -> bool:
    """Whether the last value that a trial reported of the metric is not finite."""
    values = [value for row in rows if (value := recorded(lookup(row, metric))) is not None]
    return bool(values) and not math.isfinite(values[-1])


def creditable(rows: list[R], metric: str, time_attr: str) -> list[R]:
    """The reports that a trial may be credited with.

    All of them, but of a trial whose training led to nothing finite, as it diverged at once, not
    the evaluation before its first step: that is the loss of the untrained model.
    """
    trained = [row for row in rows if not is_untrained(row, rows, time_attr)]
    values = [value for row in trained if (value := recorded(lookup(row, metric))) is not None]
    if values and not any(map(math.isfinite, values)):
        return trained
    return rows


def is_untrained(row: Row, rows: Sequence[Row], time_attr: str) -> bool:
    """Whether a report of the trial with these `rows` was made before its first step.

    That is at time 0, unless the trial counts its reports from 0: then the first one is trained.
    """
    if recorded(lookup(row, "progress")) == 0:
        return True  # a share or per cent of its own length, by whoever reports it
    for key in (time_attr, "step"):
        if recorded(lookup(row, key)) == 0:
            return not _counts_from_zero(rows, key)
    return False


def _counts_from_zero(rows: Sequence[Row], key: str) -> bool:
    """Whether `key` is the number of the report, from 0."""
    pairs = [(recorded(lookup(row, key)), recorded(row.get("training_iteration"))) for row in rows]
    return all(a is None or (b is not None and a == b - 1) for a, b in pairs)
