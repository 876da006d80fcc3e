"""RuleCallback: a real Trainer with a tiny model, ended by a rule."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tune_stoppers import BestStateKeeper, RuleCallback
from tune_stoppers.core import Decision, MissingMetricError, Report, Rule
from tune_stoppers.rules import Divergence, MultiMetric, Patience, Threshold


@dataclass(frozen=True)
class Seen(Rule):
    """Says what it sees, and stops at the third report."""

    other: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.other,)

    def start(self) -> Any:
        return 0, None, None

    def observe(self, own: Any, report: Report) -> Any:
        return own[0] + 1, report.loss, report.metrics[self.other]

    def decide(self, own: Any) -> Decision:
        say = self.stop if own[0] == 3 else self.keep
        return say(f"{own[1]!r} {own[2]!r}")


def trainer_of(folder: Path, callback: RuleCallback, **changes: Any) -> Trainer:
    """For up to 12 steps, an evaluation every second one, a training log at every one."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 0.01,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prediction_loss_only": True,
    }
    rows: Any = tiny_rows()
    eval_rows = changes.pop("eval_dataset", rows)
    compute = changes.pop("compute", None)
    return Trainer(
        tiny_model(),
        TrainingArguments(**settings | changes),
        default_data_collator,
        train_dataset=rows,
        eval_dataset=eval_rows,
        compute_metrics=compute,
        callbacks=[callback],
    )


def train(folder: Path, callback: RuleCallback, **changes: Any) -> Trainer:
    """The trainer after its run."""
    trainer = trainer_of(folder, callback, **changes)
    trainer.train()
    return trainer


def test_patience_ends_training_at_the_exact_evaluation(tmp_path: Path) -> None:
    """The falling loss is never better for "max": three evaluations, the second and third bad."""
    callback = RuleCallback(2, "eval_loss", "max")
    assert train(tmp_path, callback).state.global_step == 6
    assert callback.stopped
    assert callback.reason.startswith("Patience: 2 of 2 evaluations without improvement")


def test_an_improving_run_goes_to_its_end(tmp_path: Path) -> None:
    """The same run under "min" is left alone, and says why."""
    callback = RuleCallback(Patience(2), "eval_loss", "min")
    assert train(tmp_path, callback).state.global_step == 12
    assert not callback.stopped
    assert callback.reason.startswith("Patience: improved to")


def test_the_training_loss_can_be_watched(tmp_path: Path) -> None:
    """A threshold on the smoothed training loss ends training between evaluations."""
    callback = RuleCallback(Threshold(3.4, smoothing={"mean": 2}), "loss", "min")
    trainer = train(tmp_path, callback, eval_strategy="no")
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    means = [losses[0], *((a + b) / 2 for a, b in pairwise(losses))]
    expected = next(step for step, mean in enumerate(means, start=1) if mean < 3.4)
    assert trainer.state.global_step == expected < 12


def test_what_else_a_rule_reads_comes_from_the_newest_log(tmp_path: Path) -> None:
    """The gradient norm is in training logs, the objective in evaluations."""
    callback = RuleCallback(Divergence(gradient_limit=1e-6), "eval_loss", "min")
    assert train(tmp_path, callback).state.global_step == 2
    assert "grad_norm" in callback.reason


@pytest.mark.parametrize(
    ("metric", "said"),
    [("eval_los", "Did you mean 'eval_loss'"), ("los", "Did you mean 'loss'")],
)
def test_a_metric_never_logged_names_those_that_are(tmp_path: Path, metric: str, said: str) -> None:
    """At the first evaluation, or the first training log."""
    with pytest.raises(MissingMetricError, match=said):
        train(tmp_path, RuleCallback(2, metric, "min"))


def test_a_metric_never_logged_may_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With on_missing="skip" the run goes to its end, with one warning."""
    callback = RuleCallback(2, "eval_los", "min", on_missing="skip")
    assert train(tmp_path, callback).state.global_step == 12
    assert callback.reason == "nothing judged yet"
    assert [r.message for r in caplog.records if "'eval_los' is not logged" in r.message] != []
    assert sum("eval_los'" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("watched", ["first", "second"])
def test_one_of_several_evaluation_sets_may_be_watched(tmp_path: Path, watched: str) -> None:
    """Each is logged by itself; those that are not watched are no missing metric."""
    callback = RuleCallback(2, f"eval_{watched}_loss", "max")
    sets = {"first": tiny_rows(8), "second": tiny_rows(8, seed=1)}
    assert train(tmp_path, callback, eval_dataset=sets).state.global_step == 6


SETS = {"first": tiny_rows(8), "second": tiny_rows(8, seed=1)}


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_a_rule_over_several_evaluation_sets_judges_a_step_as_one(
    tmp_path: Path, order: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Once all of them are in, whichever is first; nothing is missing, and nothing is said."""
    both: Any = {f"eval_{name}_loss": {"mode": "max"} for name in ("first", "second")}
    callback = RuleCallback(MultiMetric(both, patience=2))
    trainer = train(tmp_path, callback, eval_dataset={name: SETS[name] for name in order})
    assert trainer.state.global_step == 6
    assert callback.reason.startswith("MultiMetric: 2 of 2 evaluations")
    assert [record for record in caplog.records if record.name == "tune_stoppers"] == []


@pytest.mark.parametrize("objective", ["first", "second"])
def test_a_rule_reads_the_other_set_at_the_same_step(tmp_path: Path, objective: str) -> None:
    """Not at the step before: the gap between the two is of one evaluation."""
    other = {"first": "second", "second": "first"}[objective]
    rule = Seen(f"eval_{other}_loss")
    callback = RuleCallback(rule, f"eval_{objective}_loss", "min")
    trainer = train(tmp_path, callback, eval_dataset=SETS)
    logged = {name: {} for name in SETS}
    for row in trainer.state.log_history:
        for name, steps in logged.items():
            if f"eval_{name}_loss" in row:
                steps[row["step"]] = row[f"eval_{name}_loss"]
    step = trainer.state.global_step
    assert callback.reason == f"Seen: {logged[objective][step]!r} {logged[other][step]!r}"


def test_a_metric_of_the_first_set_is_not_missed_in_the_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No warning, in the whole run."""
    callback = RuleCallback(9, "eval_first_loss", "min")
    train(tmp_path, callback, eval_dataset=SETS)
    assert callback.best_step == 12
    assert [record for record in caplog.records if record.name == "tune_stoppers"] == []


def test_none_of_several_evaluation_sets_has_the_metric(tmp_path: Path) -> None:
    """That is an error right after the first evaluations."""
    told = r"'eval_loss' is not logged.*eval_first_loss.*eval_second_loss.*on_missing=\"skip\""
    with pytest.raises(MissingMetricError, match=told):
        train(tmp_path, RuleCallback(2, "eval_loss", "max"), eval_dataset=SETS)


def test_what_comes_with_a_later_training_log_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Evaluations before the first training log cannot be judged yet, and are no error."""
    callback = RuleCallback(Divergence(gradient_limit=1e-6), "eval_loss", "min")
    assert train(tmp_path, callback, logging_steps=5).state.global_step == 6
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_what_never_comes_is_said_in_the_end(tmp_path: Path) -> None:
    """Without a training log there is no gradient norm."""
    callback = RuleCallback(Divergence(gradient_limit=1e-6), "eval_loss", "min")
    with pytest.raises(MissingMetricError, match="'grad_norm' is not logged"):
        train(tmp_path, callback, logging_strategy="no")


@pytest.mark.parametrize(
    "report",
    [{"0": {"f1": 0.5}}, {0: {"f1": 0.5}}, [{"f1": 0.5}, {"f1": 0.1}]],
    ids=["a dict", "of integers", "a list"],
)
def test_a_nested_metric_is_named_with_slashes(tmp_path: Path, report: Any) -> None:
    """As scikit-learn's classification_report gives it; a wrong name suggests the right one."""
    options: dict[str, Any] = {
        "compute": lambda _: {"report": report},
        "prediction_loss_only": False,
    }
    callback = RuleCallback(2, "eval_report/0/f1", "max")
    assert train(tmp_path, callback, **options).state.global_step == 6
    assert callback.best_value == 0.5
    with pytest.raises(MissingMetricError, match=r"Did you mean 'eval_report/0/f1'"):
        train(tmp_path, RuleCallback(2, "eval_f1", "max"), **options)
    with pytest.raises(MissingMetricError, match=r"Did you mean 'eval_report/0/f1'"):
        train(tmp_path, RuleCallback(2, "f1", "max"), **options)


def test_metrics_of_evaluations_and_of_training_logs_are_read_together(tmp_path: Path) -> None:
    """A rule without an objective is asked at each evaluation, with the newest training log."""
    metrics: Any = {"eval_loss": {"mode": "max"}, "loss": {"mode": "max"}}
    callback = RuleCallback(MultiMetric(metrics=metrics, patience=2))
    assert train(tmp_path, callback).state.global_step == 6
    assert callback.reason.startswith("MultiMetric")


def test_the_same_callback_serves_a_second_run(tmp_path: Path) -> None:
    """It begins anew: nothing of the first run counts."""
    callback = RuleCallback(2, "eval_loss", "max")
    assert [train(tmp_path, callback).state.global_step for _ in range(2)] == [6, 6]


class Raises(TrainerCallback):
    """Ends training by an exception."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.step, self.error = step, error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise self.error


@pytest.mark.parametrize("ending", ["finished", "stopped", RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_the_best_weights_give_the_recorded_value_again(
    tmp_path: Path, ending: Any, place: str
) -> None:
    """However training ends, the model is the best one evaluated, to 1e-5 and better."""
    keeper = BestStateKeeper(tmp_path / "best" if place == "disk" else None)
    mode: Any = "max" if ending == "stopped" else "min"  # of a falling loss the first is highest
    callback = RuleCallback(2, "eval_loss", mode, keeper=keeper)
    trainer = trainer_of(tmp_path, callback)
    trainer.add_callback(Raises(9, ending if isinstance(ending, type) else RuntimeError))
    if isinstance(ending, str):
        trainer.pop_callback(Raises)
        with keeper.restoring(trainer.model):
            trainer.train()
    else:
        with pytest.raises(ending), keeper.restoring(trainer.model):
            trainer.train()
    expected = {"finished": 12, "stopped": 2}.get(ending, 8)
    assert (callback.best_step, keeper.best_step) == (expected, expected)
    assert callback.stopped == (ending == "stopped")
    assert callback.best_value is not None
    assert trainer.evaluate()["eval_loss"] == pytest.approx(callback.best_value, abs=1e-5)


def test_evaluations_outside_training_are_not_judged(tmp_path: Path) -> None:
    """Neither a first look at the untrained model nor a last one at other data."""
    keeper = BestStateKeeper()
    callback = RuleCallback(2, "eval_loss", "min", keeper=keeper)
    trainer = trainer_of(tmp_path, callback)
    trainer.evaluate()
    assert (callback.reason, keeper.best_step) == ("nothing judged yet", None)
    trainer.train()
    reason, best = callback.reason, callback.best_value
    trainer.state.global_step += 1
    trainer.evaluate()
    assert (callback.reason, callback.best_value, keeper.best_loss) == (reason, best, best)


def test_without_a_keeper_nothing_is_kept(tmp_path: Path) -> None:
    """No copy of the weights is made, which may be large, or sharded."""
    callback = RuleCallback(2, "eval_loss", "min")
    train(tmp_path, callback)
    assert callback.best_step == 12
    assert callback._judge.keeper is None


def test_wrong_arguments_are_refused() -> None:
    """At construction."""
    with pytest.raises(ValueError, match="on_resume must be one of restore, continue, restart"):
        RuleCallback(2, "eval_loss", "min", on_resume="again")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_missing must be one of raise, skip"):
        RuleCallback(2, "eval_loss", "min", on_missing="ignore")  # type: ignore[arg-type]
