"""A run that really diverges goes back to its best state and comes through: loop and Trainer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CyclicLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from transformers import Trainer, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tune_stoppers import BestStateKeeper, EarlyStopping, RollbackScheduler, RuleCallback
from tune_stoppers.core import Report
from tune_stoppers.rules import Divergence, Forecast, Patience, Rollback, Threshold
from tune_stoppers.training.checkpoints import load_weights
from tune_stoppers.training.going_back import rolls_back, scale_rates

RULE = Rollback(
    patience=3, recovery_patience=6, max_rollbacks=6, divergence=Divergence(factor=1.0, patience=1)
)
PEAK = 3.0  # far too high a learning rate, after a warm-up of 20 steps
UNTRAINED = math.log(32)  # the loss of a guess


@pytest.fixture(autouse=True)
def lean() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Loop:
    """A fine-tune written by hand, evaluated every second step."""

    def __init__(self, rate: float = PEAK) -> None:
        self.model = tiny_model()
        self.ids = torch.tensor([row["input_ids"] for row in tiny_rows(32)])
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9)
        self.schedule = LambdaLR(self.optimizer, lambda step: min(1.0, (step + 1) / 20))
        self.losses: list[float] = []

    def train(self) -> float:
        """Two steps; the loss of an evaluation."""
        for _ in range(2):
            batch = self.ids[torch.randint(0, 32, (8,))]
            self.optimizer.zero_grad()
            self.model(batch, labels=batch).loss.backward()
            self.optimizer.step()
            self.schedule.step()
        with torch.no_grad():
            self.losses.append(self.model(self.ids, labels=self.ids).loss.item())
        return self.losses[-1]

    def state(self) -> dict[str, Any]:
        """All that is to come back, by value."""
        weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        momentum = [s["momentum_buffer"].clone() for s in self.optimizer.state.values()]
        at = self.schedule.last_epoch, torch.get_rng_state()
        return {"weights": weights, "momentum": momentum, "at": at}


def test_a_loop_that_diverges_is_rescued() -> None:
    """Left alone it ends as if untrained, or worse; with a rollback it learns."""
    alone, rescued = Loop(), Loop()
    for _ in range(30):
        alone.train()
    stop = EarlyStopping(RULE, mode="min")
    for _ in range(30):
        if stop(rescued.train(), rescued.model, rescued.optimizer, scheduler=rescued.schedule):
            break
    assert max(alone.losses) > 1e6
    assert alone.losses[-1] > 0.99 * UNTRAINED
    assert min(rescued.losses[-3:]) < 0.5
    assert stop.rollbacks >= 2


def test_everything_is_as_it_was_at_the_best_but_the_learning_rate() -> None:
    """Weights, momentum, place in the schedule and random state; halved each time anew."""
    loop, best = Loop(), None
    stop = EarlyStopping(RULE, mode="min")
    while not stop.rollbacks:
        value = loop.train()
        if value == min(loop.losses):
            best, rate = loop.state(), loop.optimizer.param_groups[0]["lr"]
        stop(value, loop.model, loop.optimizer, scheduler=loop.schedule)
    torch.testing.assert_close(loop.state(), best, rtol=0, atol=0)
    assert loop.optimizer.param_groups[0]["lr"] == rate / 2
    assert loop.schedule.base_lrs == [PEAK / 2]
    loop.schedule.step()
    assert math.isclose(loop.schedule.get_last_lr()[0], PEAK / 2 * (best["at"][0] + 2) / 20)
    stop(math.nan, loop.model, loop.optimizer, scheduler=loop.schedule)  # within the cooldown
    stop(math.nan, loop.model, loop.optimizer, scheduler=loop.schedule)
    assert (stop.rollbacks, loop.optimizer.param_groups[0]["lr"]) == (2, rate / 4)


def test_the_rule_and_the_reasons_are_the_schedulers() -> None:
    """What a trial would have been told at the same losses, word for word."""
    losses = [3.0, 2.0, math.nan, 2.5, 1.5, 1.6, 1.7, 1.8, 1.4, 9.0, 9.0, 9.0, 9.0]
    scheduler = RollbackScheduler(patience=3, max_rollbacks=2, recovery_patience=2, metric="x")
    rule, record = scheduler.rule, scheduler.rule.init()
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    stop = EarlyStopping(rule, mode="min")
    actions = []
    for step, loss in enumerate(losses, start=1):
        decision = rule.update(record, Report("t", step, loss), checkpoint="checkpoint")
        stopped = stop(loss, model, optimizer)
        assert stop.reason == f"Rollback: {decision.say(1)}"
        assert stopped is (decision.action.value == "STOP")
        actions.append(decision.action.value[0])
        if rule.asks(record, "t") is not None:
            rule.note(record, "t", "rollback", {})
            assert optimizer.param_groups[0]["lr"] == 0.5**stop.rollbacks
        if stopped:
            break
    assert "".join(actions) == "CCPCCCCPCCS"
    assert stop.rollbacks == 2


def test_other_rules_stop_beside_it() -> None:
    """A target that is reached ends the loop; their counts do not go back."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    stop = EarlyStopping(RULE | Threshold(0.1), mode="min")
    values = [1.0, math.nan, 0.5, 0.05]
    assert [stop(value, model, optimizer) for value in values] == [False, False, False, True]
    assert (stop.rollbacks, stop.reason.partition(":")[0]) == (1, "Threshold")
    saved = stop.state_dict()
    assert saved["stopped"]


def test_the_same_call_twice_goes_back_once() -> None:
    """A step already judged changes nothing."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    stop = EarlyStopping(RULE, mode="min")
    for step, value in ((1, 1.0), (2, math.nan), (2, math.nan), (2, 5.0)):
        stop(value, model, optimizer, step=step)
    assert (stop.rollbacks, optimizer.param_groups[0]["lr"]) == (1, 0.5)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_resumed_loop_knows_its_rollbacks(
    tmp_path: Path, on_disk: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes back to the state on the disk; one in memory is gone, which costs a rollback."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    best = model.weight.item()

    def begin() -> EarlyStopping:
        keeper = BestStateKeeper(tmp_path / "best") if on_disk else None
        return EarlyStopping(RULE, mode="min", keeper=keeper, factor=0.1)

    first = begin()
    for value in (1.0, math.nan, 2.0):
        first(value, model, optimizer)
    again = begin()
    again.load_state_dict(first.state_dict())
    assert (again.rollbacks, again.reason, again.step) == (1, first.reason, 3)
    torch.nn.init.constant_(model.weight, math.nan)
    assert not again(math.nan, model, optimizer)
    assert again.rollbacks == 1 + on_disk
    if on_disk:
        assert model.weight.item() == best
        assert math.isclose(optimizer.param_groups[0]["lr"], 0.01)
    else:
        assert "the state of step 1 was not kept" in caplog.text


def test_wrong_uses_are_refused() -> None:
    """With what to write."""
    with pytest.raises(TypeError, match=r"stop\(value, model, optimizer"):
        EarlyStopping(RULE, mode="min")(1.0)
    with pytest.raises(ValueError, match=r"give it a Rollback, .*got Patience"):
        EarlyStopping(3, mode="min", factor=0.5)
    with pytest.raises(ValueError, match=r"EarlyStopping factor must be < 1, got 2"):
        EarlyStopping(RULE, mode="min", factor=2)
    with pytest.raises(TypeError, match="compares the trials of a sweep"):
        EarlyStopping(RULE | Forecast(max_t=3), mode="min")
    stop, other = EarlyStopping(RULE, mode="min"), EarlyStopping(RULE | Patience(3), mode="min")
    with pytest.raises(ValueError, match="of rule Rollback, expected AnyOf"):
        other.load_state_dict(stop.state_dict())
    assert (rolls_back(RULE | Patience(2)), rolls_back(Patience(2))) == (True, False)


def test_every_rate_of_every_schedule_is_cut() -> None:
    """Those of groups, of schedules within schedules, and of what has none of its own."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(
        model.parameters(), (1.0, 0.1), strict=True)])  # fmt: skip
    inner = [LambdaLR(optimizer, lambda _: 1.0) for _ in range(2)]
    schedule = SequentialLR(optimizer, inner, milestones=[9])
    scale_rates(optimizer, schedule, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.05]
    one = OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    before = one.get_last_lr()
    scale_rates(optimizer, one, 0.5)
    assert one.get_last_lr() == [rate / 2 for rate in before]
    optimizer.step()
    one.step()
    assert optimizer.param_groups[0]["max_lr"] == 0.5
    cycle = CyclicLR(optimizer, 0.1, 1.0, step_size_up=4)
    scale_rates(optimizer, cycle, 0.5)
    peaks = []
    for _ in range(8):
        optimizer.step()
        cycle.step()
        peaks.append(optimizer.param_groups[0]["lr"])
    assert (max(peaks), min(peaks)) == (pytest.approx(0.5), pytest.approx(0.05))
    scale_rates(optimizer, ReduceLROnPlateau(optimizer), 0.5)
    scale_rates(optimizer, None, 0.5)


# -- a Trainer -----------------------------------------------------------------------------------


def trainer_of(folder: Path, callback: RuleCallback, **changes: Any) -> Trainer:
    """For 60 steps, an evaluation every second one; with the rate that diverges."""
    rows: Any = tiny_rows(32)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 60,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": PEAK,
        "warmup_steps": 20,
        "lr_scheduler_type": "constant_with_warmup",
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prediction_loss_only": True,
    }
    return Trainer(
        tiny_model(),
        TrainingArguments(**settings | changes),
        default_data_collator,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[callback],
    )


def losses_of(trainer: Trainer) -> list[float]:
    return [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trainer_that_diverges_is_rescued(tmp_path: Path, precision: str) -> None:
    """With gradient accumulation, also in mixed precision; the rate in its logs is cut."""
    alone = trainer_of(tmp_path / "alone", RuleCallback(Threshold(0.0), "eval_loss", "min"))
    alone.train()
    callback = RuleCallback(RULE, "eval_loss", "min", factor=0.25)
    changes: dict[str, Any] = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    changes |= {"bf16": precision == "bf16", "use_cpu": True}
    rescued = trainer_of(tmp_path / "rescued", callback, **changes)
    rescued.train()
    assert not losses_of(alone)[-1] < 0.99 * UNTRAINED
    assert min(losses_of(rescued)[-3:]) < 0.5
    assert callback.rollbacks >= 1
    rates = [row["learning_rate"] for row in rescued.state.log_history if "learning_rate" in row]
    assert max(rates[-5:]) <= PEAK * 0.25**callback.rollbacks


def test_a_trainer_has_the_best_weights_before_its_next_step(tmp_path: Path) -> None:
    """And saves no checkpoint of the state that it gives up; a resume knows the rollbacks."""
    callback = RuleCallback(RULE, "eval_loss", "min", factor=0.1)
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 10}
    trainer = trainer_of(tmp_path, callback, **settings)
    trainer.train()
    losses = losses_of(trainer)
    gone = next(i for i, loss in enumerate(losses) if loss > losses[0])
    assert callback.rollbacks == 1
    assert not (tmp_path / f"checkpoint-{2 * (gone + 1)}").exists()
    assert losses[gone + 1] < losses[0]
    again = RuleCallback(RULE, "eval_loss", "min", factor=0.1)
    trainer_of(tmp_path, again, **settings | {"max_steps": 12}).train(resume_from_checkpoint=True)
    assert again.rollbacks == 1


def test_what_cannot_be_put_back_in_place_is_refused(tmp_path: Path) -> None:
    """Before the first step, with what to do."""
    callback = RuleCallback(RULE, "loss", "min")
    with pytest.raises(ValueError, match='judge by "eval_loss"'):
        trainer_of(tmp_path, callback, logging_nan_inf_filter=False).train()


def test_what_the_trainer_loaded_as_its_best_stays(tmp_path: Path) -> None:
    """By another metric, though the last evaluation asks to go back: no step follows."""
    callback = RuleCallback(Rollback(patience=2), "eval_loss", "max")  # never better than before
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    trainer = trainer_of(tmp_path, callback, **settings, learning_rate=0.01)
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None and best.endswith("checkpoint-4")
    for name, weight in load_weights(best).items():
        torch.testing.assert_close(dict(trainer.model.named_parameters())[name], weight)
