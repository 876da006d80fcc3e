"""Run a rule again over what a journal says it saw: are the decisions the same?"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tune_stoppers.core import BaseRule, Decision, SweepRule
from tune_stoppers.core.track import Sessions
from tune_stoppers.journal.fold import fold, report_of
from tune_stoppers.journal.lines import BEGINS, ENDED, RESTORED, STOPPER, TRIAL, Line, asks_to_stop
from tune_stoppers.rules import DiminishingReturns, Forecast


class Difference(NamedTuple):
    """A decision that does not come out again."""

    line: Line
    decision: Decision  # made now


class Rerun(NamedTuple):
    """What came of running a rule again."""

    checked: int  # decisions
    unsure: int  # decisions whose state before is not in the journal
    differing: tuple[Difference, ...]


# what a rule raises at lines that are not its own
UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError)


def rerun(rule: BaseRule, lines: Iterable[Line], sign: int) -> Rerun:
    """Judge the reports in `lines` again, in their order; `sign` is -1 for a maximised metric.

    A stopper's states travel with Tune's own snapshots, which lag behind the journal: after a
    restore, decisions on trials that had reported before are not checked. `ValueError` where the
    lines are not of this rule.
    """
    try:
        judged = list(judge_again(rule, lines, sign))
    except UNFIT as error:
        raise ValueError(f"the journal is not of this rule: {error!r}") from error
    sure = [(line, decision) for line, decision in judged if decision is not None]
    differing = [
        Difference(line, decision) for line, decision in sure if not same(line, decision, sign)
    ]
    return Rerun(len(sure), len(judged) - len(sure), tuple(differing))


def judge_again(
    rule: BaseRule, lines: Iterable[Line], sign: int
) -> Iterator[tuple[Line, Decision | None]]:
    """Each judged line with the decision made on it now; None where that is not to be known."""
    lines = list(lines)
    # version 0.1 does not say; it had rules of these two kinds under stoppers alone
    by_stopper = any(line.get("by") == STOPPER for line in lines) or (
        isinstance(rule, (DiminishingReturns, Forecast))
        and not any(line.get("event") == TRIAL for line in lines)
    )
    if isinstance(rule, SweepRule) and not by_stopper:
        return fold(rule, rule.init(), lines, sign)
    return _by_session(rule, lines, sign)


def same(line: Line, decision: Decision, sign: int) -> bool:
    """Whether `decision` is the one in `line`; a thinned line has no words to compare."""
    if line["action"] != decision.action.value:
        return False
    return line.get("reason") in (None, decision.say(sign))


def _by_session(
    rule: BaseRule, lines: list[Line], sign: int
) -> Iterator[tuple[Line, Decision | None]]:
    """As a stopper asks it: one session a trial. It forgets what Tune's snapshot did not have."""
    sessions = Sessions(rule)
    ends = {(line["trial"], line.get("step")) for line in lines if line.get("event") == ENDED}
    known: set[str] = set()
    unsure: set[str] = set()
    for line in lines:
        trial_id, event = line["trial"], line.get("event")
        if event in (BEGINS, RESTORED):
            unsure |= known
        elif event == ENDED and sessions.of(trial_id).step == line.get("step"):
            sessions.of(trial_id).finish()
        if "action" not in line:
            continue
        known.add(trial_id)
        report, since = report_of(line, sign), line.get("since")
        kept = bool(line.get("checkpoint"))
        judged = sessions.of(trial_id).update(report, checkpoint=kept, since_restore=since)
        if judged.event != event:  # the stopper had begun this trial anew
            sessions.drop(trial_id)
            judged = sessions.of(trial_id).update(report, checkpoint=kept, since_restore=since)
        if (trial_id, line["step"]) in ends:
            sessions.of(trial_id).finish()  # as live: before it is known to have been stopped
        if asks_to_stop(line):
            sessions.of(trial_id).cut(report)
        shared = isinstance(rule, SweepRule) and bool(unsure)
        yield line, None if shared or trial_id in unsure else judged.decision
