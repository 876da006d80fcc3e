"""Which configuration is named with a state: the one that it was trained with."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.stand_ins.rollback_stage import QUICK, Stage, journal_of
from tests.stand_ins.watched import BEGIN, BIRTH, write_journal
from tune_stoppers import RollbackScheduler, best_state, best_states, explain
from tune_stoppers.experiment.configs import as_data, differing, journalled_configs
from tune_stoppers.journal.lines import BEGINS, CONFIG, TRIAL, Line
from tune_stoppers.report import experiment_story, write_page
from tune_stoppers.report.terminal.best import best_of
from tune_stoppers.tune.schedulers.memory import fingerprint

RUN = f"{BIRTH}-RollbackScheduler-0123abcd"


def write(
    folder: Path, rows: list[dict[str, Any]], last: dict[str, Any], name: str = "a0000"
) -> Path:
    """A trial that Ray ended under the configuration `last`; its rows come with checkpoints."""
    place = folder / f"train_{name}_1"
    place.mkdir(parents=True)
    (place / "params.json").write_text(json.dumps(last))
    text = ""
    for index, row in enumerate(rows):
        saved = f"checkpoint_{index:06d}"
        (place / saved).mkdir()
        known = {"trial_id": name, "timestamp": int(BEGIN) + 10 * index, "done": False}
        known |= {"checkpoint_dir_name": saved, "training_iteration": index + 1}
        text += json.dumps(known | row) + "\n"
    (place / "result.json").write_text(text)
    return place


def row(loss: float, lr: float | None, **more: Any) -> dict[str, Any]:
    """A report under a learning rate; None: it does not say."""
    return {"loss": loss} | ({} if lr is None else {"config": {"opt": {"lr": lr}, "b": 1}}) | more


LAST = {"opt": {"lr": 0.2}, "b": 1}
ROLLED_BACK = [row(3.0, 0.8), row(1.0, 0.8), row(2.0, 0.8), row(1.5, 0.4)]


def test_a_state_has_the_configuration_that_it_was_trained_with(tmp_path: Path) -> None:
    """Not the trial's last, which Ray writes to the trial's folder; nested keys too."""
    write(tmp_path, ROLLED_BACK, LAST)
    best = best_state(tmp_path, "loss", "min")
    assert (best.value, best.config) == (1.0, {"opt": {"lr": 0.8}, "b": 1})
    (found,) = best_states(tmp_path, "loss", "min").to_dict("records")
    assert (found["config/opt/lr"], found["last_config/opt/lr"], found["config/b"]) == (0.8, 0.2, 1)
    assert not any(key.startswith("best_config") for key in found)
    assert "last_config/b" not in found  # only what differs


def test_of_checkpoint_and_best_report_each_has_its_own(tmp_path: Path) -> None:
    """The best report came without one; `config/…` is of the checkpoint, to go on from."""
    rows = [row(3.0, 0.8), row(1.0, 0.4, checkpoint_dir_name=None), row(2.0, 0.2)]
    write(tmp_path, rows, LAST)
    (found,) = best_states(tmp_path, "loss", "min").to_dict("records")
    assert (found["best_value"], found["best_config/opt/lr"]) == (1.0, 0.4)
    assert (found["checkpoint_value"], found["config/opt/lr"]) == (2.0, 0.2)
    for folder in (tmp_path / "train_a0000_1").glob("checkpoint_*"):
        folder.rmdir()
    (found,) = best_states(tmp_path, "loss", "min").to_dict("records")
    assert (found["checkpoint"], found["config/opt/lr"]) == (None, 0.4)  # of the best report


def test_where_nothing_changed_there_are_no_more_columns(tmp_path: Path) -> None:
    """NaN in a configuration is no change either; nor is a trial that never reported."""
    odd = {"opt": {"lr": math.nan}, "b": 1}
    write(tmp_path, [row(1.0, math.nan)], odd)
    write(tmp_path, [], odd, name="a0001")
    frame = best_states(tmp_path, "loss", "min")
    assert [key for key in frame if "config" in key] == ["config/opt/lr", "config/b"]
    assert frame["config/b"].tolist() == [1, 1]


def configured(at: float, event: str, lr: float) -> Line:
    values = {"opt": {"lr": lr}, "b": 1}
    line: Line = {"time": BEGIN + at, "trial": "a0000", "event": event}
    return line | {"config": fingerprint(values), "values": values}


CHANGES = [configured(-1, TRIAL, 0.8), configured(20.01, CONFIG, 0.4)]


def test_a_row_that_does_not_say_is_told_by_the_journal(tmp_path: Path) -> None:
    """By its time; without a journal the trial's last configuration is all there is."""
    write(tmp_path, [row(loss, None) for loss in (3.0, 1.0, 2.0, 1.5)], LAST)
    assert best_state(tmp_path, "loss", "min").config == LAST
    write_journal(tmp_path, RUN, CHANGES)
    assert best_state(tmp_path, "loss", "min").config["opt"] == {"lr": 0.8}
    assert best_state(tmp_path, "loss", "max").config["opt"] == {"lr": 0.8}
    (tmp_path / "train_a0000_1" / "checkpoint_000001").rmdir()
    assert best_state(tmp_path, "loss", "min").config["opt"] == {"lr": 0.4}  # the fourth


def test_a_stopper_sees_a_change_in_the_report_that_it_judges(tmp_path: Path) -> None:
    """Its line is later than that report."""
    write(tmp_path, [row(loss, None) for loss in (3.0, 1.0, 2.0, 1.5)], LAST)
    seen = configured(30.4, CONFIG, 0.4) | {"reported": BEGIN + 30}
    write_journal(tmp_path, RUN, [configured(0.4, CONFIG, 0.8), seen])
    changes = explain(tmp_path)["changes"].tolist()
    assert changes == ["opt/lr 0.8 -> 0.4 at 4"]


def test_a_checkpoint_whose_result_was_lost_has_its_configuration(tmp_path: Path) -> None:
    """As the journal has it at that report, before the rollback and after."""
    place = write(tmp_path, [row(3.0, 0.8)], LAST)
    lines: list[Line] = [
        {"time": BEGIN - 2, "trial": "", "event": BEGINS, "sign": 1}
        | {"metric": "loss", "time_attr": "training_iteration"},
        CHANGES[0],
    ]
    for number, (at, loss) in enumerate([(10.5, 1.0), (20.005, 2.0), (30.5, 0.5)], start=1):
        (place / f"checkpoint_{number:06d}").mkdir()
        line: Line = {"time": BEGIN + at, "trial": "a0000", "step": number + 1, "value": loss}
        lines.append(line | {"action": "CONTINUE", "checkpoint": f"checkpoint_{number:06d}"})
    write_journal(tmp_path, RUN, [*lines[:4], CHANGES[1], lines[4]])
    assert best_state(tmp_path, "loss", "min").config["opt"] == {"lr": 0.4}
    (place / "checkpoint_000003").rmdir()
    best = best_state(tmp_path, "loss", "min")
    assert (best.value, best.config["opt"]) == (1.0, {"lr": 0.8})


def test_explain_says_how_it_changed(tmp_path: Path) -> None:
    """Its configuration is the last report's, as its step and value are."""
    write(tmp_path, ROLLED_BACK, LAST)
    (found,) = explain(tmp_path).to_dict("records")
    assert (found["config/opt/lr"], found["changes"]) == (0.4, "opt/lr 0.8 -> 0.4 at 4")


def test_the_command_line_and_the_page_name_it_too(tmp_path: Path) -> None:
    """Beside the best state its own learning rate, and the one that the trial went on with."""
    write(tmp_path, ROLLED_BACK, LAST)
    write(tmp_path, [row(5.0, 0.1)], {"opt": {"lr": 0.1}, "b": 1}, name="a0001")
    lines = best_of(str(tmp_path), "loss", "min").headline
    assert lines[2:] == ["trained with opt/lr=0.8, b=1", "the trial ended with opt/lr=0.2"]
    story = experiment_story(tmp_path, "loss", "min")
    best = story.best
    assert best is not None
    assert (best.config["opt/lr"], best.last_config) == (0.8, {"opt/lr": 0.2})
    html = write_page(story, tmp_path / "page.html").read_text()
    assert "The trial then continued with opt/lr = 0.2." in html


def test_the_page_says_what_another_checkpoint_was_trained_with(tmp_path: Path) -> None:
    """Where the best report's state was not kept."""
    write(tmp_path, [row(3.0, 0.8), row(1.0, 0.4, checkpoint_dir_name=None)], LAST)
    path = write_page(experiment_story(tmp_path, "loss", "min"), tmp_path / "page.html")
    assert "It was trained with opt/lr = 0.8." in path.read_text()


def test_a_rollback_journals_both_configurations(tmp_path: Path) -> None:
    """So that they are known where the results are lost."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    trial = stage.add(config={"lr": 0.8, "layers": [1, 2]})
    stage.start(trial)
    stage.curve(trial, [1.0, 2.0, 2.0])
    stage.resume()
    told = journalled_configs(journal_of(scheduler, stage))["t"]
    assert [config for _, config in told] == [
        {"lr": 0.8, "layers": [1, 2]},
        {"lr": 0.4, "layers": [1, 2]},
    ]


@pytest.mark.parametrize(
    ("config", "data"),
    [
        ({"lr": SimpleNamespace(item=lambda: 0.5)}, {"lr": 0.5}),  # as numpy's
        ({"model": Path("a/b"), 3: None}, {"model": "a/b", "3": None}),
        ({"vocabulary": "x" * 2**17}, None),
        ({("a", "b"): 1}, None),
    ],
)
def test_what_no_line_can_hold_is_left_out(config: dict[Any, Any], data: Any) -> None:
    """Objects are named, as Ray does; a configuration that is too large is not written."""
    assert as_data(config) == data


def test_differing_looks_into_what_is_nested() -> None:
    """A key that one of them lacks counts."""
    assert differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a/c", "d"]
