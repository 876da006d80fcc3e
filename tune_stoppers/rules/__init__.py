"""The rules, one a file: pure policy, with no I/O, clock, randomness, Ray or torch.

`rules.trial` has those that judge each trial by itself, `rules.sweep` those that look across
trials. All combine with `|` and `&`. Which need a scheduler of their own is in `rule.scheduler`.
"""

from tune_stoppers.core import After as After
from tune_stoppers.core import AllOf as AllOf
from tune_stoppers.core import AnyOf as AnyOf
from tune_stoppers.core import AtLeast as AtLeast
from tune_stoppers.core import Not as Not
from tune_stoppers.core import On as On
from tune_stoppers.rules.sweep.bound_asha import BoundASHA as BoundASHA
from tune_stoppers.rules.sweep.diminishing_returns import DiminishingReturns as DiminishingReturns
from tune_stoppers.rules.sweep.expected_improvement import (
    ExpectedImprovement as ExpectedImprovement,
)
from tune_stoppers.rules.sweep.forecast import Forecast as Forecast
from tune_stoppers.rules.sweep.freeze_thaw import FreezeThaw as FreezeThaw
from tune_stoppers.rules.sweep.promotion import Promotion as Promotion
from tune_stoppers.rules.sweep.rollback import Rollback as Rollback
from tune_stoppers.rules.trial.adaptive_patience import AdaptivePatience as AdaptivePatience
from tune_stoppers.rules.trial.budget import Budget as Budget
from tune_stoppers.rules.trial.divergence import Divergence as Divergence
from tune_stoppers.rules.trial.gradient_norm import GradientNorm as GradientNorm
from tune_stoppers.rules.trial.multi_metric import MultiMetric as MultiMetric
from tune_stoppers.rules.trial.overfit import Overfit as Overfit
from tune_stoppers.rules.trial.patience import Patience as Patience
from tune_stoppers.rules.trial.recovery import Recovery as Recovery
from tune_stoppers.rules.trial.slope import Slope as Slope
from tune_stoppers.rules.trial.threshold import Threshold as Threshold
