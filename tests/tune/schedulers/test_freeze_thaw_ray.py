"""FreezeThawScheduler in a real sweep."""

from pathlib import Path

import pyarrow.fs as pafs
import pytest
from ray import tune

from tests.tune.schedulers.test_promotion_asha_ray import MAX_T, fit, journal, paths, statuses
from tune_stoppers import FreezeThawScheduler
from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.report.data.explain import verify

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


def test_no_trial_is_left_paused(tmp_path: Path) -> None:
    """The best of 14 runs to the end, nobody starts over, and the journal is whole."""
    floors = [float((5 * i) % 14) for i in range(14)]
    results = fit(
        FreezeThawScheduler(MAX_T, 1, time_attr="steps"),
        tmp_path,
        {"floor": tune.grid_search(floors)},
    )
    assert not results.errors
    assert statuses(tmp_path) == {"TERMINATED"}
    steps = {r.config["floor"]: r.metrics["steps"] for r in results}
    assert len(steps) == 14
    assert steps[0.0] == MAX_T
    assert sum(steps.values()) < 14 * MAX_T / 2
    lines = journal(tmp_path)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in paths(lines))
    events = [line.get("event") for line in lines]
    assert events.count("started") == 14
    assert "paused" in events
    assert "resumed" in events
    reasons = {r.config["floor"]: r.metrics["stop_reason"] for r in results}
    assert "no trial that waits has 5% to become the best" in reasons[13.0]
    assert "horizon" in reasons[0.0]
    (run,) = runs_of(pafs.LocalFileSystem(), str(tmp_path / "sweep"))
    verified = verify(run)
    assert verified.rerun is not None
    assert not verified.failed
