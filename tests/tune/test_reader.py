"""Ray results to reports."""

import math

import pytest

from tune_stoppers.core import MissingMetricError, Report
from tune_stoppers.rules import Divergence, Patience
from tune_stoppers.tune.reader import ResultReader


def reader(rule=None, **options):
    defaults = {"mode": "min", "time_attr": "training_iteration", "on_missing": "raise"}
    options = {"metric": "eval/loss"} | defaults | options
    return ResultReader("Stopper", rule or Patience(), **options)


RAYS = {"training_iteration": 3, "pid": 7, "config": {"lr": 1}, "trial_id": "t", "done": False}


@pytest.mark.parametrize("result", [{"eval": {"loss": 0.5}}, {"eval/loss": 0.5}])
def test_nested_and_flat_results_read_alike(result):
    """Stoppers get the nested form, schedulers the flat one."""
    assert reader().read("t", RAYS | result).report == Report("t", 3.0, 0.5)


def test_max_turns_the_objective_round():
    """Rules see losses."""
    assert reader(mode="max").read("t", RAYS | {"eval": {"loss": 0.5}}).report.loss == -0.5


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"checkpoint_dir_name": "checkpoint_000001"}, True),
        ({"checkpoint_dir_name": None}, False),
        ({"should_checkpoint": True}, True),
        ({}, True),  # a class trainable does not say
    ],
    ids=["a function's", "a function's report without", "a class's request", "none"],
)
def test_a_checkpoint_that_came_with_the_report_is_noticed(extra, expected):
    """It is where the trial may come back to."""
    assert reader().read("t", RAYS | {"eval/loss": 1.0} | extra).checkpoint is expected


@pytest.mark.parametrize(
    ("extra", "since", "done"),
    [
        ({"iterations_since_restore": 2}, 2, False),
        ({"iterations_since_restore": "x"}, None, False),
        ({"done": True}, None, True),
    ],
)
def test_what_ray_says_about_the_process_comes_along(extra, since, done):
    """The reports since the process started, and whether the trial has ended."""
    reading = reader().read("t", RAYS | {"eval/loss": 1.0} | extra)
    assert (reading.since_restore, reading.done) == (since, done)


def test_another_clock_than_rays():
    """time_attr is any number that trials report, nested too."""
    one = reader(time_attr="progress/epoch")
    assert one.read("t", RAYS | {"eval/loss": 1.0, "progress": {"epoch": 0.5}}).report.step == 0.5


def test_a_clock_that_trials_do_not_report_is_an_error_that_names_it():
    """As with a metric: at the first report."""
    with pytest.raises(MissingMetricError, match=r"'epoch' is missing.*It has: epochs, eval/loss"):
        reader(time_attr="epoch").read("t", RAYS | {"eval/loss": 1.0, "epochs": 1})


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3"])
def test_a_report_without_a_time_is_neutral_later(value):
    """Once seen, the clock may be absent from training logs."""
    one = reader(time_attr="epoch")
    assert one.read("t", {"eval/loss": 1.0, "epoch": 1}) is not None
    assert one.read("t", {"eval/loss": 1.0, "epoch": value}) is None


def test_a_trial_that_never_reported_has_nothing_to_judge():
    """Ray makes up a result for a function that just returned: no metric is missing in it."""
    assert reader().read("t", {"trial_id": "t", "done": True}) is None


def test_the_message_leaves_rays_own_keys_out():
    """What the user reported and the clock in use, not what else Ray added."""
    with pytest.raises(MissingMetricError, match=r"It has: eval/los, training_iteration\. Did"):
        reader().read("t", RAYS | {"eval": {"los": 1.0}})


def test_the_time_itself_is_named_where_it_is_all_there_is():
    """tune.report({}) is a report too."""
    with pytest.raises(MissingMetricError, match="It has: training_iteration"):
        reader().read("t", RAYS)


@pytest.mark.parametrize(("value", "told"), [(None, "is None"), ("0.1", "is no number but str")])
def test_a_metric_that_is_there_is_not_called_missing(value, told):
    """Nor is its own name suggested instead."""
    with pytest.raises(MissingMetricError, match=rf"'eval/loss' {told}") as error:
        reader().read("t", RAYS | {"eval": {"loss": value}})
    assert "Did you mean" not in str(error.value)


def test_the_metrics_that_a_rule_reads_come_along():
    """Nested, and required like the objective."""
    one = reader(Divergence(gradient_limit=1.0, gradient_metric="train/norm"))
    result = RAYS | {"eval": {"loss": 1.0}, "train": {"norm": 2.0}}
    assert one.read("t", result).report.metrics == {"train/norm": 2.0}
    with pytest.raises(MissingMetricError, match="'train/norm' is missing"):
        reader(one.metrics.rule).read("t", RAYS | {"eval": {"loss": 1.0}})


@pytest.mark.parametrize("value", [None, "", 3])
def test_a_clock_without_a_name_is_refused(value):
    """At construction."""
    with pytest.raises(TypeError, match="Stopper time_attr must be the name of a metric"):
        reader(time_attr=value)
