"""Rules run again over a journal's reports."""

import json
import math
from typing import Any

import pytest

from tests.test_contract import RULES
from tune_stoppers.core import Report
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.core.track import Track
from tune_stoppers.journal.lines import (
    ENDED,
    FORGOT,
    LOST,
    Line,
    as_text,
    event_line,
    line_of,
    thinned,
)
from tune_stoppers.journal.rerun import rerun
from tune_stoppers.journal.spec import from_spec, to_spec
from tune_stoppers.rules import Patience
from tune_stoppers.rules.sweep.bound_asha import BoundASHA

LOSSES = [1.0, 0.5, 0.25, math.nan, 0.3, 0.3, 0.2, math.inf, 0.2, 0.2, 0.2, 60.0]


def read_back(lines: list[Line]) -> list[Line]:
    """As they come out of a file."""
    return [json.loads(as_text(line)) for line in lines]


def by_stopper(rule: Any, sign: int = 1) -> list[Line]:
    """The journal of a stopper: two trials in turn, the second goes back once."""
    tracks, lines = {"a": Track(rule), "b": Track(rule)}, []
    steps = [("a", i) for i in range(12)] + [("b", i) for i in (0, 1, 2, 3, 4, 2, 3, 4, 5)]
    since: dict[str, int] = {"a": 0, "b": 0}
    for trial, step in steps:
        since[trial] = 1 if (trial, step) == ("b", 2) and since["b"] == 5 else since[trial] + 1
        metrics = {"grad_norm": 1 / (1 + step), "lr": 0.1} | dict.fromkeys(TOTALS, 10.0 * step)
        report = Report(trial, step, LOSSES[step], metrics)
        kept = step % 2 == 1
        judged = tracks[trial].update(report, checkpoint=kept, since_restore=since[trial])
        seen = {"metrics": metrics, "since": since[trial], "checkpoint": kept and "checkpoint_1"}
        value = sign * LOSSES[step]
        lines.append(
            line_of("S", trial, step, value, judged.decision, sign=sign, event=judged.event, **seen)
        )
    return read_back(lines)


TOTALS = ("trial_active_seconds", "sweep_active_seconds", "sweep_seconds")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_stoppers_decisions_come_out_again(rule: Any, sign: int) -> None:
    """Every rule, built again from its spec, with a rewind, in either direction, also thinned."""
    lines = by_stopper(rule, sign)
    assert any(line.get("event") == "rewind" for line in lines)
    again = from_spec(json.loads(json.dumps(to_spec(rule))))
    assert rerun(again, lines, sign) == (21, 0, ())
    assert rerun(again, [thinned(line) for line in lines], sign) == (21, 0, ())


def by_scheduler(rule: Any) -> list[Line]:
    """The journal of a scheduler: eight trials side by side, one lost, one forgotten."""
    record, lines = rule.init(), [event_line("S", "", "begins", sign=1)]
    stopped = set()
    for step in range(1, 28):
        for place in range(8):
            trial = f"t{place}"
            if trial in stopped:
                continue
            report = Report(trial, step, place / 8 + (1 + place / 9) / step)
            decision = rule.update(record, report)
            lines.append(line_of("S", trial, step, report.loss, decision))
            if decision.action.value == "STOP":
                stopped.add(trial)
                rule.ended(record, report)
                lines.append(event_line("S", trial, ENDED, step=step, value=report.loss))
        if step == 2:
            rule.lost(record, "t1")
            lines.append(event_line("S", "t1", LOST))
            rule.forget(record, ["t2"])
            lines.append(event_line("S", "", FORGOT, trials=["t2"]))
    assert stopped
    return read_back(lines)


SWEEP_RULES = [
    BoundASHA(max_t=27),
    BoundASHA(max_t=27, audit=3, drop="typical"),
    PerTrial(Patience(2, 0.05)),
]


@pytest.mark.parametrize("rule", SWEEP_RULES, ids=["bound", "audited", "patience"])
def test_a_schedulers_decisions_come_out_again(rule: Any) -> None:
    """With what happened to the trials between their reports."""
    lines = by_scheduler(rule)
    again = rerun(rule, lines, 1)
    assert again.checked == sum("action" in line for line in lines)
    assert not again.differing


def test_what_differs_is_shown() -> None:
    """A line that was tampered with, or a rule that decides otherwise: with the decision now."""
    lines = by_stopper(Patience(3))
    place = next(i for i, line in enumerate(lines) if line["action"] == "STOP")
    lines[place] |= {"action": "CONTINUE"}
    lines[0] |= {"reason": "because"}
    found = rerun(Patience(3), lines, 1).differing
    assert [difference.line for difference in found] == [lines[0], lines[place]]
    assert found[1].decision.action.value == "STOP"
    assert rerun(Patience(2), by_stopper(Patience(3)), 1).differing


def test_a_trial_that_went_on_after_a_restore_is_not_sure() -> None:
    """A stopper's state comes from Tune's own snapshot then, which may be older."""
    lines = by_stopper(Patience(3))
    cut = next(i for i, line in enumerate(lines) if line["trial"] == "b")
    restored = [*lines[:5], event_line("S", "", "restored"), *lines[5:]]
    again = rerun(Patience(3), restored, 1)
    assert (again.checked, again.unsure) == (5 + len(lines) - cut, cut - 5)


def test_a_stopper_that_begins_a_trial_anew_is_followed() -> None:
    """`BudgetStopper` forgets a trial with every result: none is out of order."""
    rule, lines = RULES["budget of a trial"], []
    for step, seconds in ((5, 0.5), (2, 2.0)):
        metrics = {"trial_active_seconds": seconds}
        _, decision = rule.update(rule.init(), Report("t", step, None, metrics))
        seen = {"metrics": metrics, "since": 5 + len(lines)}
        lines.append(line_of("BudgetStopper", "t", step, None, decision, **seen))
    assert [line["action"] for line in lines] == ["CONTINUE", "STOP"]
    assert rerun(rule, read_back(lines), 1) == (2, 0, ())


def test_lines_of_another_rule_are_refused() -> None:
    """One clear error."""
    rule = Patience(3, lr_metric="lr")
    judged = {"action": "STOP", "trial": "t", "step": 1}
    lines = [{"trial": "t", "event": FORGOT}, judged | {"metrics": [1]}]
    lines += [judged | {"value": value} for value in ("x", 10**400)]
    for line in lines:
        with pytest.raises(ValueError, match="is not of this rule"):
            rerun(PerTrial(rule), [line], 1)
