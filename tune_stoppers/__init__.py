"""Early stopping and pruning for Ray Tune: every public name, loaded when it is first used.

`import tune_stoppers` imports neither ray, torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_stoppers.advice import MetricAdvice as MetricAdvice
    from tune_stoppers.advice import recommend_metric as recommend_metric
    from tune_stoppers.advice import recommend_parameters as recommend_parameters
    from tune_stoppers.backtest.compare import compare as compare
    from tune_stoppers.backtest.compare import example_path as example_path
    from tune_stoppers.backtest.replay import ReplayResult as ReplayResult
    from tune_stoppers.backtest.replay import replay as replay
    from tune_stoppers.backtest.sweep import Sweep as Sweep
    from tune_stoppers.report.explain import explain as explain
    from tune_stoppers.training.checkpoints import load_state as load_state
    from tune_stoppers.training.checkpoints import save_state as save_state
    from tune_stoppers.training.early_stopping import EarlyStopping as EarlyStopping
    from tune_stoppers.training.keeper import BestStateKeeper as BestStateKeeper
    from tune_stoppers.training.rule_callback import RuleCallback as RuleCallback
    from tune_stoppers.tune.callback import TuneCallback as TuneCallback
    from tune_stoppers.tune.diminishing_stopper import (
        DiminishingReturnsStopper as DiminishingReturnsStopper,
    )
    from tune_stoppers.tune.forecast_stopper import ForecastStopper as ForecastStopper
    from tune_stoppers.tune.results import BestState as BestState
    from tune_stoppers.tune.results import best_state as best_state
    from tune_stoppers.tune.results import best_states as best_states
    from tune_stoppers.tune.results import checkpoint_config as checkpoint_config
    from tune_stoppers.tune.schedulers.auto import AutoScheduler as AutoScheduler
    from tune_stoppers.tune.schedulers.bound_asha import BoundASHAScheduler as BoundASHAScheduler
    from tune_stoppers.tune.schedulers.freeze_thaw import (
        FreezeThawScheduler as FreezeThawScheduler,
    )
    from tune_stoppers.tune.schedulers.promotion_asha import (
        PromotionASHAScheduler as PromotionASHAScheduler,
    )
    from tune_stoppers.tune.schedulers.rollback import RollbackScheduler as RollbackScheduler
    from tune_stoppers.tune.schedulers.rule import RuleScheduler as RuleScheduler
    from tune_stoppers.tune.stoppers import AdaptivePatienceStopper as AdaptivePatienceStopper
    from tune_stoppers.tune.stoppers import AllOf as AllOf
    from tune_stoppers.tune.stoppers import AnyOf as AnyOf
    from tune_stoppers.tune.stoppers import BudgetStopper as BudgetStopper
    from tune_stoppers.tune.stoppers import DivergenceStopper as DivergenceStopper
    from tune_stoppers.tune.stoppers import GradientStopper as GradientStopper
    from tune_stoppers.tune.stoppers import MultiMetricStopper as MultiMetricStopper
    from tune_stoppers.tune.stoppers import OverfitStopper as OverfitStopper
    from tune_stoppers.tune.stoppers import PatienceStopper as PatienceStopper
    from tune_stoppers.tune.stoppers import RecoveryStopper as RecoveryStopper
    from tune_stoppers.tune.stoppers import RuleStopper as RuleStopper
    from tune_stoppers.tune.stoppers import ThresholdStopper as ThresholdStopper
    from tune_stoppers.tune.train_runs import has_train_workers as has_train_workers
    from tune_stoppers.tune.train_workers import FreeWorkers as FreeWorkers

_WHERE = {
    "AdaptivePatienceStopper": "tune.stoppers",
    "AllOf": "tune.stoppers",
    "AnyOf": "tune.stoppers",
    "AutoScheduler": "tune.schedulers.auto",
    "BestState": "tune.results",
    "BestStateKeeper": "training.keeper",
    "BoundASHAScheduler": "tune.schedulers.bound_asha",
    "BudgetStopper": "tune.stoppers",
    "DiminishingReturnsStopper": "tune.diminishing_stopper",
    "DivergenceStopper": "tune.stoppers",
    "EarlyStopping": "training.early_stopping",
    "ForecastStopper": "tune.forecast_stopper",
    "FreeWorkers": "tune.train_workers",
    "FreezeThawScheduler": "tune.schedulers.freeze_thaw",
    "GradientStopper": "tune.stoppers",
    "MetricAdvice": "advice",
    "MultiMetricStopper": "tune.stoppers",
    "OverfitStopper": "tune.stoppers",
    "PatienceStopper": "tune.stoppers",
    "PromotionASHAScheduler": "tune.schedulers.promotion_asha",
    "RecoveryStopper": "tune.stoppers",
    "ReplayResult": "backtest.replay",
    "RollbackScheduler": "tune.schedulers.rollback",
    "RuleCallback": "training.rule_callback",
    "RuleScheduler": "tune.schedulers.rule",
    "RuleStopper": "tune.stoppers",
    "Sweep": "backtest.sweep",
    "ThresholdStopper": "tune.stoppers",
    "TuneCallback": "tune.callback",
    "best_state": "tune.results",
    "best_states": "tune.results",
    "checkpoint_config": "tune.results",
    "compare": "backtest.compare",
    "example_path": "backtest.compare",
    "explain": "report.explain",
    "has_train_workers": "tune.train_runs",
    "load_state": "training.checkpoints",
    "recommend_metric": "advice",
    "recommend_parameters": "advice",
    "replay": "backtest.replay",
    "save_state": "training.checkpoints",
}

__all__ = sorted(_WHERE)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
