"""TuneCallback: a real Trainer, with a tiny model, in real Tune trials."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tests.stand_ins.tiny_trainer import FailOnce, make_trainer, rows_of
from tune_stoppers import TuneCallback, best_state, best_states
from tune_stoppers.experiment.own_keys import share_of

pytestmark = pytest.mark.usefixtures("ray_session")


def train(config: dict[str, Any]) -> None:
    """A trial that fails, is killed or is slowed after step 5, as its config says."""
    marker = Path(config["folder"], f"failed {config['how']}")
    rate = config.get("lr", 0.01)
    if config["how"] == "other rate" and marker.exists():
        rate = 0.001
    callback = TuneCallback("eval_loss", "min")
    others = [] if config["how"] == "calm" else [FailOnce(5, marker, config["how"] == "killed")]
    constant = "constant" if config["how"] in ("other rate", "rolled back") else "linear"
    trainer = make_trainer(
        "out",
        [callback, *others],
        rate,
        lr_scheduler_type=constant,
        include_num_input_tokens_seen=True,
    )
    trainer.train(resume_from_checkpoint=callback.resume_from)


def fit(trainable: Any, storage: Path, space: dict[str, Any], **options: Any) -> Any:
    failures = tune.FailureConfig(max_failures=options.pop("max_failures", 0))
    run_config = tune.RunConfig(storage_path=str(storage), failure_config=failures, verbose=0)
    return tune.Tuner(
        trainable,
        param_space=space,
        run_config=run_config,
        tune_config=tune.TuneConfig(**options),
    ).fit()


@pytest.fixture(scope="module")
def trials(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of one calm trial and of three that fail once, by name."""
    folder = tmp_path_factory.mktemp("trials")
    ways = ["calm", "raises", "killed", "other rate"]
    space = {"how": tune.grid_search(ways), "folder": str(folder)}
    results = fit(train, folder / "storage", space, max_failures=1)
    assert len(list(folder.glob("failed *"))) == 3
    return {result.config["how"]: result for result in results}


def check_best(result: Any, folder: Path) -> None:
    """The best state of this trial, in a fresh model, evaluates to the recorded value."""
    trial_id = result.metrics["trial_id"]
    best = best_state(Path(result.path).parent, "eval_loss", "min", trial_id=trial_id)
    trainer = make_trainer(folder, [])
    before = trainer.evaluate()["eval_loss"]
    best.restore(trainer.model)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best.value, abs=1e-5)
    assert before > best.value + 0.01


def test_each_evaluation_is_one_report(trials: dict[str, Any]) -> None:
    """Reports carry the evaluation, a training log as fresh, the step and the progress."""
    rows = rows_of(trials["calm"])
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [row["progress"] for row in rows] == [0.25, 0.5, 0.75, 1.0]
    assert [share_of(row) for row in rows] == [0.25, 0.5, 0.75, 1.0]  # known for its own
    assert [row["tokens"] for row in rows] == [2 * 64, 4 * 64, 6 * 64, 8 * 64]
    assert [row["lr"] for row in rows] == pytest.approx([0.00875, 0.00625, 0.00375, 0.00125])
    for row in rows:
        assert {"eval_loss", "train_loss", "grad_norm", "epoch"} <= set(row)
    best = [min(row["eval_loss"] for row in rows[: n + 1]) for n in range(4)]
    assert [row["best_eval_loss"] for row in rows] == best


@pytest.mark.parametrize("how", ["raises", "killed"])
def test_a_failed_trial_goes_on_from_its_checkpoint(trials: dict[str, Any], how: str) -> None:
    """A trial that raised or was SIGKILLed goes on at the right step, on the very same curve."""
    assert trials[how].error is None
    last, expected = rows_of(trials[how])[-1], rows_of(trials["calm"])[-1]
    assert (last["step"], last["training_iteration"]) == (8, 4)
    assert last["iterations_since_restore"] == 2  # evaluations at 6 and 8: it did not start over
    assert last["eval_loss"] == expected["eval_loss"]
    assert last["tokens"] == expected["tokens"]


@pytest.mark.parametrize("how", ["calm", "raises", "killed", "other rate"])
def test_best_state_reproduces_the_recorded_loss(
    trials: dict[str, Any], tmp_path: Path, how: str
) -> None:
    """The best checkpoint is the recorded one, however often the trial was interrupted."""
    check_best(trials[how], tmp_path)


def test_a_changed_learning_rate_goes_on(trials: dict[str, Any]) -> None:
    """After a checkpoint's optimizer state is loaded, a new learning rate goes on, not the old."""
    rates = [row["lr"] for row in rows_of(trials["other rate"])]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_endings_are_told_after_failures(trials: dict[str, Any]) -> None:
    """A failure that the trial went on after is not how it ended."""
    frame = best_states(Path(trials["calm"].path).parent, "eval_loss", "min")
    assert set(frame["status"]) == {"TERMINATED"}


class PauseOrRollBack(FIFOScheduler):
    """Pauses each trial at its third report; one goes on, one from its first state."""

    def __init__(self) -> None:
        super().__init__()
        self.paused: set[str] = set()

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["step"] == 6 and trial.trial_id not in self.paused:
            self.paused.add(trial.trial_id)
            return str(TrialScheduler.PAUSE)
        return str(TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, controller: Any) -> Any:
        for trial in controller.get_trials():
            back = trial.config["how"] == "rolled back" and trial.config["lr"] == 0.01
            if trial.status == Trial.PAUSED and back:
                trial.set_config({**trial.config, "lr": 0.002})
                manager = trial.run_metadata.checkpoint_manager
                first = min(
                    manager.best_checkpoint_results, key=lambda found: found.metrics["step"]
                )
                manager._latest_checkpoint_result = first
        return super().choose_trial_to_run(controller)


@pytest.mark.stress
def test_a_paused_or_rolled_back_trial_goes_on(trials: dict[str, Any], tmp_path: Path) -> None:
    """A pause changes nothing; a rollback goes on from the older state at the new rate."""
    Path(tmp_path, "failed paused").touch()
    Path(tmp_path, "failed rolled back").touch()
    space = {
        "how": tune.grid_search(["paused", "rolled back"]),
        "lr": 0.01,
        "folder": str(tmp_path),
    }
    paused, back = fit(train, tmp_path / "storage", space, scheduler=PauseOrRollBack())
    assert paused.metrics["iterations_since_restore"] == 1  # only step 8 came after
    assert paused.metrics["eval_loss"] == rows_of(trials["calm"])[-1]["eval_loss"]
    assert back.metrics["step"] == 8
    assert back.metrics["iterations_since_restore"] == 3  # steps 4, 6 and 8, again
    assert back.metrics["lr"] == pytest.approx(0.002)
    for result in (paused, back):
        check_best(result, tmp_path / "restored")


@pytest.mark.stress
def test_only_what_is_worth_it_has_checkpoints(tmp_path: Path) -> None:
    """A checkpoint comes with each improvement, and with every n-th evaluation if asked for."""

    def worsen(config: dict[str, Any]) -> None:
        callback = TuneCallback("eval_loss", "max", checkpoint_every=config["every"])
        make_trainer("out", [callback]).train()

    space = {"every": tune.grid_search([None, 3])}
    never, third = fit(worsen, tmp_path, space)
    with_checkpoint = [row["checkpoint_dir_name"] is not None for row in rows_of(never)]
    assert with_checkpoint == [True, False, False, False]  # the loss falls: never better for max
    with_checkpoint = [row["checkpoint_dir_name"] is not None for row in rows_of(third)]
    assert with_checkpoint == [True, False, True, False]
