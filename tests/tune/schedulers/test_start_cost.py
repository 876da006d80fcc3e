"""What a start and a resume cost, in units of the time."""

import pytest

from tune_stoppers.tune.schedulers.start_cost import Cost, StartCostMeter


def usual(pace: StartCostMeter) -> None:
    """A unit takes two seconds."""
    for step in (1, 2, 4):
        pace.report("other", step, 2.0 * step, 0.0)


def test_the_cost_is_save_start_and_load_in_units_of_the_time() -> None:
    """1 s to save, 5 s from the worker to the first report, of which 2 s are its unit: 4 s."""
    pace = StartCostMeter()
    usual(pace)
    pace.report("t", 3, 10.0, 4.0)
    pace.pausing("t", 10.0)
    pace.left("t", 11.0)
    assert pace.report("t", 4, 105.0, 100.0) == Cost(2.0, of_start=False)
    assert pace.report("t", 5, 107.0, 100.0) is None  # only the first report after a pause


def test_progress_at_the_usual_pace_costs_nothing() -> None:
    """Nor does a resume that was faster than usual earn anything."""
    pace = StartCostMeter()
    usual(pace)
    for resumed in (102.0, 101.0):
        pace.report("t", 3, 10.0, 4.0)
        pace.pausing("t", 10.0)
        pace.left("t", 10.0)
        assert pace.report("t", 4, resumed, 100.0) == Cost(0.0, of_start=False)


def test_time_in_the_pause_is_no_pace() -> None:
    """The wait between the pause and the next report is not taken for training."""
    pace = StartCostMeter()
    usual(pace)
    pace.report("t", 3, 10.0, 4.0)
    pace.pausing("t", 10.0)
    pace.report("t", 4, 1000.0, 998.0)
    pace.report("u", 1, 0.0, 0.0)
    pace.pausing("u", 0.0)
    assert pace.report("u", 2, 4.0, 0.0) == Cost(1.0, of_start=False)  # a unit still takes 2 s


@pytest.mark.parametrize(
    ("known", "step", "since"), [(False, 4, 100.0), (True, 4, None), (True, 2, 100.0)]
)
def test_what_cannot_be_told_is_not_counted(known: bool, step: float, since: float | None) -> None:
    """No pace yet; no worker seen; the trial went back to an earlier step."""
    pace = StartCostMeter()
    if known:
        usual(pace)
    pace.report("t", 3, 10.0, 4.0)
    pace.pausing("t", 10.0)
    assert pace.report("t", step, 105.0, since) is None


def test_a_trial_that_failed_is_measured_anew() -> None:
    """Its next interval holds the failure."""
    pace = StartCostMeter()
    usual(pace)
    pace.report("t", 3, 10.0, 4.0)
    pace.drop("t")
    assert pace.report("t", 4, 500.0, 4.0) is None
    pace.report("u", 1, 0.0, 0.0)
    pace.pausing("u", 0.0)
    assert pace.report("u", 2, 4.0, 0.0) == Cost(1.0, of_start=False)


def test_a_start_costs_what_is_not_training_at_its_own_pace() -> None:
    """8 s from the worker to the report at step 1, of which 4 s are its unit: one unit of its."""
    pace = StartCostMeter()
    usual(pace)  # others take two seconds a unit
    assert pace.report("t", 1, 18.0, 10.0, first=True) is None
    assert pace.report("t", 2, 22.0, 10.0) == Cost(1.0, of_start=True)
    assert pace.report("t", 3, 26.0, 10.0) is None


def test_a_slow_configuration_is_no_dear_start() -> None:
    """Its first report comes late as its others do."""
    pace = StartCostMeter()
    usual(pace)
    pace.report("t", 1, 30.0, 10.0, first=True)
    assert pace.report("t", 2, 50.0, 10.0) == Cost(0.0, of_start=True)


def test_a_start_that_cannot_be_told_is_not_counted() -> None:
    """Of a trial that starts again after a failure or a restore, or whose worker was not seen.

    Nor of one that is paused at its first report: how long a unit of its time takes is not known.
    """
    pace = StartCostMeter()
    usual(pace)
    for first, since in ((False, 10.0), (True, None)):
        pace.drop("t")
        pace.report("t", 6, 30.0, since, first=first)
        assert pace.report("t", 7, 32.0, since) is None
    pace.report("u", 1, 18.0, 10.0, first=True)
    pace.pausing("u", 18.0)
    assert pace.report("u", 2, 30.0, 22.0) == Cost(3.0, of_start=False)
    assert pace.report("u", 3, 32.0, 22.0) is None
