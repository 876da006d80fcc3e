"""SweepReporter: one line on the sweep, and one when a trial starts or ends, with the reason."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from rich.console import Console

from tune_stoppers import AutoScheduler, SweepReporter
from tune_stoppers.tune import progress

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


def train(config: dict[str, Any]) -> None:
    for step in range(1, 7):
        tune.report({"loss": config["floor"] + 1 / step})


def shown(monkeypatch: Any, folder: Path, reporter: SweepReporter, **console: Any) -> str:
    """What a sweep of six trials prints."""
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda: Console(file=out, width=300, **console))
    tune.Tuner(
        train,
        param_space={"floor": tune.grid_search([0.0, 1.0, 2.0, 3.0]), "constant": 7},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", scheduler=AutoScheduler(6), reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="sweep", storage_path=str(folder), progress_reporter=reporter, verbose=1
        ),
    ).fit()
    return out.getvalue()


def test_each_start_and_each_end_has_a_line_with_its_reason(monkeypatch, tmp_path, capsys):
    """And the state of the sweep a line of its own; Ray prints no table beside."""
    lines = shown(monkeypatch, tmp_path, SweepReporter(6, every=0)).splitlines()
    starts = [line for line in lines if " starts: " in line]
    assert len(starts) == 4
    assert sum("floor=3" in line and "constant" not in line for line in starts) == 1
    ends = [line for line in lines if " ends after " in line]
    assert len(ends) == 4
    whole = next(line for line in ends if "best 0.166667" in line)
    assert whole.endswith(
        "ends after 6 reports, best 0.166667: AutoScheduler: the horizon 6 is reached"
    )
    last = lines[-1]
    saved = 1 - sum(int(re.search(r"after (\d+)", line)[1]) for line in ends) / 24
    assert last.startswith("4 of 4 ended · best loss 0.166667 (")
    assert f" · {saved:.0%} of their training saved · " in last
    assert "left" not in last
    assert "Current time" not in capsys.readouterr().out


def test_in_a_terminal_the_line_is_kept_up_to_date(monkeypatch, tmp_path):
    """In place: the cursor goes back over it."""
    out = shown(monkeypatch, tmp_path, SweepReporter(6), force_terminal=True)
    assert "\x1b[2K" in out
    assert out.count(" ends after ") == 4


def test_it_is_kept_with_the_experiment_by_its_settings_alone():
    """Ray pickles it."""
    again = pickle.loads(pickle.dumps(SweepReporter(5, every=2.0)))
    assert (again.max_t, again.every) == (5, 2.0)


@pytest.mark.parametrize(("given", "name"), [({"max_t": 0}, "max_t"), ({"every": -1}, "every")])
def test_settings_out_of_range_are_refused(given, name):
    """By name."""
    with pytest.raises(ValueError, match=name):
        SweepReporter(**given)
