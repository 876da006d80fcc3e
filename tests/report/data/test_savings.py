"""What trials took, and what stopping them saved."""

import math

import pytest

from tune_stoppers.report.data.savings import TrialCourse, costs_of, horizons_of
from tune_stoppers.report.data.totals import Cost, Totals

ATTR = "step"


def process(steps, seconds, *, pid=1, begin=1000.0, total=0.0, **more):
    """The reports of one process of a trial: its steps, and what each took."""
    rows, since = [], 0.0
    for made, (step, taken) in enumerate(zip(steps, seconds, strict=True), start=1):
        since += taken
        rows.append(
            {
                "step": step,
                "training_iteration": made,
                "iterations_since_restore": made,
                "time_this_iter_s": taken,
                "time_since_restore": since,
                "time_total_s": total + since,
                "timestamp": int(begin + since),
                "pid": pid,
                "hostname": "node",
            }
            | more
        )
    return rows


FULL = TrialCourse(process(range(0, 21, 4), [13.0] + [8.4] * 5), "finished")  # 55 s, 13 of start-up


def test_a_start_up_is_counted_once():
    """A trial stopped a fifth on would have taken 55 s as its peer did, not five times its own."""
    stopped = TrialCourse(process([0, 4], [13.0, 8.4]), "stopped")
    full, cost = costs_of([FULL, stopped], ATTR)
    assert (full.spent, full.startup, full.saved) == pytest.approx((55.0, 13.0, 0.0))
    assert cost.spent + cost.saved == pytest.approx(55.0)
    assert (cost.saved_steps, cost.saved_reports) == (16, 4)
    totals = Totals.of([full, cost])
    assert totals.share == pytest.approx(33.6 / 110)
    assert totals.share_of_steps == pytest.approx(16 / 40)
    assert totals.startup == pytest.approx(26.0)


def test_without_an_evaluation_before_training_the_pace_tells_the_start_up():
    """Its first report holds both."""
    (cost,) = costs_of([TrialCourse(process([4, 8, 12], [21.4, 8.4, 8.4]), "finished")], ATTR)
    assert cost.startup == pytest.approx(13.0)


def test_one_report_takes_the_pace_of_the_others():
    """There is none of its own after it; without others it is not known."""
    once = TrialCourse(process([4], [21.4]), "stopped")
    cost = costs_of([FULL, once], ATTR)[1]
    assert (cost.startup, cost.saved) == pytest.approx((13.0, 16 * 2.1))
    (alone,) = costs_of([TrialCourse(process([4], [21.4], progress=0.2), "stopped")], ATTR)
    assert (alone.spent, alone.saved_steps) == pytest.approx((21.4, 16.0))
    assert math.isnan(alone.saved) and math.isnan(alone.startup)


def test_a_trial_goes_by_its_own_pace():
    """It may be slower than the others by its batch size."""
    slow = TrialCourse(process([0, 4], [13.0, 80.0]), "stopped")
    assert costs_of([FULL, slow], ATTR)[1].saved == pytest.approx(16 * 20.0)


def test_its_own_progress_tells_the_horizon():
    """Trials of different lengths: each to its own end, also where none came to one."""
    short = TrialCourse(process([0, 4], [13.0, 8.0], progress=0.5), "stopped")
    long = TrialCourse(process([0, 4], [13.0, 8.0], progress=0.1), "stopped")
    assert [cost.saved_steps for cost in costs_of([short, long, FULL], ATTR)] == [4, 36, 0]
    assert [cost.saved_steps for cost in costs_of([short, long], ATTR)] == [4, 36]
    assert horizons_of([short, long], ATTR) == [8, 40]


def test_an_iteration_before_training_is_no_part_of_the_progress():
    """The evaluation of the untrained model is iteration 1: 5 of 21 iterations are a fifth."""
    rows = process([0, 1, 2, 3, 4], [13.0, 2.0, 2.0, 2.0, 2.0])
    for row in rows:
        row["progress"] = row["step"] / 20
    (cost,) = costs_of([TrialCourse(rows, "stopped")], "training_iteration")
    assert (cost.saved_steps, cost.saved, cost.startup) == pytest.approx((16, 32.0, 13.0))
    assert cost.steps == 4


def test_reports_counted_from_zero_are_all_trained():
    """Step 0 is the first one's, of a trial that evaluates after each epoch."""
    rows = process(range(10), [13.0] + [3.0] * 9)
    full, stopped = costs_of(
        [TrialCourse(rows, "finished"), TrialCourse(rows[:4], "stopped")], ATTR
    )
    assert (full.startup, stopped.startup) == pytest.approx((10.0, 10.0))
    assert (full.steps, stopped.saved_steps, stopped.saved) == (10, 6, pytest.approx(18.0))


def test_progress_in_per_cent_is_not_ours():
    """The peers' end counts instead."""
    stopped = TrialCourse(process([1, 2], [1.0, 1.0], progress=1), "stopped")
    full = TrialCourse(process(range(1, 11), [1.0] * 10, progress=100), "finished")
    assert costs_of([stopped, full], ATTR)[0].saved_steps == 8


def test_the_horizon_is_where_those_that_got_as_far_ended():
    """On average; those that ended before cannot tell."""
    ends = [TrialCourse(process(range(1, n + 1), [1.0] * n), "finished") for n in (2, 6, 10)]
    stopped = TrialCourse(process([1, 2, 3], [1.0] * 3), "stopped")
    assert costs_of([*ends, stopped], ATTR)[-1].saved_steps == 5
    beyond = TrialCourse(process(range(1, 13), [1.0] * 12), "stopped")
    assert math.isnan(costs_of([*ends, beyond], ATTR)[-1].saved)


def test_no_number_is_invented():
    """All were stopped, and none says how far it would have gone."""
    costs = costs_of([TrialCourse(process([1, 2], [1.0, 1.0]), "stopped")] * 3, ATTR)
    totals = Totals.of(costs)
    assert all(math.isnan(cost.saved) and math.isnan(cost.saved_steps) for cost in costs)
    assert (totals.spent, totals.saved, totals.unknown) == (6.0, 0.0, 3)
    assert totals.all_unknown and math.isnan(totals.share)


@pytest.mark.parametrize("kind", ["failed", "unfinished", "finished"])
def test_who_was_not_stopped_saves_nothing(kind):
    """Failed, running, paused, or through."""
    cost = costs_of([FULL, TrialCourse(process([0, 4], [13.0, 8.4]), kind)], ATTR)[1]
    assert (cost.saved, cost.saved_steps, cost.cut_short) == (0, 0, False)


def test_a_resumed_trial_starts_up_twice():
    """Neither start-up is its pace, whether its total time goes on or begins anew."""
    first = process([0, 4], [13.0, 8.4])
    for total in (21.4, 0.0):
        later = process([8, 12], [13.0 + 8.4, 8.4], pid=2, begin=2000, total=total)
        cost = costs_of([FULL, TrialCourse(first + later, "stopped")], ATTR)[1]
        assert (cost.spent, cost.startup) == pytest.approx((51.2, 26.0))
        assert (cost.steps, cost.saved_steps, cost.saved) == pytest.approx((12, 8, 8 * 2.1))


def test_work_made_again_is_spent_but_no_further():
    """The trial failed after step 12 and went on from its checkpoint at step 4."""
    first = process([0, 4, 8, 12], [13.0, 8.4, 8.4, 8.4])
    again = process([8, 12], [13.0 + 8.4, 8.4], pid=2, begin=2000, total=21.4)
    cost = costs_of([FULL, TrialCourse(first + again, "stopped")], ATTR)[1]
    assert (cost.spent, cost.startup) == pytest.approx((38.2 + 29.8, 26.0))
    assert (cost.steps, cost.saved_steps) == (20, 8)


def test_a_trial_that_begins_from_another_ones_state_did_not_train_up_to_it():
    """Its first step is large, and the time it took says that it trained four."""
    course = TrialCourse(process([504, 508], [21.4, 8.4]), "finished")
    (cost,) = costs_of([course], ATTR)
    assert (cost.startup, cost.steps) == pytest.approx((13.0, 8))


def test_a_late_first_report_is_training():
    """Evaluations that begin late: the time is there."""
    course = TrialCourse(process([12, 16, 20], [13.0 + 12 * 2.1, 8.4, 8.4]), "finished")
    (cost,) = costs_of([course], ATTR)
    assert (cost.startup, cost.steps) == pytest.approx((13.0, 20))


def test_a_row_written_twice_counts_once():
    """As it does in a result file that was appended to after a restore."""
    rows = process([0, 4, 8], [13.0, 8.4, 8.4])
    once, twice = costs_of(
        [TrialCourse(rows, "finished"), TrialCourse([*rows, rows[-1]], "finished")], ATTR
    )
    assert once == twice


def test_rows_that_ray_lost_are_paid_for():
    """The process's own clock tells what they took."""
    rows = process(range(0, 21, 4), [13.0] + [8.4] * 5)
    (cost,) = costs_of([TrialCourse([*rows[:1], *rows[3:]], "finished")], ATTR)
    assert (cost.spent, cost.startup, cost.steps) == pytest.approx((55.0, 13.0, 20))


@pytest.mark.parametrize(
    "gone",
    [
        ("time_this_iter_s",),
        ("time_this_iter_s", "time_since_restore"),
        ("time_since_restore", "time_total_s", "timestamp"),
    ],
)
def test_any_of_rays_clocks_will_do(gone):
    """Whichever is there."""
    rows = [{k: v for k, v in row.items() if k not in gone} for row in FULL.rows]
    (cost,) = costs_of([TrialCourse(rows, "finished")], ATTR)
    assert (cost.spent, cost.startup) == pytest.approx((55.0, 13.0))


@pytest.mark.parametrize("value", [None, math.nan, -1.0, math.inf, 1e300, "x"])
def test_a_time_that_is_none_is_not_known(value):
    """And said to be missing; what is known of the others counts."""
    times = dict.fromkeys(("time_this_iter_s", "time_since_restore", "time_total_s"), value)
    broken = TrialCourse([row | times for row in process([0, 4], [13.0, 8.4])], "stopped")
    costs = costs_of([FULL, broken], ATTR)
    assert math.isnan(costs[1].spent) and math.isnan(costs[1].startup)
    assert costs[1].saved == pytest.approx(16 * 2.1)  # by the pace of the other
    totals = Totals.of(costs)
    assert (totals.spent, totals.untimed) == (pytest.approx(55.0), 2)


def test_reports_without_a_step_belong_to_the_next_that_has_one():
    """Training and evaluation in rows of their own."""
    rows = process([0, None, 4, None, 8], [13.0, 4.0, 4.4, 4.0, 4.4], step_unit="x")
    cost = costs_of([FULL, TrialCourse(rows, "stopped")], ATTR)[1]
    assert (cost.spent, cost.startup) == pytest.approx((29.8, 13.0))
    assert cost.saved == pytest.approx(12 * 2.1)


def test_a_trial_ended_before_it_began_saves_a_whole_run():
    """Its start-up too; one that never had its turn and was not ended saves nothing."""
    full, stopped, waiting = costs_of(
        [FULL, TrialCourse([], "stopped"), TrialCourse([], "unfinished")], ATTR
    )
    assert stopped.saved == pytest.approx(full.spent)
    assert (stopped.spent, waiting.saved) == (0, 0)


def test_nothing_is_nothing():
    """No trial, and trials without any report."""
    assert costs_of([], ATTR) == []
    totals = Totals.of(costs_of([TrialCourse([], "failed")], ATTR))
    assert (totals.spent, totals.saved, totals.wall) == (0, 0, 0)
    assert math.isnan(totals.share) and math.isnan(totals.startup)


def test_time_without_any_trial_at_work():
    """The clock's time is that of the work and of the gaps between, however many run at a time."""
    cost = Cost(spent=4.0, work=((0.0, 2.0), (10.0, 12.0)))
    totals = Totals.of([cost, Cost(spent=3.0, work=((1.0, 4.0),))])
    assert (totals.wall, totals.idle) == (12.0, 6.0)


def test_a_clock_that_ran_longer_than_all_work_has_idle_time():
    """Two trials one after the other, a minute apart."""
    courses = [
        TrialCourse(process([1, 2], [5.0, 5.0], begin=begin), "finished") for begin in (1000, 1070)
    ]
    totals = Totals.of(costs_of(courses, ATTR))
    assert (totals.wall, totals.idle) == pytest.approx((80.0, 60.0), abs=2)


@pytest.mark.parametrize("step", [1e308, -1e308, 5e-324])
def test_steps_beyond_measure_raise_nothing(step):
    """A file may hold anything that is a number."""
    odd = [TrialCourse(process([0, step, 1], [1e11] * 3, progress=0.5), "stopped")] * 3
    totals = Totals.of(costs_of([*odd, TrialCourse(process([step], [1.0]), "finished")], ATTR))
    assert totals.spent == pytest.approx(9e11)
    assert 0 <= totals.share <= 1 or math.isnan(totals.share)
