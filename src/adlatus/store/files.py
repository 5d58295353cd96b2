"""Rows of files, and of the bytes that no row stands for: those that come in, and those that are to go.

Before bytes are written their key is a loose blob. The transaction that adds their row takes it from there, the one
that removes the row puts it back. So after a crash at any moment the loose blobs tell what is to be deleted.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    FromClause,
    Table,
    Text,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningUpdate

from adlatus.errors import FileNotFound, NotFound, QuotaExceeded, Unavailable, no_such_file
from adlatus.store import pages, rows
from adlatus.store.db import Connection, Row, Transaction, param
from adlatus.store.pages import Page
from adlatus.store.tables import assistants, files, loose_blobs, projects, threads, unix_now, upload_parts

COMING_S = 86_400
"""How long bytes may take from the first one to the row that stands for them."""
MARGIN_S = 300
"""Between the last moment at which a row may take its bytes and the first at which they may be deleted."""
BATCH = 100

not_expired = or_(files.c.expires_at.is_(None), files.c.expires_at > unix_now)
live: FromClause = select(files).where(not_expired).subquery("live_files")
"""The files that have not expired: all that a client may see."""


def key_of(file_id: str) -> str:
    """Where the bytes of a file are."""
    return f"files/{file_id}"


async def get(connection: Connection, project_id: str, file_id: str) -> Row:
    """The row of a file that has not expired. Raises `FileNotFound`."""
    row = await connection.fetch_row(_GET, by_id=file_id, project_id=project_id)
    if row is None:
        raise no_such_file(file_id)
    return row


async def several(connection: Connection, project_id: str, file_ids: list[str]) -> dict[str, Row]:
    """The rows of those of the files that are there and have not expired, by their ids."""
    rows_found = await connection.fetch(_SEVERAL, keys=file_ids, project_id=project_id)
    return {row["id"]: row for row in rows_found}


async def page(connection: Connection, page: Page, project_id: str, purpose: str | None) -> tuple[list[Row], bool]:
    """The files of a page, and whether more follow. Raises `FileNotFound` where the cursor is none."""
    try:
        return await pages.read(connection, live, "file", page, project_id=project_id, purpose=purpose)
    except NotFound as error:
        raise FileNotFound("Resource not found.", param="after") from error


async def add(tx: Transaction, file_id: str, project_id: str, *, quota_bytes: int | None, **columns: object) -> Row:
    """The row of a file whose bytes are there. `expires_after_s` counts from now.

    Raises `QuotaExceeded` where the project would keep more than its quota.
    """
    seconds = columns.pop("expires_after_s", None)
    await settle(tx, key_of(file_id))
    row = await rows.add(tx, files, id=file_id, project_id=project_id, **columns)
    if seconds is not None:
        changed = await tx.fetch_row(_EXPIRE_AFTER, by_id=file_id, seconds=seconds)
        assert changed is not None
        row = changed
    await check_quota(tx, project_id, quota_bytes)
    return row


async def check_quota(tx: Transaction, project_id: str, quota_bytes: int | None, *, more: int = 0) -> None:
    """Raise `QuotaExceeded` where the project keeps more than its quota, with `more` bytes to come."""
    if quota_bytes is None:
        return
    await tx.fetch_row(_LOCK_PROJECT, by_id=project_id)  # two requests must not both take the last bytes
    used = await tx.fetch_row(_USED, project_id=project_id)
    assert used is not None
    if used["bytes"] + more > quota_bytes:
        raise QuotaExceeded(
            f"The files of this project would be larger than its quota of {quota_bytes / 10**9:g} GB. Delete files, or "
            "ask the operator for more (`adlatus projects limit`, or ADLATUS_STORAGE_QUOTA_GB)."
        )


async def remove(connection: Connection, project_id: str, file_id: str) -> str:
    """Remove the row, and the file from all stores and tools; gives the key of its bytes, which are loose now.

    Raises `FileNotFound`. *Source* of what else it is removed from: the guides.
    """
    row = await connection.fetch_row(_REMOVE, by_id=file_id, project_id=project_id)
    if row is None:
        raise no_such_file(file_id)
    for statement in _OUT_OF_TOOLS:
        await connection.fetch(statement, by_id=file_id, project_id=project_id)
    key: str = row["key"]
    return key


async def expire(connection: Connection) -> int:
    """Remove rows of expired files, `BATCH` at most, whose bytes are loose then; gives how many there were."""
    return len(await connection.fetch(_EXPIRE))


# --- Loose blobs


async def loosen(connection: Connection, project_id: str, key: str) -> None:
    """Note that bytes are about to be written, perhaps again after a writer that has died.

    Raises `Unavailable` where those of a deleted file of this id are still to be deleted.
    """
    if await connection.fetch_row(_LOOSEN, key=key, project_id=project_id) is None:
        raise Unavailable("A deleted file of this id is still being removed. Try again in ten minutes.")


async def settle(tx: Transaction, key: str) -> None:
    """Take the bytes for a row that the transaction adds. Raises `Unavailable` where they may be deleted already."""
    if await tx.fetch_row(_SETTLE, key=key) is None:
        raise Unavailable("The file took too long to arrive. Send it again.")


async def make_due(connection: Connection, keys: list[str]) -> list[str]:
    """Let loose blobs be due at once; gives those that are loose."""
    return [row["key"] for row in await connection.fetch(_MAKE_DUE, keys=keys)]


async def due(connection: Connection) -> list[str]:
    """Keys of bytes to delete, `BATCH` at most."""
    return [row["key"] for row in await connection.fetch(_DUE)]


async def forget(connection: Connection, keys: list[str]) -> None:
    """Note that the bytes of loose blobs are deleted."""
    await connection.fetch(_FORGET, keys=keys)


_keys = param("keys", ARRAY(Text()))
_key = (literal("files/") + files.c.id).label("key")  # as `key_of` says
_GET = select(live).where(live.c.id == param("by_id", Text()), live.c.project_id == param("project_id", Text()))
_SEVERAL = select(live).where(live.c.id == func.any(_keys), live.c.project_id == param("project_id", Text()))
_EXPIRE_AFTER = (
    update(files)
    .where(files.c.id == param("by_id", Text()))
    .values(expires_at=files.c.created_at + param("seconds", BigInteger()))
    .returning(files)
)


def _out_of_tools(table: Table) -> ReturningUpdate[Any]:
    """Take a file from what code interpreters work with; the keys of the JSON keep their order."""
    listed = (
        func.json_array_elements_text(table.c.tool_resources["code_interpreter"]["file_ids"])
        .table_valued("value", name="listed")
        .render_derived()
    )
    others = (
        select(func.coalesce(func.json_agg(listed.c.value), literal([], JSON)))
        .where(listed.c.value != param("by_id", Text()))
        .scalar_subquery()
    )
    return (
        update(table)
        .where(
            table.c.project_id == param("project_id", Text()),
            cast(table.c.tool_resources["code_interpreter"]["file_ids"], Text).contains(
                literal('"') + param("by_id", Text()) + literal('"'), autoescape=False
            ),
        )
        .values(
            tool_resources=func.json_strip_nulls(
                func.json_build_object(
                    literal("code_interpreter"),
                    func.json_build_object(literal("file_ids"), others),
                    literal("file_search"),
                    table.c.tool_resources["file_search"],
                )
            )
        )
        .returning(table.c.id)
    )


_OUT_OF_TOOLS = tuple(_out_of_tools(table) for table in (assistants, threads))
_LOCK_PROJECT = select(projects.c.id).where(projects.c.id == param("by_id", Text())).with_for_update(key_share=True)
_USED = select(
    (
        select(func.coalesce(func.sum(files.c.bytes), 0))
        .where(files.c.project_id == param("project_id", Text()))
        .scalar_subquery()
        + select(func.coalesce(func.sum(upload_parts.c.bytes), 0))
        .where(upload_parts.c.project_id == param("project_id", Text()))
        .scalar_subquery()
    )
    .cast(BigInteger)
    .label("bytes")
)

_removed = (
    delete(files)
    .where(files.c.id == param("by_id", Text()), files.c.project_id == param("project_id", Text()))
    .where(not_expired)
    .returning(_key, files.c.project_id)
    .cte("removed")
)
_REMOVE = (
    insert(loose_blobs)
    .from_select(["key", "project_id", "due_at"], select(_removed.c.key, _removed.c.project_id, literal(0)))
    .returning(loose_blobs.c.key)
)
_expired = (
    delete(files)
    .where(
        files.c.id.in_(
            select(files.c.id).where(files.c.expires_at <= unix_now).limit(BATCH).with_for_update(skip_locked=True)
        )
    )
    .returning(_key, files.c.project_id)
    .cte("expired")
)
_EXPIRE = (
    insert(loose_blobs)
    .from_select(["key", "project_id", "due_at"], select(_expired.c.key, _expired.c.project_id, literal(0)))
    .returning(loose_blobs.c.key)
)
_coming = upsert(loose_blobs).values(
    key=param("key", Text()), project_id=param("project_id", Text()), due_at=unix_now + COMING_S
)
_LOOSEN = _coming.on_conflict_do_update(
    index_elements=["key"],
    set_={"due_at": _coming.excluded.due_at, "project_id": _coming.excluded.project_id},
    where=loose_blobs.c.due_at > unix_now,
).returning(loose_blobs.c.key)
_SETTLE = (
    delete(loose_blobs)
    .where(loose_blobs.c.key == param("key", Text()), loose_blobs.c.due_at > unix_now)
    .returning(loose_blobs.c.key)
)
_MAKE_DUE = (
    update(loose_blobs).where(loose_blobs.c.key == func.any(_keys)).values(due_at=0).returning(loose_blobs.c.key)
)
_DUE = (
    select(loose_blobs.c.key)
    .where(loose_blobs.c.due_at <= unix_now - MARGIN_S)
    .order_by(loose_blobs.c.due_at)
    .limit(BATCH)
)
_FORGET = delete(loose_blobs).where(loose_blobs.c.key == func.any(_keys))
