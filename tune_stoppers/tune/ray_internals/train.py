"""`FreeWorkers`: a Ray Train V2 run inside a Tune trial gives its resources back with the trial.

Everything private of Ray Train that this package touches is in this file.
"""

import time
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util.placement_group import remove_placement_group

HEAD_NODE = {"node:__internal_head__": 0.001}  # outlives the trial's node
LOOK_SECONDS = 1.0


class FreeWorkers(WorkerGroupCallback):
    """Gives the workers' resources back when the trial ends before its Ray Train run does.

    ::

        def train(config):  # the Tune function
            TorchTrainer(
                worker,
                scaling_config=ScalingConfig(num_workers=2),
                run_config=ray.train.RunConfig(callbacks=[TuneReportCallback(), FreeWorkers()]),
            ).fit()

    When Tune stops or pauses the trial, or loses it, the Ray Train run dies with it but its
    placement group stays: Ray's own clean-up asks the dashboard whether the run is alive, and
    without one (Ray 2.60 installed as `ray[tune]`) holds the workers' resources until the sweep
    ends. This one asks the run itself, from a detached actor on the head node that needs no CPU
    and exits with the run.
    """

    def __init__(self) -> None:
        self._guard: Any = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called by Ray Train, in its controller's process, whenever workers have started."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        if self._guard is None:
            self._guard = _guard_class().remote()
            self._guard.watch.remote(ray.get_runtime_context().current_actor)
        ray.get(self._guard.hold.remote(handle.placement_group))


class _Guard:
    """Removes placement groups once an actor is dead."""

    def __init__(self) -> None:
        self._groups: list[Any] = []

    def hold(self, group: Any) -> None:
        self._groups.append(group)

    def watch(self, actor: Any) -> None:
        while _lives(actor):
            time.sleep(LOOK_SECONDS)
        for group in self._groups:
            remove_placement_group(group)  # nothing happens to one that is gone already
        ray.actor.exit_actor()


def _guard_class() -> Any:
    """`_Guard` as an actor that outlives the trial; it watches while it is told of groups."""
    return ray.remote(
        num_cpus=0,
        lifetime="detached",
        max_concurrency=2,
        resources=HEAD_NODE,
        scheduling_strategy="DEFAULT",  # not in the trial's own placement group
    )(_Guard)


def _lives(actor: Any) -> bool:
    try:
        ray.get(actor.__ray_ready__.remote())  # an asyncio actor answers beside its work
    except RayActorError:
        return False
    return True
