"""One warning where a horizon is in another unit than the time of the trials, while they run."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tune_stoppers.metrics import logger
from tune_stoppers.rules.horizon import ENOUGH, FAR, Seen, glance, max_t_of, misfit

MARK = "tune_stoppers_horizon"  # of the warning among the log's records
FOLLOWED = 64  # the first so many trials are looked at; what they do not show, more will not


class HorizonWatch:
    """Follows the first trials of a sweep, and says once that `max_t` does not fit their time.

    No decision depends on it.
    """

    def __init__(self, owner: str, rule: Any, time_attr: str, objective: str = "") -> None:
        self.note = ""  # what was said
        self._say = owner, objective
        self._max_t = max_t_of(rule)
        self._time_attr = time_attr
        self._seen: dict[str, Seen] = {}
        self._open = self._max_t is not None

    def reports(self, trial_id: str, time: float, result: Mapping[str, Any]) -> None:
        """The trial has made a report; `result` may be nested."""
        if not self._open:
            return
        seen = self._seen.get(trial_id)
        if seen is not None and seen.first.time > 0:
            if time > seen.longest:
                self._seen[trial_id] = seen._replace(longest=time)
        elif len(self._seen) < FOLLOWED or seen is not None:
            self._seen[trial_id] = Seen(glance(time, result, self._time_attr), time)
            self._look()

    def ends(self, trial_id: str, time: float, result: Mapping[str, Any], *, sure: bool) -> None:
        """The trial has ended, by itself or (not `sure`) by somebody who does not say so."""
        self.reports(trial_id, time, result)
        if self._open and trial_id in self._seen:
            end = glance(time, result, self._time_attr)
            self._seen[trial_id] = self._seen[trial_id]._replace(end=end, sure=sure)
            self._look()

    def _look(self) -> None:
        assert self._max_t is not None
        found = misfit(self._max_t, self._time_attr, self._seen.values())
        if found is not None:
            self.note = found.say(*self._say)
            logger.warning("%s", self.note, extra={MARK: True})
        longest = max(seen.longest for seen in self._seen.values())
        ended = sum(seen.end is not None for seen in self._seen.values())
        fits = ended >= ENOUGH and longest * FAR >= self._max_t
        if found is not None or fits or ended >= FOLLOWED:
            self._open = False
            self._seen = {}


def notes_of(*things: Any) -> Iterator[str]:
    """What schedulers and stoppers, the members of an `AnyOf` among them, have warned of."""
    for thing in things:
        if note := getattr(thing, "horizon_note", ""):
            yield str(note)
        yield from notes_of(*getattr(thing, "stoppers", ()))


@contextmanager
def told_later() -> Iterator[None]:
    """Without that warning in the log: the caller says the same elsewhere."""

    def is_another(record: logging.LogRecord) -> bool:
        return not hasattr(record, MARK)

    logger.addFilter(is_another)
    try:
        yield
    finally:
        logger.removeFilter(is_another)
