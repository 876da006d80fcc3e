"""What is said of a horizon after the sweep, from its results and journal."""

from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.watched import BEGIN, BIRTH, write_journal, write_results
from tune_stoppers.journal.lines import ENDED, event_line
from tune_stoppers.journal.spec import to_spec
from tune_stoppers.report import experiment_story
from tune_stoppers.report.data.explain import Explained
from tune_stoppers.report.terminal.explained import facts, summary
from tune_stoppers.rules.sweep.bound_asha import BoundASHA
from tune_stoppers.rules.sweep.forecast import Forecast

FALLING = [1.0, 0.5, 0.25, 0.125, 0.1, 0.09]


def sweep(folder: Path, rule: Any, owner: str, *, ended: bool = True) -> Path:
    """Three trials of six reports, which end by themselves if they have ended."""
    trials = dict.fromkeys(("a", "b", "c"), FALLING)
    write_results(folder, trials)
    begins = event_line(owner, "", "begins", rule=repr(rule), spec=to_spec(rule), sign=-1)
    begins |= {"metric": "loss", "time_attr": "training_iteration", "time": BEGIN}
    at = {"time": BEGIN + 6}  # of the last report
    ends = [event_line(owner, name, ENDED, step=6, value=0.09) | at for name in trials]
    write_journal(folder, f"{BIRTH}-{owner}-0123abcd", [begins, *(ends if ended else [])])
    return folder


@pytest.mark.parametrize(
    ("rule", "owner", "line"),
    [
        (BoundASHA(max_t=1000), "AutoScheduler", "Write AutoScheduler(max_t=6)."),
        (Forecast(max_t=1000), "ForecastStopper", 'Write ForecastStopper("loss", "max", max_t=6).'),
    ],
)
def test_explain_and_the_report_say_it(tmp_path: Path, rule: Any, owner: str, line: str) -> None:
    """In one sentence, the same for people and for machines."""
    told = Explained.at(sweep(tmp_path, rule, owner))
    (note,) = told.notes
    assert note.startswith(f"{owner}: max_t=1000 does not fit the trials' time: 3 trials")
    assert note.endswith(line)
    assert note in summary(told)
    assert facts(told, None, [])["notes"] == [note]
    assert note in experiment_story(tmp_path, "loss", "min").notes


def test_a_horizon_that_fits_and_trials_that_run_say_nothing(tmp_path: Path) -> None:
    """Whatever they have in common so far."""
    assert not Explained.at(sweep(tmp_path / "fits", BoundASHA(max_t=6), "AutoScheduler")).notes
    running = sweep(tmp_path / "runs", BoundASHA(max_t=1000), "AutoScheduler", ended=False)
    assert not Explained.at(running).notes
    assert not any("max_t" in note for note in experiment_story(running, "loss", "min").notes)


@pytest.mark.parametrize(
    "change", [{"spec": 7}, {"spec": {"class": "my.Rule"}}, {"time_attr": ["x"]}, {"metric": None}]
)
def test_a_journal_that_is_damaged_ends_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    """What cannot be read has no horizon."""
    sweep(tmp_path, BoundASHA(max_t=1000), "AutoScheduler")
    begins = event_line("AutoScheduler", "", "begins", spec=to_spec(BoundASHA(max_t=1000)))
    write_journal(tmp_path, f"{BIRTH}-AutoScheduler-0123abcd", [begins | change])
    assert len(Explained.at(tmp_path).notes) <= 1
