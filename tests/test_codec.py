"""Rule state to JSON and back."""

import json
import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_stoppers.codec import decode, encode


class Inner(NamedTuple):
    best: float
    window: tuple[float, ...]


class Outer(NamedTuple):
    name: str | None
    inner: Inner


class OneField(NamedTuple):
    float: float


LIKE = Outer(None, Inner(0.0, ()))


def there_and_back(value, like):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)), like)


@given(
    st.builds(
        Outer,
        st.none() | st.text(),
        st.builds(Inner, st.floats() | st.integers(), st.lists(st.floats()).map(tuple)),
    )
)
def test_named_tuples_come_back_as_they_were(value):
    """Nested, with NaN, infinities and minus zero; types included."""
    back = there_and_back(value, LIKE)
    assert repr(back) == repr(value)
    assert type(back.inner) is Inner
    assert type(back.inner.best) is type(value.inner.best)


@pytest.mark.parametrize(
    "value", [(), (1, "a", None, True), ((1.5,), ()), OneField(1.5), OneField(math.nan)]
)
def test_tuples_of_any_shape_come_back(value):
    """Also empty ones, and one whose only field has an unlucky name."""
    assert repr(there_and_back(value, value)) == repr(value)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, object(), 1j, b"x"], ids=repr)
def test_what_is_no_plain_data_is_refused(value):
    """The type is named, not silently turned into something else."""
    with pytest.raises(TypeError, match="Rule state holds numbers, strings, None and tuples"):
        encode((1, value))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": None}, r"fields \['name'\], expected \['inner', 'name'\]"),
        ({"name": None, "inner": {"best": 1.0}}, r"fields \['best'\], expected"),
        ({"name": None, "inner": {"best": 1.0, "window": [], "x": 1}}, r"'window', 'x'\]"),
        ([None, [1.0, []]], r"a list, expected fields"),
        (None, r"None, expected fields"),
        ({"name": None, "inner": 3}, r"3, expected fields"),
    ],
    ids=["missing", "missing inside", "unknown", "a list", "nothing", "a number"],
)
def test_a_state_of_another_shape_is_refused_by_name(data, said):
    """What was found and what was expected are both named."""
    with pytest.raises(ValueError, match=said):
        decode(data, LIKE)


def test_fields_where_none_are_expected_are_refused():
    """An object is never read into a plain value."""
    with pytest.raises(ValueError, match="expected"):
        decode({"best": 1.0}, 0.0)
