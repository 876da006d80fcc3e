"""Every stopper survives being pickled in mid-curve, as Tune pickles it with each snapshot."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray import cloudpickle
from ray.tune import Stopper
from ray.tune.stopper import MaximumIterationStopper

import tune_stoppers
from tune_stoppers import (
    AdaptivePatienceStopper,
    AllOf,
    AnyOf,
    BudgetStopper,
    DivergenceStopper,
    GradientStopper,
    MultiMetricStopper,
    OverfitStopper,
    PatienceStopper,
    RecoveryStopper,
    RuleStopper,
    ThresholdStopper,
    rules,
)
from tune_stoppers.core import Rule
from tune_stoppers.core.track import KEPT_STATES, Track
from tune_stoppers.testing import MAX_STATE_BYTES

# each fires on the curve below; where a setting makes the state larger, it is a large one
STOPPERS: dict[str, Callable[[], Stopper]] = {
    "PatienceStopper": lambda: PatienceStopper("loss", "min"),
    "PatienceStopper, smoothed": lambda: PatienceStopper("loss", "min", smoothing={"median": 50}),
    "PatienceStopper, by the schedule": lambda: PatienceStopper(
        "loss", "min", lr_metric="lr", schedule_end=25
    ),
    "PatienceStopper, by step": lambda: PatienceStopper("loss", "min", patience={0: 9, 20: 4}),
    "ThresholdStopper": lambda: ThresholdStopper("loss", "min", threshold=0.21, patience=2),
    "ThresholdStopper, sweep": lambda: ThresholdStopper(
        "loss", "min", threshold=0.2, scope="sweep"
    ),
    "DivergenceStopper": lambda: DivergenceStopper("loss", "min", gradient_limit=0.9),
    "MultiMetricStopper": lambda: MultiMetricStopper(
        {"loss": {"mode": "min"}, "f1": {"mode": "max"}}
    ),
    "MultiMetricStopper, vote": lambda: MultiMetricStopper(
        {"loss": {"mode": "min"}, "f1": {"mode": "max", "weight": 3}}, combine="vote"
    ),
    "AdaptivePatienceStopper": lambda: AdaptivePatienceStopper("loss", "min", scale="noise"),
    "GradientStopper": lambda: GradientStopper("loss", "min", threshold=0.1),
    "GradientStopper, window": lambda: GradientStopper(
        "loss", "min", threshold=0.1, window=30, per="step", confidence=0.9
    ),
    "GradientStopper, norm": lambda: GradientStopper(
        source="grad_norm", threshold=0.5, patience=2, relative=True
    ),
    "RecoveryStopper": lambda: RecoveryStopper("loss", "min", patience=2, max_recoveries=1),
    "OverfitStopper": lambda: OverfitStopper("loss", "min"),
    "OverfitStopper, pq": lambda: OverfitStopper(
        "loss", "min", train_metric="train_loss", criterion="pq", alpha=0.01
    ),
    "BudgetStopper": lambda: BudgetStopper(trial_seconds=30, gpu_hours=1),
    "BudgetStopper, drain": lambda: BudgetStopper(gpu_hours=0.01, on_end="drain"),
    "RuleStopper": lambda: RuleStopper(
        rules.AtLeast(2, rules.Patience(5), rules.Not(rules.Slope(0.5, 2)), rules.Threshold(0.3)),
        "loss",
        "min",
        start_after=12,
    ),
    "RuleStopper, dry run": lambda: RuleStopper(rules.Patience(4), "loss", "min", dry_run=True),
    "AnyOf": lambda: AnyOf(
        PatienceStopper("loss", "min"),
        MaximumIterationStopper(20),
        DivergenceStopper("loss", "min"),
    ),
    "AllOf": lambda: AllOf(
        PatienceStopper("loss", "min"), AdaptivePatienceStopper("loss", "min")
    ),
}  # fmt: skip
EACH = pytest.mark.parametrize("make", STOPPERS.values(), ids=STOPPERS)


def row(step: int, since_restore: int) -> dict[str, Any]:
    """A fall to step 9, a plateau with a NaN, a late improvement at 17, then a slow rise."""
    loss = 1 / step if step < 10 else 0.15 if step == 17 else 0.2 + 0.001 * step
    return {
        "training_iteration": step,
        "iterations_since_restore": since_restore,
        "time_this_iter_s": 1.0,
        "checkpoint_dir_name": f"checkpoint_{step}" if step % 3 == 0 else None,
        "loss": math.nan if step == 13 else loss,
        "train_loss": 1 / step,
        "f1": min(step, 9) / 10,
        "grad_norm": 1.0 if step % 7 == 0 else 1 / step,
        "lr": 0.1,
    }


def curve() -> list[dict[str, Any]]:
    """To step 16, a restart from the checkpoint at 12, and on to 45; the last report twice."""
    steps = [
        *((step, step) for step in range(1, 17)),
        *((step, step - 12) for step in range(13, 46)),
    ]
    return [row(*pair) for pair in [*steps, steps[-1]]]


def decide(stopper: Stopper, result: dict[str, Any]) -> tuple[Any, ...]:
    """What a stopper does about a result, with all that it says."""
    result = dict(result)
    answer = stopper("trial", result), stopper.stop_all()
    return *answer, result.get("stop_reason"), result.get("would_stop_reason")


def copied(stopper: Stopper) -> Stopper:
    return cloudpickle.loads(cloudpickle.dumps(stopper))


@EACH
def test_a_stopper_goes_on_where_it_was_pickled(make: Callable[[], Stopper]) -> None:
    """Pickled after every report, also around a restart, it decides as one that never was."""
    straight, travelled = make(), make()
    fired = []
    for result in curve():
        expected = decide(straight, result)
        assert decide(travelled, result) == expected
        fired.append(expected[0] or expected[3] is not None)
        travelled = copied(travelled)
    assert True in fired, "the curve is meant to make it fire"
    assert False in fired


@EACH
def test_a_copy_and_its_original_are_strangers(make: Callable[[], Stopper]) -> None:
    """What the one sees, the other does not."""
    stopper, results = make(), curve()
    for result in results[:10]:
        stopper("trial", dict(result))
    kept = copied(stopper)
    first = [decide(stopper, result) for result in results[10:]]
    assert [decide(kept, result) for result in results[10:]] == first


@EACH
def test_its_state_is_small(make: Callable[[], Stopper]) -> None:
    """Below 1 KB for each state of a rule that it keeps, at every point of the curve."""
    stopper = make()
    for result in curve():
        stopper("trial", dict(result))
        for track in tracks(stopper):
            states = [track.state, *(state for _, state in track._kept)]
            assert len(states) <= 1 + KEPT_STATES
            allowed = MAX_STATE_BYTES * sum(1 for _ in leaves(track.rule))
            assert max(len(cloudpickle.dumps(state)) for state in states) < allowed


@EACH
def test_trials_add_up_and_no_more(make: Callable[[], Stopper]) -> None:
    """The pickle of a sweep grows by as much with its tenth trial as with its second."""
    stopper, sizes = make(), []
    for trial in range(10):
        for result in curve()[:-1]:
            stopper(f"trial {trial}", dict(result))
        sizes.append(len(cloudpickle.dumps(stopper)))
    second, last = sizes[1] - sizes[0], sizes[-1] - sizes[-2]
    assert last <= second + 100


def tracks(stopper: Stopper) -> Iterator[Track]:
    """Those of every member."""
    yield from getattr(stopper, "_tracks", {}).values()
    for member in getattr(stopper, "stoppers", ()):
        yield from tracks(member)


def leaves(rule: Rule) -> Iterator[Rule]:
    """The rules of a combination; a plain one is its own."""
    children: tuple[Rule, ...] = getattr(rule, "children", ())
    if not children:
        yield rule
    for child in children:
        yield from leaves(child)


def test_no_stopper_is_forgotten() -> None:
    """Whoever adds a stopper adds it above."""
    public = {getattr(tune_stoppers, name) for name in tune_stoppers.__all__}
    stoppers = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Stopper)}
    by_sweep = {tune_stoppers.ForecastStopper, tune_stoppers.DiminishingReturnsStopper}  # own tests
    assert stoppers - by_sweep == {type(make()) for make in STOPPERS.values()}
