"""Rows of vector stores. What they hold is counted when it is asked for, so that it is right whatever has died."""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Text,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.elements import Label

from adlatus.errors import InvalidRequest, not_found
from adlatus.ids import new_id
from adlatus.store import pages, rows
from adlatus.store.db import Connection, Row, Transaction, param
from adlatus.store.leases import FileLease
from adlatus.store.pages import Page
from adlatus.store.tables import loose_chunks, unix_now, vector_store_files, vector_stores
from adlatus.wire.common import Json
from adlatus.wire.vector_stores import FileStatus

NOUN = "vector store"
THREAD_STORE_DAYS = 7
"""How long a store that was made through a thread stays after its last use. *Source*: the guides."""

LATE_S = 60
"""How long a write may be on its way to the index. The triggers of the migration know it too."""


def counts_of(where: ColumnElement[bool]) -> Label[Json]:
    """A scalar of the counts of some files by status, and of the bytes that they use."""
    files = vector_store_files
    per_status = [
        part
        for status in FileStatus
        for part in (literal(status.value), func.count().filter(files.c.status == status.value))
    ]
    return (
        select(
            func.json_build_object(
                *per_status, "total", func.count(), "usage_bytes", func.coalesce(func.sum(files.c.usage_bytes), 0)
            )
        )
        .where(where)
        .scalar_subquery()
        .label("counts")
    )


_expired = func.coalesce(vector_stores.c.expires_at <= unix_now, false()).label("expired")
shown: FromClause = select(
    vector_stores,
    _expired,
    counts_of(vector_store_files.c.vector_store_id == vector_stores.c.id),
).subquery("shown_stores")
"""Stores as `VectorStore.of` wants them."""


async def get(connection: Connection, project_id: str, store_id: str) -> Row:
    """A store with its counts. Raises `NotFound`."""
    row = await connection.fetch_row(_GET, by_id=store_id, project_id=project_id)
    if row is None:
        raise not_found(NOUN, store_id)
    return row


async def page(connection: Connection, page: Page, project_id: str) -> tuple[list[Row], bool]:
    """The stores of a page, and whether more follow. Raises `NotFound` where a cursor is none."""
    return await pages.read(connection, shown, NOUN, page, project_id=project_id)


async def add(tx: Transaction, project_id: str, **columns: object) -> str:
    """Insert a store without files; returns its id."""
    row = await rows.add(tx, vector_stores, id=new_id("vs"), project_id=project_id, **columns)
    store_id: str = row["id"]
    return store_id


async def modify(connection: Connection, project_id: str, store_id: str, changes: Json) -> Row:
    """Set columns; the store with its counts. Raises `NotFound`, `InvalidRequest` for one that has expired."""
    if changes:
        refuse_expired(await get(connection, project_id, store_id))
        await rows.modify(connection, vector_stores, NOUN, store_id, changes, project_id=project_id)
    return await get(connection, project_id, store_id)


async def remove(connection: Connection, project_id: str, store_id: str) -> None:
    """Delete a store with its rows of files. Raises `NotFound`."""
    await rows.remove(connection, vector_stores, NOUN, store_id, project_id=project_id)


def refuse_expired(store: Row) -> None:
    """Raise `InvalidRequest` for a store that has expired. *Source* of the words: a client that looks for them."""
    if store["expired"]:
        raise InvalidRequest(
            f"Vector store '{store['id']}' has expired. Create a new one with its files, which are still there."
        )


async def hold(tx: Transaction, project_id: str, store_id: str) -> None:
    """Keep a store from being deleted, and from what else is put into it, until the transaction ends.

    One after the other: two requests with the same files in another order would wait for each other for ever.
    Raises `NotFound`, `InvalidRequest` if it has expired.
    """
    refuse_expired(await lock(tx, project_id, store_id))


async def lock(tx: Transaction, project_id: str, store_id: str) -> Row:
    """The same for a store that may have expired. Raises `NotFound`."""
    row = await tx.fetch_row(_HOLD, by_id=store_id, project_id=project_id)
    if row is None:
        raise not_found(NOUN, store_id)
    return row


async def states(connection: Connection, project_id: str, store_ids: Sequence[str]) -> dict[str, Row]:
    """Those of some stores that are there, by their ids, each with whether it has `expired`."""
    if not store_ids:
        return {}
    found = await connection.fetch(_STATES, by_ids=list(store_ids), project_id=project_id)
    return {row["id"]: row for row in found}


async def usable(connection: Connection, project_id: str, store_ids: Sequence[str]) -> None:
    """Raise `NotFound` or `InvalidRequest` for the first of some stores that is not there or has expired."""
    found = await states(connection, project_id, store_ids)
    for store_id in store_ids:
        if store_id not in found:
            raise not_found(NOUN, store_id)
        refuse_expired(found[store_id])


async def use(connection: Connection, store_ids: Sequence[str]) -> None:
    """Note that stores are used now, from which their expiry counts. One that has expired stays so."""
    if store_ids:
        await connection.fetch(_USE, by_ids=list(store_ids))


# --- Chunks that no row stands for


async def empty_expired(connection: Connection) -> int:
    """Let the chunks of expired stores go, whose files stay listed. Returns how many stores there were."""
    return len(await connection.fetch(_EMPTY))


async def loose(connection: Connection, limit: int) -> list[tuple[str, str]]:
    """Stores and keys of chunks that are due to be deleted; an empty key means all of a store."""
    return [(row["vector_store_id"], row["key"]) for row in await connection.fetch(_LOOSE, row_limit=limit)]


async def loosen(connection: Connection, lease: FileLease) -> bool:
    """Have the chunks of an attempt that has lost its lease deleted in a minute; whether they are not a file's."""
    claimed = {"store_id": lease.vector_store_id, "file_id": lease.file_id, "seq": lease.seq, "attempt": lease.attempt}
    return await connection.fetch_row(_LOOSEN, key=lease.key, **claimed) is not None


async def forget(connection: Connection, store_id: str, key: str) -> None:
    """Note that chunks are deleted. Those of a store leave out keys that were to be deleted later than the store."""
    if key:
        await connection.fetch(_FORGET_KEY, by_id=store_id, key=key)
    else:
        await connection.fetch(_FORGET_STORE, by_id=store_id)


_GET = select(shown).where(shown.c.id == param("by_id", Text()), shown.c.project_id == param("project_id", Text()))
_HOLD = (
    select(vector_stores.c.id, _expired)
    .where(vector_stores.c.id == param("by_id", Text()), vector_stores.c.project_id == param("project_id", Text()))
    .with_for_update(key_share=True)
)
_STATES = select(vector_stores.c.id, _expired).where(
    vector_stores.c.id == func.any(param("by_ids", ARRAY(Text()))),
    vector_stores.c.project_id == param("project_id", Text()),
)
_USE = (
    update(vector_stores)
    .where(
        vector_stores.c.id == func.any(param("by_ids", ARRAY(Text()))),
        or_(vector_stores.c.expires_at.is_(None), vector_stores.c.expires_at > unix_now),
        vector_stores.c.last_active_at < unix_now,
    )
    .values(last_active_at=unix_now)
    .returning(vector_stores.c.id)
)
_emptied = (
    update(vector_stores)
    .where(
        vector_stores.c.id.in_(
            select(vector_stores.c.id)
            .where(vector_stores.c.expires_at <= unix_now, vector_stores.c.emptied.is_(false()))
            .limit(100)
            .with_for_update(skip_locked=True)
        )
    )
    .values(emptied=True)
    .returning(vector_stores.c.id)
    .cte("emptied")
)
_EMPTY = (
    insert(loose_chunks)
    .from_select(["vector_store_id", "key", "due_at"], select(_emptied.c.id, literal(""), unix_now))
    .returning(loose_chunks.c.vector_store_id)
)
_LOOSE = (
    select(loose_chunks.c.vector_store_id, loose_chunks.c.key)
    .where(loose_chunks.c.due_at <= unix_now)
    .order_by(loose_chunks.c.key != "", loose_chunks.c.due_at)  # whole stores first: they bring their keys along
    .limit(param("row_limit", BigInteger()))
)
_completed = exists().where(
    vector_store_files.c.vector_store_id == param("store_id", Text()),
    vector_store_files.c.id == param("file_id", Text()),
    vector_store_files.c.seq == param("seq", BigInteger()),
    vector_store_files.c.attempt == param("attempt", Integer()),
    vector_store_files.c.status == FileStatus.COMPLETED.value,
)
_loosen = upsert(loose_chunks).from_select(
    ["vector_store_id", "key", "due_at"],
    select(param("store_id", Text()), param("key", Text()), unix_now + LATE_S).where(not_(_completed)),
)
_LOOSEN = _loosen.on_conflict_do_update(
    index_elements=["vector_store_id", "key"], set_={"due_at": _loosen.excluded.due_at}
).returning(loose_chunks.c.key)
_of_store = loose_chunks.c.vector_store_id == param("by_id", Text())
_whole = loose_chunks.alias("whole")
_FORGET_STORE = delete(loose_chunks).where(
    _of_store,
    loose_chunks.c.due_at
    <= select(_whole.c.due_at)
    .where(_whole.c.vector_store_id == param("by_id", Text()), _whole.c.key == "")
    .scalar_subquery(),
)
_FORGET_KEY = delete(loose_chunks).where(
    _of_store, loose_chunks.c.key == param("key", Text()), loose_chunks.c.due_at <= unix_now
)
