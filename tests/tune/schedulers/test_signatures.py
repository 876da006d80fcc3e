"""What `help` and editors show of a scheduler: every keyword, with what it takes."""

import inspect

import pytest

import tune_stoppers as ts
from tune_stoppers.tune.parameter_docs import args_in
from tune_stoppers.tune.schedulers.base import Common, CommonButNonfinite, SweepScheduler

PUBLIC = [getattr(ts, name) for name in ts.__all__ if name.endswith("Scheduler")]


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_keyword_is_shown_and_explained(kind: type) -> None:
    """No `**common`, a text for each parameter, and an example with its stop."""
    shown = inspect.signature(kind).parameters
    documented = args_in(kind.__doc__ or "")
    assert {*Common.__annotations__, *CommonButNonfinite.__annotations__} <= set(shown)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in shown.values())
    assert set(shown) == set(documented)
    assert f"    {kind.__name__}(" in (kind.__doc__ or "")
    assert "stop_reason" in (kind.__doc__ or "")


def test_defaults_are_those_that_hold() -> None:
    """As `SweepScheduler` has them, but for a rule, which keeps its own policy."""
    auto, rule = (
        inspect.signature(kind).parameters for kind in (ts.AutoScheduler, ts.RuleScheduler)
    )
    base = inspect.signature(SweepScheduler).parameters
    assert all(auto[key].default == base[key].default for key in Common.__annotations__)
    assert (auto["on_nonfinite"].default, rule["on_nonfinite"].default) == ("worst", None)


def test_what_a_scheduler_says_itself_comes_first() -> None:
    """`time_attr` of AutoScheduler speaks of progress; the base knows nothing of `max_t`."""
    assert "equal progress" in args_in(ts.AutoScheduler.__doc__ or "")["time_attr"]
    assert "dry_run" in args_in(ts.BoundASHAScheduler.__doc__ or "")


def test_a_scheduler_of_ones_own_is_left_as_it_is() -> None:
    """Where its keywords are written out, or there are none of its own."""

    class Written(SweepScheduler[object]):
        """Mine."""

        def __init__(self, mode: str) -> None: ...

    class Same(ts.AutoScheduler):
        """Mine."""

    assert list(inspect.signature(Written).parameters) == ["mode"]
    assert (Written.__doc__, Same.__doc__) == ("Mine.", "Mine.")
    assert inspect.signature(Same) == inspect.signature(ts.AutoScheduler)
