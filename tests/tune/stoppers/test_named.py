"""Stoppers without a cluster: results in, answers and reasons out."""

import inspect

import pytest
from ray import cloudpickle
from ray.tune import Stopper
from ray.tune.stopper import FunctionStopper, MaximumIterationStopper

import tune_stoppers
from tune_stoppers import ForecastStopper, rules
from tune_stoppers.core import MissingMetricError
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.tune.stoppers.named import (
    AllOf,
    AnyOf,
    DivergenceStopper,
    PatienceStopper,
    RuleStopper,
    ThresholdStopper,
)


def result(step, loss=None, **more):
    found = {"training_iteration": step, "pid": 7, "config": {}} | more
    return found if loss is None else found | {"loss": loss}


def feed(stopper, losses, trial="t"):
    """The steps, from 1, at which the stopper says stop."""
    return [i for i, x in enumerate(losses, start=1) if stopper(trial, result(i, x))]


def patience(**options):
    return PatienceStopper("loss", "min", **{"patience": 2} | options)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "decisions.jsonl"


# -- one stopper ---------------------------------------------------------------------------------


def test_trials_are_judged_apart():
    """Each has a state of its own."""
    stopper = patience()
    assert feed(stopper, [1, 1], "a") == []
    assert feed(stopper, [5, 4, 3], "b") == []
    assert stopper("a", result(3, 1))


def test_a_stop_puts_its_reason_into_the_result():
    """Where loggers and the ResultGrid find it; a report that goes on carries nothing."""
    stopper, seen = patience(), []
    for step, loss in enumerate([1.0, 2.0, 2.5], start=1):
        seen.append(result(step, loss))
        stopper("t", seen[-1])
    assert "stop_reason" not in seen[1]
    assert seen[2]["stop_reason"] == (
        "PatienceStopper: 2 of 2 evaluations without improvement, value 2.5, best 1 at step 1"
    )


def test_the_reason_is_in_the_users_units():
    """An accuracy is not shown as a negative loss."""
    stopper = PatienceStopper("loss", "max", patience=1, baseline=0.25)
    last = result(2, 0.5)
    stopper("t", result(1, 0.75))
    assert stopper("t", last)
    assert "value 0.5, best 0.75 at step 1, baseline 0.25" in last["stop_reason"]


def test_rays_repeated_last_report_changes_nothing():
    """It comes with done=True and the same step; the reports of a retry too."""
    stopper = patience()
    assert feed(stopper, [1, 2]) == []
    assert not stopper("t", result(2, 2, done=True))


def test_a_result_that_ray_made_up_is_let_through():
    """A function that returned without reporting is no missing metric."""
    assert not patience()("t", {"trial_id": "t", "done": True})


def test_a_trial_that_failed_goes_on_from_its_checkpoint():
    """The retry repeats steps 3 and 4, and stops where an undisturbed trial would."""
    stopper = patience(patience=4)
    steps = [(1, 1.0, 1), (2, 2.0, 2), (3, 2.0, 3), (4, 2.0, 4), (3, 2.0, 1), (4, 2.0, 2)]
    for step, loss, since in [*steps, (5, 2.0, 3)]:
        name = "checkpoint_000000" if step == 2 else None
        stops = stopper(
            "t",
            result(step, loss, checkpoint_dir_name=name, iterations_since_restore=since),
        )
        assert stops == (step == 5)


def test_a_class_trainable_goes_on_from_its_checkpoint_too():
    """Its results have no checkpoint_dir_name: Ray saves after them, by checkpoint_frequency."""
    stopper = patience(patience=4)
    for step, since in [(1, 1), (2, 2), (3, 3), (4, 4), (3, 1), (4, 2), (5, 3)]:
        stops = stopper(
            "t", result(step, 1.0 if step == 1 else 2.0, iterations_since_restore=since)
        )
    assert stops  # at its fifth evaluation: the last four are no better


def test_a_clock_that_runs_back_is_named_once(caplog):
    """A trial that did not restart but reports an earlier time."""
    stopper = patience(time_attr="t")
    for i, time in enumerate([1, 5, 3, 2], start=1):
        stopper("trial7", result(i, 1.0, t=time, iterations_since_restore=i))
    assert len(caplog.records) == 1
    said = "trial trial7 reports t = 3 after 5 without having restarted"
    assert said in caplog.records[0].getMessage()


def test_start_after_waits_but_counts():
    """The rule sees everything, and decides from this time on."""
    assert feed(patience(start_after=5), [1] * 7) == [5, 6, 7]


def test_on_nonfinite_reaches_the_rule():
    """As a keyword of every stopper, also through a combination of rules."""
    nan = float("nan")
    assert feed(patience(on_nonfinite="stop"), [1, nan]) == [2]
    assert feed(patience(on_nonfinite="ignore"), [1, nan, nan, nan]) == []
    rule = rules.Patience(9) | rules.Threshold(0.0)
    assert feed(RuleStopper(rule, "loss", "min", on_nonfinite="stop"), [1, nan]) == [2]


def test_a_rules_own_policy_holds_where_none_is_given():
    """None means: as the rule says."""
    rule = rules.Patience(1, on_nonfinite="ignore")
    assert feed(RuleStopper(rule, "loss", "min"), [1, float("nan")]) == []


def test_a_metric_never_reported_ends_the_sweep():
    """An exception in a stopper ends it: at the first report, on purpose."""
    with pytest.raises(MissingMetricError, match=r"PatienceStopper: 'loss' .*'losses'"):
        patience()("t", result(1, losses=1.0))


def test_a_metric_seen_in_another_trial_is_neutral_in_this_one():
    """A broken trial does not end the others."""
    stopper = patience()
    stopper("a", result(1, 1.0))
    assert feed(stopper, [None] * 5, "b") == []


def test_a_sweep_wide_target_ends_everything():
    """Once one trial is there."""
    stopper = ThresholdStopper("loss", "min", threshold=0.5, scope="sweep")
    assert not stopper("a", result(1, 1.0))
    assert not stopper.stop_all()
    assert stopper("b", result(1, 0.4))
    assert stopper.stop_all()


def test_a_pause_means_nothing_to_a_stopper():
    """Not(…) of a rule, or a rule with PAUSE, is for schedulers: the trial goes on."""
    assert feed(RuleStopper(rules.After(9, rules.Patience(1)), "loss", "min"), [1, 1]) == []


def test_a_stopper_pickles_and_goes_on_where_it_was():
    """Ray pickles it with the experiment, journal and all."""
    stopper = patience()
    feed(stopper, [1, 1])
    again = cloudpickle.loads(cloudpickle.dumps(stopper))
    assert again("t", result(3, 1))


def test_many_trials_pickle_small():
    """A kilobyte a trial at most."""
    stopper = patience(patience=50)
    for trial in range(50):
        for step in range(1, 30):
            stopper(f"t{trial}", result(step, 1.0, checkpoint_dir_name="c"))
    assert len(cloudpickle.dumps(stopper)) < 50 * 1024


# -- dry run and journal ---------------------------------------------------------------------------


def test_a_dry_run_stops_nothing_and_says_what_it_would_have_done():
    """Shadow mode: for teams that want to see before they trust."""
    stopper = patience(dry_run=True)
    seen = [result(step, 1.0) for step in range(1, 6)]
    assert not any(stopper("t", one) for one in seen)
    assert [step for step, one in enumerate(seen, 1) if "would_stop_reason" in one] == [3, 4, 5]
    assert not any("stop_reason" in one for one in seen)
    assert "2 of 2 evaluations without improvement" in seen[2]["would_stop_reason"]


def test_a_dry_run_marks_a_trial_from_then_on():
    """The last result, which the ResultGrid shows, tells of a stop that came before a recovery."""
    stopper = patience(dry_run=True)
    seen = [result(step, loss) for step, loss in enumerate([1, 1, 1, 0.5, 0.4], start=1)]
    for one in seen:
        stopper("t", one)
    assert "2 of 2 evaluations" in seen[-1].get("would_stop_reason", "")


def test_a_dry_run_ends_no_sweep():
    """Also not with a sweep-wide target, alone or as a member."""
    make = lambda: ThresholdStopper(  # noqa: E731
        "loss", "min", threshold=0.5, scope="sweep", dry_run=True
    )
    for stopper in (make(), make() | patience()):
        assert not stopper("t", result(1, 0.4))
        assert not stopper.stop_all()


def test_the_journal_has_a_line_for_every_decision(journal):
    """Those to go on included, with the value in the user's units."""
    stopper = PatienceStopper("loss", "max", patience=1, journal=journal)
    assert feed(stopper, [1.0, 0.5]) == [2]
    lines = read_journal(journal)
    assert [(line["step"], line["value"], line["action"]) for line in lines] == [
        (1, 1.0, "CONTINUE"),
        (2, 0.5, "STOP"),
    ]
    assert lines[1]["owner"] == "PatienceStopper"
    assert lines[1]["rule"] == "Patience"
    assert "best 1 at step 1" in lines[1]["reason"]


def test_a_dry_run_is_journalled_as_one(journal):
    """The decision is there, and that it was not taken."""
    feed(patience(dry_run=True, journal=journal), [1.0, 1.0, 1.0])
    last = read_journal(journal)[-1]
    assert (last["action"], last["dry_run"]) == ("STOP", True)


def test_rewinds_are_journalled(journal):
    """What the trial forgot can be read later."""
    stopper = patience(journal=journal)
    for step in (1, 2, 1):
        stopper("t", result(step, 1.0))
    assert [line.get("event") for line in read_journal(journal)] == [None, None, "rewind"]


# -- several stoppers ----------------------------------------------------------------------------


class Counting(Stopper):
    """A plain Ray stopper that counts what it is asked."""

    def __init__(self, at=(), ends=False):
        self.at, self.ends, self.calls, self.asked = at, ends, 0, 0

    def __call__(self, trial_id, result):
        self.calls += 1
        return result["training_iteration"] in self.at

    def stop_all(self):
        self.asked += 1
        return self.ends


@pytest.mark.parametrize(
    ("combine", "first", "second", "expected"),
    [
        (AnyOf, (2,), (3,), [2, 3]),
        (AnyOf, (), (), []),
        (AllOf, (2, 3), (3, 4), [3]),
        (AllOf, (2,), (3,), []),
    ],
    ids=["any: where one does", "any: none", "all: where both do", "all: nothing is latched"],
)
def test_plain_ray_stoppers_combine(combine, first, second, expected):
    """And each is asked at every report, also where another fires."""
    members = Counting(first), Counting(second)
    assert feed(combine(*members), [1.0] * 4) == expected
    assert [member.calls for member in members] == [4, 4]


def test_ours_and_rays_combine_with_operators():
    """On either side."""
    ours, rays = patience(), MaximumIterationStopper(4)
    for both, kind in ((ours | rays, AnyOf), (rays | ours, AnyOf)):
        assert isinstance(both, kind)
    for both in (ours & rays, rays & ours):
        assert isinstance(both, AllOf)
    assert feed(patience() & MaximumIterationStopper(4), [1.0] * 5) == [4, 5]
    assert feed(MaximumIterationStopper(2) | patience(), [1.0] * 4) == [2, 3, 4]
    assert feed(patience() | patience(patience=1) | FunctionStopper(lambda *_: False), [1] * 3) == [
        2,
        3,
    ]


def test_operators_refuse_what_is_no_stopper():
    """A rule is not a stopper."""
    with pytest.raises(TypeError, match="unsupported operand"):
        patience() | rules.Patience()
    with pytest.raises(TypeError, match="unsupported operand"):
        3 & patience()


def test_a_combination_names_those_that_fired():
    """And only those; members leave no reason of their own."""
    one = result(3, 1.0)
    stopper = AnyOf(patience(), DivergenceStopper("loss", "min"), Counting((3,)))
    feed(stopper, [1.0, 1.0])
    assert stopper("t", one)
    assert one["stop_reason"] == (
        "PatienceStopper: 2 of 2 evaluations without improvement, value 1, best 1 at step 1; "
        "Counting fired"
    )


def test_a_member_that_asks_in_vain_leaves_no_reason():
    """A trial that goes on is not marked as stopped."""
    one = result(3, 1.0)
    stopper = AllOf(patience(), Counting())
    feed(stopper, [1.0, 1.0])
    assert not stopper("t", one)
    assert "stop_reason" not in one


def test_combinations_nest():
    """With their reasons."""
    one = result(3, 1.0)
    stopper = AllOf(patience() | Counting(), AnyOf(Counting((3,)), Counting()))
    feed(stopper, [1.0, 1.0])
    assert stopper("t", one)
    assert "2 of 2 evaluations" in one["stop_reason"]
    assert "Counting fired" in one["stop_reason"]


def test_any_ends_the_sweep_where_one_member_does():
    """A plain member's stop_all, or a sweep-wide decision of ours."""
    assert AnyOf(patience(), Counting(ends=True)).stop_all()
    assert not AnyOf(patience(), Counting()).stop_all()
    stopper = patience() | ThresholdStopper("loss", "min", threshold=0.5, scope="sweep")
    assert feed(stopper, [0.4]) == [1]
    assert stopper.stop_all()


def test_all_ends_the_sweep_where_all_members_do():
    """One alone does not."""
    assert AllOf(Counting(ends=True), Counting(ends=True)).stop_all()
    assert not AllOf(Counting(ends=True), Counting()).stop_all()
    stopper = ThresholdStopper("loss", "min", threshold=0.5, scope="sweep") & Counting((2,))
    assert feed(stopper, [0.4]) == []
    assert not stopper.stop_all()
    assert stopper("t", result(2, 0.4))
    assert stopper.stop_all()


@pytest.mark.parametrize("combine", [AnyOf, AllOf])
@pytest.mark.parametrize("ends", [True, False])
def test_every_member_is_asked_whether_the_sweep_ends(combine, ends):
    """Ray's TimeoutStopper keeps its clock in that question: no short circuit there either."""
    members = Counting(ends=ends), Counting(ends=not ends)
    combine(*members).stop_all()
    assert [member.asked for member in members] == [1, 1]


def early(trial_id, result):
    """Ray's stop function: one trial, from its second report on."""
    return trial_id == "t" and result["training_iteration"] >= 2


@pytest.mark.parametrize(
    ("combine", "stops", "reason"),
    [
        (
            lambda: patience() | {"training_iteration": 3},
            [3, 4],
            "iteration 4 has reached 3",
        ),
        (
            lambda: {"training_iteration": 3} | patience(),
            [3, 4],
            "iteration 4 has reached 3",
        ),
        (lambda: AnyOf(patience(), {"eval/f1": 0.5}), [4], "eval/f1 0.5 has reached 0.5"),
        (lambda: patience() | early, [2, 3, 4], "FunctionStopper: early says so"),
        (lambda: early | patience(), [2, 3, 4], "FunctionStopper: early says so"),
        (lambda: AllOf(early, {"training_iteration": 3}), [3, 4], "early says so; LimitStopper"),
        (lambda: early & patience() & {"training_iteration": 9}, [], ""),
    ],
)
def test_whatever_ray_takes_as_stop_combines(combine, stops, reason):
    """Dicts of limits, reached at >=, and functions; the reason says which it was."""
    stopper = cloudpickle.loads(cloudpickle.dumps(combine()))
    rows = [result(i, 1 / i, eval={"f1": i / 8}) for i in range(1, 5)]
    assert [row["training_iteration"] for row in rows if stopper("t", row)] == stops
    assert reason in rows[-1].get("stop_reason", "")


def test_a_limit_of_what_is_not_reported_stops_nothing(caplog):
    """One warning says so, as Ray's does."""
    stopper = patience() | {"los": 0.1}
    assert feed(stopper, [1.0, 0.5, 0.2]) == []
    assert caplog.text.count("'los' is not reported and stops nothing. Did you mean 'loss'?") == 1


def test_metric_and_mode_are_shown_as_required():
    """In the signature, which `help` and type checkers read; a call without them says it better."""
    for name in tune_stoppers.__all__:
        taken = inspect.signature(getattr(tune_stoppers, name)).parameters
        if not name.endswith("Stopper") or "metric" not in taken:
            continue
        optional = name in ("RuleStopper", "GradientStopper")  # not with every rule or source
        assert all((taken[key].default is None) == optional for key in ("metric", "mode")), name
    with pytest.raises(ValueError, match="ForecastStopper mode must be one of min, max, got None"):
        ForecastStopper("loss", max_t=9)


def test_a_combination_pickles():
    """With the states of its members."""
    stopper = patience() | MaximumIterationStopper(9)
    feed(stopper, [1.0, 1.0])
    again = cloudpickle.loads(cloudpickle.dumps(stopper))
    assert again("t", result(3, 1.0))


# -- construction --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: PatienceStopper(), TypeError, "PatienceStopper needs metric, the name of"),
        (lambda: PatienceStopper("loss"), ValueError, "mode must be one of min, max, got None"),
        (lambda: PatienceStopper("loss", "auto"), ValueError, "one of min, max, got 'auto'"),
        (lambda: PatienceStopper("", "min"), ValueError, "needs metric.*got ''"),
        (
            lambda: patience(patiance=3),
            TypeError,
            r"PatienceStopper has no parameter 'patiance'\. Did you mean 'patience'\? It takes: ",
        ),
        (lambda: patience(dry_run="yes"), TypeError, "dry_run must be True or False, got 'yes'"),
        (lambda: patience(time_attr=""), TypeError, "time_attr must be the name of a metric"),
        (lambda: patience(start_after=-1), ValueError, "must be >= 0, got -1"),
        (lambda: patience(start_after="5"), TypeError, "must be a number, got '5'"),
        (lambda: patience(start_after=None), TypeError, "must be a number, got None"),
        (lambda: patience(on_missing="warn"), ValueError, "one of raise, skip, got 'warn'"),
        (lambda: patience(on_nonfinite="nan"), ValueError, "one of worst, stop, ignore, got 'nan'"),
        (lambda: RuleStopper(3, "loss", "min"), TypeError, "RuleStopper needs a rule.*got 3"),
        (lambda: RuleStopper(rules.Patience()), TypeError, "RuleStopper needs metric"),
        (lambda: ThresholdStopper("loss", "min"), TypeError, "threshold"),
        (lambda: AnyOf(), ValueError, "AnyOf needs at least one stopper, got none"),
        (lambda: AllOf(rules.Patience()), TypeError, "AllOf combines stoppers, got Patience"),
        (lambda: AnyOf(PatienceStopper), TypeError, "AnyOf combines stoppers, got <class"),
        (lambda: patience() | {}, ValueError, "needs a metric and its limit, got {}"),
        (lambda: patience() | {"loss": "0.1"}, TypeError, "limit of 'loss' must be a number"),
        (lambda: patience() | {1: 2}, TypeError, "maps names of metrics to limits, got 1"),
    ],
)
def test_wrong_arguments_are_refused(make, error, said):
    """One clear line at construction, before any trial starts."""
    with pytest.raises(error, match=said) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: patience(patience=3, min_delta=0.1),
        lambda: ThresholdStopper("loss", "min", threshold=0.1),
        lambda: DivergenceStopper("loss", "min", factor=2.0),
    ],
)
def test_each_named_stopper_shows_its_rule(make):
    """`.rule` is the very object that a replay or a plain loop may use."""
    assert isinstance(make().rule, rules.Patience | rules.Threshold | rules.Divergence)
