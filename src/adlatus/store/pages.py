"""Keyset paging over (created_at, seq): a page costs the same wherever it lies, and rows of one second keep order."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from sqlalchemy import BigInteger, FromClause, Select, Text, select, tuple_

from adlatus.errors import not_found
from adlatus.store.db import Connection, Row, param

FILTERS = ("run_id", "status")
"""Columns by which a list is filtered: a cursor counts that does not, or no longer, pass."""


@dataclass(frozen=True)
class Page:
    """What a client asks for: `after` and `before` are ids of objects, `limit` is 1 to 100 (files: 10,000)."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None


async def read(
    connection: Connection, table: FromClause, noun: str, page: Page, **scope: str | None
) -> tuple[list[Row], bool]:
    """The rows of a page in its order, and whether more follow in the page's direction.

    `scope` are column values that every row must have; those that are None do not count.
    Raises `NotFound` where a cursor is not an object of the scope, which is the caller's project at least.
    """
    wanted = {column: value for column, value in scope.items() if value is not None}
    cursors = {name: value for name in ("after", "before") if (value := getattr(page, name)) is not None}
    statement = _statement(table, tuple(wanted), tuple(cursors), page.order)
    params = {f"in_{column}": value for column, value in wanted.items()} | cursors
    rows = await connection.fetch(statement, **params, row_limit=page.limit + 1)
    if not rows:
        await _check_cursors(connection, table, noun, cursors, wanted)
    has_more = len(rows) > page.limit
    del rows[page.limit :]
    if _backwards(tuple(cursors)):
        rows.reverse()
    return rows, has_more


def _backwards(cursors: tuple[str, ...]) -> bool:
    """With `before` alone the page is the one that ends just before the cursor: read it from there, turn it round."""
    return cursors == ("before",)


@lru_cache(maxsize=256)
def _statement(
    table: FromClause, scope: tuple[str, ...], cursors: tuple[str, ...], order: Literal["asc", "desc"]
) -> Select[tuple[object, ...]]:
    inside = [table.c[column] == param(f"in_{column}", Text()) for column in scope]
    position = tuple_(table.c.created_at, table.c.seq)
    statement = select(table).where(*inside)
    for cursor in cursors:
        at = table.alias(cursor)
        edge = (
            select(at.c.created_at, at.c.seq)
            .where(
                at.c.id == param(cursor, Text()),
                *(at.c[column] == param(f"in_{column}", Text()) for column in scope if column not in FILTERS),
            )
            .scalar_subquery()
        )
        later = (cursor == "after") == (order == "asc")
        statement = statement.where(position > edge if later else position < edge)
    descending = (order == "desc") != _backwards(cursors)
    keys = (table.c.created_at, table.c.seq)
    return statement.order_by(*(key.desc() if descending else key.asc() for key in keys)).limit(
        param("row_limit", BigInteger())
    )


async def _check_cursors(
    connection: Connection, table: FromClause, noun: str, cursors: dict[str, str], scope: dict[str, str]
) -> None:
    for object_id in cursors.values():
        statement = select(table.c.id).where(table.c.id == object_id)
        for column, value in scope.items():
            if column not in FILTERS:
                statement = statement.where(table.c[column] == value)
        if await connection.fetch_row(statement) is None:
            raise not_found(noun, object_id)
