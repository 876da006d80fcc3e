"""Tables as people see them."""

import io
import math

import numpy as np
import pandas as pd
from rich.console import Console

from tune_stoppers.backtest.compare import compare
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.replays import compared
from tune_stoppers.report.terminal.tables import clean, markdown, number, share, show

HEADER, ROWS = ["rule", "area"], [["no stopping", "1.00"], ["a rule", "0.50"]]


def test_a_pipe_gets_plain_text():
    """No frames, no colours, nothing wrapped; a terminal gets both."""
    plain, framed = io.StringIO(), io.StringIO()
    show(HEADER, ROWS, title="t", console=Console(file=plain, width=200))
    assert plain.getvalue().isascii()
    assert [line.split() for line in plain.getvalue().splitlines()][2] == ["no", "stopping", "1.00"]
    show(HEADER, ROWS, console=Console(file=framed, force_terminal=True, width=40))
    assert "─" in framed.getvalue()


def test_markdown():
    """Numbers to the right."""
    assert markdown(HEADER, ROWS).splitlines() == [
        "| rule | area |",
        "| --- | ---: |",
        "| no stopping | 1.00 |",
        "| a rule | 0.50 |",
    ]


def test_a_comparison_as_text():
    """Best first; columns of which nothing is known are left out, in brief most others too."""
    rows = [
        {"trial_id": str(i), "training_iteration": t, "loss": i + 1.0 / t}
        for i in range(20)
        for t in (1, 2, 3)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    table = compare(sweep, {}, orderings=2, processes=1, whole=False, workers=1).table()
    header, text = compared(table, "sweeps")
    assert {"rule", "regret @2", "speed-up @4", "orderings"} <= set(header)
    assert not {"p", "savings"} & set(header)
    assert text[0][0] == "no stopping"
    brief, _ = compared(table, "sweeps", brief=True)
    assert brief[:3] == ["rule", "area ×100", "± se"]
    assert "regret @4" in brief
    assert not {"regret @2", "speed-up @4", "rank"} & set(brief)


def test_what_is_not_known_is_a_dash_or_null():
    """For people and for machines."""
    assert (number(1.005, 1, "×"), number(math.nan, 2), share(math.nan)) == ("1.0×", "–", "–")
    assert clean({"a": [np.float64("nan"), np.int64(1)], "b": (math.inf, "x")}) == {
        "a": [None, 1],
        "b": [None, "x"],
    }
