"""The rules, one a file: pure policy, with no I/O, clock, randomness, Ray or torch."""

from tune_stoppers.core import After as After
from tune_stoppers.core import AllOf as AllOf
from tune_stoppers.core import AnyOf as AnyOf
from tune_stoppers.core import AtLeast as AtLeast
from tune_stoppers.core import Not as Not
from tune_stoppers.rules.sweep.forecast import Forecast as Forecast
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
