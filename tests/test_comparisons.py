"""What is compared, as a sweep's record has it."""

import pytest

from tune_stoppers.comparisons import PAUSED, compare
from tune_stoppers.core import Report
from tune_stoppers.report.data.compared_again import GONE, Known
from tune_stoppers.rules.sweep.expected_improvement import ExpectedImprovement
from tune_stoppers.surrogate.acquisition.expected_improvement import ExpectedImprovementAcquisition

ENDED = {"a": [5, 4, 3.0], "b": [5, 4.5, 4, 2.8], "c": [6, 5, 2.9], "d": [6, 4, 3.5, 2.7]}
WAITING = {"e": [6.0, 5.0], "f": [7.0]}


@pytest.mark.parametrize(("max_t", "at_target"), [(10, True), (5, False)])
def test_a_target_is_seen_where_trials_end_long_before_the_horizon(max_t: int, at_target: bool):
    """Those that ended from 0.8 of it on have run to their ends, and show none."""
    rule = ExpectedImprovement(max_t=max_t)
    record, trials = rule.init(), []
    for trial_id, losses in {**ENDED, **WAITING}.items():
        over = trial_id in ENDED
        trials.append(Known(trial_id, {}, GONE if over else PAUSED))
        for step, loss in enumerate(losses, 1):
            rule.update(record, report := Report(trial_id, step, loss), checkpoint="there")
            rule.note(record, trial_id, "resumed" if step < len(losses) else "paused", {})
        if over:
            rule.ended(record, report)
    said = compare(ExpectedImprovementAcquisition(), rule, record, [], trials)
    assert said.compared is not None
    assert said.compared.at_target is at_target
