"""What TRL logs between evaluations, in the reports of a Tune trial."""

import math
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from tests.stand_ins.tiny_trainer import rows_of
from tests.training.test_hf_trl import quiet, rewarded, tiny  # noqa: F401
from tune_stoppers import RuleStopper, TuneCallback, recipes
from tune_stoppers.tune.trainer.log_means import LogMeans


def test_the_mean_of_the_logs_since_the_last_report() -> None:
    """Of what is no evaluation, no count, no summary, and nobody else's; then it begins anew."""
    means = LogMeans()
    means.take({"kl": 1.0, "loss": 3.0, "learning_rate": 0.1, "epoch": 1.0, "num_tokens": 10})
    means.take({"kl": 2.0, "entropy": 0.5, "reward": None, "pid": 7, "time_total_s": 1.0})
    means.take({"eval_loss": 9.0, "kl": 100.0})
    means.take({"train_runtime": 1.0, "train_loss": 2.0, "kl": 100.0})
    assert means.taken() == {"kl": 1.5, "entropy": 0.5}
    assert means.taken() == {}
    means.take({"kl": 1.0})
    means.take({"kl": math.nan})
    assert math.isnan(means.taken()["kl"])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_recipe_stops_a_grpo_trial_by_its_kl(tmp_path: Path, tiny: str) -> None:  # noqa: F811
    """Each report has the reward of the evaluation, and the mean KL of the training logs."""

    def train(config: dict[str, Any]) -> None:
        callback = TuneCallback("eval_reward", "max")
        trainer = rewarded(
            Path("out"), tiny, [callback], max_steps=40, beta=0.05, eval_strategy="steps",
            eval_steps=2, eval_on_start=True, per_device_eval_batch_size=8,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=callback.resume_from)
        raise AssertionError("it was not stopped")

    recipe = recipes.grpo(patience=99, max_kl=0.01, metric="eval_reward")
    result = tune.Tuner(
        train,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop=RuleStopper(recipe.rule, **recipe.objective),
            verbose=0,
        ),
    ).fit()[0]
    assert result.error is None
    rows = rows_of(result)
    assert all({"eval_reward", "eval_kl"} <= set(row) for row in rows)
    assert all(set(recipe.rule.reads) <= set(row) for row in rows[1:])  # none before the first step
    assert "kl" not in rows[0]
    assert "kl: " in rows[-1]["stop_reason"]
    assert "past the threshold 0.01, 3 of 3" in rows[-1]["stop_reason"]
    assert rows[-1]["kl"] > 0.01
