"""Many rows at once, as they are: for imports, whose ids and times are given. And all rows of a project, in order."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import ARRAY, JSON, ClauseElement, Select, Table, Text, cast, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from adlatus.store import vector_stores
from adlatus.store.db import Connection, Row, param
from adlatus.store.files import not_expired
from adlatus.store.tables import files, metadata, projects, vector_store_file_batches, vector_store_files

SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
"""First in a transaction: everything that it reads is of one moment."""


async def add(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """Insert rows of the same columns in their order, but for those that are there; the keys of those inserted."""
    if not rows:
        return set()
    columns = tuple(rows[0])
    sent = {f"all_{name}": [_sent(table, name, row[name]) for row in rows] for name in columns}
    added = await connection.fetch(_insertion(table, columns), **sent)
    return {tuple(row[column.name] for column in table.primary_key.columns) for row in added}


async def existing(connection: Connection, table: Table, keys: Sequence[Sequence[str]]) -> list[Row]:
    """Rows by their keys, of whatever project."""
    names = [column.name for column in table.primary_key.columns]
    columns = {f"all_{name}": [key[number] for key in keys] for number, name in enumerate(names)}
    return await connection.fetch(_by_keys(table, tuple(names)), **columns)


async def projects_of(connection: Connection, table: Table, ids: Collection[str]) -> dict[str, str]:
    """The projects of rows by their ids, which stay as long as the transaction lasts."""
    found = await connection.fetch(_holding(table), ids=sorted(ids))
    return {row["id"]: row["project_id"] for row in found}


async def add_project(connection: Connection, project_id: str) -> None:
    """Have a project of this id, old or new."""
    await connection.fetch(upsert(projects).values(id=param("id", Text())).on_conflict_do_nothing(), id=project_id)


async def project_ids(connection: Connection) -> list[str]:
    """All projects."""
    return [row["id"] for row in await connection.fetch(select(projects.c.id).order_by(projects.c.id))]


def everything(table: Table, project_id: str) -> Select[Any]:
    """The rows of a project in the order in which they were made, with what their objects count."""
    statement: Select[Any]
    if table.name == "vector_stores":
        shown = vector_stores.shown
        return select(shown).where(shown.c.project_id == project_id).order_by(shown.c.created_at, shown.c.seq)
    if table is vector_store_file_batches:
        of_batch = vector_store_files.c.batch_id == table.c.id
        statement = select(table, vector_stores.counts_of(of_batch))
    else:
        statement = select(table)
    if table is files:
        statement = statement.where(not_expired)
    return statement.where(table.c.project_id == project_id).order_by(table.c.created_at, table.c.seq)


def _is_json(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, JSON)


def _sent(table: Table, name: str, value: object) -> object:
    """A value of a column as it is sent: JSON as text, because a list of lists would be an array of two dimensions."""
    return orjson.dumps(value).decode() if value is not None and _is_json(table, name) else value


@lru_cache(maxsize=32)
def _insertion(table: Table, columns: tuple[str, ...]) -> ClauseElement:
    types = [Text() if _is_json(table, name) else table.c[name].type for name in columns]
    sent = (
        func.unnest(*(param(f"all_{name}", ARRAY(each)) for name, each in zip(columns, types, strict=True)))
        .table_valued(*columns, with_ordinality="place_in_all", name="sent")
        .render_derived()
    )
    values = [cast(sent.c[name], JSON) if _is_json(table, name) else sent.c[name] for name in columns]
    statement = upsert(table).from_select(list(columns), select(*values).order_by(sent.c.place_in_all))
    return statement.on_conflict_do_nothing().returning(*table.primary_key.columns)


@lru_cache(maxsize=32)
def _by_keys(table: Table, names: tuple[str, ...]) -> ClauseElement:
    sent = (
        func.unnest(*(param(f"all_{name}", ARRAY(Text())) for name in names))
        .table_valued(*names, name="sent")
        .render_derived()
    )
    return select(table).where(
        tuple_(*(table.c[name] for name in names)).in_(select(*(sent.c[name] for name in names)))
    )


@lru_cache(maxsize=32)
def _holding(table: Table) -> ClauseElement:
    assert table.metadata is metadata
    return (
        select(table.c.id, table.c.project_id)
        .where(table.c.id == func.any(param("ids", ARRAY(Text()))))
        .order_by(table.c.id)
        .with_for_update(read=True, key_share=True)
    )
