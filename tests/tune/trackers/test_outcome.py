"""The status and the reason that trackers get, from a result and the decisions on it."""

import pytest

from tune_stoppers.core import Action, Decision
from tune_stoppers.tune.announcing import Verdict
from tune_stoppers.tune.trackers.outcome import NO_REASON, Outcome, status_at


def verdict(action, **how):
    """A decision of a stopper called Owner."""
    return Verdict("t", "Owner", Decision(action, "{x:loss} seen", "R", {"x": 2.0}), -1, 1, **how)


@pytest.mark.parametrize(
    ("result", "verdicts", "expected"),
    [
        ({}, [], ("not stopped", "")),
        ({}, [verdict(Action.CONTINUE)], ("not stopped", "")),
        ({"stop_reason": "A: why", "done": True}, [verdict(Action.STOP)], ("stopped", "A: why")),
        ({"done": True}, [], ("stopped", NO_REASON)),
        ({}, [verdict(Action.PAUSE, paused=True)], ("paused", "Owner: -2 seen")),
        ({}, [verdict(Action.PAUSE)], ("not stopped", "")),
        ({}, [verdict(Action.STOP, dry_run=True)], ("would stop", "Owner: -2 seen")),
        ({}, [verdict(Action.PAUSE, dry_run=True)], ("would stop", "Owner: -2 seen")),
        ({"would_stop_reason": "A: why"}, [], ("would stop", "A: why")),
        ({}, [verdict(Action.STOP, early=True)], ("not stopped", "")),
    ],
)
def test_the_status_is_of_what_was_done(result, verdicts, expected):
    """A decision that was not taken is no stop."""
    assert status_at(result, verdicts) == expected


def test_an_outcome_has_words_and_numbers_apart():
    """A run that was not stopped has no reason, rather than an empty one."""
    assert Outcome("not stopped").words == {"stop_status": "not stopped"}
    assert Outcome("not stopped").metrics == {"stopped": 0.0}
    stopped = Outcome("stopped", "why", 3, {"Owner/best": 1.5})
    assert stopped.words == {"stop_status": "stopped", "stop_reason": "why"}
    assert stopped.metrics == {"stopped": 1.0, "Owner/best": 1.5}
