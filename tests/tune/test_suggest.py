"""Configurations to begin with: promising by earlier sweeps, different, and such as Ray takes."""

import logging

import numpy as np
import pytest
from ray import tune

from tune_stoppers import suggest
from tune_stoppers.history import History

SPACE = {
    "optimizer": {"lr": tune.loguniform(1e-6, 1.0), "name": "adamw"},
    "lora_rank": tune.choice([2, 4, 8, 16, 32]),
    "alpha": tune.sample_from(lambda spec: 2 * spec.config.lora_rank),
    "schedule": tune.grid_search(["cosine", "constant"]),
    "epochs": 3,
}


def test_they_are_where_earlier_sweeps_did_well_and_differ():
    """Recorded LoRA fine-tunes: rates around 1e-3, several of them, and several ranks."""
    points = suggest("lora", SPACE, 8)
    rates = [point["optimizer"]["lr"] for point in points]
    assert len(points) == 8
    assert min(rates) > 1e-4
    assert max(rates) < 2e-2
    assert np.ptp(np.log10(rates)) > 0.3
    assert len({point["lora_rank"] for point in points}) > 1


def test_what_the_space_leaves_open_is_given_nested_as_it_is():
    """Grids too; constants, and values that follow from others, are left to the space."""
    for point in suggest("lora", SPACE, 3):
        assert point.keys() == {"optimizer", "lora_rank", "schedule"}
        assert point["optimizer"].keys() == {"lr"}


def test_ray_takes_them(tmp_path, ray_session):
    """As the first trials of a sweep, exactly."""
    points = suggest(History.of("lora"), SPACE, 2)

    def train(config):
        tune.report({"loss": 1.0, "lr": config["optimizer"]["lr"], "rank": config["lora_rank"]})

    results = tune.Tuner(
        train,
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            num_samples=2,
            search_alg=tune.search.BasicVariantGenerator(points_to_evaluate=points),
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="s", verbose=0),
    ).fit()
    seen = [(result.metrics["lr"], result.metrics["rank"]) for result in results]
    assert sorted(seen) == sorted((p["optimizer"]["lr"], p["lora_rank"]) for p in points)


def test_the_same_seed_gives_the_same():
    """And Ray's own random numbers are not touched."""
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    assert suggest("lora", SPACE, 4) == suggest("lora", SPACE, 4)
    assert np.random.get_state()[1].tolist() == before
    assert suggest("lora", SPACE, 4) != suggest("lora", SPACE, 4, seed=1)


def test_a_small_space_gives_what_it_has():
    """Each configuration once."""
    points = suggest("lora", {"lora_rank": tune.grid_search([4, 8, 16])}, 10)
    assert sorted(point["lora_rank"] for point in points) == [4, 8, 16]


def test_a_history_that_knows_nothing_warns_and_starts_at_random(caplog):
    """Another field altogether."""
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        points = suggest("lora", {"depth": tune.randint(1, 1000)}, 3)
    assert len(points) == 3
    assert "the history knows nothing of this space" in caplog.text
    assert "It has: learning_rate" in caplog.text


@pytest.mark.parametrize(
    ("space", "n", "message"),
    [
        ({"lr": 1e-3}, 2, "needs a space with something to choose.*only constants: lr"),
        (SPACE, 0, "suggest n must be >= 1, got 0"),
    ],
)
def test_mistakes(space, n, message):
    """One clear line."""
    with pytest.raises(ValueError, match=message):
        suggest("lora", space, n)
