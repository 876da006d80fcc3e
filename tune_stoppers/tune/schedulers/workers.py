"""Who has a worker and who waits for one, as far as a scheduler can tell.

Ray does not say how many trials it will run at a time, nor which pending trial has been given a
worker and is starting. Both can be inferred: from the most trials ever seen running at a time and
what the cluster has free, and from the order in which trials were asked for and others left.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from tune_stoppers.tune.ray_internals.controller import request_of, takes_process
from tune_stoppers.tune.ray_internals.types import PENDING, RUNNING, Controller, Trial

FIRST = 8  # trials that may be chosen before there is much to choose by
LOOK_EVERY = 1.0  # seconds between two looks at what a full cluster has free


@dataclass(slots=True)
class Slot:
    """A trial that has a worker or waits for one."""

    trial: Trial
    chosen: bool  # by the scheduler; else it started by itself
    since: float | None = None  # when a worker came free for it, seconds of the scheduler's clock;
    # None: it still waits, or that is not known
    presumed: bool = False  # there only seemed to be room for it
    running: bool = False


class Workers:
    """The trials that are pending or run, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.most = 0  # trials seen running at a time
        self.limit = 0  # how many may run at a time by the user's wish; 0: as many as can
        self.given: int | None = None  # that can run at a time, as a replay says; None: ask Ray
        self.trials = 0  # of the sweep, as far as they are known
        self._ahead = 1  # how many may wait in line
        self._sizes: dict[str, int] = {}  # trials that the cluster could run first, by request
        self._now = -math.inf  # of the last look
        self._full_until = -math.inf  # the cluster is not looked at again before
        self._room = 0  # trials that it was seen to have room for, all together

    def add(self, trial: Trial, now: float, *, chosen: bool) -> None:
        """The trial is pending from now on."""
        self.slots.pop(trial.trial_id, None)
        presumed = self.most <= len(self.slots) < self._room
        since = now if presumed or len(self.slots) < self.most else None
        self.slots[trial.trial_id] = Slot(trial, chosen, since, presumed)

    def look(self, now: float) -> list[str]:
        """See who has started; the ids of those that have left since the last look."""
        self._now = now
        gone: list[Slot] = []
        running = 0
        for trial_id, slot in list(self.slots.items()):
            status = slot.trial.status
            if status == RUNNING:
                running += 1
                slot.running = True
            elif status != PENDING:
                del self.slots[trial_id]
                gone.append(slot)
        if running > self.most:
            self.most = running
            self._ahead = running if self._grows() else self._first_ones(running)
        for slot in gone:
            if slot.running:
                self._pass_on(now)
        return [slot.trial.trial_id for slot in gone]

    def _grows(self) -> bool:
        """Whether the cluster may take as many again: it has grown before, or its size is unknown.

        An autoscaler adds nodes for those that wait in line; one at a time would be slow.
        """
        if self.given is not None:
            return False
        like = next(slot.trial for slot in self.slots.values() if slot.running)
        size = capacity(like)
        if not size:
            return True
        request = request_of(like)
        asked = str(None if request is None else sorted(request.required_resources.items()))
        return size > self._sizes.setdefault(asked, size)

    def _first_ones(self, running: int) -> int:
        """How many may wait where the cluster stays as it is: as many as run, while they are few.

        What is learnt of the first ones is worth more than choosing among fewer; of more than
        `FIRST`, or half of the sweep, it is not (`benchmarks.small_sweeps`).
        """
        return max(min(FIRST - running, self.trials // 2 - running, running), 1)

    def _pass_on(self, now: float) -> None:
        """A worker came free: it goes to the first in line."""
        for slot in self.slots.values():
            if not slot.running and (slot.since is None or slot.presumed):
                slot.since, slot.presumed, self._ahead = now, False, 1
                return

    def since(self, trial_id: str) -> float | None:
        """When a worker came free for the trial; None if that is not known."""
        slot = self.slots.get(trial_id)
        return None if slot is None else slot.since

    @property
    def idle(self) -> bool:
        """Whether nothing runs or is pending."""
        return not self.slots

    @property
    def free(self) -> int:
        """Workers that were seen at work and have nothing to do."""
        return max(self.most - len(self.slots), 0)

    @property
    def room(self) -> bool:
        """Whether one more trial may be chosen: for a free worker, or to wait for the next one."""
        if self.limit and len(self.slots) >= self.limit:
            return False
        waiting = [p for p in self.slots.values() if p.chosen and not p.running]
        in_line = sum(slot.since is None for slot in waiting)
        return self.free > 0 or self._cluster_has_room() or in_line < self._ahead

    def _cluster_has_room(self) -> bool:
        """Whether one more trial could start by now: many take long to, and all at the same time.

        Without this the second would be asked for when the first is there, then two more, and so
        on. What Ray has free is a sum: in pieces too small for a trial, or soon taken by others, it
        looks like room and is none. Then some are asked for too early, at most as many as the
        cluster would hold by itself.
        """
        if self.given is not None:
            self._room = self.given
            return len(self.slots) < self.given
        if self._now < self._full_until or not self.slots:
            return False
        like = next(reversed(self.slots.values())).trial
        has = capacity(like) > len(self.slots) and capacity(like, free=True) > 0
        self._room = len(self.slots) + 1 if has else 0
        if not has:
            self._full_until = self._now + LOOK_EVERY
        return has

    def room_for_such(self, trial: Trial) -> int:
        """How many trials such as this one can run at a time, as far as is known."""
        room = max(self.most, capacity(trial) if self.given is None else self.given)
        return min(room, self.limit) if self.limit else room

    def for_process(self, controller: Controller, now: float) -> Trial | None:
        """The trial that is to get the process that another one has left; None if there is none.

        Under `reuse_actors` Ray gives such a process to the trial that is named. If a new choice
        were named instead, those chosen before it would be passed over by each later one.
        """
        for slot in self.slots.values():
            if not slot.running and takes_process(controller, slot.trial):
                slot.since = now if slot.since is None else slot.since
                return slot.trial
        return None

    def sort(self, key: Callable[[Trial], Any]) -> None:
        """Put them in another order."""
        self.slots = dict(sorted(self.slots.items(), key=lambda pair: key(pair[1].trial)))

    @property
    def next(self) -> Trial | None:
        """The chosen trial that has been pending longest; None if there is none."""
        pending = (p.trial for p in self.slots.values() if p.chosen and not p.running)
        return next(pending, None)


def capacity(trial: Trial, *, free: bool = False) -> int:
    """How many trials such as this one the cluster has room for, or has it free; 0 without Ray."""
    request = request_of(trial)
    if request is None or not ray.is_initialized():
        return 0
    there = ray.available_resources() if free else ray.cluster_resources()
    needs = request.required_resources
    return min((int(there.get(name, 0) / need) for name, need in needs.items() if need), default=0)
