"""What `make sweep` says it took and saved."""

import json

import pytest

from experiments import sweep_summary
from tests.stand_ins.folders import trial
from tune_stoppers.report import experiment_story


@pytest.fixture
def story(tmp_path):
    """Of 20 steps with 13 s of start-up and 2.1 s a step: one trial in full, one stopped at 4."""
    for name, reports in (("a0000", 6), ("b0000", 2)):
        rows = trial(tmp_path, name, [3.0] * reports, done=True)
        if reports == 2:
            rows[-1]["stop_reason"] = "PatienceStopper: why"
        for made, row in enumerate(rows):
            taken = 8.4 if made else 13.0
            row |= {"step": 4 * made, "progress": made / 5, "time_this_iter_s": taken}
            row |= {"time_since_restore": 13.0 + 8.4 * made, "time_total_s": 13.0 + 8.4 * made}
            row["timestamp"] = int(1000 + row["time_total_s"])
        (path,) = tmp_path.glob(f"train_{name}_*/result.json")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return experiment_story(tmp_path, "loss", "min", time_attr="step")


def test_a_full_run_is_one_start_up_and_its_steps(story):
    """110 s at stake; five times the stopped trial's time would have been 107 s for it alone."""
    found = sweep_summary.compute_of(story)
    assert (found["spent_s"], found["horizon_s"]) == pytest.approx((76.4, 110.0))
    assert (found["startup_s"], found["stopped"]) == (pytest.approx(26.0), 1)
    assert found["saved_share"] == pytest.approx(33.6 / 110)


def test_it_is_said_in_words(story):
    """With the start-up, the steps and the time on the clock."""
    head, *lines = sweep_summary.compute_lines(story)
    assert head == "31% saved by stopping 1 of 2 trials early"
    told = dict(line.split(":", 1) for line in lines[:-1])
    assert told["Spent"].strip() == "76 s, 8 reports"
    assert told["Start-up"].strip() == "26 s of it (34%)"
    assert told["Saved in step"].strip() == "16 of 40 (40%)"
    assert told["Took"].strip() == "55 s"
    assert "end at step 20" in lines[-1]
