"""What is told of an experiment, with a journal and without."""

import math
import shutil

import pytest

from tests.stand_ins.folders import BEGIN, journal, stop_line, sweep, trial
from tune_stoppers import best_state
from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.report import experiment_story


def by_id(story):
    return {t.trial_id[-1]: t for t in story.trials}


def test_endings_without_a_journal_follow_from_the_results(tmp_path):
    """And the story says what it cannot know."""
    story = experiment_story(sweep(tmp_path), "loss", "min")
    endings = {key: (t.ending.kind, t.ending.cause) for key, t in by_id(story).items()}
    assert endings == {
        "0": ("finished", "ran to the last step"),
        "1": ("stopped", "PatienceStopper"),
        "2": ("unexplained", "stopped, cause unknown"),
        "3": ("failed", "failed"),
    }
    assert by_id(story)["3"].ending.reason == "RuntimeError: <b>out of memory</b>"
    assert any("no journal" in note for note in story.notes)
    assert any("no cause was recorded" in note for note in story.notes)


def test_the_verdict_is_that_of_best_state(tmp_path):
    """Trial, value, step and checkpoint; and the line that loads it runs."""
    story = experiment_story(sweep(tmp_path), "loss", "min")
    found = best_state(tmp_path, "loss", "min")
    assert story.best is story.kept
    assert (story.best.trial_id, story.best.checkpoint) == (found.trial_id, found.checkpoint)
    assert (story.best.best_step, story.best.best_value) == (5.0, 0.5)
    scope = {"model": None}
    exec(story.load.replace("best.restore(model)", "at = best.checkpoint"), scope)
    assert scope["at"] == found.checkpoint


def test_what_was_spent_and_saved(tmp_path):
    """Each stopped trial would have gone on to step 6 at a second a step; a failed one not."""
    story = experiment_story(sweep(tmp_path), "loss", "min")
    trials = by_id(story)
    assert {key: t.spent for key, t in trials.items()} == {"0": 6, "1": 3, "2": 2, "3": 1}
    assert {key: t.saved for key, t in trials.items()} == {"0": 0, "1": 3, "2": 4, "3": 0}
    assert story.share == pytest.approx(7 / 19)
    assert {p.name for p in story.swept} == {"lr", "opt"}


def test_a_trials_own_length_is_what_it_would_have_run(tmp_path):
    """Where it reports its progress."""
    trial(tmp_path, "a0000", [1.0, 1.0], done=True, reason="x: y", progress=0.25)
    trial(tmp_path, "b0000", [1.0] * 3, done=True, progress=1.0)
    assert [t.saved for t in experiment_story(tmp_path, "loss", "min").trials] == [6, 0]


def test_a_scheduler_is_named_by_its_journal(tmp_path):
    """Its reason does not reach result.json."""
    folder = sweep(tmp_path)
    line = stop_line("aaaaa_00002", 2, owner="BoundASHAScheduler", numbers={"rung": 2.0})
    journal(folder, line | {"reason": "rank 3 of 3 at rung 2"})
    story = experiment_story(folder, "loss", "min")
    assert by_id(story)["2"].ending.cause == "BoundASHAScheduler"
    assert by_id(story)["2"].ending.reason == "BoundASHAScheduler: rank 3 of 3 at rung 2"
    assert story.rungs == (2.0,)
    assert "BoundASHAScheduler" in story.rule


UNTAKEN = {
    "the trial went on": {"step": 3},
    "dry run": {"dry_run": True},
    "before start_after": {"early": True},
}


@pytest.mark.parametrize("name", UNTAKEN)
def test_a_decision_that_was_not_taken_is_no_ending(name, tmp_path):
    """That of one of several stoppers that all had to agree, say."""
    trial(tmp_path, "a0000", [1.0] * 6, done=True)
    journal(tmp_path, stop_line("a0000", 6) | UNTAKEN[name])
    assert experiment_story(tmp_path, "loss", "min").trials[0].ending.kind == "finished"


def test_a_dry_run_says_what_it_would_have_saved(tmp_path):
    """From its first decision on, whether the result or the journal tells it."""
    trial(tmp_path, "a0000", [3.0, 2.0, 1.0, 0.5], done=True)
    trial(tmp_path, "b0000", [3.0, 2.5, 2.4, 2.3], done=True)
    journal(tmp_path, *(stop_line("a0000", step, dry_run=True) for step in (3, 4)))
    story = experiment_story(tmp_path, "loss", "min")
    dry = story.dry_run
    assert (dry.stopped, dry.spared, dry.reports, dry.best_value) == (1, 1.0, 1, 1.0)
    assert story.trials[0].would.reason == "PatienceStopper: 3 of 3 evaluations without improvement"


def test_a_trial_that_was_retried_from_a_checkpoint(tmp_path):
    """Its curve has the last run; the work made again is spent; the time line shows both."""
    trial(tmp_path, "a0000", [3.0, 2.0, 1.9], begin=0)
    trial(tmp_path, "a0000", [1.5, 1.0], begin=10, first=3, done=True)
    (story_trial,) = experiment_story(tmp_path, "loss", "min").trials
    assert story_trial.curve == ((1.0, 3.0), (2.0, 2.0), (3.0, 1.5), (4.0, 1.0))
    assert (story_trial.spent, story_trial.reports) == (5.0, 5)
    spans = [(s.opening, s.begin, s.end, s.step) for s in story_trial.spans]
    assert spans == [("start", 0.0, 3.0, 1.0), ("restart", 10.0, 12.0, 3.0)]


def test_a_paused_trial_goes_on_where_it_was(tmp_path):
    """Two stretches, and the events that the journal tells, those of the future too."""
    trial(tmp_path, "a0000", [3.0, 2.0], begin=0)
    trial(tmp_path, "a0000", [1.5], begin=10, first=3, done=True)
    line = {"time": BEGIN + 2, "trial": "a0000", "owner": "PromotionASHAScheduler"}
    told = ("paused", "resumed", "rollback", "something new", "saved again", "ended", "cost")
    journal(tmp_path, *(line | {"event": kind, "numbers": {"why": "so"}} for kind in told))
    (story_trial,) = experiment_story(tmp_path, "loss", "min").trials
    assert [span.opening for span in story_trial.spans] == ["start", "resume"]
    assert [event.kind for event in story_trial.events] == list(told[:4])
    assert {event.text for event in story_trial.events} == {"so"}
    assert story_trial.events[0].time == pytest.approx(2.0)


def test_a_trial_that_went_on_at_once_was_not_paused(tmp_path):
    """Nor does one that was given up show as lost besides."""
    trial(tmp_path, "a0000", [3.0, 2.0, 1.5], done=True)
    line = {"trial": "a0000", "owner": "AutoScheduler"}
    pause = line | {"action": "PAUSE", "rule": "ExpectedImprovement", "reason": "at a rung"}
    journal(
        tmp_path,
        pause | {"time": BEGIN, "step": 1},
        line | {"time": BEGIN, "event": "resumed", "numbers": {"why": "goes on at once: so"}},
        pause | {"time": BEGIN + 1, "step": 2},
        line | {"time": BEGIN + 2, "event": "given up"},
        line | {"time": BEGIN + 2, "event": "lost"},
    )
    (story_trial,) = experiment_story(tmp_path, "loss", "min").trials
    assert [event.kind for event in story_trial.events] == ["given up"]


def test_a_pause_that_no_scheduler_told_is_seen_from_its_decision(tmp_path):
    """But where starts are told, or that one was given up, no pause is one that was not made."""
    for name in ("a0000", "b0001"):
        trial(tmp_path, name, [3.0, 2.0], done=True)
    line = {"time": BEGIN, "step": 1, "owner": "AutoScheduler"}
    pause = line | {"action": "PAUSE", "rule": "ExpectedImprovement", "reason": "at a rung"}
    given_up = line | {"trial": "b0001", "event": "given up"}
    pauses = [pause | {"trial": "b0001", "step": step} for step in (1, 2)]
    journal(tmp_path, pause | {"trial": "a0000"}, *pauses, given_up)
    first, second = by_id(experiment_story(tmp_path, "loss", "min")).values()
    assert [event.kind for event in first.events] == ["paused"]
    assert [event.kind for event in second.events] == ["given up"]


def test_a_trial_stopped_by_hand(tmp_path):
    """Whoever asked is named as a person."""
    trial(tmp_path, "a0000", [3.0, 2.0], done=True, reason="user: looks wrong")
    (story_trial,) = experiment_story(tmp_path, "loss", "min").trials
    assert story_trial.ending.cause == "stopped by hand"


def test_reports_that_are_not_numbers_are_seen_and_never_win(tmp_path):
    """Ray writes NaN as null; a report without the metric is none."""
    story = experiment_story(sweep(tmp_path), "loss", "min")
    (_, (step, value)) = by_id(story)["2"].curve
    assert (step, math.isnan(value)) == (2.0, True)
    assert by_id(story)["2"].best_value == 3.0
    rows = experiment_story(tmp_path, "time_total_s", "max")
    assert rows.best.best_value == 6.0


def test_the_journal_tells_objective_and_time(tmp_path):
    """Where it says so, neither need be given; else the steps that it counts in are found."""
    trial(tmp_path, "a0000", [3.0, 2.0], done=True, step=20)
    task = {"metric": "loss", "sign": -1}
    journal(tmp_path, {"time": 0.0, "trial": "", "event": "begins", "owner": "X"} | task)
    story = experiment_story(tmp_path)
    assert (story.metric, story.mode, story.time_attr) == ("loss", "max", "training_iteration")
    journal(tmp_path, stop_line("a0000", 20))
    assert experiment_story(tmp_path).time_attr == "step"


def test_a_killed_sweep_is_told_as_far_as_it_went(tmp_path, caplog):
    """Torn lines, results and a journal cut off, trials that never reported."""
    folder = sweep(tmp_path)
    first, second = sorted(folder.glob("train_*"))[:2]
    text = (first / "result.json").read_text()
    (first / "result.json").write_text(text[: len(text) * 3 // 5])
    (second / "result.json").unlink()
    path = journal(folder, stop_line("aaaaa_00001", 3))
    path.write_text(path.read_text() + '{"time": 17, "tri')
    story = experiment_story(folder, "loss", "min")
    kinds = {key: (t.ending.kind, t.ending.cause) for key, t in by_id(story).items()}
    assert kinds["0"] == ("unfinished", "no end recorded")
    assert "torn" in caplog.text
    assert any("no end was recorded" in note for note in story.notes)
    assert not math.isnan(story.spent)


MISTAKES = {
    "no folder": (("nowhere",), {}, "is not a folder"),
    "empty": (("empty", "loss", "min"), {}, "no Ray Tune experiment"),
    "no objective": (("sweep",), {}, r"does not say what it optimises.*loss"),
    "no mode": (("sweep", "loss"), {}, r"mode \(min or max\)"),
    "metric": (("sweep", "los", "min"), {}, "Did you mean 'loss'"),
    "time": (("sweep", "loss", "min"), {"time_attr": "stepp"}, "has the time 'stepp'"),
    "silent": (("silent", "loss", "min"), {}, "no trial that reported"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_says_what_there_is(name, tmp_path):
    """In one line."""
    (place, *rest), options, message = MISTAKES[name]
    sweep(tmp_path / "sweep")
    (tmp_path / "empty").mkdir()
    trial(tmp_path / "silent", "a0000", [])
    with pytest.raises(ExperimentError, match=message) as caught:
        experiment_story(tmp_path / place, *rest, **options)
    assert "\n" not in str(caught.value)


def test_a_moved_experiment_is_read_where_it_lies(tmp_path):
    """Nothing in it depends on where it was written."""
    sweep(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    story = experiment_story(str(tmp_path / "there"), "loss", "min")
    assert story.kept.checkpoint.startswith(str(tmp_path / "there"))


def test_two_reports_of_an_epoch_are_two(tmp_path):
    """Neither has been made again: the better one counts, as it does for `best_state`."""
    trial(tmp_path, "a0000", [3.0, 0.1], epoch=1)
    trial(tmp_path, "a0000", [0.5, 0.9], first=3, epoch=2)
    (story_trial,) = experiment_story(tmp_path, "loss", "min", time_attr="epoch").trials
    assert (story_trial.best_value, len(story_trial.curve)) == (0.1, 4)
