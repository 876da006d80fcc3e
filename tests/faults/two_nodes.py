"""A sweep on a cluster of two nodes on this machine, of which one is gone in mid-sweep.

Usage: python -m tests.faults.two_nodes STORAGE SCHEDULER
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import ray
from ray import tune
from ray.cluster_utils import Cluster

from tune_stoppers import BoundASHAScheduler, PromotionASHAScheduler, RuleScheduler, rules

STEPS = 12
GONE_AT = 5  # the step at which a trial loses the node under it
FLOORS = [0.5, 0.1, 0.7, 0.2]
SCHEDULERS: dict[str, Any] = {
    "bound": lambda: BoundASHAScheduler(STEPS, grace_period=3),
    "promotion": lambda: PromotionASHAScheduler(STEPS, grace_period=6, pen=2),
    "rule": lambda: RuleScheduler(rules.Patience(4)),
}


def loss_of(floor: float, step: float) -> float:
    """A function of the trial and the step alone."""
    return floor + 1 / step


def train(config: dict[str, Any]) -> None:
    """Report a loss at each step, a checkpoint at every second, and on which node."""
    start, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = int(Path(folder, "step").read_text())
    for step in range(start + 1, STEPS + 1):
        time.sleep(0.15)
        result = {
            "loss": loss_of(config["floor"], step),
            "began_after": start,
            "node": ray.get_runtime_context().get_node_id(),
        }
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step))
            kept = tune.Checkpoint.from_directory(folder) if step % 2 == 0 else None
            tune.report(result, checkpoint=kept)


class Loss(tune.Callback):
    """Takes the node away when a trial on it has come to step `GONE_AT`."""

    take_away: ClassVar[Callable[[], None]]  # not pickled with the experiment
    done: ClassVar[bool] = False

    def __init__(self, node: str) -> None:
        self.node = node

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any):
        """Ray's call for each report."""
        here = result["node"] == self.node and result["training_iteration"] == GONE_AT
        if here and not Loss.done:
            Loss.done = True
            Loss.take_away()


def main(storage: str, name: str) -> None:
    """Run the sweep, and print how the trials ended."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    Loss.take_away = lambda: cluster.remove_node(second)
    results = tune.Tuner(
        train,
        param_space={"floor": tune.grid_search(FLOORS)},
        tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=SCHEDULERS[name]()),
        run_config=tune.RunConfig(
            name="exp",
            storage_path=storage,
            callbacks=[Loss(second.node_id)],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()
    last = {
        result.metrics["trial_id"]: {
            "floor": result.config["floor"],
            "step": result.metrics["training_iteration"],
            "began_after": result.metrics["began_after"],
            "node": result.metrics["node"],
        }
        for result in results
        if result.metrics and "trial_id" in result.metrics  # not of one that was never run
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"errors": results.num_errors, "gone": second.node_id, "trials": last}))


if __name__ == "__main__":
    from tests.faults import two_nodes  # by its name: what is in `__main__` Ray would pickle

    two_nodes.main(*sys.argv[1:])
