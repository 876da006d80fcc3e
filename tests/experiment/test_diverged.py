"""A trial that diverged is not credited with the model as it was before its training."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.test_folder import (
    ABOUT_LOSS,
    ADDED,
    FOLDER,
    judged,
    row,
    write,
    write_journal,
)
from tune_stoppers import best_state, best_states
from tune_stoppers.experiment.diverged import has_diverged, is_untrained
from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.report import experiment_story
from tune_stoppers.report.html.page import page
from tune_stoppers.report.terminal.best import best_of

NAN = math.nan


def at(iteration: int, step: int, loss: float | None, **more: Any) -> dict[str, Any]:
    """A report that counts optimizer steps too."""
    return row(iteration, loss=loss) | {"step": step} | more


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([at(1, 0, 4.0), at(2, 10, NAN)], NAN),
        ([at(1, 0, 4.0), at(2, 10, math.inf), at(3, 20, "null")], NAN),
        ([at(1, 0, 4.0), at(2, 10, 5.0), at(3, 20, NAN)], 4.0),  # it was worse, but a model
        ([at(1, 0, 4.0), at(2, 10, 3.0)], 4.0 - 1.0),
        ([at(1, 0, 4.0)], 4.0),  # there is nothing else yet
        ([at(1, 0, 4.0), at(2, 10, None)], 4.0),  # a log between evaluations
        ([at(1, 0, 4.0), at(2, 1, NAN)], 4.0),  # reports counted from 0: the first is trained
        (
            [
                at(1, 0, 4.0, epoch=0.0, progress=0.0, best_loss=4.0),
                at(2, 1, NAN, epoch=0.5, progress=0.5, best_loss=4.0),
            ],
            NAN,  # TuneCallback's: its step 0 is before the first
        ),
    ],
    ids=str,
)
def test_what_was_not_trained_is_no_result(
    tmp_path: Path, rows: list[dict[str, Any]], best: float
) -> None:
    """If nothing finite came of the training."""
    rows = [{k: v for k, v in r.items() if v is not None} for r in rows]
    write(tmp_path, rows)
    frame = best_states(tmp_path, "loss", "min")
    assert frame["best_value"].tolist() == pytest.approx([best], nan_ok=True)
    assert frame["diverged"].tolist() == [has_diverged(rows, "loss")]


def test_a_log_between_evaluations_is_no_divergence(tmp_path: Path) -> None:
    """None, in the last report too, is a value that is missing; a NaN that was reported is not."""
    write(tmp_path, [at(1, 1, 4.0), at(2, 2, None)])
    assert best_states(tmp_path, "loss", "min")["diverged"].tolist() == [False]
    assert has_diverged([at(1, 1, 4.0), at(2, 2, NAN)], "loss")
    assert not has_diverged([at(1, 1, 4.0), at(2, 2, None)], "loss")


def test_it_is_said_that_trials_diverged(tmp_path: Path) -> None:
    """In the table, on the command line and in the verdict; the winner is one that was trained."""
    rows = [at(1, 0, 1.0, checkpoint_dir_name="checkpoint_000000"), at(2, 10, NAN)]
    trial = write(tmp_path, rows)
    (trial / "checkpoint_000000").mkdir()
    write_journal(tmp_path, [ABOUT_LOSS, ADDED, judged(1, 1.0), judged(2, "nan", checkpoint=None)])
    with pytest.raises(ExperimentError, match="1 of 1 diverged"):
        best_state(tmp_path, "loss", "min")
    write(tmp_path, [at(1, 0, 1.0), at(2, 10, 2.0)], FOLDER.replace("00000_0", "00001_1"))
    other = tmp_path / FOLDER.replace("00000_0", "00001_1") / "result.json"
    other.write_text(other.read_text().replace("9f18b_00000", "9f18b_00001"))
    found = best_of(str(tmp_path), "loss", "min")
    assert [row["trial_id"] for row in found.states] == ["9f18b_00001", "9f18b_00000"]
    assert found.table(2)[1][1] == ["9f18b_00000", "–", "–", "–", "–", "UNKNOWN, diverged"]
    assert "1 of 2 trials diverged." in found.headline[-1]
    story = experiment_story(tmp_path, "loss", "min")
    assert [trial.trial_id for trial in story.ranked] == ["9f18b_00001"]
    assert "1 of 2 trials diverged." in page(story)


def test_time_zero_is_before_training() -> None:
    """By what counts as the step; a trial without steps was always trained."""
    assert is_untrained({"epoch": 0, "training_iteration": 1}, [{"epoch": 0}], "epoch")
    assert not is_untrained(row(1), [row(1)], "training_iteration")
