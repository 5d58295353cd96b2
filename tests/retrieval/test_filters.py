"""Filters mean the same on both engines: what a plain reading of their definition says."""

from collections.abc import Iterator, Mapping
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adlatus.backends.vectors.filters import AllOf, AnyOf, Equal, Filter, Order, Ordered, Scalar
from tests.retrieval.asking import Asking, chunk

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

KEYS = ("a", "b", "a.b", "a[0]", 'say "b"', "", "ключ 鍵", "A")
VALUES: tuple[Scalar, ...] = (
    *(True, False, 1, 0, 1.0, -0.0, -1, 1.5, 2**53, 2**53 + 2, 2**70, -1.7e308, 10**400, 1e-300),
    *("1", "true", "True", "", "a", "A", "ä", "x" * 512, "1.0", "null", '"', "2024-01-01", "\0"),
)


def _attributes() -> Iterator[dict[str, Scalar]]:
    """Every value under one key, pairs of values under two, and none at all."""
    yield {}
    yield from ({key: value} for key, value in product(KEYS[:3], VALUES))
    for number, value in enumerate(VALUES):
        yield {key: VALUES[(number + offset) % len(VALUES)] for offset, key in enumerate(KEYS)}
        yield {"a": value, "b": VALUES[-number]}


UNIVERSE = dict(enumerate(_attributes()))

_LARGEST = 1.7976931348623157e308


def _number(value: Scalar) -> float:
    return float(max(-_LARGEST, min(_LARGEST, value))) if not isinstance(value, str) else 0.0


def _same(one: Scalar, other: Scalar) -> bool:
    if isinstance(one, bool | str) or isinstance(other, bool | str):
        return type(one) is type(other) and one == other
    return _number(one) == _number(other)


def _compare(one: Scalar, order: Order, other: Scalar) -> bool:
    if isinstance(one, bool | str) or isinstance(other, bool | str):
        return False
    left, right = _number(one), _number(other)
    return {"gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}[order]


def matches(wanted: Filter, attributes: Mapping[str, Scalar]) -> bool:
    """What the documentation of filters says, read plainly."""
    match wanted:
        case Equal(key, values, negated):
            held = key in attributes and any(_same(attributes[key], value) for value in values)
            return not held if negated else held
        case Ordered(key, order, value):
            return key in attributes and _compare(attributes[key], order, value)
        case AllOf(filters):
            return all(matches(each, attributes) for each in filters)
        case AnyOf(filters):
            return any(matches(each, attributes) for each in filters)


_keys = st.sampled_from(KEYS) | st.text(max_size=5)
_values = st.sampled_from(VALUES) | st.text(max_size=5) | st.integers() | st.floats(allow_nan=False) | st.booleans()
_comparisons = st.builds(Equal, _keys, st.lists(_values, max_size=3).map(tuple), st.booleans()) | st.builds(
    Ordered, _keys, st.sampled_from(Order), _values
)
_filters = st.recursive(
    _comparisons,
    lambda inner: st.builds(AllOf, st.lists(inner, max_size=3)) | st.builds(AnyOf, st.lists(inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def universe(opened: Asking) -> Iterator[tuple[Asking, str]]:
    """A store with a file for each set of attributes."""
    store = opened.store()
    opened.upsert(*(chunk(store, n, "text", file=f"file-{n}", attributes=held) for n, held in UNIVERSE.items()))
    yield opened, store
    opened.forget()


def _found(universe: tuple[Asking, str], wanted: Filter) -> set[int]:
    index, store = universe
    return set(index.found(store, "text", filter=wanted, limit=len(UNIVERSE)))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=_filters)
def test_any_filter_finds_what_its_definition_says(universe: tuple[Asking, str], wanted: Filter) -> None:
    assert _found(universe, wanted) == {n for n, held in UNIVERSE.items() if matches(wanted, held)}


@pytest.mark.parametrize("negated", [False, True])
def test_every_value_equals_itself_and_its_like_only(universe: tuple[Asking, str], negated: bool) -> None:
    for value in VALUES:
        wanted = Equal("a", [value], negated)
        assert _found(universe, wanted) == {n for n, held in UNIVERSE.items() if matches(wanted, held)}, value


def test_numbers_are_compared_with_numbers_only(universe: tuple[Asking, str]) -> None:
    values: tuple[Scalar, ...] = (True, "1", "", 1, -0.0, 2**53)
    for order, value in product(Order, values):
        wanted = Ordered("a.b", order, value)
        assert _found(universe, wanted) == {n for n, held in UNIVERSE.items() if matches(wanted, held)}, wanted


@pytest.mark.parametrize(
    ("wanted", "all_match"),
    [(AllOf([]), True), (AnyOf([]), False), (Equal("a", []), False), (Equal("a", [], negated=True), True)],
)
def test_nothing_to_match_has_its_meaning_too(universe: tuple[Asking, str], wanted: Filter, all_match: bool) -> None:
    assert _found(universe, wanted) == (set(UNIVERSE) if all_match else set())


def test_a_missing_key_differs_from_everything_and_compares_with_nothing(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "text"), chunk(store, 1, "text", attributes={"a": 1}))
    assert index.found(store, "text", filter=Equal("a", [1], negated=True)) == [0]
    assert index.found(store, "text", filter=AnyOf([Ordered("a", order, 1) for order in Order])) == [1]


def test_numbers_under_more_keys_than_are_indexed_are_compared_all_the_same(index: Asking) -> None:
    store = index.store()
    index.upsert(*(chunk(store, n, "text", attributes={f"k{n}": n}) for n in range(70)))
    wanted = AnyOf([Ordered(f"k{n}", Order.GTE, n) for n in range(70)])
    assert len(index.found(store, "text", filter=wanted, limit=100)) == 70
