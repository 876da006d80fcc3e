"""The order in which trials start is that in which they were chosen: with reused processes too."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.pausing_stage import on_disk
from tests.stand_ins.starting_stage import Stage
from tune_stoppers import (
    AutoScheduler,
    BoundASHAScheduler,
    FreezeThawScheduler,
    PromotionASHAScheduler,
)

NAMES = [f"t{number:02d}" for number in range(24)]
SCHEDULERS: Any = [AutoScheduler, PromotionASHAScheduler, FreezeThawScheduler]


def by_model(max_t: float, grace_period: float) -> BoundASHAScheduler:
    return BoundASHAScheduler(max_t, grace_period, drop="typical", order="model")


def loss_of(trial: Any) -> float:
    return float(int(trial.trial_id[1:]) * 7 % 24)


def run(ray: Stage, until: int = 10_000) -> None:
    """Each turn one trial reports, the one that has waited longest; steps 1, 2, 3 and the end."""
    steps: dict[str, int] = {}
    for _ in range(until):
        ray.turn()
        if not ray.running:
            if all(trial.is_finished() for trial in ray.trials):
                return
            continue
        trial = min(ray.running, key=lambda trial: steps.get(trial.trial_id, 0))
        step = steps[trial.trial_id] = steps.get(trial.trial_id, 0) + 1
        if ray.report(trial, step, loss_of(trial)) == "CONTINUE" and step == 3:
            ray.end(trial)


@pytest.mark.parametrize("make", SCHEDULERS)
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_who_is_chosen_first_starts_first(make: Any, reuse: bool, workers: int) -> None:
    """Nobody is passed over by those chosen later, new trials and promoted ones alike."""
    ray = Stage(make(9, 1), workers, reuse=reuse)
    ray.search_alg.set_finished()
    ray.add(*NAMES)
    run(ray)
    assert {trial.status for trial in ray.trials} == {"TERMINATED"}
    assert set(ray.started) == set(NAMES)
    assert ray.started == ray.chosen
    if make in (PromotionASHAScheduler, FreezeThawScheduler):
        assert not any(ray.waited)  # or the wait would be booked as the price of a resume


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_model_has_a_say_as_soon_as_eight_have_reported(reuse: bool, workers: int) -> None:
    """It is not the last ones only that it chooses: one at most is chosen ahead."""
    ray = Stage(by_model(9, 9), workers, reuse=reuse)
    ray.search_alg.set_finished()
    for number, name in enumerate(NAMES):
        ray.add(name, config={"lr": number})
    run(ray)
    assert ray.started[:9] == NAMES[:9]
    assert ray.started[9:] != NAMES[9:]


def test_a_second_process_goes_to_the_second_in_line() -> None:
    """Not again to the first, for which one is being made ready."""
    ray = Stage(BoundASHAScheduler(9, 9), 2, reuse=True)
    ray.add("a", "b", "c", "d")
    ray.turn()
    ray.turn()
    a, _, c, d = ray.trials
    ray.report(a, 1, 1.0)
    ray.end(a)
    assert ray.scheduler.choose_trial_to_run(ray) is c
    ray._resetting_trials.append(c)
    assert ray.scheduler.choose_trial_to_run(ray) is d
    ray._resetting_trials.append(d)
    assert ray.scheduler.choose_trial_to_run(ray) is c  # none else waits


# -- after a restore, where Ray adds the trials in the order of a set ------------------------------


def staged(scheduler: Any, folder: Path, trials: dict[str, dict[str, Any]]) -> Stage:
    """One worker, and these trials in this order, as Ray adds them."""
    ray = Stage(pickle.loads(pickle.dumps(scheduler)), 1, reuse=False)
    ray.search_alg.set_finished()
    storage = on_disk(folder)
    for name, more in trials.items():
        number = int(name[1:])
        tag, config = f"{number}_lr={number}", {"lr": float(number)}
        ray.add(name, experiment_tag=tag, config=config, storage=storage, **more)
    return ray


def restored(scheduler: Any, folder: Path, before: Stage) -> Stage:
    """After a kill: in another order, and whoever had not ended is pending."""
    before.scheduler._memory.flush()
    ran = {trial.trial_id: trial for trial in before.trials}
    more = {
        name: {
            "status": ran[name].status if ran[name].is_finished() else "PENDING",
            "last_result": dict(ran[name].last_result),
        }
        for name in sorted(NAMES, key=lambda name: int(name[1:]) * 11 % 24)
    }
    return staged(scheduler, folder, more)


@pytest.mark.parametrize(
    ("make", "before_it", "after_it"),
    [
        (AutoScheduler, 2, 3),  # its model has a say from the fifth trial on
        (PromotionASHAScheduler, 4, 7),
        (FreezeThawScheduler, 4, 7),
        (BoundASHAScheduler, 4, 7),
    ],
)
def test_after_a_restore_new_trials_start_in_the_order_given(
    make: Any, before_it: int, after_it: int, tmp_path: Path
) -> None:
    """While the model has no say yet; those that had been started come first."""
    scheduler = make(9, 1)
    before = staged(scheduler, tmp_path, {name: {} for name in NAMES})
    run(before, until=before_it)
    after = restored(scheduler, tmp_path, before)
    run(after, until=after_it)
    assert [trial.trial_id for trial in after.trials] == NAMES
    new = [name for name in after.started if name not in before.started]
    assert new == NAMES[len(before.started) :][: len(new)]
    assert len(new) >= 2


@pytest.mark.parametrize("broken_at", [12, 21, 30])
def test_after_a_restore_the_model_chooses_as_if_there_had_been_none(
    broken_at: int, tmp_path: Path
) -> None:
    """The same trials in the same order; one chosen ahead is not forgotten."""
    scheduler = by_model(9, 9)
    through = staged(scheduler, tmp_path / "through", {name: {} for name in NAMES})
    run(through)
    assert through.started != NAMES
    before = staged(scheduler, tmp_path / "broken", {name: {} for name in NAMES})
    run(before, until=broken_at)
    after = restored(scheduler, tmp_path / "broken", before)
    run(after)
    again = [name for name in after.started if name not in before.started]
    assert before.started + again == through.started
