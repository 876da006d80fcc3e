"""A recorded curve stops at the same evaluation, for the same reason, wherever its rule runs."""

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from ray import tune
from ray.tune import Stopper
from ray.tune.result import TIME_THIS_ITER_S
from transformers import Trainer, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tune_stoppers import (
    AdaptivePatienceStopper,
    BudgetStopper,
    DivergenceStopper,
    EarlyStopping,
    GradientStopper,
    MultiMetricStopper,
    OverfitStopper,
    PatienceStopper,
    RecoveryStopper,
    RuleCallback,
    RuleStopper,
    Sweep,
    ThresholdStopper,
    replay,
    rules,
)
from tune_stoppers.core import Action, Mode, Report
from tune_stoppers.metrics import sign_of
from tune_stoppers.rules.trial.budget import TRIAL_ACTIVE_SECONDS
from tune_stoppers.testing import run_rule

METRIC = "eval_value"
LR = {"lr_metric": "eval_lr", "schedule_end": 7}


class Curve(NamedTuple):
    """Values of the objective as losses; under "max" they are reported negated."""

    mode: Mode
    losses: tuple[float, ...]

    @property
    def sign(self) -> int:
        return sign_of(self.mode)

    def rows(self) -> list[dict[str, float]]:
        """What is reported at each evaluation."""
        return [
            {
                METRIC: self.sign * loss,
                "eval_train": self.sign / step,
                "eval_grad_norm": 5.0 if step == 12 else 1 / max(step, 4),
                "eval_lr": min(step / 2, 1.0) if step < 8 else 8 / step**2,
                "eval_f1": 1 / (1 + loss),
                TIME_THIS_ITER_S: 1.0,
                TRIAL_ACTIVE_SECONDS: float(step),
            }
            for step, loss in enumerate(self.losses, start=1)
        ]


PLATEAU = (3.0, 2.0, 1.5, 1.3, 1.25, 1.25, 1.27, 1.27, 1.3, 1.4, 1.6, 1.9, 2.3, 2.8, 3.5, 5.0, 8.0)
CURVES = {
    "a plateau that rises": Curve("min", (*PLATEAU, 9.0)),
    "a NaN, and a late improvement": Curve(
        "max", (3.0, 2.0, 2.0, math.nan, 2.02, *(loss - 0.2 for loss in PLATEAU[3:]))
    ),
}

# the stopper for an objective and the sign of its thresholds; the evaluation at which each curve
# ends. A new rule joins with a line.
Make = Callable[[dict[str, Any], int], RuleStopper]
CASES: dict[str, tuple[Make, tuple[int, int]]] = {
    "patience": (lambda o, s: PatienceStopper(**o, patience=4), (9, 11)),
    "patience, relative": (
        lambda o, s: PatienceStopper(**o, patience=4, min_delta=0.1, min_delta_mode="rel"),
        (8, 10),
    ),
    "patience, smoothed": (
        lambda o, s: PatienceStopper(**o, patience=2, smoothing={"ema": 0.5}), (10, 13),
    ),
    "patience, by the schedule": (lambda o, s: PatienceStopper(**o, patience=2, **LR), (8, 9)),
    "threshold": (lambda o, s: ThresholdStopper(**o, threshold=s * 1.26, patience=2), (6, 7)),
    "divergence": (
        lambda o, s: DivergenceStopper(**o, nonfinite_strikes=2, factor=1.5), (17, 19),
    ),
    "divergence, gradient": (
        lambda o, s: DivergenceStopper(**o, gradient_limit=2.0, gradient_metric="eval_grad_norm"),
        (12, 4),
    ),
    "several metrics": (
        lambda o, s: MultiMetricStopper(
            {"eval_f1": {"mode": "max"}, "eval_grad_norm": {"mode": "min", "weight": 0.1}},
            patience=4,
        ),
        (10, 12),
    ),
    "several metrics, vote": (
        lambda o, s: MultiMetricStopper(
            {"eval_f1": {"mode": "max", "weight": 2}, METRIC: {"mode": o["mode"]}}, combine="vote"
        ),
        (10, 12),
    ),
    "adaptive patience": (
        lambda o, s: AdaptivePatienceStopper(**o, initial_patience=5, window=2, history=3),
        (10, 12),
    ),
    "adaptive patience, by the schedule": (
        lambda o, s: AdaptivePatienceStopper(**o, initial_patience=2, **LR), (8, 9),
    ),
    "slope, by the schedule": (
        lambda o, s: GradientStopper(**o, threshold=0.05, patience=2, **LR), (9, 9),
    ),
    "overfit, by the schedule": (lambda o, s: OverfitStopper(**o, alpha=0.9, **LR), (7, 9)),
    "budget": (lambda o, s: BudgetStopper(trial_seconds=7), (7, 7)),
    "slope": (lambda o, s: GradientStopper(**o, threshold=0.05, patience=4), (9, 11)),
    "slope, confident": (
        lambda o, s: GradientStopper(**o, threshold=0.2, patience=1, window=4, confidence=0.9),
        (6, 9),
    ),
    "gradient norm": (
        lambda o, s: GradientStopper(
            source="grad_norm", gradient_metric="eval_grad_norm", threshold=0.2, patience=2
        ),
        (7, 7),
    ),
    "recovery": (
        lambda o, s: RecoveryStopper(**o, patience=2, recovery_patience=2, max_recoveries=1),
        (9, 9),
    ),
    "overfit": (lambda o, s: OverfitStopper(**o, alpha=20), (11, 4)),
    "overfit, pq": (
        lambda o, s: OverfitStopper(
            **o, train_metric="eval_train", criterion="pq", alpha=0.5, strip=3
        ),
        (12, 15),
    ),
    "overfit, up": (
        lambda o, s: OverfitStopper(**o, criterion="up", strip=2, strips=2), (10, 12),
    ),
    "on another metric": (
        lambda o, s: RuleStopper(
            rules.Patience(2) & rules.On("eval_lr", rules.Patience(5), "max"), **o
        ),
        (7, 9),
    ),
    "on another metric alone": (
        lambda o, s: RuleStopper(rules.On("eval_grad_norm", rules.Threshold(-1.0), "max")),
        (12, 12),
    ),
    "combined, from a step on": (
        lambda o, s: RuleStopper(
            rules.Patience(2) & rules.Not(rules.Threshold(1.3)), **o, start_after=9
        ),
        (9, 13),
    ),
}  # fmt: skip
GRID = [(case, curve) for case in CASES for curve in CURVES]


def stopper_of(case: str, curve: str) -> RuleStopper:
    objective: dict[str, Any] = {"metric": METRIC, "mode": CURVES[curve].mode}
    return CASES[case][0](objective, CURVES[curve].sign)


Ending = tuple[int, str]  # the evaluation, counted from 1, and the reason without its owner


def words(reason: str) -> str:
    return reason.partition(": ")[2]


# -- the rule alone ------------------------------------------------------------------------------


def alone(case: str, curve: str) -> Ending:
    rule, sign = stopper_of(case, curve).rule, CURVES[curve].sign
    rows = CURVES[curve].rows()
    reports = [Report("t", step, sign * row[METRIC], row) for step, row in enumerate(rows, 1)]
    for step, decision in enumerate(run_rule(rule, reports), start=1):
        if decision.action is Action.STOP:
            return step, decision.say(sign)
    return 0, ""


# -- Ray, and the replay of the same trials --------------------------------------------------------


class Dispatch(Stopper):
    """Hands each trial's results to the stopper of its own case."""

    def __init__(self) -> None:
        self.stoppers = {pair: stopper_of(*pair) for pair in GRID}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        config = result["config"]
        return self.stoppers[config["case"], config["curve"]](trial_id, result)

    def stop_all(self) -> bool:
        return any(stopper.stop_all() for stopper in self.stoppers.values())


@pytest.fixture(scope="module")
def in_ray(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Ending]:
    """One real sweep: a trial for each case and curve, one after the other in one process."""
    rows = {name: curve.rows() for name, curve in CURVES.items()}

    def trainable(config: dict[str, Any]) -> None:
        for row in rows[config["curve"]]:
            tune.report(row)

    results = tune.Tuner(
        trainable,
        param_space={"case": tune.grid_search([*CASES]), "curve": tune.grid_search([*CURVES])},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(tmp_path_factory.mktemp("ray")),
            stop=Dispatch(),
            verbose=0,
        ),
    ).fit()
    return {
        (result.config["case"], result.config["curve"]): (
            result.metrics["training_iteration"],
            words(result.metrics.get("stop_reason", "")),
        )
        for result in results
    }


@pytest.fixture(scope="module")
def replayed() -> dict[Any, int]:
    """The sweep as it would have been recorded without stopper, and replayed with it."""
    rows = [
        {
            "trial_id": f"{case}/{curve}",
            "training_iteration": step,
            "config/case": case,
            "config/curve": curve,
            **row,
        }
        for case, curve in GRID
        for step, row in enumerate(CURVES[curve].rows(), start=1)
    ]
    for row in rows:
        del row[TIME_THIS_ITER_S]  # Ray's own; each report takes 1 in the replay too
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric=METRIC, mode="min")
    trials = replay(sweep, stopper=Dispatch(), workers=3).trials.set_index("trial_id")
    return {(case, curve): trials.loc[f"{case}/{curve}", "reports"] for case, curve in GRID}


@pytest.fixture(scope="module", autouse=True)
def lean() -> Iterator[None]:
    """One thread for so few numbers; each Trainer collects garbage, not among what is imported."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


# -- a plain loop, and a Trainer -----------------------------------------------------------------


def in_a_loop(case: str, curve: str) -> Ending:
    """A loop written by hand, with a model that learns something."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stop = EarlyStopping(stopper_of(case, curve).rule, metric=METRIC, mode=CURVES[curve].mode)
    for step, row in enumerate(CURVES[curve].rows(), start=1):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        if stop(row, model, optimizer):
            return step, words(stop.reason)
    return 0, ""


def in_a_trainer(case: str, curve: str, folder: Path) -> Ending:
    """A Trainer whose evaluations, after each optimizer step, find what was recorded."""
    recorded = CURVES[curve].rows()
    coming = iter(recorded)
    callback = RuleCallback(stopper_of(case, curve).rule, METRIC, CURVES[curve].mode)

    def compute_metrics(predicted: Any) -> Mapping[str, float]:
        return {name.removeprefix("eval_"): value for name, value in next(coming).items()}

    class Timed(Trainer):
        """Logs the seconds spent, which no evaluation knows."""

        def log(self, logs: dict[str, float], *more: Any) -> None:
            super().log(logs | {TRIAL_ACTIVE_SECONDS: float(self.state.global_step)}, *more)

    rows: Any = tiny_rows(2)
    trainer = Timed(
        tiny_model(),
        TrainingArguments(
            output_dir=str(folder),
            max_steps=len(recorded),
            per_device_train_batch_size=2,
            eval_strategy="steps",
            eval_steps=1,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        default_data_collator,
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=compute_metrics,
        callbacks=[callback],
    )
    trainer.train()
    return (trainer.state.global_step, words(callback.reason)) if callback.stopped else (0, "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
@pytest.mark.parametrize(("case", "curve"), GRID, ids=[": ".join(pair) for pair in GRID])
def test_a_rule_stops_a_curve_at_the_same_evaluation_everywhere(
    case: str, curve: str, in_ray: dict[Any, Ending], replayed: dict[Any, int], tmp_path: Path
) -> None:
    """Ray, replay, plain loop and Trainer agree with the rule alone, to the words of the reason."""
    expected = alone(case, curve)
    assert expected[0] == CASES[case][1][[*CURVES].index(curve)]
    assert in_a_loop(case, curve) == expected
    assert in_ray[case, curve] == expected
    assert replayed[case, curve] == expected[0]
    assert in_a_trainer(case, curve, tmp_path) == expected
