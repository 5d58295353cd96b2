"""One row by its id, always within a scope that begins with the project. Statements are built once per shape."""

from collections.abc import Mapping
from functools import lru_cache

from sqlalchemy import ClauseElement, Table, Text, delete, insert, select, update

from adlatus.errors import not_found
from adlatus.store.db import Connection, Row, param


async def get(connection: Connection, table: Table, noun: str, object_id: str, **scope: str) -> Row:
    """The row. Raises `NotFound` naming the `noun`."""
    row = await connection.fetch_row(_select(table, tuple(scope)), **_keys(object_id, scope))
    if row is None:
        raise not_found(noun, object_id)
    return row


async def get_locked(connection: Connection, table: Table, noun: str, object_id: str, **scope: str) -> Row:
    """The row, locked against other writers until the transaction ends. Raises `NotFound`."""
    row = await connection.fetch_row(_select(table, tuple(scope), locked=True), **_keys(object_id, scope))
    if row is None:
        raise not_found(noun, object_id)
    return row


async def add(connection: Connection, table: Table, **columns: object) -> Row:
    """Insert a row; returns it whole."""
    row = await connection.fetch_row(_insert(table, tuple(columns)), **columns)
    assert row is not None
    return row


async def modify(
    connection: Connection, table: Table, noun: str, object_id: str, changes: Mapping[str, object], **scope: str
) -> Row:
    """Set columns; returns the whole row. Without changes it is only read. Raises `NotFound`."""
    if not changes:
        return await get(connection, table, noun, object_id, **scope)
    values = {f"new_{column}": value for column, value in changes.items()}
    statement = _update(table, tuple(changes), tuple(scope))
    row = await connection.fetch_row(statement, **values, **_keys(object_id, scope))
    if row is None:
        raise not_found(noun, object_id)
    return row


async def remove(connection: Connection, table: Table, noun: str, object_id: str, **scope: str) -> None:
    """Delete the row, and by foreign keys what belongs to it. Raises `NotFound`."""
    if await connection.fetch_row(_delete(table, tuple(scope)), **_keys(object_id, scope)) is None:
        raise not_found(noun, object_id)


def _keys(object_id: str, scope: dict[str, str]) -> dict[str, object]:
    return {"by_id": object_id, **{f"by_{column}": value for column, value in scope.items()}}


@lru_cache(maxsize=64)
def _select(table: Table, scope: tuple[str, ...], locked: bool = False) -> ClauseElement:
    statement = select(table)
    for column in ("id", *scope):
        statement = statement.where(table.c[column] == param(f"by_{column}", Text()))
    # FOR NO KEY UPDATE: rows that only refer to this one may still be inserted meanwhile
    return statement.with_for_update(key_share=True) if locked else statement


@lru_cache(maxsize=64)
def _insert(table: Table, columns: tuple[str, ...]) -> ClauseElement:
    values = {column: param(column, table.c[column].type) for column in columns}
    return insert(table).values(values).returning(table)


@lru_cache(maxsize=256)
def _update(table: Table, columns: tuple[str, ...], scope: tuple[str, ...]) -> ClauseElement:
    values = {column: param(f"new_{column}", table.c[column].type) for column in columns}
    statement = update(table).values(values)
    for column in ("id", *scope):
        statement = statement.where(table.c[column] == param(f"by_{column}", Text()))
    return statement.returning(table)


@lru_cache(maxsize=64)
def _delete(table: Table, scope: tuple[str, ...]) -> ClauseElement:
    statement = delete(table)
    for column in ("id", *scope):
        statement = statement.where(table.c[column] == param(f"by_{column}", Text()))
    return statement.returning(table.c.id)
