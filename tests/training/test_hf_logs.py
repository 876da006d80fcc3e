"""Rules `On` another metric in a real Trainer: which logs make a report."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.stand_ins.tiny import tiny_rows
from tests.training.test_hf import trainer_of
from tune_stoppers import BestStateKeeper, RuleCallback
from tune_stoppers.core import MissingMetricError
from tune_stoppers.rules import On, Patience, Threshold
from tune_stoppers.training.hf_logs import StepLogs


class AlsoLogs(TrainerCallback):
    """Adds a metric to some training logs, as TRL's trainers do."""

    def __init__(self, name: str, values: dict[int, float]) -> None:
        self.name, self.values = name, values

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs and state.global_step in self.values:
            logs[self.name] = self.values[state.global_step]


def run(folder: Path, callback: RuleCallback, values: dict[int, float], **changes: Any) -> int:
    """The step at which a run of 12 steps ended; evaluated every second, logged at each."""
    trainer = trainer_of(folder, callback, **changes)
    trainer.callback_handler.callbacks.insert(0, AlsoLogs("entropy", values))
    trainer.train()
    return int(trainer.state.global_step)


FLOOR = On("entropy", Threshold(0.1), "min")


def test_a_training_log_ends_a_run_that_is_judged_by_its_evaluations(tmp_path: Path) -> None:
    """Between two evaluations, at the very log."""
    callback = RuleCallback(Patience(9) | FLOOR, "eval_loss", "min")
    assert run(tmp_path, callback, dict.fromkeys(range(1, 13), 0.5) | {5: 0.05}) == 5
    assert callback.reason.startswith("Threshold: entropy: 0.05 is past the threshold 0.1")


def test_a_log_at_the_step_of_an_evaluation_is_judged_with_it(tmp_path: Path) -> None:
    """Neither hides the other: the floor is met at an evaluation, patience is counted on."""
    values = dict.fromkeys(range(1, 13), 0.5)
    callback = RuleCallback(Patience(9) | FLOOR, "eval_loss", "min")
    assert run(tmp_path, callback, values | {6: 0.05}) == 6
    callback = RuleCallback(Patience(2) | FLOOR, "eval_loss", "max")
    assert run(tmp_path, callback, values) == 6
    assert callback.reason.startswith("Patience: 2 of 2 evaluations")


def test_an_older_value_is_not_a_new_one(tmp_path: Path) -> None:
    """Logged twice, it counts twice, however many evaluations come after."""
    rule = Patience(9) | On("entropy", Patience(2), "min")
    callback = RuleCallback(rule, "eval_loss", "min", on_missing="skip")
    assert run(tmp_path, callback, {1: 0.5, 3: 0.6}) == 12
    assert run(tmp_path, callback, {1: 0.5, 3: 0.6, 9: 0.6}) == 9


def test_on_alone_needs_no_metric_of_the_callback(tmp_path: Path) -> None:
    """There is no objective; two metrics need not be logged together."""
    rule = On("entropy", Threshold(0.1), "min") | On("eval_loss", Patience(2), "max")
    callback = RuleCallback(rule)
    assert run(tmp_path, callback, {3: 0.5, 1: 0.5}) == 6
    assert callback.reason.startswith("Patience: eval_loss: 2 of 2")


def test_a_training_objective_beside_an_evaluation(tmp_path: Path) -> None:
    """The other way round, also with several evaluation sets that are logged one by one."""
    sets = {"a": tiny_rows(4), "b": tiny_rows(4, seed=1)}
    for name in sets:
        rule = Threshold(0.0) | On(f"eval_{name}_loss", Patience(2), "max")
        callback = RuleCallback(rule, "loss", "min")
        assert run(tmp_path, callback, {}, eval_dataset=sets) == 6


def test_a_name_that_its_kind_of_log_does_not_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that names the closest, at the first such log; one warning under "skip"."""
    rule = Patience(9) | On("entrop", Threshold(0.1), "min")
    with pytest.raises(MissingMetricError, match=r"'entrop' is not logged.*mean 'entropy'"):
        run(tmp_path, RuleCallback(rule, "eval_loss", "min"), {1: 0.5})
    callback = RuleCallback(rule, "eval_loss", "min", on_missing="skip")
    assert run(tmp_path, callback, {1: 0.5}) == 12
    assert sum("'entrop' is not logged" in record.message for record in caplog.records) == 1


def test_the_name_that_a_checkpoint_goes_by() -> None:
    """What is watched: the objective, or what stands in for it."""
    assert StepLogs(Patience(2) | FLOOR, "eval_loss").name == "eval_loss"
    assert StepLogs(FLOOR, None).name == "entropy"


@pytest.mark.parametrize("logging_steps", [1, 2, 3])
def test_an_evaluation_at_the_end_of_an_epoch_is_judged_with_its_logs(
    tmp_path: Path, logging_steps: int
) -> None:
    """The Trainer logs the last step of an epoch before it asks for the evaluation. Of two steps
    an epoch; also where the last one breaks off in the middle of an epoch."""
    changes: dict[str, Any] = {"eval_strategy": "epoch", "logging_steps": logging_steps}
    keeper = BestStateKeeper()
    callback = RuleCallback(Patience(2) | FLOOR, "eval_loss", "max", keeper=keeper)
    values = dict.fromkeys(range(1, 13), 0.5)
    assert run(tmp_path, callback, values, **changes) == 6
    assert (callback.best_step, keeper.best_step) == (2, 2)
    floor = {logging_steps: 0.05}
    callback = RuleCallback(Patience(9) | FLOOR, "eval_loss", "max")
    assert run(tmp_path, callback, values | floor, **changes) == logging_steps
    callback = RuleCallback(Patience(2) | FLOOR, "eval_loss", "max")
    assert run(tmp_path, callback, values, **changes, max_steps=5) == 5
    assert callback.reason.startswith("Patience: 2 of 2")
