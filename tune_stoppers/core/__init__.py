"""The vocabulary: Report, Decision, Action, the two kinds of rule, and how rules combine.

A rule is pure: no I/O, no clock, no randomness, no Ray, no torch. Adapters (a Ray stopper or
scheduler, a Trainer callback, a plain loop, the replay) own what it remembers, turn what they see
into a `Report`, ask a `Session`, and act on the `Decision`.

Reading order: `decision`, `rule`, `track`, `combinators`, `on`.
"""

from tune_stoppers.core.checks import require as require
from tune_stoppers.core.checks import require_choice as require_choice
from tune_stoppers.core.checks import require_number as require_number
from tune_stoppers.core.combinators import After as After
from tune_stoppers.core.combinators import AllOf as AllOf
from tune_stoppers.core.combinators import AnyOf as AnyOf
from tune_stoppers.core.combinators import AtLeast as AtLeast
from tune_stoppers.core.combinators import Not as Not
from tune_stoppers.core.decision import Action as Action
from tune_stoppers.core.decision import Decision as Decision
from tune_stoppers.core.decision import MissingMetricError as MissingMetricError
from tune_stoppers.core.decision import Mode as Mode
from tune_stoppers.core.decision import OnMissing as OnMissing
from tune_stoppers.core.decision import OnNonfinite as OnNonfinite
from tune_stoppers.core.decision import Report as Report
from tune_stoppers.core.on import On as On
from tune_stoppers.core.rule import BaseRule as BaseRule
from tune_stoppers.core.rule import Rule as Rule
from tune_stoppers.core.rule import State as State
from tune_stoppers.core.rule import SweepRule as SweepRule
