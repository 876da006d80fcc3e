"""The best so far, beside the same trials with none of them stopped."""

from dataclasses import replace

from tests.stand_ins.folders import trial
from tune_stoppers.report import experiment_story
from tune_stoppers.report.pictures import incumbent


def test_when_the_best_was_found_and_when_without_stopping(tmp_path):
    """In words, in the unit of the axis, which reaches to the later end; a first value that is far
    off does not stretch the axis: the line comes in at an arrow."""
    trial(tmp_path, "a0000", [90.0, 1.4, *[2.0] * 37, 1.0], done=True)
    story = experiment_story(tmp_path, "loss", "min")
    plain = incumbent(story)
    assert not [mark for mark in plain.marks if mark.role == "unstopped"]
    whole = ((2.0, 95.0), (4.0, 1.4), (90.0, 1.0), (200.0, 1.0))
    picture = incumbent(replace(story, unstopped=whole))
    assert picture.x.scale.high == 200
    assert picture.y.scale.high < 90
    assert "1 is reached at 90 instead of 40" in picture.caption
    assert "the end, with 1, at 200 instead of 40." in picture.caption
    arrows = [(mark.shape, mark.x) for mark in picture.marks if mark.role == "off"]
    assert arrows == [("off-up", 4.0), ("off-up", 2.0)]
    assert "2 values lie beyond it, the farthest at 95." in picture.caption
    slow = incumbent(replace(story, unstopped=((2.0, 95.0), (50.0, 1.0), (200.0, 1.0))))
    assert slow.y.scale.high > 90  # what was the best for long is seen
