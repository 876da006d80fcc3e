"""The recipe of docs/trainers.md: a new run continues from the best checkpoints of an old one."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune

from tests.stand_ins import tiny_trainer
from tests.stand_ins.tiny_trainer import rows_of
from tune_stoppers import PatienceStopper, TuneCallback, best_state, best_states, checkpoint_config

PAGE = Path(__file__).parents[1] / "docs" / "trainers.md"
RECIPE = '''\
from ray import tune
from tune_stoppers import ThresholdStopper, TuneCallback, best_states, checkpoint_config


def train(config):
    start = config.get("start", {})  # a row of best_states; nothing in the first sweep
    callback = TuneCallback("eval_loss", "min", start_from=start.get("checkpoint"))
    lr = start.get("config/lr", config.get("lr"))
    trainer = make_trainer(callback, lr, config["max_steps"])  # yours
    trainer.train(resume_from_checkpoint=callback.resume_from)


def go_on(old, max_steps, storage_path=None):
    """The three best trials of the sweep in the folder `old` train on, up to `max_steps`."""
    trials = best_states(old, "eval_loss", "min").dropna(subset="checkpoint")
    winners = trials.nsmallest(3, "checkpoint_value")[["checkpoint", "config/lr"]]
    return tune.Tuner(
        train,
        param_space={
            "start": tune.grid_search(winners.to_dict("records")),
            "max_steps": max_steps,
        },
        run_config=tune.RunConfig(
            name="went_on",
            storage_path=storage_path,
            stop=ThresholdStopper("eval_loss", "min", threshold=0.1),
            checkpoint_config=checkpoint_config("eval_loss", "min"),
        ),
    ).fit()
'''


def make_trainer(callback: TuneCallback, lr: float, max_steps: int) -> Any:
    """What the recipe leaves to its reader."""
    return tiny_trainer.make_trainer("out", [callback], lr, max_steps=max_steps)


@pytest.mark.stress
@pytest.mark.usefixtures("ray_session")
def test_going_on_with_the_winners(tmp_path: Path) -> None:
    """The best trials of a finished sweep train on, further than they could, under another rule.

    Weights, optimizer and step are those of the checkpoint; the schedule is that of the new
    length; the new trials have a best of their own.
    """
    recipe: dict[str, Any] = {"__name__": "recipe", "make_trainer": make_trainer}
    exec(RECIPE, recipe)
    tune.Tuner(
        recipe["train"],
        param_space={"lr": tune.grid_search([0.001, 0.01]), "max_steps": 4},
        run_config=tune.RunConfig(
            name="old",
            storage_path=str(tmp_path),
            stop=PatienceStopper("eval_loss", "min"),
            checkpoint_config=checkpoint_config("eval_loss", "min"),
            verbose=0,
        ),
    ).fit()
    old = best_states(tmp_path / "old", "eval_loss", "min")
    assert len(old) == 2

    results = recipe["go_on"](tmp_path / "old", 8, str(tmp_path))
    rows = {result.config["start"]["config/lr"]: rows_of(result) for result in results}
    for lr, reports in rows.items():
        assert [row["step"] for row in reports] == [6, 8]
        assert [row["lr"] for row in reports] == pytest.approx([lr * 3 / 8, lr * 1 / 8])
    best = best_state(tmp_path / "went_on", "eval_loss", "min", time_attr="step")
    assert best.step == 8
    assert best.value < old["checkpoint_value"].min()


def test_the_page_shows_the_recipe() -> None:
    """What is tested here is what is printed there."""
    assert f"```python\n{RECIPE}```" in PAGE.read_text()
