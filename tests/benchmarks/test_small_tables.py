"""Means, errors and shares of small sweeps are what their words say."""

import math

import pandas as pd
import pytest

from benchmarks.small_rules import ASHA, ASHA_LATE, ORACLE, OURS
from benchmarks.small_tables import gap_closed, per_draw, ratio_se, section
from tune_stoppers.backtest.comparison import NO_STOPPING

AREAS = {NO_STOPPING: 0.9, ASHA: 0.8, ASHA_LATE: 0.6, OURS: 0.5, ORACLE: 0.4}


def runs_of(**more) -> pd.DataFrame:
    """Two families, the second with two sweeps; AREAS in one, twice that in the other."""
    sweeps = {"lora_a": ("lora", 1.0), "taskset_a": ("taskset", 1.5), "taskset_b": ("taskset", 2.5)}
    rows = [
        {
            **{"family": family, "sweep": sweep, "pool": 16, "workers": 4, "draw": draw},
            **{"rule": rule, "area": scale * area + 0.1 * draw, "final": 0.1, "work": 0.5},
            **{"wall": 0.5, "killed": 0.0, "random": 0.2, "reports": 10, "cpu": 0.1},
        }
        | more
        for sweep, (family, scale) in sweeps.items()
        for rule, area in AREAS.items()
        for draw in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_families_have_the_same_weight_whatever_their_sweeps() -> None:
    """Means over sweeps first; a draw that some rule did not run is left out."""
    runs = runs_of()
    area = per_draw(runs, "area")
    assert area[OURS].tolist() == pytest.approx([0.75, 0.85])
    lost = runs[~((runs["rule"] == OURS) & (runs["draw"] == 1))]
    assert per_draw(lost, "area")[ASHA].tolist() == pytest.approx([1.2])


def test_the_error_of_a_ratio_is_of_pairs() -> None:
    """None where ours is always half of theirs, however much both vary."""
    assert ratio_se([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == pytest.approx((0.5, 0.0))
    ratio, error = ratio_se([1.0, 3.0], [2.0, 2.0])
    assert ratio == 1.0
    assert error == pytest.approx(0.5)
    assert math.isnan(ratio_se([1.0], [0.0])[0])


def test_the_share_of_the_gap_to_the_oracle() -> None:
    """0.8 to 0.4 is the gap: 0.5 closes three quarters of it, and 0.6 half."""
    lines = gap_closed(runs_of()).splitlines()
    for family in ("lora", "taskset", "LLM families"):
        row = next(line for line in lines if line.startswith(f"| {family} |"))
        assert "| 50 ± 0 % | 75 ± 0 % |" in row


def test_a_family_that_a_rule_did_not_run_has_a_dash() -> None:
    """In every table, and the others keep their figures."""
    runs = runs_of()
    text = "\n".join(section(runs[(runs["rule"] != OURS) | (runs["family"] == "lora")]))
    assert "| taskset | Ray ASHA, defaults | 165.0 | 0.76 ± 0.01 | – |" in text
    assert f"| {OURS} | 55.0 ± 5.0 | – |" in text
    assert "| 165.0 | 85.0 | 50 ± 0 % | – |" in text


def test_language_models_come_first_and_sizes_have_their_rows() -> None:
    """And a table is left out where nothing was run for it."""
    text = section(runs_of())
    titles = [line for line in text if line.startswith("##")]
    assert titles[0].startswith("## Fine-tunes of language models: 16, 40 and all")
    assert "lora (1). Draws: 2." in text[2]
    assert not any("8 configurations, 2 workers" in title for title in titles)
    assert f"| {OURS} | 55.0 ± 5.0 |" in text[3]


def test_families_that_were_drawn_less_often_are_named() -> None:
    """With how often."""
    runs = runs_of()
    assert "Fewer draws" not in section(runs)[0]
    fewer = runs[(runs["family"] == "lora") | (runs["draw"] == 0)]
    assert section(fewer)[0].endswith("Fewer draws: taskset 1.")
