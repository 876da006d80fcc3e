"""Early stopping and pruning for Ray Tune: every public name, loaded when it is first used.

`import tune_stoppers` imports neither ray, torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tune_stoppers.moved import watch_imports

if TYPE_CHECKING:
    from tune_stoppers.advice import MetricAdvice as MetricAdvice
    from tune_stoppers.advice import recommend_metric as recommend_metric
    from tune_stoppers.advice import recommend_parameters as recommend_parameters
    from tune_stoppers.backtest.compare import compare as compare
    from tune_stoppers.backtest.compare import example_path as example_path
    from tune_stoppers.backtest.replay import ReplayResult as ReplayResult
    from tune_stoppers.backtest.replay import replay as replay
    from tune_stoppers.experiment.best_state import BestState as BestState
    from tune_stoppers.experiment.best_states import best_state as best_state
    from tune_stoppers.experiment.best_states import best_states as best_states
    from tune_stoppers.integrations.no_code import callback_from as callback_from
    from tune_stoppers.recorded.sweep import Sweep as Sweep
    from tune_stoppers.report.data.explain import explain as explain
    from tune_stoppers.training.checkpoints import load_state as load_state
    from tune_stoppers.training.checkpoints import save_state as save_state
    from tune_stoppers.training.early_stopping import EarlyStopping as EarlyStopping
    from tune_stoppers.training.hf import RuleCallback as RuleCallback
    from tune_stoppers.training.keeper import BestStateKeeper as BestStateKeeper
    from tune_stoppers.training.lightning import LightningRuleCallback as LightningRuleCallback
    from tune_stoppers.training.rule_pruner import RulePruner as RulePruner
    from tune_stoppers.tune.checkpoint_config import checkpoint_config as checkpoint_config
    from tune_stoppers.tune.progress import SweepReporter as SweepReporter
    from tune_stoppers.tune.ray_internals.train import FreeWorkers as FreeWorkers
    from tune_stoppers.tune.ray_internals.train_runs import has_train_workers as has_train_workers
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
    from tune_stoppers.tune.stoppers.named import AdaptivePatienceStopper as AdaptivePatienceStopper
    from tune_stoppers.tune.stoppers.named import AllOf as AllOf
    from tune_stoppers.tune.stoppers.named import AnyOf as AnyOf
    from tune_stoppers.tune.stoppers.named import BudgetStopper as BudgetStopper
    from tune_stoppers.tune.stoppers.named import (
        DiminishingReturnsStopper as DiminishingReturnsStopper,
    )
    from tune_stoppers.tune.stoppers.named import DivergenceStopper as DivergenceStopper
    from tune_stoppers.tune.stoppers.named import ForecastStopper as ForecastStopper
    from tune_stoppers.tune.stoppers.named import GradientStopper as GradientStopper
    from tune_stoppers.tune.stoppers.named import MultiMetricStopper as MultiMetricStopper
    from tune_stoppers.tune.stoppers.named import OverfitStopper as OverfitStopper
    from tune_stoppers.tune.stoppers.named import PatienceStopper as PatienceStopper
    from tune_stoppers.tune.stoppers.named import RecoveryStopper as RecoveryStopper
    from tune_stoppers.tune.stoppers.named import RuleStopper as RuleStopper
    from tune_stoppers.tune.stoppers.named import ThresholdStopper as ThresholdStopper
    from tune_stoppers.tune.suggest import suggest as suggest
    from tune_stoppers.tune.trackers.callback import DecisionCallback as DecisionCallback
    from tune_stoppers.tune.trainer.callback import TuneCallback as TuneCallback
    from tune_stoppers.tune.trainer.lightning import LightningTuneCallback as LightningTuneCallback

_WHERE = {
    "AdaptivePatienceStopper": "tune.stoppers.named",
    "AllOf": "tune.stoppers.named",
    "AnyOf": "tune.stoppers.named",
    "AutoScheduler": "tune.schedulers.auto",
    "BestState": "experiment.best_state",
    "BestStateKeeper": "training.keeper",
    "BoundASHAScheduler": "tune.schedulers.bound_asha",
    "BudgetStopper": "tune.stoppers.named",
    "DecisionCallback": "tune.trackers.callback",
    "DiminishingReturnsStopper": "tune.stoppers.named",
    "DivergenceStopper": "tune.stoppers.named",
    "EarlyStopping": "training.early_stopping",
    "ForecastStopper": "tune.stoppers.named",
    "FreeWorkers": "tune.ray_internals.train",
    "FreezeThawScheduler": "tune.schedulers.freeze_thaw",
    "GradientStopper": "tune.stoppers.named",
    "LightningRuleCallback": "training.lightning",
    "LightningTuneCallback": "tune.trainer.lightning",
    "MetricAdvice": "advice",
    "MultiMetricStopper": "tune.stoppers.named",
    "OverfitStopper": "tune.stoppers.named",
    "PatienceStopper": "tune.stoppers.named",
    "PromotionASHAScheduler": "tune.schedulers.promotion_asha",
    "RecoveryStopper": "tune.stoppers.named",
    "ReplayResult": "backtest.replay",
    "RollbackScheduler": "tune.schedulers.rollback",
    "RuleCallback": "training.hf",
    "RulePruner": "training.rule_pruner",
    "RuleScheduler": "tune.schedulers.rule",
    "RuleStopper": "tune.stoppers.named",
    "Sweep": "recorded.sweep",
    "SweepReporter": "tune.progress",
    "ThresholdStopper": "tune.stoppers.named",
    "TuneCallback": "tune.trainer.callback",
    "best_state": "experiment.best_states",
    "best_states": "experiment.best_states",
    "callback_from": "integrations.no_code",
    "checkpoint_config": "tune.checkpoint_config",
    "compare": "backtest.compare",
    "example_path": "backtest.compare",
    "explain": "report.data.explain",
    "has_train_workers": "tune.ray_internals.train_runs",
    "load_state": "training.checkpoints",
    "recommend_metric": "advice",
    "recommend_parameters": "advice",
    "replay": "backtest.replay",
    "save_state": "training.checkpoints",
    "suggest": "tune.suggest",
}

__all__ = sorted(_WHERE)
__version__ = "0.2.0"


watch_imports()


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
