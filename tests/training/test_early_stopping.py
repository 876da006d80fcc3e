"""`EarlyStopping` in a plain loop: when it stops, what it keeps, and how it goes on."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from tune_stoppers import AnyOf, PatienceStopper, rules
from tune_stoppers.core import MissingMetricError
from tune_stoppers.training.early_stopping import EarlyStopping
from tune_stoppers.training.keeper import BestStateKeeper, NoBestStateError


def stopped_at(stop, values):
    """The evaluation, from 1, at which a loop breaks; None: it ran to its end."""
    for i, value in enumerate(values, start=1):
        if stop(value):
            return i
    return None


@pytest.mark.parametrize(
    ("rule", "options", "values", "expected"),
    [
        (2, {}, [3, 2, 1], None),
        (2, {}, [3, 2, 2.5, 2], 4),
        (2, {"mode": "max"}, [0.1, 0.2, 0.2, 0.1], 4),
        (1, {"min_delta": 0.5}, [2, 1.6], 2),
        (2, {}, [math.nan, math.nan], 2),
        (2, {}, [math.nan, 5, 4], None),
        (2, {}, [1, None, 2, None, 2], 5),
        (1, {}, [torch.tensor(1.0), np.float32(1.0)], 2),
        (rules.Threshold(-0.9), {"mode": "max"}, [0.5, 0.91], 2),
        (rules.Divergence() | rules.Patience(9), {}, [3, math.inf], 2),
    ],
    ids=[
        "improving",
        "patience",
        "maximised",
        "min_delta",
        "NaN",
        "NaN first",
        "evaluations that are missing",
        "tensors and arrays",
        "a rule in loss units",
        "a combination",
    ],
)
def test_where_the_loop_ends(rule, options, values, expected):
    """As the same rule does in a sweep."""
    assert stopped_at(EarlyStopping(rule, **{"mode": "min"} | options), values) == expected


def test_a_mapping_of_metrics_may_be_passed():
    """Nested or flat, with what else the rule reads."""
    stop = EarlyStopping(rules.Divergence(gradient_limit=1.0), metric="eval/loss", mode="min")
    assert not stop({"eval": {"loss": 3.0}, "grad_norm": 0.5})
    assert stop({"eval/loss": 2.0, "grad_norm": 1.5})
    assert "grad_norm 1.5 is above its limit 1" in stop.reason


def test_a_metric_that_is_absent_names_those_present():
    """At the first call."""
    with pytest.raises(MissingMetricError, match=r"EarlyStopping: 'loss' .* It has: losses"):
        EarlyStopping(3, metric="loss", mode="min")({"losses": 1.0})


def test_the_reason_speaks_in_the_metrics_own_units():
    """Also before, and when it goes on."""
    stop = EarlyStopping(1, mode="max")
    assert stop.reason == "nothing judged yet"
    stop(0.5)
    assert stop.reason == "Patience: improved to 0.5"
    stop(0.25)
    assert "value 0.25, best 0.5 at step 1" in stop.reason


def test_the_best_value_is_in_the_metrics_own_units():
    """None before the first finite one; a tie keeps the earlier step."""
    stop = EarlyStopping(9, mode="max")
    assert (stop.best_value, stop.best_step) == (None, None)
    for value in (math.nan, 0.1, 0.3, 0.3, math.inf, 0.2):
        stop(value)
    assert (stop.best_value, stop.best_step) == (0.3, 3)


def test_steps_may_be_given():
    """Without one it is the next; a step already seen changes nothing."""
    stop = EarlyStopping(2, mode="min")
    assert [stop(1.0, step=100), stop(1.0, step=200), stop(1.0, step=200)] == [False] * 3
    assert stop(1.0)
    assert "at step 100" in stop.reason


def test_a_step_already_seen_changes_no_best_either():
    """Neither the value nor the weights: they belong together."""
    model = nn.Linear(1, 1, bias=False)
    stop = EarlyStopping(9, mode="min")
    for value, weight in ((1.0, 1.0), (0.5, 2.0)):
        nn.init.constant_(model.weight, weight)
        stop(value, model, step=1)
    assert (stop.best_value, stop.best_step) == (1.0, 1)
    stop.restore_best(model)
    assert model.weight.item() == 1.0


def test_an_earlier_step_goes_back_to_before_it():
    """The rule forgets what came after, and keeps what came before: the bad one at step 2."""
    stop = EarlyStopping(3, mode="min")
    for step, value in ((1, 1.0), (2, 2.0), (3, 2.0)):
        assert not stop(value, step=step)
    stop(2.0, step=4)
    assert not stop(2.0, step=3)
    assert stop(2.0, step=4)


def test_a_step_before_all_that_is_remembered_begins_anew_and_says_so(caplog):
    """After a resume, or more than eight evaluations back; not where the run itself begins anew."""
    stop, again = EarlyStopping(3, mode="min"), EarlyStopping(3, mode="min")
    for step, value in enumerate([2.0, 1.0, 3.0, 3.0], start=1):
        stop(value, step=step)
    assert not stop(2.0, step=1)
    assert not caplog.messages
    again.load_state_dict(stop.state_dict() | {"step": 4})
    assert not again(9.0, step=3)
    assert "step 3 comes after step 4, and what the rule knew before it is no" in caplog.text
    caplog.clear()
    for step in range(4, 14):
        again(9.0 - step / 10, step=step)
    assert not caplog.messages
    again(9.0, step=4)
    assert "step 4 comes after step 13" in caplog.text


def test_a_value_that_comes_second_at_its_step_counts_for_both():
    """For the rule and for the best."""
    stop = EarlyStopping(3, metric="loss", mode="min", on_missing="skip")
    stop({"x": 1.0}, step=1)
    stop({"loss": 0.5}, step=1)
    assert (stop.best_value, stop.best_step) == (0.5, 1)
    assert "improved to 0.5" in stop.reason


def test_a_resumed_loop_knows_which_metrics_there_were():
    """A report without one is left out, as it would have been."""
    stop, again = (EarlyStopping(3, metric="loss", mode="min") for _ in range(2))
    stop({"loss": 1.0}, step=1)
    again.load_state_dict(stop.state_dict())
    assert not again({"x": 1.0}, step=2)


def test_the_best_weights_come_back():
    """A detached copy: training on does not change it."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stop, best = EarlyStopping(2, mode="min"), None
    for value in (3.0, 1.0, 2.0, 2.0):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        if value == 1.0:
            best = model.weight.detach().clone()
        ended = stop(value, model, optimizer)
    assert ended
    assert not torch.equal(model.weight, best)
    assert stop.restore_best(model, optimizer) == 2
    assert torch.equal(model.weight, best)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_keeper_on_disk_may_be_given(tmp_path, mode):
    """It gets losses, whatever the mode."""
    sign = 1 if mode == "min" else -1
    keeper = BestStateKeeper(tmp_path / "best")
    stop = EarlyStopping(9, mode=mode, keeper=keeper)
    for value in (3.0, 1.0, 2.0):
        stop(sign * value, nn.Linear(1, 1))
    assert (keeper.best_loss, keeper.best_step) == (1.0, 2)
    assert stop.restore_best(nn.Linear(1, 1)) == 2


def test_a_keeper_is_offered_every_evaluation(tmp_path):
    """It may keep more than the best: the last, say."""
    keeper = BestStateKeeper(tmp_path, keep="best+last")
    stop = EarlyStopping(9, mode="max", keeper=keeper)
    for value in (1.0, 3.0, 2.0, math.nan):
        stop(value, nn.Linear(1, 1))
    assert (keeper.best_step, keeper.last_step) == (2, 4)


@pytest.mark.parametrize("ending", ["finished", "stopped", RuntimeError, KeyboardInterrupt])
def test_the_best_weights_come_back_on_every_ending(ending):
    """And with them the value that was recorded, to 1e-5 and better."""
    torch.manual_seed(0)
    inputs, target = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        for epoch in range(8):
            loss = nn.functional.mse_loss(model(inputs), target)
            if stop(loss, model, optimizer) and ending == "stopped":
                return
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = 0.1 if epoch < 3 else 3.0  # it gets worse then
            optimizer.step()
            if epoch == 5 and isinstance(ending, type):
                raise ending

    stop = EarlyStopping(2, mode="min")
    if isinstance(ending, str):
        with stop.restoring(model, optimizer):
            train()
    else:
        with pytest.raises(ending), stop.restoring(model, optimizer):
            train()
    assert stop.best_step == 4
    assert nn.functional.mse_loss(model(inputs), target).item() == stop.best_value


def test_an_error_before_the_first_evaluation_is_not_hidden():
    """There is nothing to restore then."""
    stop = EarlyStopping(2, mode="min")
    with pytest.raises(RuntimeError, match="early"), stop.restoring(nn.Linear(1, 1)):
        raise RuntimeError("early")


def test_a_loop_that_is_cut_goes_on_as_if_it_was_not(tmp_path):
    """Model, optimizer, schedule, generators and rule: the curve is the same bit for bit."""

    def loop(keeper, stop, start, end):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
        if start:
            keeper.restore(model, optimizer, schedule, step=start)
        losses = []
        for step in range(start + 1, end + 1):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if stop(loss, model, optimizer, step, scheduler=schedule):
                break
        return losses

    def new(folder):
        keeper = BestStateKeeper(tmp_path / folder, keep="best+last")
        return keeper, EarlyStopping(6, mode="min", keeper=keeper)

    whole = loop(*new("whole"), 0, 20)
    assert 8 < len(whole) < 20, "patience ends it after the cut"
    keeper, stop = new("cut")
    before = loop(keeper, stop, 0, 7)
    state = json.dumps(stop.state_dict())
    keeper, stop = new("cut")
    stop.load_state_dict(json.loads(state))
    assert keeper.last_step == 7
    assert before + loop(keeper, stop, 7, 20) == whole


def test_a_loop_that_was_stopped_knows_it_when_resumed():
    """Before it trains any further, and why."""
    stop, again = EarlyStopping(1, mode="min"), EarlyStopping(1, mode="min")
    assert [stop(1.0), stop(2.0)] == [False, True]
    again.load_state_dict(stop.state_dict())
    assert again.stopped and again.reason == stop.reason


def test_there_is_no_best_state_without_a_finite_value():
    """An error that says so, not random weights."""
    stop = EarlyStopping(9, mode="min")
    stop(math.nan, nn.Linear(1, 1))
    with pytest.raises(NoBestStateError, match="no finite loss"):
        stop.restore_best(nn.Linear(1, 1))


@pytest.mark.parametrize(
    "rule",
    [rules.Patience(3, smoothing={"mean": 2}), rules.Divergence() | rules.Patience(3)],
    ids=["a rule", "a combination"],
)
def test_its_state_goes_to_json_and_back(rule):
    """A loop that is cut anywhere decides as one that was not."""
    values = [3.0, math.nan, 2.0, 2.5, 2.5, 2.0, 2.4, 2.4]
    whole = EarlyStopping(rule, mode="min")
    stop = EarlyStopping(rule, mode="min")
    for value in values:
        again = EarlyStopping(rule, mode="min")
        again.load_state_dict(json.loads(json.dumps(stop.state_dict(), allow_nan=False)))
        assert again.reason == stop.reason
        stop = again
        assert stop(value) == whole(value)
        assert (stop.reason, stop.best_value) == (whole.reason, whole.best_value)
    assert stop.stopped == whole.stopped


def test_the_state_of_another_rule_is_refused():
    """By name."""
    state = EarlyStopping(3, mode="min").state_dict()
    with pytest.raises(ValueError, match=r"'Patience'.*expected.*'Threshold'"):
        EarlyStopping(rules.Threshold(1.0), mode="min").load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: EarlyStopping(3), TypeError, "mode"),
        (lambda: EarlyStopping(3, mode="auto"), ValueError, "one of min, max, got 'auto'"),
        (lambda: EarlyStopping(0, mode="min"), ValueError, "patience must be >= 1, got 0"),
        (lambda: EarlyStopping("3", mode="min"), TypeError, "patience must be an integer"),
        (lambda: EarlyStopping(3, mode="min", min_delta=-1), ValueError, "min_delta must be >= 0"),
        (
            lambda: EarlyStopping(rules.Patience(3), mode="min", min_delta=0.1),
            ValueError,
            "min_delta belongs to a patience",
        ),
        (lambda: EarlyStopping(3, mode="min", metric=""), ValueError, "needs metric"),
        (
            lambda: EarlyStopping(PatienceStopper("loss", "max"), mode="max"),
            TypeError,
            r"Write PatienceStopper\(…\)\.rule instead of .* metric 'loss' and mode 'max'",
        ),
        (
            lambda: EarlyStopping(AnyOf(PatienceStopper("loss", "min")), mode="min"),
            TypeError,
            r"AnyOf combines stoppers .* Write a\.rule \| b\.rule",
        ),
    ],
)
def test_wrong_arguments_are_refused(make, error, said):
    """At construction."""
    with pytest.raises(error, match=said):
        make()


def test_a_step_that_is_no_time_is_refused():
    """A NaN step would make every later evaluation look old, in silence."""
    stop = EarlyStopping(1, mode="min")
    with pytest.raises(ValueError, match="step"):
        stop(1.0, step=math.nan)


def test_a_rule_that_compares_trials_is_refused_with_where_it_goes():
    """A single run has nobody to compare with."""
    for rule in (rules.BoundASHA(max_t=9), rules.Forecast(max_t=9) | rules.Patience(2)):
        with pytest.raises(TypeError, match=r"compares the trials of a sweep.*RuleStopper"):
            EarlyStopping(rule, mode="min")
