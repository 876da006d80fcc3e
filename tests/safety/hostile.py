"""What somebody who means harm, or a broken disk, may put into a file; and how much is tried.

Short runs are part of `make test`; `make stress` tries fifty times as many.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

DEEP = "[" * 10**6
SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

words = st.one_of(
    st.sampled_from(
        ["", "nan", "null", "..", "../..", "/etc/passwd", "\x00", "\ud800", "<script>"]
    ),
    st.text(max_size=8),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 6),
    st.sampled_from([2**63, -(10**400), 1e308, -0.0, 5e-324]),
    st.floats(),
    words,
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def mutated(sound: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`sound`, with some values replaced and some keys gone, and now and then another key."""
    changes = st.dictionaries(st.sampled_from(sorted(sound)), anything, max_size=3)
    gone = st.sets(st.sampled_from(sorted(sound)), max_size=1)
    more = st.dictionaries(words, anything, max_size=1)
    return st.builds(
        lambda c, g, m: {k: v for k, v in (sound | c | m).items() if k not in g},
        changes,
        gone,
        more,
    )


def short_and_long(examples: int) -> Callable[..., Any]:
    """Parametrises a test by how hard it tries: `run_with` gives the settings."""
    long = pytest.param(50 * examples, marks=pytest.mark.stress, id="long")
    return pytest.mark.parametrize("examples", [pytest.param(examples, id="short"), long])


def hard(examples: int) -> settings:
    """So many examples: the same in every short run, new ones in every long one."""
    return settings(
        max_examples=examples,
        derandomize=examples < 1000,
        deadline=None,
        database=None,
        suppress_health_check=SLOW_TO_DRAW,
    )


def answer(
    read: Callable[[], Any], *refusals: type[Exception], told: str = "", at_most: int = 10**7
) -> Any:
    """What `read` gives, or None where it is refused by one of `refusals`, in words."""
    try:
        return read()
    except UnicodeEncodeError:  # a `ValueError`, but nobody's word on what is wrong
        raise
    except refusals as error:
        words = str(error)
    assert words
    assert told in words
    assert len(words) <= at_most
    return None
