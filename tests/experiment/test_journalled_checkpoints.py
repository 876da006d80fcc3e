"""Best states whose results Ray has lost: what the journals know of them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.watched import BEGIN, BIRTH, OLDER, write_journal
from tune_stoppers import best_state, best_states
from tune_stoppers.journal.lines import AGAIN, BEGINS, FORGOT, Line

RUN = "BoundASHAScheduler-0123abcd"
OTHER = "BudgetStopper-0123abcd"


def name(number: int) -> str:
    return f"checkpoint_{number:06d}"


def trial(folder: Path, rows: list[tuple[int, float, int | None]], folders: int) -> Path:
    """A trial's folder with `folders` checkpoints, and rows of step, loss and checkpoint."""
    place = folder / "train_a0000_1"
    for number in range(folders):
        (place / name(number)).mkdir(parents=True)
    (place / "params.json").write_text('{"lr": 0.1}')
    said = [
        {"trial_id": "a0000", "training_iteration": step, "loss": loss}
        | {"timestamp": int(BEGIN) + step, "checkpoint_dir_name": None if n is None else name(n)}
        for step, loss, n in rows
    ]
    (place / "result.json").write_text("".join(json.dumps(row) + "\n" for row in said))
    return place


def begins(**said: Any) -> Line:
    known = {"metric": "loss", "time_attr": "training_iteration", "sign": 1}
    return {"time": BEGIN, "trial": "", "event": BEGINS} | known | said


def judged(step: float, value: Any, number: Any, *, at: float | None = None, **more: Any) -> Line:
    """A report's line, half a second after the result's whole one."""
    time = BEGIN + 0.5 + (step if at is None else at)
    line: Line = {"time": time, "trial": "a0000", "step": step, "value": value} | more
    line |= {} if "event" in more else {"action": "CONTINUE"}
    return line | {"checkpoint": name(number) if type(number) is int else number}


def best_of(folder: Path, **asked: Any) -> tuple[float, float, str | None]:
    """Step, value and name of the trial's best checkpoint."""
    (row,) = best_states(folder, "loss", "min", **asked).to_dict("records")
    where = row["checkpoint"]
    return row["checkpoint_step"], row["checkpoint_value"], where and Path(where).name


def test_a_checkpoint_without_a_row_is_found(tmp_path: Path) -> None:
    """With what the journal keeps of its report; its value is the trial's best then."""
    place = trial(tmp_path, [(1, 3.0, 0)], 3)
    clocks = {"training_iteration": 2, "time_total_s": 7.5}
    write_journal(
        tmp_path,
        f"{BIRTH}-{RUN}",
        [begins(), judged(1, 3.0, 0), judged(2, 1.0, 1, clocks=clocks), judged(3, 2.0, 2)],
    )
    assert best_of(tmp_path) == (2, 1.0, name(1))
    best = best_state(tmp_path, "loss", "min")
    assert (best.step, best.value, best.config) == (2, 1.0, {"lr": 0.1})
    assert best.checkpoint == str(place / name(1))
    assert best.metrics["time_total_s"] == 7.5
    (row,) = best_states(tmp_path, "loss", "min").to_dict("records")
    assert (row["best_step"], row["best_value"], row["reports"]) == (2, 1.0, 1)


LOST = [(1, 3.0, 0), (2, 1.0, 1)]  # the second report's row is not in the results


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([begins(metric="accuracy")], "another metric"),
        ([begins(metric=None)], "none"),
        ([begins(time_attr="tokens")], "another time"),
        ([], "nothing said of itself"),
    ],
)
def test_a_journal_of_something_else_says_nothing(
    tmp_path: Path, lines: list[Line], why: str
) -> None:
    """Its values are of another metric, or its steps of another clock."""
    trial(tmp_path, LOST[:1], 2)
    write_journal(tmp_path, f"{BIRTH}-{RUN}", [*lines, *(judged(*told) for told in LOST)])
    assert best_of(tmp_path) == (1, 3.0, name(0)), why


def test_another_birth_says_nothing(tmp_path: Path) -> None:
    """An experiment that was begun again under its name."""
    trial(tmp_path, LOST[:1], 2)
    write_journal(tmp_path, f"{OLDER}-{RUN}", [begins(), *(judged(*told) for told in LOST)])
    write_journal(tmp_path, f"{BIRTH}-{RUN}", [begins()])
    assert best_of(tmp_path) == (1, 3.0, name(0))


REPLACED: dict[str, list[Line]] = {
    "judged": [judged(3, 2.5, 1)],
    "repeated after a restore": [judged(3, 2.5, 1, event=AGAIN)],
    "a value that is none": [judged(3, 2.5, 1), judged(4, "nan", 1)],
    "older, though it stands below": [judged(9, 2.5, 1), judged(2, 1.0, 1, at=2.1)],
}


@pytest.mark.parametrize("what", REPLACED)
def test_the_newest_line_says_what_is_in_a_folder(tmp_path: Path, what: str) -> None:
    """The trial went back, and wrote over the folder of its best."""
    trial(tmp_path, [], 2)
    lines = [begins(), *(judged(*told) for told in LOST), *REPLACED[what]]
    write_journal(tmp_path, f"{BIRTH}-{RUN}", lines)
    expected = (1, 3.0, name(0)) if "none" in what else (REPLACED[what][0]["step"], 2.5, name(1))
    assert best_of(tmp_path) == expected


def test_who_does_not_know_the_metric_can_take_a_name_away(tmp_path: Path) -> None:
    """The same report leaves it, a later one at another step does not."""
    trial(tmp_path, [], 3)
    told = [*LOST, (3, 0.5, 2)]
    write_journal(tmp_path, f"{BIRTH}-{RUN}", [begins(), *(judged(*one) for one in told)])
    other = [judged(2, None, 1, at=2.1), judged(4, None, 2)]
    write_journal(tmp_path, f"{BIRTH}-{OTHER}", [begins(metric=None), *other])
    assert best_of(tmp_path) == (2, 1.0, name(1))


def test_results_and_journal_of_one_name(tmp_path: Path) -> None:
    """The newer has the say; of one report, the results, which have all of it."""
    trial(tmp_path, [(1, 3.0, 0), (5, 2.0, 1), (6, 1.0, 2)], 3)
    told = [(1, 3.0, 0), (2, 0.1, 1), (8, 1.5, 2)]  # 5 wrote over 2, and 8 over 6
    write_journal(tmp_path, f"{BIRTH}-{RUN}", [begins(), *(judged(*one) for one in told)])
    assert best_of(tmp_path) == (8, 1.5, name(2))
    assert best_state(tmp_path, "loss", "max").metrics["timestamp"] == BEGIN + 1


def test_trials_that_never_were_left_nothing(tmp_path: Path) -> None:
    """Another trial has the id since, and the names."""
    trial(tmp_path, LOST[:1], 2)
    gone: Line = {"time": BEGIN + 4, "trial": "", "event": FORGOT, "trials": ["a0000", ["x"], None]}
    lines = [begins(), *(judged(*told) for told in LOST), gone]
    write_journal(tmp_path, f"{BIRTH}-{RUN}", lines)
    assert best_of(tmp_path) == (1, 3.0, name(0))


@pytest.mark.parametrize(
    "odd", ["..", "../../outside", ".", "", "checkpoint_000009", "a\0b", True, 3.5, ["x"], None]
)
def test_what_is_no_checkpoint_of_the_trial_is_none(tmp_path: Path, odd: Any) -> None:
    """Deleted since, elsewhere, or of a class trainable, whose checkpoints have no name there."""
    (tmp_path / "outside").mkdir()
    trial(tmp_path / "sweep", LOST[:1], 2)
    lines = [begins(), judged(2, 0.1, odd), judged(3, 0.1, odd, event=AGAIN)]
    write_journal(tmp_path / "sweep", f"{BIRTH}-{RUN}", lines)
    assert best_of(tmp_path / "sweep") == (1, 3.0, name(0))


@pytest.mark.parametrize(
    "odd",
    [
        {"step": "x", "event": AGAIN},
        {"step": None, "event": AGAIN},
        {"step": math.nan, "event": AGAIN},
        {"metrics": 3, "clocks": [1], "value": "x"},
        {"metrics": {"loss": 0.1}, "clocks": {"loss": 0.1, "training_iteration": 9}, "value": 9.0},
    ],
)
def test_odd_lines_do_no_harm(tmp_path: Path, odd: dict[str, Any]) -> None:
    """A line is somebody's, perhaps: what it says beside the value is no value."""
    trial(tmp_path, LOST[:1], 2)
    write_journal(tmp_path, f"{BIRTH}-{RUN}", [begins(), judged(2, 0.1, 1) | odd])
    assert best_of(tmp_path) == (1, 3.0, name(0))
