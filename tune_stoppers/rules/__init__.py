"""The rules, one a file: pure policy, with no I/O, clock, randomness, Ray or torch."""

from tune_stoppers.core import After as After
from tune_stoppers.core import AllOf as AllOf
from tune_stoppers.core import AnyOf as AnyOf
from tune_stoppers.core import AtLeast as AtLeast
from tune_stoppers.core import Not as Not
from tune_stoppers.rules.adaptive_patience import AdaptivePatience as AdaptivePatience
from tune_stoppers.rules.budget import Budget as Budget
from tune_stoppers.rules.divergence import Divergence as Divergence
from tune_stoppers.rules.forecast import Forecast as Forecast
from tune_stoppers.rules.gradient_norm import GradientNorm as GradientNorm
from tune_stoppers.rules.multi_metric import MultiMetric as MultiMetric
from tune_stoppers.rules.overfit import Overfit as Overfit
from tune_stoppers.rules.patience import Patience as Patience
from tune_stoppers.rules.recovery import Recovery as Recovery
from tune_stoppers.rules.slope import Slope as Slope
from tune_stoppers.rules.threshold import Threshold as Threshold
