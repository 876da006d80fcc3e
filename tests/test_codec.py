"""Rule state to JSON and back."""

import json
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_stoppers.codec import decode, encode, pack, unpack
from tune_stoppers.core import Action, Decision
from tune_stoppers.journal.lines import plain


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


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, {1}, object(), 1j, b"x"], ids=lambda value: type(value).__name__
)
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


@dataclass
class Sample:
    loss: float
    when: float | None = None
    seen: set[str] = field(default_factory=set)
    by_age: dict[int, Inner] = field(default_factory=dict)
    decision: Decision | None = None


PACKED = {"loss": 1.0, "when": None, "seen": [], "by_age": {}, "decision": None}
DECIDED = Decision(
    Action.STOP,
    "both",
    "AllOf",
    {"loss": math.inf, "rank": 3, "holder": "t1"},
    ends_sweep=True,
    parts=(Decision(Action.PAUSE, "{x:loss}", "Some", {"x": -math.inf}),),
)


def record_again(data, kind):
    """Through a state file and back."""
    return unpack(json.loads(json.dumps(plain(data), allow_nan=False)), kind)


@given(
    st.builds(
        Sample,
        st.floats(allow_nan=False) | st.integers(),
        st.none() | st.floats(allow_nan=False),
        st.sets(st.text()),
        st.dictionaries(
            st.integers(), st.builds(Inner, st.floats(allow_nan=False), st.just((1.5, -math.inf)))
        ),
        st.sampled_from([None, DECIDED]),
    )
)
def test_a_record_comes_back_as_it_was(kept):
    """Infinities, whole numbers, sets and integer keys, and all that a decision holds."""
    again = record_again(pack(kept), Sample)
    assert again == kept
    assert type(again.loss) is type(kept.loss)
    assert pack(again) == pack(kept)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        [],
        {},
        {"loss": 1.0},
        PACKED | {"more": 1},
        PACKED | {"loss": None},
        PACKED | {"loss": "high"},
        PACKED | {"by_age": {"young": [1.0, []]}},
        PACKED | {"by_age": {"1": [1.0]}},
        PACKED | {"decision": {"action": "STOP"}},
    ],
    ids=repr,
)
def test_what_is_no_such_record_is_refused(wrong):
    """With the type that was expected, a missing field too: its default would be a guess."""
    assert unpack(PACKED, Sample) == Sample(1.0)
    with pytest.raises(ValueError, match=r"This is no .*Sample"):
        unpack(wrong, Sample)
