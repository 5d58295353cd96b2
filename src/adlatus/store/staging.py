"""Where an import keeps what it has read until it can be written in order: temporary tables of one connection.

Knows objects as JSON by their kinds and keys, not what they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from adlatus.store.db import Connection, Row, param
from adlatus.wire.common import Json

_temporary = MetaData()
staged = Table(
    "staged",
    _temporary,
    Column("kind", Text),
    Column("key", Text),
    Column("scope", Text),
    Column("created_at", BigInteger),
    Column("position", BigInteger),
    Column("in_page", Boolean),
    Column("place", BigInteger),
    Column("source", Text),
    Column("folder", Text),
    Column("object", JSON),
    PrimaryKeyConstraint("kind", "key"),
)
wanted = Table(
    "wanted",
    _temporary,
    Column("kind", Text),
    Column("key", Text),
    Column("source", Text),
    PrimaryKeyConstraint("kind", "key"),
)
_CREATE = (
    "CREATE TEMPORARY TABLE staged (kind text, key text, scope text NOT NULL, created_at bigint NOT NULL, "
    "position bigint NOT NULL, in_page boolean NOT NULL, place bigint, source text NOT NULL, folder text NOT NULL, "
    "object json NOT NULL, PRIMARY KEY (kind, key))",
    "CREATE INDEX ON staged (kind, place)",
    "CREATE TEMPORARY TABLE wanted (kind text, key text, source text NOT NULL, PRIMARY KEY (kind, key))",
)


@dataclass(frozen=True)
class Item:
    """An object that was read: what it is, among what it is listed, and where it stood; `in_page` of a list or not."""

    kind: str
    key: str
    scope: str
    created_at: int
    position: int
    in_page: bool
    source: str
    folder: str
    object: Json


async def create(connection: Connection) -> None:
    """Make the tables, which go with the connection."""
    for statement in _CREATE:
        await connection.fetch(text(statement))


async def add(connection: Connection, items: Iterable[Item]) -> int:
    """Keep what was read. Of an object that is there already later versions count, field by field.

    Gives how many were versions of what was there.
    """
    by_key: dict[tuple[str, str], Item] = {}
    repeated = 0
    for item in items:
        before = by_key.pop((item.kind, item.key), None)
        repeated += before is not None
        by_key[item.kind, item.key] = _merged(before.object, item) if before else item
    keys = {"kinds": [kind for kind, _ in by_key], "keys": [key for _, key in by_key]}
    for row in await connection.fetch(_THERE, **keys):
        repeated += 1
        at = (row["kind"], row["key"])
        by_key[at] = _merged(row["object"], by_key[at])
    columns = ("scope", "created_at", "position", "in_page", "source", "folder", "object")
    values = {f"{name}s": [getattr(item, name) for item in by_key.values()] for name in columns}
    await connection.fetch(_ADD, **keys, **values)
    return repeated


def _merged(before: Json, item: Item) -> Item:
    fields = {name: getattr(item, name) for name in item.__dataclass_fields__}
    return Item(**fields | {"object": before | item.object})


async def put_in_order(connection: Connection) -> None:
    """Give all their places: by age, and those of one second as they were listed, from the oldest on.

    Whether they were listed from the newest to the oldest is seen by the first and the last of what belongs together.
    Where all are of one second, pages of lists are taken for what the API gives unasked, the newest first.
    """
    await connection.fetch(_PUT_IN_ORDER)
    await connection.fetch(text("ANALYZE staged"))


async def page(connection: Connection, kind: str, after: int, limit: int) -> list[Row]:
    """Objects of a kind in their order, from a place on."""
    return await connection.fetch(_PAGE, of_kind=kind, after=after, row_limit=limit)


async def there(connection: Connection, kind: str, keys: Sequence[str]) -> set[str]:
    """Those of some keys that are kept."""
    found = await connection.fetch(_THERE, kinds=[kind] * len(keys), keys=list(keys))
    return {row["key"] for row in found}


async def drop(connection: Connection, kind: str, keys: Sequence[str]) -> None:
    """Forget objects: they are not going to be written."""
    await connection.fetch(_DROP, of_kind=kind, keys=list(keys))


async def want(connection: Connection, references: Iterable[tuple[str, str, str]]) -> None:
    """Note what objects refer to: kind and id of it, and where it is referred to first."""
    distinct = {(kind, key): source for kind, key, source in references}
    kinds, keys = [kind for kind, _ in distinct], [key for _, key in distinct]
    await connection.fetch(_WANT, kinds=kinds, keys=keys, sources=list(distinct.values()))


async def missing(connection: Connection, kind: str, table: Table, project_id: str, *, planned: bool) -> list[Row]:
    """What of a kind is referred to and is not there; what is only kept counts as there where `planned`."""
    there_already = select(table.c.id).where(table.c.id == wanted.c.key, table.c.project_id == project_id).exists()
    kept = select(staged.c.key).where(staged.c.kind == kind, staged.c.key == wanted.c.key).exists()
    statement = select(wanted.c.key, wanted.c.source).where(wanted.c.kind == kind, ~there_already)
    if planned:
        statement = statement.where(~kept)
    return await connection.fetch(statement.order_by(wanted.c.key))


_texts: ARRAY[Any] = ARRAY(Text())
_integers: ARRAY[Any] = ARRAY(BigInteger())
_pairs = func.unnest(param("kinds", _texts), param("keys", _texts))
_asked = _pairs.table_valued("kind", "key", name="asked").render_derived()
_THERE = select(staged.c.kind, staged.c.key, staged.c.object).join(
    _asked, and_(staged.c.kind == _asked.c.kind, staged.c.key == _asked.c.key)
)
_sent = (
    func.unnest(
        param("kinds", _texts),
        param("keys", _texts),
        param("scopes", _texts),
        param("created_ats", _integers),
        param("positions", _integers),
        param("in_pages", ARRAY(Boolean())),
        param("sources", _texts),
        param("folders", _texts),
        param("objects", ARRAY(JSON())),
    )
    .table_valued(
        "kind", "key", "scope", "created_at", "position", "in_page", "source", "folder", "object", name="sent"
    )
    .render_derived()
)
_add = upsert(staged).from_select([column.name for column in _sent.c], select(*_sent.c))
_ADD = _add.on_conflict_do_update(
    index_elements=["kind", "key"],
    set_={
        name: _add.excluded[name]
        for name in ("scope", "created_at", "position", "in_page", "source", "folder", "object")
    },
)
_first = func.array_agg(aggregate_order_by(staged.c.created_at, staged.c.position.asc()))
_last = func.array_agg(aggregate_order_by(staged.c.created_at, staged.c.position.desc()))
_lists = (
    select(
        staged.c.kind,
        staged.c.scope,
        or_(_first[1] > _last[1], and_(_first[1] == _last[1], func.bool_and(staged.c.in_page))).label("newest_first"),
    )
    .group_by(staged.c.kind, staged.c.scope)
    .subquery("lists")
)
_ordered = (
    select(
        staged.c.kind,
        staged.c.key,
        func.row_number()
        .over(
            partition_by=staged.c.kind,
            order_by=(
                staged.c.created_at,
                case((_lists.c.newest_first, -staged.c.position), else_=staged.c.position),
            ),
        )
        .label("place"),
    )
    .join(_lists, and_(_lists.c.kind == staged.c.kind, _lists.c.scope == staged.c.scope))
    .subquery("ordered")
)
_PUT_IN_ORDER = (
    update(staged)
    .where(tuple_(staged.c.kind, staged.c.key) == tuple_(_ordered.c.kind, _ordered.c.key))
    .values(place=_ordered.c.place)
)
_PAGE = (
    select(staged)
    .where(staged.c.kind == param("of_kind", Text()), staged.c.place > param("after", BigInteger()))
    .order_by(staged.c.place)
    .limit(param("row_limit", BigInteger()))
)
_DROP = delete(staged).where(staged.c.kind == param("of_kind", Text()), staged.c.key == func.any(param("keys", _texts)))
_wanted_sent = (
    func.unnest(param("kinds", _texts), param("keys", _texts), param("sources", _texts))
    .table_valued("kind", "key", "source", name="sent")
    .render_derived()
)
_WANT = upsert(wanted).from_select(["kind", "key", "source"], select(*_wanted_sent.c)).on_conflict_do_nothing()
