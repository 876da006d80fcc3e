"""Rules as JSON and back."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

from tests.test_contract import RULES
from tune_stoppers.core import Decision, Report, Rule
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.journal.spec import from_spec, to_spec
from tune_stoppers.rules import AnyOf, Forecast, Patience
from tune_stoppers.rules.sweep.bound_asha import BoundASHA
from tune_stoppers.rules.sweep.freeze_thaw import FreezeThaw
from tune_stoppers.rules.sweep.promotion import Promotion
from tune_stoppers.rules.sweep.rollback import Rollback

SWEEP_RULES = {
    "bound": BoundASHA(max_t=50),
    "bound in floats": BoundASHA(max_t=1.0, grace_period=0.1, window=5),
    "audited": BoundASHA(max_t=50, audit=10, drop="typical"),
    "forecast": Forecast(max_t=50),
    "freeze-thaw": FreezeThaw(max_t=50, least_chance=0.1),
    "promotion": Promotion(max_t=50, pen=3),
    "rollback": Rollback(patience=3, max_rollbacks=1),
    "a rule for each trial": PerTrial(RULES["any of three"]),
}


@dataclass(frozen=True)
class Mine(Rule):
    """A user's own, which decides nothing."""

    best: Any = 1

    def start(self) -> int:
        return 0

    def observe(self, own: int, report: Report) -> int:
        return own + 1

    def decide(self, own: int) -> Decision:
        return self.keep("never")


@pytest.mark.parametrize("rule", [*RULES.values(), *SWEEP_RULES.values()], ids=repr)
def test_every_rule_goes_to_json_and_back(rule: Any) -> None:
    """Equal, and so of the same decisions; nothing in it but JSON."""
    text = json.dumps(to_spec(rule), allow_nan=False)
    again = from_spec(json.loads(text))
    assert again == rule
    assert repr(again) == repr(rule)


def test_a_spec_says_what_people_would() -> None:
    """The class and its parameters, by name."""
    spec = to_spec(Patience(3, 0.1))
    assert spec["class"] == "Patience"
    assert (spec["patience"], spec["min_delta"]) == (3, 0.1)


@pytest.mark.parametrize(
    "best", [math.inf, -math.inf, (1, (2.5, "a")), {0: 1}, {"class": {"$x": 2}}]
)
def test_parameters_of_every_kind_survive(best: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also floats and keys that JSON lacks, and keys that a spec uses itself."""
    from tune_stoppers.journal import spec

    monkeypatch.setattr(spec, "_known", lambda: {"Mine": Mine})
    assert from_spec(json.loads(json.dumps(to_spec(Mine(best)), allow_nan=False))) == Mine(best)


def test_a_rule_of_a_users_own_is_named_and_not_built() -> None:
    """A journal runs no code that it names."""
    spec = to_spec(AnyOf(Mine(), Patience(3)))
    assert spec["children"][0]["class"].endswith("test_spec.Mine")
    with pytest.raises(
        ValueError, match=r"test_spec\.Mine is no rule of tune_stoppers \(a rule of"
    ):
        from_spec(spec)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (None, "this is no rule"),
        ({"patience": 3}, "this is no rule"),
        ({"class": "Future"}, "Future is no rule of tune_stoppers of this version"),
        ({"class": "Patience", "patience": -1}, "Patience cannot be built"),
        ({"class": "Patience", "courage": 1}, "Patience cannot be built"),
        ({"class": "Rule"}, "Rule cannot be built"),
        ({"class": "AtLeast", "children": []}, "AtLeast cannot be built"),
        ({"class": "Patience", "patience": {"$foreign": "x"}}, "was not written in full"),
    ],
    ids=str,
)
def test_what_is_no_rule_is_refused(spec: Any, why: str) -> None:
    """By name, with what is wrong."""
    with pytest.raises(ValueError, match=why):
        from_spec(spec)
