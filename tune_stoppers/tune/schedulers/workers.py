"""Who has a worker and who waits for one, as far as a scheduler can tell.

Ray does not say how many trials fit into the cluster, nor which pending trial has been given its
place and is starting. Both can be inferred: from the most trials ever seen running at a time, and
from the order in which trials were asked for and others left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from tune_stoppers.tune.ray_internals.controller import takes_process
from tune_stoppers.tune.ray_internals.types import PENDING, RUNNING, Controller, Trial


@dataclass(slots=True)
class Place:
    """A trial that is pending or runs."""

    trial: Trial
    asked: float  # when it was first seen pending, seconds of the scheduler's clock
    chosen: bool  # by the scheduler; else it started by itself
    since: float | None = None  # when a worker came free for it; None: it still waits
    running: bool = False


class Workers:
    """The trials that are pending or run, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.most = 0  # trials seen running at a time
        self._ahead = 1  # how many may wait in line: doubled while the cluster takes them all

    def add(self, trial: Trial, now: float, *, chosen: bool) -> None:
        """The trial is pending from now on."""
        self.places.pop(trial.trial_id, None)
        since = now if len(self.places) < self.most else None
        self.places[trial.trial_id] = Place(trial, now, chosen, since)

    def look(self, now: float) -> list[str]:
        """See who has started; the ids of those that have left since the last look."""
        gone: list[Place] = []
        running = 0
        for trial_id, place in list(self.places.items()):
            status = place.trial.status
            if status == RUNNING:
                running += 1
                if not place.running and place.since is None:
                    place.since = place.asked  # there was a worker that had not been seen yet
                place.running = True
            elif status != PENDING:
                del self.places[trial_id]
                gone.append(place)
        if running > self.most:
            self.most = self._ahead = running
        for place in gone:
            if place.running:
                self._pass_on(now)
        return [place.trial.trial_id for place in gone]

    def _pass_on(self, now: float) -> None:
        """A worker came free: it goes to the first in line."""
        for place in self.places.values():
            if place.since is None and not place.running:
                place.since, self._ahead = now, 1
                return

    def since(self, trial_id: str) -> float | None:
        """When a worker came free for the trial; None if that is not known."""
        place = self.places.get(trial_id)
        return None if place is None else place.since

    @property
    def idle(self) -> bool:
        """Whether nothing runs or is pending."""
        return not self.places

    @property
    def free(self) -> int:
        """Workers that were seen at work and have nothing to do."""
        return max(self.most - len(self.places), 0)

    @property
    def room(self) -> bool:
        """Whether one more trial may be chosen: for a free worker, or to wait for the next one."""
        waiting = [p for p in self.places.values() if p.chosen and not p.running]
        in_line = sum(place.since is None for place in waiting)
        return self.free > 0 or in_line < self._ahead

    def for_process(self, controller: Controller, now: float) -> Trial | None:
        """The trial that is to get the process that another one has left; None if there is none.

        Under `reuse_actors` Ray gives such a process to the trial that is named. If a new choice
        were named instead, those chosen before it would be passed over by each later one.
        """
        for place in self.places.values():
            if not place.running and takes_process(controller, place.trial):
                place.since = now if place.since is None else place.since
                return place.trial
        return None

    def sort(self, key: Callable[[Trial], Any]) -> None:
        """Put them in another order."""
        self.places = dict(sorted(self.places.items(), key=lambda pair: key(pair[1].trial)))

    @property
    def next(self) -> Trial | None:
        """The chosen trial that has been pending longest; None if there is none."""
        pending = (p.trial for p in self.places.values() if p.chosen and not p.running)
        return next(pending, None)


def capacity(trial: Trial) -> int:
    """How many trials such as this one the cluster has room for; 0 in a replay."""
    request = getattr(trial, "placement_group_factory", None)
    if request is None or not ray.is_initialized():
        return 0
    there, needs = ray.cluster_resources(), request.required_resources
    return min((int(there.get(name, 0) / need) for name, need in needs.items() if need), default=0)
