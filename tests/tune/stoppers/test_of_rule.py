"""A named stopper takes its parameters, its errors and its help from its rule."""

import dataclasses
import inspect
import re
from typing import Any, Literal

import pytest
from ray import cloudpickle

import tune_stoppers
from tune_stoppers import (
    BudgetStopper,
    ForecastStopper,
    GradientStopper,
    MultiMetricStopper,
    OverfitStopper,
    PatienceStopper,
    ThresholdStopper,
    rules,
)
from tune_stoppers.core import BaseRule
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule

PUBLIC = [getattr(tune_stoppers, name) for name in tune_stoppers.__all__]
NAMED = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, StopperOfRule)]
OF_A_SWEEP = {"DiminishingReturnsStopper", "ForecastStopper"}  # one trial does not stop them
EXAMPLE = re.compile(r"^ *(\w+Stopper\(.*\))  # (.+): (?:stops at )?report (\d+)$", re.MULTILINE)
EXAMPLES = [(kind, *found) for kind in NAMED for found in EXAMPLE.findall(kind.__doc__ or "")]


def shown(kind: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


def test_every_named_stopper_is_built_from_its_rule() -> None:
    """Only `RuleStopper` itself is not: it takes the rule."""
    names = {name for name in tune_stoppers.__all__ if name.endswith("Stopper")}
    assert {kind.__name__ for kind in NAMED} == names - {"RuleStopper"}


@pytest.mark.parametrize("kind", NAMED)
def test_the_signature_shows_every_parameter_of_the_rule(kind: type[StopperOfRule]) -> None:
    """With the rule's defaults, and those of every stopper: nothing hides behind `**`."""
    taken = shown(kind)
    for field in dataclasses.fields(kind.rule_class):  # type: ignore[arg-type]
        if not field.init or field.name in ("on_nonfinite", *kind.worked_out):
            continue
        default = field.default
        expected = inspect.Parameter.empty if default is dataclasses.MISSING else default
        assert taken[field.name].default == expected, field.name
    common = {"time_attr", "on_nonfinite", "on_missing", "start_after", "dry_run", "journal"}
    assert common <= taken.keys()
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in taken.values())
    assert not any(p.annotation is p.empty for p in taken.values())


def test_the_signature_has_the_types_of_the_rule() -> None:
    """As an editor shows them."""
    text = str(inspect.signature(PatienceStopper))
    assert text.startswith("(metric: str, mode: Literal['min', 'max'], *, patience: int | ")
    assert "min_delta_mode: Literal['abs', 'rel'] = 'abs'" in text
    assert "on_nonfinite" in str(inspect.signature(PatienceStopper.__init__))


@pytest.mark.parametrize("kind", NAMED)
def test_help_says_what_each_parameter_takes(kind: type) -> None:
    """The `Args:` section has all of them, in the metric's own units."""
    section = (kind.__doc__ or "").partition("\nArgs:\n")[2]
    entries = re.findall(r"^    ([\w, ]+): \S", section, flags=re.MULTILINE)
    documented = [name for entry in entries for name in entry.split(", ")]
    assert sorted(documented) == sorted(shown(kind))
    assert "loss units" not in section


def test_every_named_stopper_has_an_example_with_its_stop() -> None:
    """That can be run; those that look across trials show how they are made."""
    assert {kind.__name__ for kind, *_ in EXAMPLES} == {k.__name__ for k in NAMED} - OF_A_SWEEP
    assert all("    " + name + "(" in getattr(tune_stoppers, name).__doc__ for name in OF_A_SWEEP)


@pytest.mark.parametrize(("kind", "code", "curves", "report"), EXAMPLES)
def test_the_example_stops_where_it_says(kind: type, code: str, curves: str, report: str) -> None:
    """`loss 1, 2; acc 0.1, 0.2: report 2` are the values of two metrics and the stop."""
    names: dict[str, Any] = vars(tune_stoppers) | {kind.__name__: kind}
    for line in (kind.__doc__ or "").splitlines():
        if re.match(r"    \w+ = \{", line):
            exec(line.strip(), names)  # the docstring's own set-up
    stopper = eval(code, names)
    values = {}
    for curve in curves.split("; "):
        metric, _, numbers = curve.partition(" ")
        values[metric] = [float(number) for number in numbers.split(", ")]
    for step, row in enumerate(zip(*values.values(), strict=True), start=1):
        result = {"training_iteration": step, **dict(zip(values, row, strict=True))}
        assert stopper("t", result) == (step == int(report)), step


def test_what_was_given_without_a_name_still_is() -> None:
    """Metric and mode, a composite's metrics, and all of a budget's parameters."""
    assert PatienceStopper("loss", "min").rule == rules.Patience()
    metrics = {"f1": {"mode": "max"}}
    assert MultiMetricStopper(metrics).rule == rules.MultiMetric(metrics)
    assert BudgetStopper(60, 600, 2, 4, "drain").rule == rules.Budget(60, 600, 2, 4, "drain")
    for make in (lambda: PatienceStopper("loss", "min", 3), lambda: MultiMetricStopper(metrics, 3)):
        with pytest.raises(TypeError, match=r"Stopper: too many positional arguments\."):
            make()


def test_what_is_in_the_metrics_units_becomes_a_loss() -> None:
    """And only that."""
    rule = PatienceStopper("acc", "max", baseline=0.5, min_delta=0.1).rule
    assert rule == rules.Patience(baseline=-0.5, min_delta=0.1)
    assert ThresholdStopper("acc", "max", threshold=0.9).rule == rules.Threshold(-0.9)
    assert OverfitStopper("acc", "max").rule == rules.Overfit(train_sign=-1)
    with pytest.raises(TypeError, match="baseline must be a number, got 'high'"):
        PatienceStopper("acc", "max", baseline="high")


def test_a_rule_that_waits_by_itself_is_told_to() -> None:
    """`start_after` reaches a rule that has it, and wraps any other."""
    forecast = ForecastStopper("loss", "min", max_t=9, start_after=3, history=iter(()))
    assert forecast.rule == rules.Forecast(max_t=9, start_after=3)
    assert PatienceStopper("loss", "min", start_after=3).rule == rules.After(3, rules.Patience())


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: ThresholdStopper("loss", "min"), TypeError, "missing.*'threshold'"),
        (lambda: PatienceStopper("loss", "min", metric="a"), TypeError, "multiple values.*metric"),
        (lambda: OverfitStopper("l", "min", train_sign=1), TypeError, "no parameter 'train_sign'"),
        (lambda: BudgetStopper(gpu_hour=1), TypeError, "Did you mean 'gpu_hours'"),
        (lambda: BudgetStopper(60, metric="loss"), TypeError, "no parameter 'metric'"),
        (lambda: GradientStopper(window=1, source="grad_norm"), ValueError, "window must be >= 2"),
        (lambda: GradientStopper(), TypeError, "GradientStopper needs metric"),
        (lambda: StopperOfRule("loss", "min"), TypeError, "needs rule_class"),
    ],
)
def test_wrong_arguments_are_refused_in_words(make: Any, error: type, said: str) -> None:
    """One line that names the stopper and the parameter."""
    with pytest.raises(error, match=said) as raised:
        make()
    assert "\n" not in str(raised.value)


class Early(PatienceStopper):
    """A user's own, with other parameters."""

    def __init__(self, metric: str, sooner: int = 1) -> None:
        super().__init__(metric, "min", patience=sooner)


class Doubtful(StopperOfRule):
    """A stopper whose rule is made of one more parameter.

    Args:
        doubt: evaluations more.
    """

    rule_class = rules.Patience

    @classmethod
    def make_rule(
        cls, mode: Literal["min", "max"], *, doubt: int = 0, **parameters: Any
    ) -> BaseRule:
        return rules.Patience(**parameters | {"patience": parameters["patience"] + doubt})


def test_a_subclass_may_have_parameters_of_its_own() -> None:
    """Its own `__init__` is its signature; keywords of `make_rule` add to the rule's."""
    assert list(shown(Early)) == ["metric", "sooner"]
    assert Early("loss").rule == rules.Patience(1)
    assert Early("loss").name == "Early"
    assert "doubt" in shown(Doubtful)
    assert "doubt: evaluations more." in (Doubtful.__doc__ or "")
    assert Doubtful("loss", "min", patience=2, doubt=3).rule == rules.Patience(5)


def test_a_named_stopper_pickles() -> None:
    """Ray pickles it with the experiment: by the name of its class."""
    again = cloudpickle.loads(cloudpickle.dumps(PatienceStopper("loss", "min", patience=2)))
    assert type(again) is PatienceStopper
    assert again.rule == rules.Patience(2)
