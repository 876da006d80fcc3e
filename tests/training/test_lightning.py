"""LightningRuleCallback: a real Trainer of Lightning, and a module that finds what is written."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping as LightningsOwn
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.stand_ins.tiny_lightning import Tiny, tiny_trainer
from tune_stoppers import BestStateKeeper, EarlyStopping, LightningRuleCallback
from tune_stoppers.core import MissingMetricError
from tune_stoppers.rules import Budget, Divergence, On, Overfit, Patience, Rollback, Threshold

pytestmark = pytest.mark.filterwarnings(
    # few workers, few batches to log; one that was cut within an epoch
    "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning",
    "ignore:Be aware that when using `ckpt_path`:UserWarning",  # the ModelCheckpoint is not needed
)
VALUES = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 3.0, 2.0, 1.0, 0.5]  # patience 3 ends at the 6th
BATCHES = 4  # an epoch has


def fit(folder: Path, module: Any, *callbacks: Any, resume: Any = None, **changes: Any) -> Any:
    trainer = tiny_trainer(folder, *callbacks, **changes)
    trainer.fit(module, ckpt_path=resume)
    return trainer


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "tune_stoppers"]


# -- when it stops, and why ------------------------------------------------------------------------

ROWS = [
    {"val_loss": value, "val_f1": -value, "val_lr": 1 / n, "val_train": 1 / n, "lr": 0.11 - n / 100}
    for n, value in enumerate([5.0, 4.0, 3.0, math.nan, 3.2, 3.1, 3.0, 20.0, 1.0, 0.5], start=1)
]


@pytest.mark.parametrize(
    ("rule", "metric", "mode", "ends"),
    [
        (3, "val_loss", "min", 6),
        (3, "val_f1", "max", 6),
        (Divergence(), "val_loss", "min", 4),
        (Patience(9) & Threshold(3.05) | Divergence(nonfinite_strikes=2), "val_loss", "min", 0),
        (Overfit("val_train", alpha=5.0), "val_loss", "min", 4),
        (Patience(9) | On("val_lr", Threshold(0.21), "min"), "val_loss", "min", 5),
        (On("val_lr", Threshold(0.21), "min"), None, None, 5),
        (Patience(9) | On("lr", Threshold(0.085), "min"), "val_loss", "min", 3),
    ],
)
def test_it_decides_as_a_plain_loop(
    tmp_path: Path, rule: Any, metric: Any, mode: Any, ends: int
) -> None:
    """At the same validation, in the same words; what the sanity check finds is not counted."""
    stop = EarlyStopping(rule, metric=metric or "value", mode=mode or "min")
    steps = [n for n, row in enumerate(ROWS, start=1) if stop(row, step=BATCHES * n)]
    callback = LightningRuleCallback(rule, metric, mode)
    trainer = fit(tmp_path, Tiny(ROWS), callback)
    assert steps[:1] == ([ends] if ends else [])
    assert trainer.global_step == BATCHES * (ends or len(ROWS))
    assert callback.stopped == bool(ends)
    if ends:
        again = EarlyStopping(rule, metric=metric or "value", mode=mode or "min")
        assert any(again(row, step=BATCHES * n) for n, row in enumerate(ROWS[:ends], start=1))
        assert (callback.reason, callback.best_value) == (again.reason, again.best_value)
        assert trainer.early_stopping_callback.stopping_reason_message == callback.reason


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"patience": 2}, Patience(2, on_nonfinite="stop")),
        ({"patience": 3, "min_delta": 0.5, "check_finite": False}, Patience(3, min_delta=0.5)),
        (
            {"patience": 9, "stopping_threshold": 3.15},
            Patience(9, on_nonfinite="stop") | Threshold(3.15),
        ),
        (
            {"patience": 9, "divergence_threshold": 10.0, "check_finite": False},
            Patience(9) | Divergence(nonfinite_strikes=99, factor=None, limit=10.0),
        ),
    ],
)
def test_what_docs_say_of_lightnings_own_early_stopping(
    tmp_path: Path, theirs: dict[str, Any], ours: Any
) -> None:
    """Its options and our rules end training at the same step."""
    step = fit(tmp_path, Tiny(ROWS), LightningsOwn("val_loss", **theirs)).global_step
    assert (
        fit(tmp_path, Tiny(ROWS), LightningRuleCallback(ours, "val_loss", "min")).global_step
        == step
    )
    assert 0 < step < BATCHES * len(ROWS)


@pytest.mark.parametrize(
    ("changes", "step", "seen"),
    [
        ({"val_check_interval": 2}, 12, VALUES),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 18, VALUES),
        ({"check_val_every_n_epoch": 2}, 40, VALUES),
        ({"min_epochs": 8}, 32, VALUES),
        ({"max_steps": 14, "val_check_interval": 2}, 12, VALUES),
        ({"fast_dev_run": True}, 1, [1.0]),
    ],
    ids=["twice an epoch", "across epochs", "every second", "min_epochs", "max_steps", "dry"],
)
def test_each_validation_counts_once(
    tmp_path: Path, changes: dict[str, Any], step: int, seen: list[float]
) -> None:
    callback = LightningRuleCallback(3, "val_loss", "min")
    assert fit(tmp_path, Tiny([*seen, *seen]), callback, **changes).global_step == step


def test_what_training_logs_is_judged_at_the_end_of_each_epoch(tmp_path: Path) -> None:
    """With what the module logs last; a rule that reads both gets them from the same epoch."""
    late = LightningRuleCallback(Threshold(6.5), "epochs_left", "min")
    assert fit(tmp_path, Tiny(VALUES), late, val_check_interval=2).global_step == BATCHES * 5
    rule = Overfit("epochs_left", criterion="pq", strip=2, alpha=0.01)
    stop = EarlyStopping(rule, metric="val_loss", mode="min")
    rows = [{"val_loss": v, "epochs_left": 10.0 - n} for n, v in enumerate(VALUES)]
    end = next(n for n, row in enumerate(rows, start=1) if stop(row, step=BATCHES * n))
    both = LightningRuleCallback(rule, "val_loss", "min")
    assert fit(tmp_path, Tiny(VALUES), both).global_step == BATCHES * end == BATCHES * 4
    assert both.reason == stop.reason
    rate = LightningRuleCallback(On("lr", Threshold(0.06), "min"))  # which nobody logs
    assert fit(tmp_path, Tiny(VALUES), rate).global_step == BATCHES * 5


class LogsBatches(Tiny):
    """Logs a metric of training as `self.log` does by itself: each batch's value."""

    def training_step(self, batch: Any, index: int) -> Any:
        self.log("train_kl", 0.05 if index == 1 else 0.5)
        return super().training_step(batch, index)


def test_one_batch_is_no_report(tmp_path: Path) -> None:
    """Within an epoch, a rule `On` what training logs waits for its end."""
    rule = Patience(99) | On("train_kl", Threshold(0.1), "min")
    callback = LightningRuleCallback(rule, "val_loss", "min")
    whole = fit(tmp_path, LogsBatches(VALUES * 2), callback, val_check_interval=2, max_epochs=3)
    assert whole.global_step == BATCHES * 3


def test_a_rule_without_a_metric_counts_every_report(tmp_path: Path) -> None:
    callback = LightningRuleCallback(Budget(trial_seconds=1e-9))
    assert fit(tmp_path, Tiny(VALUES), callback).global_step == BATCHES
    assert callback.reason.startswith("Budget: ")


# -- what is missing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "changes", "step"),
    [
        ("val_los", {}, 4),
        ("val_los", {"val_check_interval": 2}, 2),
        ("loss", {"val_check_interval": 2}, 2),
        ("other", {"val_check_interval": 2}, 4),
        ("val_los", {"check_val_every_n_epoch": 2}, 8),
        ("val_los", {"fast_dev_run": True}, 1),
    ],
)
def test_a_metric_that_is_never_logged(
    tmp_path: Path, metric: str, changes: dict[str, Any], step: int
) -> None:
    """Raises as soon as that is known, with the names there are."""
    trainer = tiny_trainer(tmp_path, LightningRuleCallback(3, metric, "min"), **changes)
    with pytest.raises(
        MissingMetricError, match=f"^LightningRuleCallback: '{metric}' is not logged"
    ) as caught:
        trainer.fit(Tiny(VALUES))
    assert trainer.global_step == step
    assert "val_loss" in str(caught.value)
    assert 'on_missing="skip"' in str(caught.value)


def test_a_metric_that_is_logged_now_and_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Counts when it is new: the older value is not judged again. One warning."""
    rows = [{"val_loss": v} if n % 2 else {"val_b": v} for n, v in enumerate(VALUES, start=1)]
    callback = LightningRuleCallback(2, "val_loss", "max")
    assert fit(tmp_path, Tiny(rows), callback).global_step == BATCHES * 5
    assert said(caplog)[0].startswith(
        "LightningRuleCallback: a validation has not logged 'val_loss'"
    )
    assert len(said(caplog)) == 1
    late = [{"val_b": 1.0}] * 3 + [{"val_loss": 1.0}] * 7
    callback = LightningRuleCallback(2, "val_loss", "min", on_missing="skip")
    assert fit(tmp_path, Tiny(late), callback).global_step == BATCHES * 6


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3,), "needs metric"),
        ((3, "val_loss"), "mode"),
        ((3, "val_loss", "lowest"), "mode"),
        ((Patience, "val_loss", "min"), "patience"),
    ],
)
def test_what_it_cannot_take(arguments: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        LightningRuleCallback(*arguments)


# -- its state in Lightning's checkpoints ----------------------------------------------------------


class Cut(Callback):
    """The process dies after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *more: Any) -> None:
        if trainer.global_step == self.step:
            raise InterruptedError


@pytest.mark.parametrize(
    ("changes", "saving"),
    [
        ({}, {}),
        ({"val_check_interval": 2, "max_epochs": 5}, {}),
        ({}, {"save_on_train_epoch_end": False}),  # before the end of the epoch is judged
        ({}, {"every_n_train_steps": 3}),  # within an epoch
    ],
    ids=["each epoch", "twice an epoch", "at the validation", "between"],
)
def test_a_run_that_was_cut_decides_as_if_it_was_not(
    tmp_path: Path, changes: dict[str, Any], saving: dict[str, Any]
) -> None:
    """The rule counts on where the checkpoint was, whenever that was written."""
    whole = LightningRuleCallback(3, "val_loss", "min")
    end = fit(tmp_path, Tiny(VALUES), whole, **changes).global_step
    for cut in (end // 2, end - 1):
        folder = tmp_path / str(cut)
        saver = ModelCheckpoint(folder, save_last=True, **saving)
        first = LightningRuleCallback(3, "val_loss", "min")
        with pytest.raises(InterruptedError):
            fit(folder, Tiny(VALUES), first, saver, Cut(cut), **changes)
        second = LightningRuleCallback(3, "val_loss", "min")
        resumed = fit(folder, Tiny(VALUES), second, resume=folder / "last.ckpt", **changes)
        assert (resumed.global_step, second.reason) == (end, whole.reason)
        assert (second.best_value, second.best_step) == (whole.best_value, whole.best_step)


def test_a_stopped_run_stops_again_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says why, and nothing is trained, unless it is told to go on."""
    saver = ModelCheckpoint(tmp_path, save_last=True)
    module = Tiny(VALUES)
    fit(tmp_path, module, LightningRuleCallback(3, "val_loss", "min"), saver)
    caplog.clear()
    again, last = Tiny(VALUES), tmp_path / "last.ckpt"
    callback = LightningRuleCallback(3, "val_loss", "min")
    assert fit(tmp_path, again, callback, resume=last).global_step == BATCHES * 6
    assert callback.stopped
    assert said(caplog) == [
        "LightningRuleCallback: this run was stopped at step 24 (Patience: 3 of 3 evaluations "
        "without improvement, value 3.1, best 3 at step 12); it ends again at once; "
        'on_resume="continue" or "restart" trains on.'
    ]
    weights = module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    for more, step in (
        (LightningRuleCallback(5, "val_loss", "min", on_resume="continue"), 40),
        (LightningRuleCallback(3, "val_loss", "max", on_resume="restart"), 40),
    ):
        assert fit(tmp_path, Tiny(VALUES), more, resume=last).global_step == step
    with pytest.raises(ValueError, match=r'It is in the checkpoint; on_resume="restart" leaves'):
        fit(
            tmp_path,
            Tiny(VALUES),
            LightningRuleCallback(Divergence(), "val_loss", "min"),
            resume=last,
        )


def test_what_is_validated_outside_fit_is_not_judged(tmp_path: Path) -> None:
    """And a second `fit` is a run of its own."""
    callback = LightningRuleCallback(3, "val_loss", "min")
    trainer = fit(tmp_path, Tiny(VALUES), callback)
    reason = callback.reason
    trainer.validate(Tiny([1.0] * 10), verbose=False)
    assert callback.reason == reason
    fit(tmp_path, Tiny(VALUES), callback, max_epochs=1)
    assert not callback.stopped


# -- the best state --------------------------------------------------------------------------------


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    module, seen = Tiny(VALUES), []

    class Remember(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append(pl_module.layers[0].weight.tolist())

    keeper = BestStateKeeper()
    trainer = tiny_trainer(
        tmp_path, LightningRuleCallback(3, "val_loss", "min", keeper=keeper), Remember()
    )
    with keeper.restoring(module):
        trainer.fit(module)
    assert module.layers[0].weight.tolist() == seen[3]  # the first is the sanity check's
    assert seen[3] != seen[-1]


def test_a_rollback_rescues_a_run(tmp_path: Path) -> None:
    """The best state comes back at half the learning rate, and training goes on from there."""
    seen: list[Any] = []

    class Remember(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *more: Any) -> None:
            rate = trainer.optimizers[0].param_groups[0]["initial_lr"]
            seen.append((pl_module.layers[0].weight.tolist(), rate))

    callback = LightningRuleCallback(Rollback(patience=3), "val_loss", "min", factor=0.5)
    values = [3.0, 2.0, math.nan, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    fit(tmp_path, Tiny(values), callback, Remember())
    assert callback.rollbacks == 2
    first, back = seen[2 * BATCHES], seen[3 * BATCHES]
    assert back == (first[0], 0.05)

    class Two(Tiny):
        automatic_optimization = False

        def training_step(self, batch: Any, index: int) -> None:
            raise AssertionError("not reached")

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    with pytest.raises(ValueError, match="puts one optimizer and one schedule back, here are 2"):
        fit(tmp_path, Two(values), LightningRuleCallback(Rollback(patience=3), "val_loss", "min"))
