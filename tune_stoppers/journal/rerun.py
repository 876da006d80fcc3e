"""Run a rule again over what a journal says it saw: are the decisions the same?"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tune_stoppers.core import Decision, Rule
from tune_stoppers.journal.fold import fold, report_of
from tune_stoppers.journal.lines import BEGINS, RESTORED, Line
from tune_stoppers.rules.sweep.base import SweepRule
from tune_stoppers.track import Track


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


def rerun(rule: Rule | SweepRule[Any], lines: Iterable[Line], sign: int) -> Rerun:
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
    rule: Rule | SweepRule[Any], lines: Iterable[Line], sign: int
) -> Iterator[tuple[Line, Decision | None]]:
    """Each judged line with the decision made on it now; None where that is not to be known."""
    if isinstance(rule, Rule):
        return _by_trial(rule, lines, sign)
    return fold(rule, rule.init(), lines, sign)


def same(line: Line, decision: Decision, sign: int) -> bool:
    """Whether `decision` is the one in `line`; a thinned line has no words to compare."""
    if line["action"] != decision.action.value:
        return False
    return line.get("reason") in (None, decision.say(sign))


def _by_trial(
    rule: Rule, lines: Iterable[Line], sign: int
) -> Iterator[tuple[Line, Decision | None]]:
    tracks: dict[str, Track] = {}
    unsure: set[str] = set()
    for line in lines:
        if line.get("event") in (BEGINS, RESTORED):
            unsure |= tracks.keys()
        if "action" not in line:
            continue
        trial_id = line["trial"]
        track = tracks.setdefault(trial_id, Track(rule))
        kept, since, report = bool(line.get("checkpoint")), line.get("since"), report_of(line, sign)
        judged = track.update(report, checkpoint=kept, since_restore=since)
        if judged.event != line.get("event"):  # the stopper had begun this trial anew
            track = tracks[trial_id] = Track(rule)
            judged = track.update(report, checkpoint=kept, since_restore=since)
        yield line, None if trial_id in unsure else judged.decision
