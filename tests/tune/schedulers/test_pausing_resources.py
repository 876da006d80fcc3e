"""Trials that Ray's `ResourceChangingScheduler` interrupts, around the schedulers that pause."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import ResourceChangingScheduler

from tests.stand_ins.pausing_stage import StandIn
from tests.tune.schedulers.test_promotion_asha_ray import journal, paths, statuses
from tune_stoppers import AutoScheduler, FreezeThawScheduler, PromotionASHAScheduler

# below rung 3 they let every trial pass
PAUSING = [
    lambda: PromotionASHAScheduler(9, 3),
    lambda: FreezeThawScheduler(9, 3),
    lambda: AutoScheduler(9, 3),
]


def with_gpus(count: int) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"GPU": count}])


def interrupt(ray: StandIn, name: str) -> None:
    """As Ray does at a report that our scheduler let pass."""
    ray.trial(name).status = "PAUSED"


@pytest.mark.parametrize("make", PAUSING)
def test_an_interrupted_trial_goes_on_before_any_other_starts(make: Any) -> None:
    """The rule does not know that it waits, and would never name it."""
    ray = StandIn(make())
    ray.add("a", "b")
    assert ray.start() == "a"
    assert ray.report("a", 1, 1.0) == "CONTINUE"
    interrupt(ray, "a")
    assert ray.start() == "a"
    assert ray.report("a", 2, 1.0) == "CONTINUE"
    assert ray.start() == "b"


def test_an_interrupted_trial_that_is_dropped_is_named_no_more() -> None:
    """A user may have it stopped while it waits."""
    ray = StandIn(PAUSING[0]())
    ray.add("a", "b")
    assert ray.start() == "a"
    interrupt(ray, "a")
    ray.scheduler._look(0.0)  # as at Ray's next turn
    ray.stop_trial(ray.trial("a"))
    assert ray.start() == "b"


def test_an_interruption_is_no_usual_pace() -> None:
    """The cost of a resume is reckoned in units of undisturbed training."""
    ray = StandIn(PAUSING[0]())
    ray.add("a")
    assert ray.start() == "a"
    for step in (0.5, 1, 1.5):
        ray.now += 1
        ray.report("a", step, 1.0)
    interrupt(ray, "a")
    ray.now += 1000
    assert ray.start() == "a"
    ray.report("a", 2, 1.0)
    ray.now += 1
    ray.report("a", 2.5, 1.0)
    meter = ray.scheduler._live.pace
    assert meter._seconds / meter._units == 2.0


@pytest.mark.parametrize(("others", "gpus"), [(["d"], 1), ([], 4)])
def test_a_trial_that_waited_at_a_rung_asks_for_what_it_first_asked_for(
    others: list[str], gpus: int
) -> None:
    """While others run it would wait until as much is free again; alone it keeps what it has."""
    ray = StandIn(PromotionASHAScheduler(9, 1, pen=3))
    ray.add("a", "b", "c", *others, placement_group_factory=with_gpus(1))
    for name, loss in (("a", 1.0), ("b", 2.0)):
        assert ray.start() == name
        ray.trial(name).placement_group_factory = with_gpus(4)
        assert ray.report(name, 1, loss) == "PAUSE"
    assert ray.start() == "c"
    assert [ray.start() for _ in others] == others
    assert ray.report("c", 1, 3.0) == "PAUSE"
    assert ray.start() == "a"
    assert ray.trial("a").placement_group_factory == with_gpus(gpus)


def train(config: dict[str, Any]) -> None:
    """Falls to its floor and reports the CPUs it has, each time with a checkpoint."""
    step, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step = json.loads(Path(folder, "step.json").read_text())
    cpus = tune.get_context().get_trial_resources().required_resources["CPU"]
    while True:
        step += 1
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step))
            report = {"loss": config["floor"] + 1 / step, "cpus": cpus}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_the_survivor_gets_what_the_others_have_left(tmp_path: Path) -> None:
    """Those that wait at a rung hold no CPU; nobody starts over, and nobody is left waiting."""
    results = tune.Tuner(
        train,
        param_space={"floor": tune.grid_search([0.0, 1.0, 2.0])},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            scheduler=ResourceChangingScheduler(PromotionASHAScheduler(9, 1, pen=3)),
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not results.errors
    assert statuses(tmp_path) == {"TERMINATED"}
    ends = {
        r.config["floor"]: (r.metrics["training_iteration"], r.metrics["cpus"]) for r in results
    }
    assert ends == {0.0: (9, 2.0), 1.0: (1, 1.0), 2.0: (1, 1.0)}
    assert all(seen == list(range(1, len(seen) + 1)) for seen in paths(journal(tmp_path)))
