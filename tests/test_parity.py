"""With matching parameters, patience is that of Keras, Lightning and the Hugging Face Trainer.

Keras and Lightning are written down here as their documentation puts it; the Trainer's callback is
the real one. Values are multiples of 1/8: sums and differences of them are exact in any order.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import tests.stand_ins.strategies  # noqa: F401  the profile of the suite
from tune_stoppers import PatienceStopper, RuleStopper
from tune_stoppers.core import Mode
from tune_stoppers.metrics import sign_of
from tune_stoppers.rules import Divergence, Patience, Threshold

eighths = st.integers(-16, 16).map(lambda n: n / 8)
curves = st.lists(eighths, min_size=1, max_size=25)
patiences = st.integers(1, 5)
thoroughly = settings(max_examples=200)
deltas = st.sampled_from([0.0, 0.125, 0.25, 1.0])
modes: st.SearchStrategy[Mode] = st.sampled_from(["min", "max"])


def stops_at(stopper: RuleStopper, values: Sequence[float | None]) -> int | None:
    """The evaluation, counted from 1, at which a stopper ends a trial."""
    for step, value in enumerate(values, start=1):
        result: dict[str, Any] = {"training_iteration": step, "other": 0.0}
        if value is not None:
            result["x"] = value
        if stopper("t", result):
            return step
    return None


def better(mode: Mode, value: float, than: float, by: float) -> bool:
    """Better by more than `by`."""
    return value < than - by if mode == "min" else value > than + by


# -- Keras ---------------------------------------------------------------------------------------


def keras(
    values: Sequence[float | None], mode: Mode, patience: int, min_delta: float
) -> int | None:
    """Ends after `patience` epochs in a row that do not improve on the best by over `min_delta`.

    An epoch that lacks the metric does not count.
    """
    present = [(epoch, v) for epoch, v in enumerate(values, start=1) if v is not None]
    best_at, best = 0, math.inf * sign_of(mode)
    for place, (epoch, value) in enumerate(present):
        if better(mode, value, best, min_delta):
            best_at, best = place, value
        elif place - best_at >= patience:
            return epoch
    return None


@thoroughly
@given(st.lists(st.one_of(eighths, eighths, st.none()), max_size=25), modes, patiences, deltas)
def test_patience_is_that_of_keras(
    values: list[float | None], mode: Mode, patience: int, min_delta: float
) -> None:
    """Also where epochs lack the metric."""
    stopper = PatienceStopper("x", mode, patience=patience, min_delta=min_delta, on_missing="skip")
    assert stops_at(stopper, values) == keras(values, mode, patience, min_delta)


@given(curves, modes, patiences, deltas)
def test_a_baseline_never_reached_is_that_of_keras(
    values: list[float], mode: Mode, patience: int, min_delta: float
) -> None:
    """ "If no epoch improves on baseline, training will run for `patience` epochs"."""
    stopper = PatienceStopper(
        "x", mode, patience=patience, min_delta=min_delta, baseline=-2.0 * sign_of(mode)
    )
    assert stops_at(stopper, values) == (patience if len(values) >= patience else None)


@given(curves, modes, patiences, deltas)
def test_a_baseline_reached_at_first_is_that_of_keras(
    values: list[float], mode: Mode, patience: int, min_delta: float
) -> None:
    """From an epoch on that improves on it, patience is what it is without one."""
    values = [-3.0 * sign_of(mode), *values]
    stopper = PatienceStopper(
        "x", mode, patience=patience, min_delta=min_delta, baseline=3.0 * sign_of(mode)
    )
    assert stops_at(stopper, values) == keras(values, mode, patience, min_delta)


# -- Lightning -----------------------------------------------------------------------------------


def lightning(
    values: Sequence[float],
    mode: Mode,
    patience: int,
    min_delta: float,
    target: float | None,
    limit: float | None,
    check_finite: bool,
) -> int | None:
    """Each check in turn: not finite, target passed, limit passed, improvement, patience."""
    best, waited = math.inf * sign_of(mode), 0
    for check, value in enumerate(values, start=1):
        if check_finite and not math.isfinite(value):
            return check
        if target is not None and better(mode, value, target, 0.0):
            return check
        if limit is not None and better(mode, limit, value, 0.0):
            return check
        waited = 0 if better(mode, value, best, min_delta) else waited + 1
        best = value if waited == 0 else best
        if waited == patience:
            return check
    return None


@thoroughly
@given(
    st.lists(st.one_of(eighths, eighths, eighths, st.just(math.nan)), max_size=25),
    modes,
    patiences,
    deltas,
    st.one_of(st.none(), eighths),
    st.one_of(st.none(), eighths),
    st.booleans(),
)
def test_patience_target_limit_and_finiteness_are_those_of_lightning(
    values: list[float],
    mode: Mode,
    patience: int,
    min_delta: float,
    target: float | None,
    limit: float | None,
    check_finite: bool,
) -> None:
    """One callback there is three rules side by side here."""
    sign = sign_of(mode)
    rule = Patience(patience, min_delta, on_nonfinite="stop" if check_finite else "worst") | (
        Divergence(10**6, factor=None, limit=None if limit is None else sign * limit)
    )
    if target is not None:
        rule = rule | Threshold(sign * target)
    expected = lightning(values, mode, patience, min_delta, target, limit, check_finite)
    assert stops_at(RuleStopper(rule, "x", mode), values) == expected


# -- the Hugging Face Trainer ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[Mode, TrainingArguments]:
    folder = str(tmp_path_factory.mktemp("trainer"))
    return {
        mode: TrainingArguments(
            output_dir=folder,
            eval_strategy="steps",
            save_strategy="steps",
            load_best_model_at_end=True,
            metric_for_best_model="x",
            greater_is_better=mode == "max",
            report_to="none",
        )
        for mode in ("min", "max")
    }


def trainer_stops_at(
    values: Sequence[float], args: TrainingArguments, patience: int, threshold: float
) -> int | None:
    """The real callback, with the best metric kept by the Trainer's own method."""
    callback = EarlyStoppingCallback(patience, threshold)
    state, control = TrainerState(), TrainerControl()
    holder: Any = SimpleNamespace(args=args, state=state)
    callback.on_train_begin(args, state, control)
    for step, value in enumerate(values, start=1):
        metrics = {"eval_x": value}
        callback.on_evaluate(args, state, control, metrics)
        if control.should_training_stop:
            return step
        Trainer._determine_best_metric(holder, metrics, None)
    return None


def test_patience_is_that_of_the_trainers_callback(
    arguments: dict[Mode, TrainingArguments],
) -> None:
    """Where the first value is finite; NaN later is no improvement there either."""

    @thoroughly
    @given(st.lists(st.one_of(eighths, eighths, st.just(math.nan)), max_size=25), modes, patiences)
    def holds(values: list[float], mode: Mode, patience: int) -> None:
        values = [0.0, *values]
        expected = trainer_stops_at(values, arguments[mode], patience, 0.0)
        assert stops_at(PatienceStopper("x", mode, patience=patience), values) == expected

    holds()


def test_min_delta_is_the_callbacks_threshold_where_gains_are_larger(
    arguments: dict[Mode, TrainingArguments],
) -> None:
    """Its best follows any gain; where no gain is below the threshold, that makes no odds."""

    @thoroughly
    @given(curves, modes, patiences)
    def holds(values: list[float], mode: Mode, patience: int) -> None:
        expected = trainer_stops_at(values, arguments[mode], patience, 0.1)
        stopper = PatienceStopper("x", mode, patience=patience, min_delta=0.1)
        assert stops_at(stopper, values) == expected

    holds()


def test_where_gains_are_smaller_the_callback_stops_a_run_that_improves(
    arguments: dict[Mode, TrainingArguments],
) -> None:
    """Ours lets them add up against the same best, as Keras and Lightning do."""
    values = [2.0 - step / 16 for step in range(12)]
    assert trainer_stops_at(values, arguments["min"], 3, 0.125) == 4
    assert keras(values, "min", 3, 0.125) is None
    assert stops_at(PatienceStopper("x", "min", patience=3, min_delta=0.125), values) is None
