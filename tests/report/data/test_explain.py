"""Why did it stop? Endings by cause, and decisions in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.watched import BEGIN, BIRTH, journal_of, watched, write_journal, write_results
from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.journal.lines import event_line, thinned
from tune_stoppers.journal.spec import to_spec
from tune_stoppers.report.data.explain import Explained, explain, verify
from tune_stoppers.rules import Patience
from tune_stoppers.rules.sweep.bound_asha import BoundASHA

RUN = f"{BIRTH}-PatienceStopper-0123abcd"


def causes(folder: Path) -> dict[str, str]:
    frame = explain(folder)
    return dict(zip(frame["trial_id"], frame["cause"], strict=True))


def test_a_row_for_each_trial(tmp_path: Path) -> None:
    """How it ended, by whom, and why; with what was asked of it."""
    frame = explain(watched(tmp_path)).set_index("trial_id")
    flat = frame.loc["flat"]
    assert (flat["ending"], flat["cause"], flat["status"]) == (
        "stopped",
        "PatienceStopper",
        "TERMINATED",
    )
    assert flat["reason"] == (
        "PatienceStopper: 2 of 2 evaluations without improvement, value 1, best 1 at step 1"
    )
    assert (flat["step"], flat["value"], flat["decisions"], flat["reports"]) == (3, 1.0, 3, 3)
    assert frame.loc["broken", "reason"] == "ValueError: out of luck"
    assert frame["ending"].to_dict() == {
        "flat": "stopped",
        "falling": "unfinished",  # several end alike; nothing says that they have ended
        "deep": "unfinished",
        "broken": "failed",
        "running": "unfinished",
        "51e27": "unfinished",
    }
    assert frame.loc["falling", "config/lr"] == 0.2


def test_without_a_journal_the_results_tell_what_they_can(tmp_path: Path) -> None:
    """Of Ray's own schedulers: that a trial was stopped is known, by whom is not."""
    frame = explain(write_results(tmp_path)).set_index("trial_id")
    assert frame.loc["flat", "ending"] == "unexplained"
    assert frame.loc["flat", "cause"] == "stopped, cause unknown"
    assert frame.loc["falling", "cause"] == "no end recorded"
    assert (frame.loc["flat", "step"], frame["decisions"].sum()) == (3, 0)


def test_the_reason_in_the_results_comes_first(tmp_path: Path) -> None:
    """What a stopper wrote there was taken; a member of AllOf may have asked in vain."""
    watched(tmp_path)
    path = tmp_path / "train_flat_0" / "result.json"
    row = json.loads(path.read_text().splitlines()[-1])
    path.write_text(json.dumps(row | {"stop_reason": "MaximumIterationStopper fired"}) + "\n")
    assert causes(tmp_path)["flat"] == "MaximumIterationStopper"


def test_a_decision_that_was_not_taken_ended_nothing(tmp_path: Path) -> None:
    """A dry run's; and one that the trial went on after."""
    write_results(tmp_path)
    lines = journal_of(Patience(2), "PatienceStopper", dry_run=True)
    path = write_journal(tmp_path, RUN, lines)
    assert causes(tmp_path)["flat"] == "stopped, cause unknown"
    lines = journal_of(Patience(2), "S", {"flat": [1.0, 1.0, 1.0]})
    path.unlink()
    write_journal(tmp_path, RUN, [*lines, lines[1] | {"step": 4}])
    assert causes(tmp_path)["flat"] == "stopped, cause unknown"


@pytest.mark.parametrize(
    ("event", "cause", "reason"),
    [
        ({"event": "user", "numbers": {"why": "bored"}}, "stopped by hand", "user: bored"),
        ({"event": "user", "numbers": {"why": ""}}, "stopped by hand", "user: no reason given"),
        (
            {"event": "given up", "numbers": {"why": "PatienceStopper: the worst"}},
            "PatienceStopper",
            "PatienceStopper: the worst",
        ),
    ],
    ids=str,
)
def test_ends_that_are_no_decisions(
    tmp_path: Path, event: dict[str, Any], cause: str, reason: str
) -> None:
    """By hand, or a paused trial that is not gone on with."""
    write_results(tmp_path)
    lines = journal_of(Patience(5), "PatienceStopper")
    ended = {"time": BEGIN + 9, "trial": "flat", "owner": "PatienceStopper"} | event
    write_journal(tmp_path, RUN, [*lines, ended])
    row = explain(tmp_path).set_index("trial_id").loc["flat"]
    assert (row["cause"], row["reason"], row["events"]) == (cause, reason, event["event"])


def test_a_trial_that_is_through_was_not_cut_short(tmp_path: Path) -> None:
    """A scheduler stops it at its horizon: that is an end by itself."""
    write_results(tmp_path)
    lines = journal_of(Patience(9), "BoundASHAScheduler", {"flat": [1.0, 1.0, 1.0]})
    for max_t, cause in ((3, "ran to the last step"), (4, "BoundASHAScheduler")):
        through = {"action": "STOP", "numbers": {"max_t": max_t}, "reason": "the horizon"}
        name = f"{BIRTH}-BoundASHAScheduler-0123abcd"
        write_journal(tmp_path, name, [*lines[:-1], lines[-1] | through])
        assert causes(tmp_path)["flat"] == cause


def test_the_end_of_the_sweep_is_a_cause(tmp_path: Path) -> None:
    """A trial that was taken along by a decision on another."""
    write_results(tmp_path)
    lines = journal_of(Patience(9), "ThresholdStopper")
    ends = lines[-1] | {"action": "STOP", "ends_sweep": True, "reason": "good enough"}
    write_journal(tmp_path, f"{BIRTH}-ThresholdStopper-0123abcd", [*lines[:-1], ends])
    row = explain(tmp_path).set_index("trial_id").loc["flat"]
    assert row["cause"] == "ThresholdStopper"
    assert row["reason"] == "ThresholdStopper: ended the sweep: good enough"


def test_a_thinned_journal_gets_its_words_back(tmp_path: Path) -> None:
    """By judging again; where that cannot be, it says so."""
    write_results(tmp_path)
    lines = journal_of(Patience(2), "PatienceStopper")
    thin = [thinned(line) for line in lines]
    write_journal(tmp_path, RUN, thin)
    told = Explained.at(tmp_path)
    trial = told.trial("falling")
    full = [line["reason"] for line in lines if line["trial"] == "falling"]
    assert list(told.reasons(trial.decisions)) == full
    write_journal(tmp_path, RUN, [thin[0] | {"spec": {"class": "Mine"}}, *thin[1:]])
    told = Explained.at(tmp_path)
    (first, *_) = told.reasons(told.trial("falling").decisions)
    assert first == "the journal is thinned here: no reason kept"


def test_verify_runs_the_rules_again(tmp_path: Path) -> None:
    """All the same; or what differs; or why it cannot be."""
    write_results(tmp_path)
    lines = journal_of(Patience(2), "PatienceStopper")
    path = write_journal(tmp_path, RUN, lines)

    def checked() -> Any:
        (run,) = Explained.at(tmp_path).runs
        return verify(run)

    good = checked()
    assert (good.rerun.checked, good.failed) == (14, False)
    path.write_text(path.read_text().replace('"STOP"', '"CONTINUE"'))
    assert checked().failed
    write_journal(tmp_path, RUN, [event_line("S", "", "begins"), *lines[1:]])
    assert "does not say which rule" in checked().why
    write_journal(tmp_path, RUN, [lines[0] | {"spec": {"class": "my.Rule"}}, *lines[1:]])
    assert "my.Rule is no rule of tune_stoppers" in checked().why


def test_a_journal_of_an_older_rule_is_not_called_wrong(tmp_path: Path) -> None:
    """Decisions that this version would not take are explained as they were, and not verified."""
    write_results(tmp_path)
    now = BoundASHA(max_t=4, grace_period=2)
    lines = journal_of(Patience(2), "BoundASHAScheduler")
    before = lines[0] | {"spec": to_spec(now), "rule": f"{now!r} version 2"}
    write_journal(tmp_path, f"{BIRTH}-BoundASHAScheduler-0123abcd", [before, *lines[1:]])
    told = Explained.at(tmp_path)
    checked = verify(told.runs[0])
    assert checked.rerun is None
    assert "decided by version 2 of BoundASHA, and this is version 3" in checked.why
    (flat,) = (trial for trial in told.trials if trial.trial_id == "flat")
    assert "2 of 2 evaluations without improvement" in flat.ending.reason
    write_journal(
        tmp_path,
        f"{BIRTH}-BoundASHAScheduler-0123abcd",
        [before | {"rule": now.signature}, *lines[1:]],
    )
    assert verify(Explained.at(tmp_path).runs[0]).rerun is not None


def test_a_trial_may_be_named_in_short(tmp_path: Path) -> None:
    """As long as that is clear; otherwise the message helps."""
    told = Explained.at(watched(tmp_path))
    assert told.trial("fl").trial_id == "flat"
    for wrong, message in (
        ("f", "Several trials begin with 'f': falling, flat"),
        ("flatt", "Did you mean 'flat'"),
        ("xyz", "There are: 51e27, broken"),
        ("", "No trial ''"),
    ):
        with pytest.raises(ExperimentError, match=message):
            told.trial(wrong)


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    """An empty folder, a file, nothing at all."""
    (tmp_path / "file").write_text("nonsense")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(ExperimentError):
            explain(path)
