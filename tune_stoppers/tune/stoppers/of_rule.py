"""`StopperOfRule`: a stopper whose parameters are those of its rule, written once, in the rule."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast, get_type_hints

from tune_stoppers.core import BaseRule, Mode, require_number
from tune_stoppers.metrics import check_metric, sign_of, unknown_keyword
from tune_stoppers.tune.parameter_docs import args_in, args_of, in_metric_units, with_args
from tune_stoppers.tune.stoppers.base import RuleStopper

POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
KEYWORD = inspect.Parameter.KEYWORD_ONLY


class StopperOfRule(RuleStopper):
    """A named stopper: the class says which rule, and the rule which parameters there are.

    ::

        class PatienceStopper(StopperOfRule):
            rule_class = Patience
            in_metric_units = ("baseline",)

    `inspect.signature` and `help` of such a class show the metric and the mode, every parameter of
    the rule with its type and default, and the keywords of `RuleStopper`. Its docstring gets an
    `Args:` section out of the docstrings of both. What type checkers and editors read is
    `named.pyi`, which `python -m tune_stoppers.tune.stoppers.signatures` writes.

    A class that makes its rule in another way defines `make_rule`; the keywords written out there
    are parameters of the stopper too.
    """

    rule_class: ClassVar[type[BaseRule]]
    also_of: ClassVar[tuple[type[BaseRule], ...]] = ()  # rules whose parameters it takes too
    in_metric_units: ClassVar[tuple[str, ...]] = ()  # given as the metric is, turned into losses
    worked_out: ClassVar[tuple[str, ...]] = ()  # parameters of the rule that `make_rule` fills in
    positional: ClassVar[tuple[str, ...]] = ("metric", "mode")  # may be given without their names
    needs_metric: ClassVar[bool] = True  # False: metric and mode may be left out

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__ or not hasattr(cls, "rule_class"):
            return  # a class of a user's own, with a signature of its own
        signature, own = _signature(cls), frozenset(_own_parameters(cls))

        def __init__(self: StopperOfRule, *args: Any, **named: Any) -> None:
            self._make(signature, own, args, named)

        me = inspect.Parameter("self", POSITIONAL)
        parameters = [me, *signature.parameters.values()]
        __init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        __init__.__qualname__ = f"{cls.__qualname__}.__init__"
        __init__.__module__ = cls.__module__
        cls.__init__ = __init__  # type: ignore[method-assign]
        if cls.__dict__.get("__doc__"):  # none under python -OO
            cls.__doc__ = with_args(cls.__doc__ or "", signature.parameters, _texts(cls))

    def __init__(self, *args: Any, **named: Any) -> None:
        raise TypeError(f"{type(self).__name__} needs rule_class, the rule that it applies.")

    def _make(
        self,
        signature: inspect.Signature,
        own: frozenset[str],
        args: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        """What `__init__` does; `own` are the parameters that go to the rule."""
        name = type(self).__name__
        unknown = next((key for key in named if key not in signature.parameters), None)
        if unknown is not None:
            raise TypeError(unknown_keyword(type(self), type(self), unknown))
        if self.needs_metric and "metric" in signature.parameters:
            given = dict(zip(self.positional, args, strict=False)) | named
            check_metric(name, given.get("metric"), given.get("mode"))
        try:
            bound = signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{name}: {error}.") from None
        bound.apply_defaults()
        values = bound.arguments
        metric, mode = values.pop("metric", None), values.pop("mode", None)
        for key in self.in_metric_units:
            if values[key] is not None:
                require_number(key, values[key])
                values[key] = sign_of(mode) * values[key]
        common = {key: values.pop(key) for key in list(values) if key not in own}
        super().__init__(self.make_rule(mode, **values), metric, mode, **common)

    @classmethod
    def make_rule(cls, mode: Mode, **parameters: Any) -> BaseRule:
        """The rule with these parameters; those in the metric's units are losses already."""
        return cast("Callable[..., BaseRule]", cls.rule_class)(**parameters)


def takes(kind: type[BaseRule]) -> dict[str, inspect.Parameter]:
    """The parameters of a rule, with their types; those that every stopper takes are left out.

    `start_after` is one of its own where a rule has it: it then sees to that by itself.
    """
    types = get_type_hints(kind)
    found = inspect.signature(kind).parameters.items()
    return {
        key: parameter.replace(kind=KEYWORD, annotation=types[key])
        for key, parameter in found
        if key != "on_nonfinite"
    }


def _signature(cls: type[StopperOfRule]) -> inspect.Signature:
    """Metric and mode, what the rule takes, what `make_rule` takes, what every stopper takes."""
    common = dict(_explicit(RuleStopper.__init__, skip=("self", "rule")))
    merged = _own_parameters(cls)
    merged |= {key: parameter for key, parameter in common.items() if key not in merged}
    if "metric" not in cls.positional:
        del merged["metric"], merged["mode"]
    elif cls.needs_metric:
        for key, kind in (("metric", str), ("mode", Mode)):
            merged[key] = merged[key].replace(default=inspect.Parameter.empty, annotation=kind)
    order = [*cls.positional, *(key for key in merged if key not in cls.positional)]
    kinds = {key: POSITIONAL if key in cls.positional else KEYWORD for key in order}
    return inspect.Signature(
        [merged[key].replace(kind=kinds[key]) for key in order], return_annotation=None
    )


def _own_parameters(cls: type[StopperOfRule]) -> dict[str, inspect.Parameter]:
    """What goes to `make_rule`: the parameters of the rule, and those that it names itself."""
    found: dict[str, inspect.Parameter] = {}
    for kind in (cls.rule_class, *cls.also_of):
        found |= {key: p for key, p in takes(kind).items() if key not in found}
    found = {key: p for key, p in found.items() if key not in cls.worked_out}
    return found | dict(_explicit(cls.make_rule, skip=("mode",)))


def _explicit(
    function: Callable[..., Any], skip: tuple[str, ...]
) -> Iterator[tuple[str, inspect.Parameter]]:
    """The parameters that `function` names, with their types."""
    types = get_type_hints(function)
    for key, parameter in inspect.signature(function).parameters.items():
        if key not in skip and parameter.kind is not parameter.VAR_KEYWORD:
            yield key, parameter.replace(annotation=types[key])


def _texts(cls: type[StopperOfRule]) -> dict[str, str]:
    """What to say of each parameter; what the class's own docstring says comes first."""
    texts = args_of(RuleStopper)
    for kind in (*cls.also_of, cls.rule_class):
        texts |= {key: in_metric_units(text) for key, text in args_of(kind).items()}
    return texts | args_in(cls.__doc__ or "")
