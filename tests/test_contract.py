"""The contract of every rule, on Hypothesis curves; a new rule joins by being listed in RULES."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves, finite_losses, losses, maybe_losses
from tune_stoppers import rules, testing
from tune_stoppers.core import Decision, Report, Rule
from tune_stoppers.tune.stoppers.named import (
    AdaptivePatienceStopper,
    AllOf,
    AnyOf,
    DivergenceStopper,
    GradientStopper,
    OverfitStopper,
    PatienceStopper,
    RecoveryStopper,
    RuleStopper,
    ThresholdStopper,
)

PATIENCE = rules.Patience(2)
THRESHOLD = rules.Threshold(0.5)
DIVERGENCE = rules.Divergence(2, limit=50.0, gradient_limit=10.0)

RULES = {
    "patience": PATIENCE,
    "patience 1": rules.Patience(1),
    "patience with a delta and a baseline": rules.Patience(3, 0.1, baseline=1.0),
    "patience with a relative delta": rules.Patience(2, 0.1, "rel"),
    "patience smoothed by a decaying mean": rules.Patience(2, smoothing={"ema": 0.5}),
    "patience smoothed by a mean": rules.Patience(2, smoothing={"mean": 3}),
    "patience smoothed by a median": rules.Patience(2, smoothing={"median": 4}),
    "patience that grows with time": rules.Patience({0: 1, 5: 3}),
    "threshold": THRESHOLD,
    "threshold smoothed, twice in a row": rules.Threshold(0.5, 2, {"mean": 2}),
    "threshold that ends the sweep": rules.Threshold(0.5, scope="sweep"),
    "divergence": DIVERGENCE,
    "divergence by strikes alone": rules.Divergence(3, factor=None),
    "divergence at once": rules.Divergence(factor=1.5, patience=1),
    "adaptive patience": rules.AdaptivePatience(2, 1, 4, window=2, history=3),
    "adaptive patience by noise": rules.AdaptivePatience(
        2, 1, 4, window=2, history=3, scale="noise"
    ),
    "metrics by reciprocal": rules.MultiMetric({"grad_norm": {"mode": "max"}}, 2),
    "metrics by change": rules.MultiMetric({"grad_norm": {"mode": "min"}}, 2, "relative"),
    "metrics by vote": rules.MultiMetric({"grad_norm": {"mode": "min"}}, 2, combine="vote"),
    "overfit by GL": rules.Overfit(),
    "overfit by PQ": rules.Overfit("grad_norm", "pq", 0.1, strip=2),
    "overfit by UP": rules.Overfit(criterion="up", strip=2, strips=1),
    "slope": rules.Slope(0.5, 2),
    "slope over a window": rules.Slope(0.5, 2, window=4),
    "slope per step": rules.Slope(0.5, 2, window=3, per="step"),
    "slope with confidence": rules.Slope(0.5, 1, window=3, per="step", confidence=0.5),
    "gradient norm": rules.GradientNorm(0.75, 2),
    "gradient norm, relative": rules.GradientNorm(0.75, 2, relative=True, warmup=2),
    "recovery": rules.Recovery(2, 1),
    "recovery, once": rules.Recovery(1, 2, 1),
    "patience and lr": rules.Patience(2, lr_metric="lr"),
    "patience before an anneal": rules.Patience(2, lr_metric="lr", schedule_end=6),
    "patience smoothed, and lr": rules.Patience(2, smoothing={"mean": 3}, lr_metric="lr"),
    "adaptive patience and lr": rules.AdaptivePatience(
        2, 1, 4, window=2, history=3, lr_metric="lr", schedule_end=4
    ),
    "slope and lr": rules.Slope(0.5, 2, lr_metric="lr", schedule_end=4),
    "overfit by GL and lr": rules.Overfit(lr_metric="lr", schedule_end=4),
    "overfit by PQ and lr": rules.Overfit("grad_norm", "pq", 0.1, strip=2, lr_metric="lr"),
    "overfit by UP and lr": rules.Overfit(criterion="up", strip=2, strips=1, lr_metric="lr"),
    "gradient norm and lr": rules.GradientNorm(0.75, 2, lr_metric="lr", schedule_end=4),
    "budget of a trial": rules.Budget(trial_seconds=1.5),
    "budget of a sweep": rules.Budget(sweep_seconds=50, gpu_hours=0.01, gpus_per_trial=2),
    "budget of money": rules.Budget(money=0.04, gpu_hour_price=2.0, gpus_per_trial=2),
    "budget of energy": rules.Budget(kwh=1.5),
    "budget of both, drained": rules.Budget(1.5, sweep_seconds=50, on_end="drain"),
    "any of three": rules.AnyOf(PATIENCE, THRESHOLD, DIVERGENCE),
    "all of two": rules.AllOf(PATIENCE, THRESHOLD),
    "at least two of three": rules.AtLeast(2, PATIENCE, THRESHOLD, DIVERGENCE),
    "the opposite": rules.Not(PATIENCE),
    "after a step": rules.After(5, PATIENCE),
    "on another metric": rules.On("grad_norm", PATIENCE, "min"),
    "on another metric that is maximised": rules.On("kl", DIVERGENCE | PATIENCE, "max"),
    "on two metrics": PATIENCE | rules.On("grad_norm", THRESHOLD, "max"),
    "on two metrics at once": PATIENCE & rules.Not(rules.On("kl", rules.Patience(1), "min")),
    "on another within another": rules.On(
        "grad_norm", THRESHOLD & rules.On("kl", PATIENCE, "max"), "min"
    ),
    "nested": rules.After(3, (PATIENCE | DIVERGENCE) & rules.Not(THRESHOLD)),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_holds_the_contract(rule):
    """Each check of the contract suite passes for each rule under each policy."""
    reported = tuple(dict.fromkeys(("grad_norm", *rule.reads)))

    @given(curves(metrics=reported), st.sampled_from(["worst", "stop", "ignore"]))
    def holds(reports, policy):
        testing.check_rule(rule.with_policy(policy), reports)

    holds()


def test_check_rule_runs_every_check_on_each_trial_apart():
    """Reports of two trials that interleave are no trouble: each trial has its own curve."""
    reports = [Report(trial, step, 1.0 / step) for step in (1, 2, 3) for trial in ("a", "b")]
    testing.check_rule(PATIENCE, reports)


def test_every_rule_of_the_package_holds_the_contract():
    """Whoever adds a rule adds it to RULES, or calls `check_rule` in the rule's own tests."""
    listed = {type(rule) for rule in RULES.values()} | {Rule}
    public = {value for value in vars(rules).values() if isinstance(value, type)}
    for kind in {kind for kind in public if issubclass(kind, Rule)} - listed:
        *folders, module = kind.__module__.split(".")[1:]
        own = Path(__file__).parent.joinpath(*folders, f"test_{module}.py")
        checked = own.exists() and "check_rule(" in own.read_text(encoding="utf-8")
        assert checked, f"{kind.__name__} is in no RULES, and {own} does not call check_rule."


# -- symmetry ------------------------------------------------------------------------------------

SIGN = {"min": 1, "max": -1}
STOPPERS = {
    "patience": lambda mode: PatienceStopper("loss", mode, patience=2),
    "patience with a relative delta": lambda mode: PatienceStopper(
        "loss", mode, patience=2, min_delta=0.1, min_delta_mode="rel"
    ),
    "patience with a baseline": lambda mode: PatienceStopper(
        "loss", mode, patience=2, min_delta=0.5, baseline=SIGN[mode] * 0.7
    ),
    "patience smoothed": lambda mode: PatienceStopper(
        "loss", mode, patience=2, smoothing={"ema": 0.7}
    ),
    "threshold": lambda mode: ThresholdStopper("loss", mode, threshold=SIGN[mode] * 0.7),
    "divergence": lambda mode: DivergenceStopper("loss", mode, limit=SIGN[mode] * 50.0),
    "adaptive patience": lambda mode: AdaptivePatienceStopper(
        "loss", mode, initial_patience=2, window=2, history=3
    ),
    "overfit by GL": lambda mode: OverfitStopper("loss", mode),
    "overfit by UP": lambda mode: OverfitStopper("loss", mode, criterion="up", strip=2, strips=1),
    "slope": lambda mode: GradientStopper("loss", mode, threshold=0.5, patience=2),
    "slope with confidence": lambda mode: GradientStopper(
        "loss", mode, threshold=0.5, patience=1, window=3, confidence=0.5
    ),
    "recovery": lambda mode: RecoveryStopper(
        "loss", mode, patience=1, recovery_patience=2, max_recoveries=1
    ),
    "any rule": lambda mode: RuleStopper(rules.AtLeast(1, PATIENCE, THRESHOLD), "loss", mode),
    "any of": lambda mode: AnyOf(
        PatienceStopper("loss", mode, patience=3), DivergenceStopper("loss", mode)
    ),
    "all of": lambda mode: AllOf(
        PatienceStopper("loss", mode, patience=1), DivergenceStopper("loss", mode, factor=1.0)
    ),
}


@pytest.mark.parametrize("make", STOPPERS.values(), ids=STOPPERS)
def test_maximising_is_minimising_the_opposite(make):
    """-x under max decides exactly as x under min, thresholds and limits negated too."""

    @given(st.lists(maybe_losses, max_size=25))
    def holds(values):
        testing.check_symmetry(make, [1.0, *values])

    holds()


@pytest.mark.parametrize("make", STOPPERS.values(), ids=STOPPERS)
def test_time_in_other_units_changes_nothing(make):
    """The rules count evaluations, so steps of 10 stop where steps of 1 do."""

    @given(st.lists(losses, min_size=1, max_size=20))
    def holds(values):
        slow, fast = make("min"), make("min")
        for step, value in enumerate(values, start=1):
            by_one = slow("t", {"training_iteration": step, "loss": value})
            assert by_one == fast("t", {"training_iteration": 10 * step, "loss": value})

    holds()


# -- the suite finds what it is there for ----------------------------------------------------------


@dataclass(frozen=True)
class Base(Rule):
    """Stops at the third report; the rules below each break one clause."""

    def start(self):
        return 0

    def observe(self, own, report):
        return own + 1

    def decide(self, own):
        return (self.stop if own >= 3 else self.keep)("{count} of 3", count=own)


@dataclass(frozen=True)
class Forgetful(Base):
    """Keeps state in itself."""

    memory: list = field(default_factory=list)

    def decide(self, own):
        self.memory.append(own)
        return self.keep("{calls} calls", calls=len(self.memory))


class CallCounting(Base):
    """Counts calls, not steps."""

    def update(self, state, report):
        state = state._replace(step=report.step, own=state.own + 1)
        return state, self.decide(state.own)


class Lossy(Base):
    """Loads a fresh state."""

    def load(self, data):
        return self.init()


class Silent(Base):
    """Has a reason with a hole."""

    def decide(self, own):
        return self.keep("{{count}} of 3", count=own)


class CountsNothing(Base):
    """Counts a report that carries nothing."""

    def update(self, state, report):
        if report.loss is None:
            state = state._replace(own=state.own + 1)
        return super().update(state, report)


class PolicyBlind(Base):
    """Ignores on_nonfinite."""

    def _advance(self, state, report):
        return state._replace(step=report.step, own=self.observe(state.own, report))


class Infinite(Base):
    """Tells NaN from infinity under "worst"."""

    def _advance(self, state, report):
        nan = report.loss is not None and math.isnan(report.loss)
        return state._replace(step=report.step, own=state.own + (1 if nan else 2))


class Hoarder(Base):
    """Keeps every loss."""

    def start(self):
        return ()

    def observe(self, own, report):
        return (*own, *([report.loss] * 50))

    def decide(self, own):
        return self.keep("seen {count}", count=len(own))


class Mutating(Base):
    """Writes into the state it was given."""

    def start(self):
        return ()

    def init(self):
        return super().init()._replace(own=Box())

    def observe(self, own, report):
        own.count += 1
        return own

    def decide(self, own):
        return self.keep("seen {count}", count=own.count)

    def dump(self, state):
        return {"count": state.own.count}


class Box:
    """Something that can be changed."""

    count = 0


CURVE = [Report("t", step, 1.0 / step) for step in range(1, 9)]
BROKEN = {
    "hidden memory": (Forgetful(), testing.check_pure),
    "hidden memory, later reports": (Forgetful(), testing.check_causal),
    "a state that is written into": (Mutating(), testing.check_pure),
    "counting calls": (CallCounting(), testing.check_idempotent),
    "a state lost in JSON": (Lossy(), testing.check_state_round_trip),
    "a reason with a hole": (Silent(), testing.check_reasons),
    "counting empty reports": (CountsNothing(), testing.check_missing_is_neutral),
    "no policy": (PolicyBlind(), testing.check_nonfinite),
    "infinity is not NaN": (Infinite(), testing.check_nonfinite),
    "a state that grows": (Hoarder(), testing.check_state_size),
}


@pytest.mark.parametrize(("rule", "check"), BROKEN.values(), ids=BROKEN)
def test_a_rule_that_breaks_a_clause_is_found(rule, check):
    """The check fails, and says which rule at which report."""
    with pytest.raises(AssertionError, match=rf"{type(rule).__name__}\(.*Report\("):
        check(rule, CURVE)


def test_a_rule_that_cannot_be_pickled_is_found():
    """A rule defined inside a function cannot travel with Tune's experiment."""

    class Local(Base):
        pass

    with pytest.raises((AttributeError, AssertionError, testing.pickle.PicklingError)):
        testing.check_pickle(Local(), CURVE)


def test_a_lopsided_stopper_is_found():
    """A stopper that forgets the mode fails the symmetry check."""

    def forgets(mode):
        return ThresholdStopper("loss", mode, threshold=0.5)

    with pytest.raises(AssertionError, match="not symmetric"):
        testing.check_symmetry(forgets, [1.0, 0.4, 0.6])


def test_a_sound_rule_of_a_users_own_passes():
    """The base of the broken rules above holds the whole contract."""
    testing.check_rule(Base(), CURVE)


@given(st.lists(finite_losses, min_size=1, max_size=20))
def test_the_first_finite_value_always_improves(values):
    """Under "worst" a NaN at first is a bad evaluation, and any finite value then improves."""
    rule = rules.Patience(3)
    state, first = rule.update(rule.init(), Report("t", 0, math.nan))
    assert "none finite yet" in first.reason
    _, second = rule.update(state, Report("t", 1, values[0]))
    assert isinstance(second, Decision)
    assert second.reason.startswith("improved")
