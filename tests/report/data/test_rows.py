"""When reports were made, from whole time stamps and durations."""

import math

import pytest

from tune_stoppers.report.data.rows import spans_of, value


def rows(stamps, elapsed, **more):
    return [
        {
            "training_iteration": place,
            "timestamp": stamp,
            "time_since_restore": since,
            "time_this_iter_s": 0.25,
            "iterations_since_restore": place,
            "pid": 1,
            "hostname": "node",
        }
        | more
        for place, (stamp, since) in enumerate(zip(stamps, elapsed, strict=True), start=1)
    ]


def test_reports_within_a_second_are_apart():
    """A process that began at 100.6 and reports four times a second: each within 0.25 s."""
    reports = rows([100, 101, 101], [0.25, 0.5, 0.75])
    times, spans = spans_of(reports, "training_iteration")
    assert [times[id(row)] for row in reports] == pytest.approx([100.85, 101.1, 101.35], abs=0.25)
    assert times[id(reports[2])] - times[id(reports[0])] == pytest.approx(0.5)
    ((begin, end),) = [(span.begin, span.end) for span in spans]
    assert (begin, end) == pytest.approx((100.6, 101.35), abs=0.25)


def test_a_long_wait_within_a_process_is_a_gap():
    """A paused trial whose process was kept: its waiting is no work."""
    reports = rows([100, 100, 130], [0.25, 0.5, 0.75])
    _, spans = spans_of(reports, "training_iteration")
    assert [span.opening for span in spans] == ["start", "resume"]
    assert spans[1].begin - spans[0].end > 25


@pytest.mark.parametrize("stamp", [None, math.inf, math.nan, "x", 1e300])
def test_rows_without_stamps_have_no_place_in_time(stamp):
    """Instead of a wrong one."""
    assert spans_of(rows([stamp], [0.25]), "training_iteration") == ({}, [])


def test_a_value_that_is_no_number_is_not_an_absent_one():
    """Ray writes NaN as null."""
    assert value({"eval": {"loss": 1}}, "eval/loss") == 1.0
    assert math.isnan(value({"eval": {"loss": None}}, "eval/loss"))
    assert value({"eval": {}}, "eval/loss") is None
