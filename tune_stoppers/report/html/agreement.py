"""A small picture: what was expected of trials, against how they did, both by rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from tune_stoppers.report.html.svg import tag

SIDE, MARGIN = 200, 8  # units of the picture


def agreement_plot(expected: Mapping[str, float], losses: Mapping[str, float]) -> str:
    """A dot for each trial with a finite loss; the best expected left, the best loss at the bottom.

    A diagonal would be a history that was right of all of them.
    """
    both = [trial for trial in expected if math.isfinite(losses.get(trial, math.nan))]
    across = {trial: rank for rank, trial in enumerate(sorted(both, key=expected.__getitem__))}
    up = {trial: rank for rank, trial in enumerate(sorted(both, key=losses.__getitem__))}
    width = SIDE - 2 * MARGIN
    step = width / max(len(both) - 1, 1)
    dots = [
        tag(
            "circle",
            tag("title", escape(trial)),
            cx=round(MARGIN + step * across[trial], 1),
            cy=round(SIDE - MARGIN - step * up[trial], 1),
            r=3.5,
            fill="currentColor",
            fill_opacity=0.6,
        )
        for trial in both
    ]
    low, high = MARGIN, SIDE - MARGIN
    diagonal = tag(
        "line", x1=low, y1=high, x2=high, y2=low, stroke="currentColor", stroke_opacity=0.25
    )
    return tag(
        "svg",
        diagonal + "".join(dots),
        viewBox=f"0 0 {SIDE} {SIDE}",
        width=SIDE,
        height=SIDE,
        role="img",
        aria_label="What was expected of each trial, against how it did",
    )
