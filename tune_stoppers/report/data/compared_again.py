"""Compare the trials of a journal again: does `AutoScheduler`'s model expect what it said?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tune_stoppers.comparisons import EXPECTED, PAUSED, Said, compare, numbers_of, text_of
from tune_stoppers.core import Decision
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.lines import (
    CONFIG,
    ENDED,
    GIVEN_UP,
    LOST,
    RESTORED,
    RESUMED,
    STARTED,
    TRIAL,
    UNJUDGED,
    Line,
)
from tune_stoppers.journal.rerun import UNFIT, Difference, Rerun
from tune_stoppers.report.data.journalled import AT_ONCE, why_of
from tune_stoppers.rules.sweep.expected_improvement import ExpectedImprovement
from tune_stoppers.surrogate.acquisition.expected_improvement import ExpectedImprovementAcquisition

BEGINS_WITH = EXPECTED.split("{", maxsplit=1)[0]
GONE = "TERMINATED"


@dataclass
class Known:
    """A trial of the journal, so far as it was read."""

    trial_id: str
    config: Mapping[str, Any]
    status: str = PAUSED  # or `GONE`: who has a worker is in the record

    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self.status == GONE


def compare_again(rule: ExpectedImprovement, lines: Iterable[Line], sign: int) -> Rerun:
    """Make every comparison again that `lines` tell of: is the same trial chosen, as expected?

    Compared are the trial, and what is said of it in words. Sweeps that begin with a history are
    not checked, as the journal does not have it, nor what follows after a configuration that it
    could not write down. `ValueError` where the lines are not of this rule.
    """
    lines = list(lines)
    told = [line for line in lines if _says_expected(line)]
    if any("expected" in line.get("numbers", {}) for line in lines):
        return Rerun(0, len(told), ())
    try:
        judged = list(_again(rule, lines, sign))
    except UNFIT as error:
        raise ValueError(f"the journal is not of this rule: {error!r}") from error
    return Rerun(
        checked=sum(now is not None for _, now in judged),
        unsure=sum(now is None for _, now in judged),
        differing=tuple(
            Difference(line, now)
            for line, now in judged
            if now is not None and _words(line) != now.say(sign)
        ),
    )


def _words(line: Line) -> str:
    """Why, without what goes before it: that a trial goes on at once, or the scheduler's name."""
    why = why_of(line)
    return why.partition(": ")[2] if line["event"] == GIVEN_UP else why.removeprefix(AT_ONCE)


def _says_expected(line: Line) -> bool:
    moves = (STARTED, RESUMED, GIVEN_UP)
    return line.get("event") in moves and BEGINS_WITH in why_of(line)


def _again(
    rule: ExpectedImprovement, lines: list[Line], sign: int
) -> Iterator[tuple[Line, Decision | None]]:
    """Each line that says what was expected, with what is now; None where it cannot be known."""
    record, model = rule.init(), ExpectedImprovementAcquisition()
    trials: dict[str, Known] = {}
    holds = any(line.get("event") == STARTED for line in lines)  # new trials, until they start
    last = _last_words(lines)
    life = 0  # how often the sweep was restored
    held: dict[str, Known] = {}
    knows = True  # all configurations, and who has been started
    for place, line in enumerate(lines):
        trial_id, event = line["trial"], line.get("event")
        if event == RESTORED:
            life += 1
            for trial in trials.values():  # failed ones, and ends that Ray's snapshot lacked
                if max(last.get(trial.trial_id, {-1: 0})) >= life:
                    trial.status = PAUSED
        if event in (TRIAL, CONFIG):
            knows = knows and "values" in line
            trials[trial_id] = Known(trial_id, line.get("values", {}))
            if holds and event == TRIAL:
                held[trial_id] = trials[trial_id]
        fit = line.get("numbers", {}).get("fit")
        if fit is not None:
            model.model.recall(fit)
        if _says_expected(line):
            begun = [trial for trial in trials.values() if trial.trial_id not in held]
            there = not _chosen_by_a_worker(line) and not trials[trial_id].is_finished()
            arrives = trials[trial_id] if there else None
            said = compare(model, rule, record, list(held.values()), begun, arriving=arrives)
            yield line, _expected(rule, said, trials[trial_id], line) if knows else None
        for _ in fold(rule, record, [line], sign):
            pass
        if "action" in line and trial_id in held:
            knows = False  # the journal does not say when it started
        if event in (STARTED, GIVEN_UP) or "action" in line:
            held.pop(trial_id, None)
        failed = event == LOST and place >= last.get(trial_id, {}).get(life, -1)
        ends = failed or event in (ENDED, UNJUDGED, GIVEN_UP)
        if ends and trial_id in trials:
            trials[trial_id].status = GONE


def _last_words(lines: list[Line]) -> dict[str, dict[int, int]]:
    """By trial and life of the sweep, the place of the last line before which it had not ended.

    One that failed may be tried again: at once, and then it may fail again, or after a restore.
    """
    last: dict[str, dict[int, int]] = {}
    life = 0
    for place, line in enumerate(lines):
        life += line.get("event") == RESTORED
        if "action" in line or line.get("event") in (STARTED, RESUMED, LOST):
            last.setdefault(line["trial"], {})[life] = place
    return last


def _chosen_by_a_worker(line: Line) -> bool:
    """Rather than at its own report."""
    return line["event"] != GIVEN_UP and not why_of(line).startswith(AT_ONCE)


def _expected(rule: ExpectedImprovement, said: Said[Known], trial: Known, line: Line) -> Decision:
    """What is expected of the trial, or of the one that should have been chosen."""
    if said.compared is None:
        return rule.keep("nothing could be compared")
    mine = said.compared.of(said.trials.index(trial))
    best = said.compared.best
    if line["event"] == GIVEN_UP and mine is not None:
        words = why_of(line).partition(BEGINS_WITH)
        text = EXPECTED + "".join(words[2].partition(" to pass it")[2])
        return rule.stop(text, **numbers_of(mine))
    if said.trials[best.place] is not trial:
        text = "{other} is worth more: " + text_of(best)
        return rule.keep(text, other=said.trials[best.place].trial_id, **numbers_of(best))
    return rule.keep(text_of(best), **numbers_of(best))
