"""All hyperparameters of a trial as one line."""

import math

from tests.stand_ins.folders import trial
from tune_stoppers.report import experiment_story
from tune_stoppers.report.pictures import parallel
from tune_stoppers.report.pictures.picture import Line


def test_a_line_for_each_trial_through_what_it_was_given(tmp_path):
    """Rates on a logarithmic axis, categories side by side, a gap where a trial lacks one; last
    the result, on the worst edge for a diverged trial. A trial without a result has no line."""
    for name, losses, config in [
        ("a0000", [2.0, 1.0], {"lr": 1e-4, "opt": "adam"}),
        ("b0000", [2.0, 1.5], {"lr": 1e-3, "opt": "sgd"}),
        ("c0000", [None, None], {"lr": 1e-2}),
        ("d0000", [], {"lr": 1e-2, "opt": "sgd"}),
    ]:
        trial(tmp_path, name, losses, config, done=True)
    picture = parallel(experiment_story(tmp_path, "loss", "min"))
    names = [text for _, text in picture.x.ticks]
    assert sorted(names[:2]) == ["lr (log)", "opt"]
    lines = {m.trial.number: [y for _, y in m.points] for m in picture.marks if isinstance(m, Line)}
    assert sorted(lines) == [0, 1, 2]
    lr, opt = names.index("lr (log)"), names.index("opt")
    assert math.isclose(lines[1][lr], 0.5)
    assert lines[0][opt] < 0.5 < lines[1][opt]
    assert math.isnan(lines[2][opt])
    assert lines[0][2] < lines[1][2] < lines[2][2] == 1
