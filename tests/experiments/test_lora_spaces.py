"""The search spaces of recorded sweeps."""

import pandas as pd
import pytest

from experiments.lora_spaces import SPACES, configuration
from experiments.side_by_side import Hyperparameters
from tune_stoppers import example_path


@pytest.mark.parametrize("space", SPACES)
def test_every_space_is_understood(space: str) -> None:
    """A configuration names hyperparameters only, and their values are known."""
    for index in range(20):
        hp = Hyperparameters(**configuration(space, 0, index))
        assert hp.rank_in("v_proj", 0.9) or hp.rank_in("up_proj", 0.9)
        assert 0 <= hp.rate_at(0.999) <= hp.rate_at(0.4) <= hp.learning_rate


def test_a_configuration_depends_on_its_number_alone() -> None:
    """And on space and seed, so that a longer sweep begins as a shorter one."""
    assert configuration("short", 0, 3) == configuration("short", 0, 3)
    drawn = [configuration("short", seed, index) for seed in (0, 1) for index in range(5)]
    assert len({config["learning_rate"] for config in drawn}) == 10


def test_standard_is_the_space_of_the_first_recordings() -> None:
    """The same hyperparameters, and the same values where there is a list of them."""
    recorded = pd.read_parquet(example_path("lora") / "lora_docstring.parquet")
    drawn = pd.DataFrame([configuration("standard", 0, index) for index in range(200)])
    columns = [name for name in recorded if name.startswith("config/")]
    assert columns == [f"config/{name}" for name in drawn]
    for name in drawn:
        if drawn[name].nunique() < 10:
            assert set(drawn[name]) == set(recorded[f"config/{name}"]), name
        else:
            assert (
                recorded[f"config/{name}"]
                .between(drawn[name].min() / 2, drawn[name].max() * 2)
                .all()
            )
