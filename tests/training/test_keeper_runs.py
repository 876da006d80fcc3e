"""Whose states a keeper hands out: those of the run that asks, whatever else its folder holds."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_hf import train, trainer_of
from tests.training.test_keeper_disk import constant, offer_constants
from tune_stoppers import BestStateKeeper, EarlyStopping, RuleCallback


def looped(stop: EarlyStopping, losses: list[float], weight: float, first: int = 1) -> None:
    """A run whose weight is `weight` throughout."""
    for step, loss in enumerate(losses, start=first):
        stop(loss, constant(weight), step=step)


def new(keeper: Any, mode: Any = "min") -> EarlyStopping:
    return EarlyStopping(99, mode=mode, keeper=keeper)


def restored(stop: EarlyStopping) -> tuple[float, float]:
    """The step and the weight that come back."""
    model = constant(0.0)
    return stop.restore_best(model), model.weight.item()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("first", [1, 50])
def test_a_new_run_gets_its_own_best(tmp_path: Path, mode: Any, first: int) -> None:
    """Beside the better one of an earlier run, wherever its steps begin; with one warning."""
    sign = 1 if mode == "min" else -1
    looped(new(BestStateKeeper(tmp_path), mode), [sign * 3.0, sign * 0.5], 1.0)
    before = {path.name for path in tmp_path.iterdir()}
    stop = new(BestStateKeeper(tmp_path), mode)
    with pytest.warns(
        RuntimeWarning, match=r"loss 0\.5 at step 2.*resume=True.*fresh=True"
    ) as said:
        looped(stop, [sign * 9.0, sign * 6.7, sign * 8.0], 2.0, first)
    assert len(said) == 1
    assert (restored(stop), stop.best_value) == ((first + 1, 2.0), sign * 6.7)
    assert before <= {path.name for path in tmp_path.iterdir()}, "the earlier state stays"
    model = constant(0.0)
    BestStateKeeper(tmp_path).restore(model)
    assert model.weight.item() == 2.0, "whoever looks later finds the newest run's"


def test_a_new_run_without_a_finite_value_has_no_best(tmp_path: Path) -> None:
    """It does not borrow one."""
    looped(new(BestStateKeeper(tmp_path)), [0.5], 1.0)
    stop = new(BestStateKeeper(tmp_path, fresh=True))
    looped(stop, [math.nan], 2.0)
    with pytest.raises(RuntimeError, match="no finite loss"):
        restored(stop)


def test_fresh_says_that_it_begins_anew(tmp_path: Path) -> None:
    """And there is no warning, nor anything to restore before the first offer."""
    looped(new(BestStateKeeper(tmp_path)), [0.5], 1.0)
    keeper = BestStateKeeper(tmp_path, fresh=True)
    assert keeper.best_step is None
    stop = new(keeper)
    looped(stop, [6.7], 2.0)
    assert restored(stop) == (1, 2.0)


@pytest.mark.parametrize("how", ["resume=True", "restored first"])
def test_a_run_that_goes_on_from_a_kept_state_counts_it_in(tmp_path: Path, how: str) -> None:
    """Its best value is that of the state which comes back."""
    looped(new(BestStateKeeper(tmp_path), "max"), [0.5], 1.0)
    keeper = BestStateKeeper(tmp_path, resume=how == "resume=True")
    if how != "resume=True":
        keeper.restore(constant(0.0))
    stop = new(keeper, "max")
    looped(stop, [0.25], 2.0, first=2)
    assert (restored(stop), stop.best_value, stop.best_step) == ((1, 1.0), 0.5, 1)


def test_a_run_that_is_resumed_needs_no_flag(tmp_path: Path) -> None:
    """Its rule's state says which run it is, though the keeper is ahead of it, or of another."""
    looped(new(BestStateKeeper(tmp_path)), [0.1], 9.0)
    first = new(BestStateKeeper(tmp_path, fresh=True))
    looped(first, [3.0], 1.0)
    state = json.loads(json.dumps(first.state_dict()))
    looped(first, [2.0], 2.0, first=2)  # kept, and then the process is killed
    looped(new(BestStateKeeper(tmp_path, fresh=True)), [0.2], 8.0)
    again = new(BestStateKeeper(tmp_path))
    again.load_state_dict(state)
    assert (again.best_value, again.best_step) == (2.0, 2)
    looped(again, [2.5, 2.6], 3.0, first=2)
    assert restored(again) == (2, 2.0)
    again(1.0, constant(4.0), step=5)
    assert restored(again) == (5, 4.0)


def test_states_of_before_runs_were_noted_are_told_by_their_best(tmp_path: Path) -> None:
    """As the version before wrote them, in the keeper's folder and in the rule's state."""
    keeper = BestStateKeeper(tmp_path)
    keeper._run = ""
    first = new(keeper)
    looped(first, [3.0, 2.0], 1.0)
    state = first.state_dict()
    state.pop("run")
    for written in tmp_path.glob("*/state.json"):
        assert '"run": ' in written.read_text()
    again = new(BestStateKeeper(tmp_path))
    again.load_state_dict(state)
    looped(again, [2.5], 2.0, first=3)
    assert restored(again) == (2, 1.0)


def test_a_resumed_run_is_refused_the_folder_of_another(tmp_path: Path) -> None:
    """What would be restored is not what its rule calls the best: one line with both ways out."""
    first = new(BestStateKeeper(tmp_path / "first"))
    looped(first, [3.0, 2.0], 1.0)
    looped(new(BestStateKeeper(tmp_path / "other")), [0.5], 9.0)
    again = new(BestStateKeeper(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"0\.5 at step 1.* loss 2 at step 2.*resume=True.*fresh"):
        again.load_state_dict(first.state_dict())
    resumed = new(BestStateKeeper(tmp_path / "other", resume=True))
    resumed.load_state_dict(first.state_dict())
    assert (restored(resumed), resumed.best_value) == ((1, 9.0), 0.5)


def test_a_best_whose_state_was_not_kept_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The keeper in memory went with the process; what comes back is the best since."""
    first = new(None)
    looped(first, [3.0, 0.5], 1.0)
    again = new(None)
    again.load_state_dict(first.state_dict())
    looped(again, [0.7], 2.0, first=3)
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert restored(again) == (3, 2.0)
    assert (
        "0.5 at step 2, was not kept; restored is the best that was, 0.7 at step 3" in caplog.text
    )


def test_a_keeper_in_memory_is_not_given_to_a_second_run() -> None:
    """Its states would be lost, or handed out as the second run's."""
    keeper = BestStateKeeper()
    looped(new(keeper), [0.5], 1.0)
    with pytest.raises(ValueError, match=r"the keeper holds .* another run.*a keeper for each run"):
        looped(new(keeper), [6.7], 2.0)
    keeper = BestStateKeeper(fresh=True)
    looped(new(keeper), [0.5], 1.0)
    second = new(keeper)
    looped(second, [6.7], 2.0)
    assert restored(second) == (1, 2.0)


def test_two_flags_that_contradict_each_other_are_refused() -> None:
    """Resume and fresh."""
    with pytest.raises(ValueError, match="resume=True or fresh=True, not both"):
        BestStateKeeper(resume=True, fresh=True)


# -- a keeper without a rule -------------------------------------------------------------------


def test_a_keeper_alone_begins_anew_at_an_earlier_step(tmp_path: Path) -> None:
    """Step 1 again is another run."""
    offer_constants(BestStateKeeper(tmp_path), [3.0, 0.5])
    keeper = BestStateKeeper(tmp_path)
    with pytest.warns(RuntimeWarning, match="begins anew beside them"):
        assert keeper.offer(1, 9.0, constant(7.0))
    model = constant(0.0)
    assert (keeper.restore(model), model.weight.item()) == (1, 7.0)


def test_a_keeper_alone_goes_on_at_a_later_step(tmp_path: Path) -> None:
    """And says so; after a restore there is nothing to say."""
    offer_constants(BestStateKeeper(tmp_path), [3.0, 0.5])
    with pytest.warns(RuntimeWarning, match=r"continues from the states.*resume=True.*fresh=True"):
        assert not BestStateKeeper(tmp_path).offer(3, 9.0, constant(7.0))
    keeper = BestStateKeeper(tmp_path)
    keeper.restore(constant(0.0))
    assert not keeper.offer(1, 9.0, constant(7.0))
    assert keeper.best_step == 2


# -- the Trainer -------------------------------------------------------------------------------


def test_each_training_is_a_run_of_its_own(tmp_path: Path) -> None:
    """The second `train()` of a callback begins anew, in its folder too."""
    keeper = BestStateKeeper(tmp_path / "best")
    callback = RuleCallback(9, "eval_loss", "max", keeper=keeper)  # its first value is the best
    train(tmp_path, callback, learning_rate=0.0)
    first = callback.best_value
    with pytest.warns(RuntimeWarning, match="begins anew beside them"):
        train(tmp_path, callback, learning_rate=0.0, eval_steps=5)
    assert (callback.best_value, callback.best_step, keeper.best_step) == (first, 5, 5)


def test_a_resumed_training_is_the_same_run(tmp_path: Path) -> None:
    """From the Trainer's checkpoint, without a flag; the keeper may be ahead of it."""
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    train(
        tmp_path,
        RuleCallback(9, "eval_loss", "min", keeper=BestStateKeeper(tmp_path / "best")),
        max_steps=6,
        **options,
    )
    for folder in tmp_path.glob("checkpoint-6"):
        folder.rename(tmp_path / "gone")

    keeper = BestStateKeeper(tmp_path / "best")
    assert keeper.best_step == 6
    callback = RuleCallback(9, "eval_loss", "min", keeper=keeper)
    trainer = trainer_of(tmp_path, callback, max_steps=8, **options)
    trainer.train(resume_from_checkpoint=True)
    assert (keeper.best_step, callback.best_step) == (8, 8)
