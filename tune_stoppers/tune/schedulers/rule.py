"""`RuleScheduler`: any trial-level rule as a scheduler, which can pause as well as stop."""

from typing import Unpack

from tune_stoppers.core import Rule
from tune_stoppers.rules.per_trial import PerTrial, Tracks
from tune_stoppers.tune.schedulers.base import Common, SweepScheduler


class RuleScheduler(SweepScheduler[Tracks]):
    """Applies any trial-level rule to each trial: STOP ends it, PAUSE lets others go first.

    A paused trial resumes from its newest checkpoint when there is room; Ray restarts one that
    never reported a checkpoint from zero, so such a trial is not paused. A decision that ends
    the sweep (`Threshold(scope="sweep")`) ends the search: nothing more is started, and what
    runs is stopped at its next report.

    Args:
        rule: thresholds and limits in it are in loss units: negated where `mode` is "max".
        common: those of `SweepScheduler`; `on_nonfinite` here takes the rule's own place.
    """

    def __init__(self, rule: Rule, **common: Unpack[Common]) -> None:
        if not isinstance(rule, Rule):
            raise TypeError(f"RuleScheduler needs a rule of tune_stoppers.rules, got {rule!r}.")
        policy = common.pop("on_nonfinite", None)
        if policy is not None:
            rule = rule.with_policy(policy)
        super().__init__(PerTrial(rule), **common)
