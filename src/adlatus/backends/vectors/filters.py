"""Filters on the attributes of files: their syntax tree, their one meaning, and its compilation for any engine.

The meaning, on every engine:

- Equality compares type and value: `1` equals `1.0`, but not `"1"` and not `true`.
- `eq` and `in` match only where the key is there; `ne` and `nin` are their exact opposites, so they match where the key
  is missing too, or where its value is of another type.
- `gt`, `gte`, `lt` and `lte` compare numbers with numbers. Between anything else they match nothing.
- Numbers are 64-bit floats, as in JSON; larger ones count as the largest.
- `and` of nothing matches everything; `or` of nothing, and `in` of nothing, match nothing.

It rests on two fields that are stored beside the attributes: `terms`, one string for each key and its value, and
`numbers`, the numbers under keys that any engine can name in a path. So no engine's own notion of equality counts, of
which there are several: Qdrant Edge takes the boolean `True` of a condition for the number 1, no Qdrant compares floats
for equality, and a key such as `a.b` or `a[0]` is a path.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar, assert_never

Scalar = str | int | float | bool
Condition = TypeVar("Condition")

TERMS = "terms"
NUMBERS = "numbers"
MAX_DEPTH = 16

_NO_TERM = ""
"""A term that no attribute has."""


class Order(StrEnum):
    """The comparisons of numbers, by the names that the wire and the engines share."""

    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


@dataclass(frozen=True)
class Equal:
    """`eq` and `in`, or negated `ne` and `nin`: the attribute is one of some values."""

    key: str
    values: Sequence[Scalar]
    negated: bool = False


@dataclass(frozen=True)
class Ordered:
    """`gt`, `gte`, `lt`, `lte`."""

    key: str
    order: Order
    value: Scalar


@dataclass(frozen=True)
class AllOf:
    """`and`."""

    filters: Sequence["Filter"]


@dataclass(frozen=True)
class AnyOf:
    """`or`."""

    filters: Sequence["Filter"]


Filter = Equal | Ordered | AllOf | AnyOf


class Dialect(Protocol[Condition]):
    """The conditions of one engine. A condition is whatever it takes as part of another."""

    def all_of(self, conditions: list[Condition]) -> Condition:
        """All of them hold, of which there is at least one."""

    def any_of(self, conditions: list[Condition]) -> Condition:
        """At least one of them holds."""

    def not_(self, condition: Condition) -> Condition:
        """It does not hold, which is so too where the field is missing."""

    def one_of(self, field: str, values: list[str]) -> Condition:
        """The field is, or has among its elements, one of some strings."""

    def ordered(self, field: str, order: Order, bound: float) -> Condition:
        """The field is a number on that side of the bound."""


def check_depth(wanted: Filter, depth: int = 1) -> None:
    """Raise `ValueError` where a filter is nested deeper than `MAX_DEPTH`."""
    if depth > MAX_DEPTH:
        raise ValueError(f"a filter may be nested {MAX_DEPTH} levels deep")
    if isinstance(wanted, AllOf | AnyOf):
        for each in wanted.filters:
            check_depth(each, depth + 1)


def compiled(wanted: Filter, dialect: Dialect[Condition]) -> Condition:
    """The filter as a condition of an engine."""
    match wanted:
        case Equal(key, values, negated):
            found = dialect.one_of(TERMS, [term(key, value) for value in values] or [_NO_TERM])
            return dialect.not_(found) if negated else found
        case Ordered(key, order, value):
            bound = number(value)
            return _nothing(dialect) if bound is None else dialect.ordered(number_field(key), order, bound)
        case AllOf(filters):
            inner = [compiled(each, dialect) for each in filters]
            return dialect.all_of(inner) if inner else dialect.not_(_nothing(dialect))
        case AnyOf(filters):
            inner = [compiled(each, dialect) for each in filters]
            return dialect.any_of(inner) if inner else _nothing(dialect)
        case _:
            assert_never(wanted)


def _nothing(dialect: Dialect[Condition]) -> Condition:
    return dialect.one_of(TERMS, [_NO_TERM])


def number_fields(wanted: Filter) -> Iterator[str]:
    """The fields of numbers that a filter compares: those that are worth an index."""
    match wanted:
        case Ordered(key, _, value) if number(value) is not None:
            yield number_field(key)
        case AllOf(filters) | AnyOf(filters):
            for each in filters:
                yield from number_fields(each)


def searchable(attributes: Mapping[str, Scalar]) -> dict[str, object]:
    """The two fields that filters look at."""
    numbers = {_safe(key): number(value) for key, value in attributes.items() if number(value) is not None}
    return {TERMS: [term(key, value) for key, value in attributes.items()], NUMBERS: numbers}


def term(key: str, value: Scalar) -> str:
    """One string for a key and its value: equal where, and only where, both are equal."""
    as_number = number(value)
    return json.dumps([key, value if as_number is None else as_number])


def number(value: Scalar) -> float | None:
    """A number as all engines can hold it; nothing where the value is none."""
    if isinstance(value, bool | str):
        return None
    try:
        exact = float(value)
    except OverflowError:
        exact = math.inf if value > 0 else -math.inf
    largest = sys.float_info.max
    return None if math.isnan(exact) else max(-largest, min(largest, exact)) + 0.0  # -0.0 becomes the 0.0 it equals


def number_field(key: str) -> str:
    """The path of a number in `numbers`."""
    return f"{NUMBERS}.{_safe(key)}"


def _safe(key: str) -> str:
    return "k" + key.encode(errors="surrogatepass").hex()
