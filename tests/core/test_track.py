"""Rewinds: which state a trial goes on from when its time runs backwards."""

import pickle

import pytest
from hypothesis import given

from tests.stand_ins.strategies import arrivals
from tune_stoppers.core import Action, Report
from tune_stoppers.core.track import KEPT_STATES, Track
from tune_stoppers.rules import Patience

NEVER = 99


def run(track, *arrivals_):
    """Feed (step, loss[, checkpoint[, since_restore]]); the judgements."""
    judged = []
    for step, loss, *rest in arrivals_:
        checkpoint, since = [*rest, False, None][:2] if len(rest) < 2 else rest
        report = Report("t", step, loss)
        judged.append(track.update(report, checkpoint=checkpoint, since_restore=since))
    return judged


def bad(track):
    """Evaluations without improvement, as the rule counts them now."""
    return track.state.own.bad


def test_a_repeated_last_report_changes_nothing():
    """Ray repeats a function trainable's last report: same decision, same count."""
    track = Track(Patience(2))
    *_, first, again = run(track, (1, 1.0), (2, 2.0), (3, 2.0), (3, 2.0))
    assert first.decision == again.decision
    assert (bad(track), again.event) == (2, "repeat")


def test_a_rewind_goes_back_to_the_newest_checkpoint_below_the_step():
    """Restarted from its checkpoint at 3, the trial counts on from what it had there."""
    track = Track(Patience(NEVER))
    run(track, (1, 1.0, True), (2, 2.0), (3, 2.0, True), (4, 2.0), (5, 2.0, True))
    (judged,) = run(track, (4, 2.0))
    assert judged.event == "rewind"
    assert not judged.warn
    assert bad(track) == 3  # steps 2, 3 and 4


def test_the_state_at_the_step_itself_is_not_below_it():
    """Reporting step 3 again means that the trial restarted from before 3."""
    track = Track(Patience(NEVER))
    run(track, (1, 1.0, True), (2, 2.0), (3, 2.0, True), (4, 2.0))
    run(track, (3, 2.0))
    assert bad(track) == 1  # step 3 alone: the newest checkpoint before it was at 1


def test_without_a_checkpoint_a_trial_restarts_from_nothing():
    """A trial that begins anew has no best and no count from before."""
    track = Track(Patience(2))
    *_, judged = run(track, (1, 1.0), (2, 2.0), (3, 2.0), (1, 5.0))
    assert judged.decision.action is Action.CONTINUE
    assert judged.decision.reason == "improved to 5"


def test_checkpoints_of_an_abandoned_future_are_forgotten():
    """After a rewind to 2, a checkpoint once written at 4 is no state to come back to."""
    track = Track(Patience(NEVER))
    run(track, (1, 1.0, True), (2, 2.0, True), (3, 2.0, True), (4, 2.0, True), (5, 2.0))
    run(track, (3, 0.5), (4, 2.0), (5, 2.0), (6, 2.0))  # the run again from 2, best at 3
    run(track, (5, 2.0))  # and again from 2: 4's first life is over
    assert track.state.own.best == 1.0
    assert bad(track) == 2  # steps 2 and 5


def test_the_eight_newest_checkpoints_are_kept():
    """An older one leads back to the beginning."""
    assert KEPT_STATES == 8
    steps = range(1, 12)
    for back, count in ((KEPT_STATES, 3), (KEPT_STATES + 1, 0)):
        track = Track(Patience(NEVER))
        run(track, *((step, float(step), True) for step in steps))
        oldest = 11 - back + 1
        run(track, (oldest + 1 if count else oldest, 99.0))
        assert bad(track) == (oldest if count else 0)


def test_a_repeated_report_with_a_checkpoint_is_kept_once():
    """Duplicates push no other checkpoint out."""
    track = Track(Patience(NEVER))
    run(track, (1, 1.0, True), *[(2, 2.0, True)] * 10)
    run(track, (2, 2.0, True), (3, 2.0), (2, 2.0))
    assert bad(track) == 1


def test_a_clock_that_runs_back_is_ignored_with_one_warning():
    """While iterations_since_restore grows, the trial did not restart."""
    track = Track(Patience(2))
    judged = run(
        track, (1, 1.0, False, 1), (5, 2.0, False, 2), (3, 2.0, False, 3), (2, 2.0, False, 4)
    )
    assert [j.event for j in judged] == [None, None, "out of order", "out of order"]
    assert [j.warn for j in judged] == [False, False, True, False]
    assert bad(track) == 1
    assert judged[-1].decision == judged[1].decision


def test_an_ignored_report_that_comes_twice_is_ignored_twice():
    """Ray repeats a last report with the same iterations_since_restore: that is no restart."""
    track = Track(Patience(9))
    judged = run(
        track,
        *((1, 1.0, True, 1), (2, 2.0, False, 2), (3, 2.0, False, 3)),
        *((2, 2.0, False, 4), (2, 2.0, False, 4)),
    )
    assert [j.event for j in judged[3:]] == ["out of order", "out of order"]
    assert bad(track) == 2


@pytest.mark.parametrize("since", [1, 3, None])
def test_a_count_that_does_not_grow_is_a_restart(since):
    """Fewer, as many or an unknown number of reports since the restart: a rewind."""
    track = Track(Patience(NEVER))
    run(track, (1, 1.0, True, 1), (2, 2.0, False, 2), (3, 2.0, False, 3))
    (judged,) = run(track, (2, 2.0, False, since))
    assert judged.event == "rewind"
    assert bad(track) == 1


def test_reports_without_the_metric_move_the_time_but_not_the_rule():
    """A restart shows in any report, also in one that the rule does not read."""
    track = Track(Patience(NEVER))
    run(track, (1, 1.0, True), (2, 2.0), (3, None))
    (judged,) = run(track, (2, None))
    assert judged.event == "rewind"
    assert bad(track) == 0


def test_a_finished_trial_keeps_nothing_for_rewinds():
    """Thousands of ended trials cost one state each."""
    ended, never_saved = Track(Patience(3)), Track(Patience(3))
    run(ended, *((step, 1.0, True) for step in range(1, 20)))
    run(never_saved, *((step, 1.0, False) for step in range(1, 20)))
    assert len(pickle.dumps(ended)) > len(pickle.dumps(never_saved))
    ended.finish()
    assert len(pickle.dumps(ended)) == len(pickle.dumps(never_saved))


@given(arrivals())
def test_a_trial_disturbed_decides_as_one_that_never_was(found):
    """From any restart, the track decides as a fresh one fed only what led to that point."""
    track = Track(Patience(2))
    kept: list[tuple[float, list[Report]]] = []  # what led to each checkpoint
    line: list[Report] = []  # what led to where the trial is now
    since = ignored = None
    for arrival in found:
        report, now = arrival.report, arrival.since_restore
        back = bool(line) and report.step < line[-1].step
        running = since is not None and now > since
        judged = track.update(report, checkpoint=arrival.checkpoint, since_restore=now)
        if back and (running or (report.step, now) == ignored):
            since, ignored = now, (report.step, now)
            assert judged.event == "out of order"
            continue
        if back:
            kept = [item for item in kept if item[0] < report.step]
            line = list(kept[-1][1]) if kept else []
        fresh = not line or report.step > line[-1].step
        line, since = [*line, report], now
        if arrival.checkpoint and (fresh or back):
            kept = [*kept, (report.step, line)][-KEPT_STATES:]
        undisturbed = Track(Patience(2))
        for earlier in line:
            expected = undisturbed.update(earlier).decision
        assert judged.decision == expected
        assert track.state == undisturbed.state
