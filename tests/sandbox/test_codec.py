import datetime
import json
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.sandbox import codec

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.sampled_from([..., int, str, ValueError, range(3), range(9, 1, -2)]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(deque),
        st.dictionaries(SCALARS, inner),
        st.sets(SCALARS),
        st.frozensets(SCALARS),
    ),
    max_leaves=20,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from("ltszdicbBreDFqwThy")),
    lambda inner: st.lists(inner),
    max_leaves=20,
)


def _there_and_back(value):
    return codec.decode(codec.loads(codec.dumps({"ok": codec.encode(value)}))["ok"])


def _types(value):
    if isinstance(value, dict):
        return type(value), [(_types(k), _types(v)) for k, v in value.items()]
    if isinstance(value, list | tuple | deque):
        return type(value), [_types(item) for item in value]
    return type(value), sorted(map(str, map(_types, value))) if isinstance(value, set | frozenset) else None


@given(VALUES)
def test_plain_data_arrives_as_it_was_in_value_and_type(value):
    arrived = _there_and_back(value)
    assert arrived == value
    assert _types(arrived) == _types(value)


def test_instances_of_subclasses_arrive_as_the_builtin_values_that_they_contain():
    class Liar(int):
        __eq__ = __lt__ = __bool__ = lambda *_: True
        __index__ = __int__ = __add__ = lambda *_: 3
        __hash__ = None

    class Long(list):
        def __iter__(self):
            return iter(range(10**9))

        def __len__(self):
            return 0

    point = namedtuple("point", "x y")
    one = IntEnum("E", "ONE").ONE
    for value, plain in (
        (Liar(7), 7),
        (Long([1]), [1]),
        (point(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (one, 1),
        (type("S", (str,), {"__str__": lambda _: "no"})("yes"), "yes"),
    ):
        arrived = _there_and_back(value)
        assert type(arrived) is type(plain)
        assert arrived == plain


def test_nan_infinity_signed_zero_and_lone_surrogates_arrive():
    nan, infinity, zero, text = _there_and_back((float("nan"), float("-inf"), -0.0, "\udfff"))
    assert nan != nan
    assert (infinity, str(zero), text) == (float("-inf"), "-0.0", "\udfff")


def test_sets_are_written_in_one_order():
    assert codec.encode({"b", "a", "c"}) == codec.encode({"c", "b", "a"}) == ["s", "a", "b", "c"]


@pytest.mark.parametrize("value", [object(), lambda: 1, iter([]), {1: object()}, type("T", (), {}), NotImplemented])
def test_what_is_not_plain_data_is_refused_or_left_to_the_handle(value):
    with pytest.raises(codec.CodecError, match="is not plain data"):
        codec.encode(value)
    if not isinstance(value, dict):
        assert codec.encode(value, lambda _: ("h", 5, "thing")) == ["h", 5, "thing"]


def test_values_beyond_the_bounds_are_refused():
    cyclic = []
    cyclic.append(cyclic)
    for value in (cyclic, [0] * (codec.MAX_ITEMS + 1)):
        with pytest.raises(codec.CodecError, match=r"deeper|items"):
            codec.encode(value)
    with pytest.raises(codec.CodecError, match=f"more than {codec.MAX_BYTES}"):
        codec.dumps({"ok": codec.encode("x" * codec.MAX_BYTES)})


def test_a_set_whose_items_share_a_hash_is_refused_before_it_is_built():
    collisions = [["i", format(i * (2**61 - 1), "x")] for i in range(1000)]
    with pytest.raises(codec.CodecError, match="share a hash"):
        codec.decode(["s", *collisions])
    with pytest.raises(codec.CodecError, match="share a hash"):
        codec.decode(["d", *[item for key in collisions for item in (key, 0)]])
    with pytest.raises(codec.CodecError, match="share a hash"):  # the other items hide nothing
        codec.decode(["s", *collisions, *range(5000)])
    assert codec.decode(["s", *range(1000)]) == set(range(1000))


def test_functions_and_handles_arrive_only_where_they_are_asked_for():
    assert codec.decode(["T", "len"], functions=True) is len
    assert codec.decode(["h", 1, "x"], lambda *what: what) == ("h", 1, "x")
    for data in (["T", "eval"], ["T", "__import__"], ["T", "copyright"], ["h", 1, "x"], ["y", 1, "x"]):
        with pytest.raises(codec.CodecError):
            codec.decode(data)


@given(JSON)
def test_data_that_is_no_value_raises_nothing_but_its_own_error(data):
    try:
        value = codec.decode(data)
    except codec.CodecError:
        return
    assert codec.decode(codec.encode(value)) == value or "nan" in repr(value).lower()


@given(st.one_of(st.binary(), st.text().map(str.encode), JSON.map(json.dumps).map(str.encode)))
def test_bytes_that_are_no_message_raise_nothing_but_their_own_error(data):
    with pytest.raises(codec.CodecError):
        codec.loads(data)


@pytest.mark.parametrize("data", [b"[" * 10**6, b'{"a":' * 10**5, b'{"ok":' + b"9" * 10**6 + b"}", b"{}{}", b'{"a":1'])
def test_hostile_messages_are_refused(data):
    with pytest.raises(codec.CodecError):
        codec.loads(data)


def test_values_of_the_standard_library_compare_after_the_journey():
    values = [Decimal("1.10"), Fraction(2, 6), datetime.timedelta(days=-1, microseconds=5), deque([1, (2,)])]
    assert _there_and_back(values) == values
