"""Whether a history helps forecasts, on sweeps that are all alike."""

import pytest

from benchmarks import history_forecast
from benchmarks.history_forecast import (
    BOTH,
    COLD,
    EARLY,
    NONE,
    OTHERS,
    OWN,
    PRIOR,
    foreseen,
    section,
    stopped,
)
from tests.benchmarks.test_history_gain import a_task


def test_the_tables_have_a_row_for_each_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a forecaster that takes the history's word stops trials before four have ended."""
    monkeypatch.setattr(history_forecast, "SO_FAR", (8,))
    tasks = [a_task("one", 0.1), a_task("two", 0.2)]
    runs = stopped(tasks, [8], 1)
    saved = runs.groupby("history")["savings"].mean()
    assert saved[NONE] == 0
    assert saved[EARLY] > saved[COLD]
    errors = foreseen(tasks)
    assert set(errors.columns) == {OWN, OTHERS, BOTH}
    text = section(runs, errors)
    assert all(f"| 8 | {name} |" in text for name in (NONE, COLD, PRIOR, EARLY))
