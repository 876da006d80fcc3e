"""What other early-stopping tools get wrong, each shown not to happen here.

The tools are named as of the versions that were read; where one says "as Ray's ASHA does", that
behaviour was seen by running it, or read in its source.
"""

import logging
import math
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ray import cloudpickle
from ray.tune import Stopper
from ray.tune.schedulers import TrialScheduler

from tune_stoppers import (
    AdaptivePatienceStopper,
    AnyOf,
    BestStateKeeper,
    BoundASHAScheduler,
    DivergenceStopper,
    EarlyStopping,
    GradientStopper,
    MultiMetricStopper,
    OverfitStopper,
    PatienceStopper,
    RecoveryStopper,
    RuleStopper,
    Sweep,
    ThresholdStopper,
    replay,
)
from tune_stoppers.core import MissingMetricError, Report
from tune_stoppers.rules import Patience, Slope
from tune_stoppers.testing import run_rule

NAN, INF = math.nan, math.inf
ROOT = Path(__file__).parents[1]


def stops_at(stopper: Stopper, values: list[float], metric: str = "loss") -> int | None:
    """The evaluation, counted from 1, at which a stopper ends a trial."""
    for step, value in enumerate(values, start=1):
        if stopper("t", {"training_iteration": step, metric: value}):
            return step
    return None


def kept(
    scheduler: TrialScheduler, stopper: Stopper | None = None, **curves: dict[int, float]
) -> dict[str, int]:
    """The iteration that each trial got to, run one after the other in the order given."""
    rows = [
        {"trial_id": name, "training_iteration": step, "loss": loss, "config/name": name}
        for name, curve in curves.items()
        for step, loss in curve.items()
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    result = replay(sweep, scheduler, stopper, workers=1, order="recorded")
    reports = result.trials.set_index("trial_id")["reports"]
    return {name: [*curve][reports[name] - 1] for name, curve in curves.items()}


def halving(**options: Any) -> BoundASHAScheduler:
    """Rungs at 1, 3, 9, … of 27; its bound acts at the very end only."""
    return BoundASHAScheduler(**{"max_t": 27, "grace_period": 1, "bound_after": 1.0} | options)


def flat(value: float, *steps: int) -> dict[int, float]:
    return dict.fromkeys(steps or range(1, 28), value)


# -- Ray -------------------------------------------------------------------------------------------


def test_a_last_report_shown_twice_counts_once() -> None:
    """Ray replays a function's last result with `done`; stoppers that count calls count it."""
    stopper = PatienceStopper("loss", "min", patience=2)
    assert not stopper("t", {"training_iteration": 1, "loss": 1.0})
    assert not stopper("t", {"training_iteration": 2, "loss": 1.0})
    assert not stopper("t", {"training_iteration": 2, "loss": 1.0, "done": True})


@pytest.mark.parametrize("result", [{"eval": {"loss": 1.0}}, {"eval/loss": 1.0}])
def test_a_slashed_metric_is_found_in_both_of_rays_forms(result: dict[str, Any]) -> None:
    """Ray's stoppers get nested results, its schedulers flat ones."""
    stopper = PatienceStopper("eval/loss", "min", patience=1)
    assert not stopper("t", result | {"training_iteration": 1})
    assert stopper("t", result | {"training_iteration": 2})


class EndsFirst(Stopper):
    """Ends the trial called first at its first report."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result["config"]["name"] == "first")

    def stop_all(self) -> bool:
        return False


def test_what_a_stopper_hides_from_the_scheduler_is_recorded() -> None:
    """A stopped trial's last report reaches `on_trial_complete` alone, and has its rank there."""
    curves = {"first": flat(0.1), "second": flat(1.0)}
    assert kept(halving(reduction_factor=2), EndsFirst(), **curves) == {"first": 1, "second": 1}
    assert kept(halving(reduction_factor=2), second=flat(1.0)) == {"second": 27}


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_trial_that_is_not_finite_is_stopped_at_once(bad: float) -> None:
    """Ray's ASHA lets it run to the end: no comparison with NaN is true."""
    assert kept(halving(), first=flat(1.0), second=flat(bad))["second"] == 1


def test_nan_is_worst_in_a_rung_and_drops_nobody_better() -> None:
    """Ray's HyperBand sorts with it: of 1, NaN, 3 and 2 it drops the 1."""
    curves = {"a": flat(1.0), "b": flat(NAN), "c": flat(3.0), "d": flat(2.0)}
    steps = kept(halving(reduction_factor=2), **curves)
    assert steps["a"] == 27
    assert steps["b"] == 1


def test_a_rung_holds_the_value_that_a_trial_had_there() -> None:
    """Ray's ASHA writes later, lower values into rungs below, where newcomers meet them."""
    old = {9: 1.0, 18: 0.1, 27: 0.05}
    newcomer = {9: 0.5, 18: 0.4, 27: 0.3}
    steps = kept(halving(reduction_factor=3), a=old, b=flat(2.0), c=flat(3.0), d=newcomer)
    assert steps["d"] == 27


def test_a_rung_judges_nobody_before_it_has_enough() -> None:
    """Two trials are too few for one in three to survive: W&B ends the worse of two."""
    assert kept(halving(), a=flat(1.0), b=flat(2.0)) == {"a": 27, "b": 27}


def test_a_quota_halves() -> None:
    """About one in three passes each rung; in NePS's asynchronous bracket nearly all do."""
    values = np.random.default_rng(0).permutation(300) / 300
    steps = kept(halving(), **{f"t{i}": flat(float(v)) for i, v in enumerate(values)})
    passed = [sum(step > rung for step in steps.values()) for rung in (1, 3, 9)]
    assert 100 <= passed[0] <= 125
    assert passed[0] / 3 <= passed[1] <= passed[0] / 2
    assert steps[f"t{int(values.argmin())}"] == 27


def test_state_does_not_grow_with_the_length_of_a_trial() -> None:
    """Ray's median rule keeps all results for ever, and reads them all at each new one."""
    stopper, sizes = PatienceStopper("loss", "min"), []
    for step in range(1, 2001):
        stopper("t", {"training_iteration": step, "loss": 1 / step})
        if step in (1000, 2000):
            sizes.append(len(cloudpickle.dumps(stopper)))
    assert sizes[1] <= sizes[0] + 20


def test_a_nan_means_the_same_wherever_it_stands() -> None:
    """Ray's median rule depends on the order; to ignite NaN improves, to Keras a first is best."""
    for values, step in (
        ([NAN, 0.1, 0.1, 0.1], 4),
        ([0.1, NAN, 0.1, 0.1], 3),
        ([0.1, 0.1, NAN, 0.1], 3),
        ([NAN, 0.3, 0.2, 0.1], None),
        ([NAN, NAN], 2),
    ):
        assert stops_at(PatienceStopper("loss", "min", patience=2), values) == step, values


def test_a_trial_that_never_reported_breaks_nothing() -> None:
    """A completion without time makes every later call of Ray's median rule raise."""
    stopper = PatienceStopper("loss", "min", patience=1)
    assert not stopper("a", {"done": True, "trial_id": "a", "hostname": "h"})
    assert stops_at(stopper, [1.0, 1.0]) == 2


def test_a_metric_that_nobody_reports_is_an_error_that_helps() -> None:
    """Ray's plateau stopper raises from inside numpy, the Trainer's callback only warns."""
    with pytest.raises(MissingMetricError, match=r"It has: loss.* Did you mean 'loss'"):
        PatienceStopper("los", "min")("t", {"training_iteration": 1, "loss": 1.0})


def test_nan_for_ever_is_stopped() -> None:
    """By each stopper that watches a value for improvement; Ray's plateau stopper never does."""
    values = [0.5, *[NAN] * 30]
    for stopper in (
        PatienceStopper("loss", "min"),
        RecoveryStopper("loss", "min"),
        AdaptivePatienceStopper("loss", "min"),
        OverfitStopper("loss", "min"),
        DivergenceStopper("loss", "min"),
        MultiMetricStopper({"loss": {"mode": "min"}}),
    ):
        assert stops_at(stopper, values) is not None, stopper.name


def test_a_threshold_of_zero_is_a_threshold() -> None:
    """Ray's plateau stopper takes 0.0 for none, mode unchecked."""
    with pytest.raises(ValueError, match="mode must be one of min, max"):
        ThresholdStopper("loss", "bogus", threshold=0.0)
    assert stops_at(ThresholdStopper("loss", "min", threshold=0.0), [1.0, 0.0, -0.1]) == 3


def test_a_slow_and_steady_gain_is_no_plateau() -> None:
    """Ray's plateau stopper, blind to the trend, ends a loss that falls by 0.003 per report."""
    falling = [1.0 - 0.003 * step for step in range(100)]
    for stopper in (
        PatienceStopper("loss", "min", min_delta=0.01, patience=5),
        AdaptivePatienceStopper("loss", "min"),
        GradientStopper("loss", "min"),
        GradientStopper("loss", "min", window=5, confidence=0.9),
        RecoveryStopper("loss", "min"),
    ):
        assert stops_at(stopper, falling) is None, stopper.name


def test_a_trial_that_has_ended_leaves_little_behind() -> None:
    """What only a restart would need is dropped; Ray's plateau stoppers drop nothing."""
    stopper = PatienceStopper("loss", "min", smoothing={"mean": 20})
    rows = [{"training_iteration": step, "loss": 1 / step} for step in range(1, 40)]
    for row in rows:
        stopper("t", dict(row))
    running = len(cloudpickle.dumps(stopper))
    stopper("t", rows[-1] | {"done": True})
    assert len(cloudpickle.dumps(stopper)) < running / 2


def test_a_first_nan_does_not_disable_a_stopper_of_the_sweep() -> None:
    """One in the first result ends Ray's experiment plateau stopper for good."""
    stopper = ThresholdStopper("loss", "min", threshold=0.1, scope="sweep")
    assert not stopper("a", {"training_iteration": 1, "loss": NAN})
    assert stopper("b", {"training_iteration": 1, "loss": 0.05})
    assert stopper.stop_all()


def test_time_is_the_trials_own_and_not_a_count_of_calls() -> None:
    """After a restart at step 3, Ray's iteration limit of 5 fires at step 3: it counts calls."""
    stopper = RuleStopper(Patience(1), "loss", "max", start_after=5)
    steps = [1, 2, 3, 4, 3, 4, 5]
    since = [1, 2, 3, 4, 1, 2, 3]
    fired = [
        step
        for step, count in zip(steps, since, strict=True)
        if stopper(
            "t",
            {"training_iteration": step, "iterations_since_restore": count, "loss": 1.0 / step},
        )
    ]
    assert fired == [5]


class Counting(Stopper):
    """A stopper of a user's own that never stops."""

    calls = 0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.calls += 1
        return False

    def stop_all(self) -> bool:
        return False


def test_every_member_sees_the_report_on_which_another_fires() -> None:
    """Ray's `CombinedStopper` asks no further."""
    member = Counting()
    assert stops_at(AnyOf(PatienceStopper("loss", "min", patience=1), member), [1.0, 1.0]) == 2
    assert member.calls == 2


def test_a_target_has_a_direction() -> None:
    """`stop={"loss": 0.1}` in Ray means >=, so that a loss stops at its first report."""
    assert stops_at(ThresholdStopper("loss", "min", threshold=0.1), [1.0, 0.5, 0.05]) == 3
    assert stops_at(ThresholdStopper("loss", "max", threshold=0.1), [0.05, 0.5]) == 2


# -- Vizier, ignite, Lightning, Hugging Face, Optuna, Ax -----------------------------------------


def test_no_decision_is_drawn_by_chance() -> None:
    """Open-source Vizier stops a random trial, Ray's ASHA draws brackets from the global state."""
    curves = {f"t{i}": flat(1.0 / (i % 7 + 1)) for i in range(20)}
    answers = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        answers.append(kept(halving(), **curves))
    assert answers[0] == answers[1]


def test_a_relative_delta_is_right_for_negative_values() -> None:
    """ignite takes a worse negative score for better; rt-stoppers' ratio turns round."""
    common: dict[str, Any] = {"min_delta": 0.1, "min_delta_mode": "rel", "patience": 2}
    improving, worsening = [-1.0, -1.2, -1.5, -2.0, -3.0], [-3.0, -2.9, -2.8]
    assert stops_at(PatienceStopper("loss", "min", **common), improving) is None
    assert stops_at(PatienceStopper("loss", "min", **common), worsening) == 3


def test_a_best_of_zero_can_be_beaten() -> None:
    """By any gain; in rt-stoppers-contrib never."""
    stopper = PatienceStopper("loss", "min", min_delta=0.1, min_delta_mode="rel", patience=2)
    assert stops_at(stopper, [1.0, 0.0, -0.001, -0.002, -0.003]) is None


def test_a_reason_is_true_in_both_directions() -> None:
    """Lightning's message on divergence has the sign of the comparison wrong."""
    for mode, limit, value in (("min", 2.0, 3.0), ("max", 0.5, 0.25)):
        stopper = DivergenceStopper("loss", mode, limit=limit)
        result: dict[str, Any] = {"training_iteration": 1, "loss": value}
        assert stopper("t", result)
        assert f"{value:g} is beyond the limit {limit:g}" in result["stop_reason"]


def test_patience_can_be_changed_on_resume() -> None:
    """Lightning's saved state overwrites the new setting."""
    old = EarlyStopping(2, mode="min")
    assert [old(value) for value in (1.0, 2.0, 2.0)] == [False, False, True]
    new = EarlyStopping(4, mode="min")
    new.load_state_dict(old.state_dict())
    assert [new(value) for value in (2.0, 2.0)] == [False, True]


def test_small_gains_add_up() -> None:
    """The Trainer's callback moves its best with each, and stops a slow learner."""
    falling = [1.0 - 0.04 * step for step in range(20)]
    assert stops_at(PatienceStopper("loss", "min", min_delta=0.1, patience=3), falling) is None


def test_a_best_of_long_ago_hides_no_divergence() -> None:
    """Optuna compares the best so far: 0.5 and then NaN is never pruned by its median."""
    assert stops_at(DivergenceStopper("loss", "min"), [0.5, 0.4, NAN]) == 3
    assert stops_at(DivergenceStopper("loss", "min"), [0.5, 0.4, 0.3, 5.0, 5.0]) == 5


def test_an_evaluation_that_is_not_finite_still_counts() -> None:
    """W&B filters such rows, and the step of a diverged run stands still."""
    reports = [Report("t", step, loss) for step, loss in enumerate([1.0, NAN, NAN, NAN])]
    assert [d.action.value for d in run_rule(Patience(3), reports)][-1] == "STOP"


FLAT: dict[str, Callable[[], Stopper]] = {
    "patience": lambda: PatienceStopper("loss", "min", min_delta=0.1, min_delta_mode="rel"),
    "adaptive": lambda: AdaptivePatienceStopper("loss", "min", scale="noise"),
    "several": lambda: MultiMetricStopper({"loss": {"mode": "min"}}, scaling="relative"),
    "confidence": lambda: GradientStopper("loss", "min", window=5, confidence=0.9),
    "norm": lambda: GradientStopper(source="grad_norm", gradient_metric="loss", relative=True),
    "divergence": lambda: DivergenceStopper("loss", "min"),
    "overfit": lambda: OverfitStopper("loss", "min"),
    "pq": lambda: OverfitStopper("loss", "min", train_metric="loss", criterion="pq"),
}


@pytest.mark.parametrize("make", FLAT.values(), ids=FLAT)
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e308, 5e-324])
def test_a_curve_without_any_spread_divides_by_nothing(
    make: Callable[[], Stopper], value: float
) -> None:
    """Ax divides by an interquartile range of zero; a flat curve is flat at any height."""
    expected = stops_at(make(), [1.0] * 30)
    got = stops_at(make(), [value] * 30)
    # sums of the largest floats overflow: a slope's interval is then undecidable, and never stops
    assert got == expected or (value == 1e308 and got is None)


# -- GradES, stoppower, rt-stoppers-contrib, evestop, LC-PFN -------------------------------------


def test_a_first_gradient_norm_is_never_none_at_all() -> None:
    """GradES takes its first observation, also after a resume, and each failure to read for 0."""
    stopper = GradientStopper(source="grad_norm", patience=1, threshold=0.5)
    assert not stopper("t", {"training_iteration": 50, "grad_norm": 0.0})
    assert not stopper("t", {"training_iteration": 51, "loss": 1.0})
    assert not stopper("t", {"training_iteration": 52, "grad_norm": None, "loss": 1.0})
    assert stopper("t", {"training_iteration": 53, "grad_norm": 0.1})


def slope(steps: list[float], losses: list[float], **options: Any) -> float:
    rule = Slope(1e-9, window=len(steps), per="step", **options)
    reports = [Report("t", step, loss) for step, loss in zip(steps, losses, strict=True)]
    return float(run_rule(rule, reports)[-1].numbers["slope"])


@pytest.mark.parametrize("options", [{}, {"confidence": 0.9}])
def test_uneven_and_fractional_steps_have_their_own_slope(options: dict[str, Any]) -> None:
    """stoppower takes gaps of 1, 1 and 8 for 4 each, and divides by zero at fractions."""
    for steps in ([0.0, 1.0, 2.0, 10.0], [0.25, 0.5, 0.6, 0.7]):
        assert slope(steps, [3.0 - 2.0 * x for x in steps], **options) == pytest.approx(-2.0)


def test_few_points_have_a_wide_interval() -> None:
    """Student's t where stoppower takes the normal: at 3 points, 6.3 standard errors for 1.6."""
    rule = Slope(1e-9, window=3, confidence=0.9)
    reports = [Report("t", step, loss) for step, loss in enumerate([1.0, 1.3, 1.0])]
    margin = run_rule(rule, reports)[-1].numbers["margin"]
    error = math.sqrt(0.06 / 2)  # residuals -0.1, 0.2, -0.1; one degree of freedom
    assert margin == pytest.approx(6.314 * error, rel=1e-3)


def test_importing_it_leaves_logging_alone() -> None:
    """rt-stoppers-contrib adds a handler on import."""
    code = (
        "import logging, tune_stoppers.core, tune_stoppers.metrics, tune_stoppers.journal.lines; "
        "names = (None, 'tune_stoppers'); "
        "print([logging.getLogger(name).handlers for name in names])"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[[], []]"
    assert logging.getLogger("tune_stoppers").level == logging.NOTSET


def test_a_first_value_improves_whatever_the_delta() -> None:
    """evestop's baseline of 0 is never beaten by a positive loss."""
    stopper = PatienceStopper("loss", "min", patience=2, min_delta=10.0)
    assert stops_at(stopper, [100.0, 80.0, 60.0, 40.0]) is None


def test_no_pickle_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LC-PFN and ifBO unpickle what they have downloaded; a best state is tensors and JSON."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    BestStateKeeper(tmp_path).offer(1, 0.5, model, optimizer)
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json"}

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    fresh = torch.nn.Linear(2, 1)
    assert BestStateKeeper(tmp_path).restore(fresh) == 1
    assert torch.equal(fresh.weight, model.weight)
