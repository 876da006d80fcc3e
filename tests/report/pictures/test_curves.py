"""What the picture of the learning curves says."""

import pytest

from tests.stand_ins.folders import trial
from tune_stoppers.report import experiment_story
from tune_stoppers.report.pictures import curves, metric_curves


def marks_of(picture, role):
    return [mark for mark in picture.marks if mark.role == role]


def test_a_curve_that_leaves_the_axis_says_where_and_how_far(tmp_path):
    """An arrow of that trial on the edge, and in words how many values lie beyond, how far."""
    for n in range(8):
        trial(tmp_path, f"a000{n}", [2.0, 1.5 - n / 100, 1.4], done=True)
    trial(tmp_path, "b0000", [2.0, 1.6, 50.0, None], done=True)
    picture = curves(experiment_story(tmp_path, "loss", "min"))
    (arrow,) = marks_of(picture, "off")
    assert (arrow.shape, arrow.trial.number, arrow.y) == ("off-up", 8, picture.y.scale.high)
    assert 2 < arrow.x < 3
    assert (
        "2 values lie beyond it, the farthest at 50; 1 of them are NaN or infinite."
        in picture.caption
    )


def test_learning_rates_lie_on_a_logarithmic_axis(tmp_path):
    """Also where a schedule ends at zero, which the axis leaves below its edge."""
    for name, rate in (("a0000", 1e-4), ("b0000", 1e-2)):
        rows = trial(tmp_path, name, [2.0, 1.0, 0.5], done=True, lr=rate)
        assert rows
    story = experiment_story(tmp_path, "loss", "min")
    axis = metric_curves(story, "lr").y
    assert axis.scale.log
    assert axis.scale.low == pytest.approx(1e-4, rel=0.3)
    assert axis.name == "lr (log)"
