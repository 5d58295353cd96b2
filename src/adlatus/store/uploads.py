"""Rows of uploads and their parts. Parts of an upload that is no longer pending have no rows; they are loose blobs."""

from typing import Literal

from sqlalchemy import BigInteger, Text, case, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from adlatus.errors import InvalidRequest, not_found
from adlatus.store import files, rows
from adlatus.store.db import Connection, Row, Transaction, param
from adlatus.store.tables import loose_blobs, unix_now, upload_parts, uploads
from adlatus.wire.uploads import EXPIRES_AFTER_S, MAX_UPLOAD_BYTES, UploadStatus

MAX_PARTS = 10_000
Verb = Literal["add parts to", "complete", "cancel"]


def key_of(part_id: str) -> str:
    """Where the bytes of a part are."""
    return f"parts/{part_id}"


async def create(connection: Connection, **columns: object) -> Row:
    """A pending upload."""
    row = await connection.fetch_row(_CREATE, **columns)
    assert row is not None
    return row


async def pending(connection: Connection, project_id: str, upload_id: str, verb: Verb) -> Row:
    """The row of an upload that is pending and has not expired. Raises `NotFound`, `InvalidRequest`."""
    row = await connection.fetch_row(_GET, by_id=upload_id, project_id=project_id)
    if row is None:
        raise not_found("upload", upload_id)
    _refuse_unless_pending(row["status_now"], verb)
    return row


async def pending_locked(tx: Transaction, project_id: str, upload_id: str, verb: Verb) -> Row:
    """The row of an upload that was pending before, locked: nobody else ends it. Raises `InvalidRequest`.

    Its time may have run out since: what was begun before counts.
    """
    row = await rows.get_locked(tx, uploads, "upload", upload_id, project_id=project_id)
    _refuse_unless_pending(row["status"], verb)
    return row


def _refuse_unless_pending(status: str, verb: Verb) -> None:
    if status != UploadStatus.PENDING:
        raise InvalidRequest(f"Cannot {verb} upload with status '{status}'.")


async def add_part(tx: Transaction, part_id: str, project_id: str, upload_id: str, size_bytes: int) -> Row:
    """The row of a part whose bytes are there, of a locked upload. Raises `InvalidRequest` where it is one too many."""
    await files.settle(tx, key_of(part_id))
    columns = {"project_id": project_id, "upload_id": upload_id, "bytes": size_bytes}
    row = await rows.add(tx, upload_parts, id=part_id, **columns)
    parts = await parts_of(tx, upload_id)
    if len(parts) > MAX_PARTS or sum(part["bytes"] for part in parts) > MAX_UPLOAD_BYTES:
        raise InvalidRequest(
            f"The parts of an upload are {MAX_PARTS} at most, and hold {MAX_UPLOAD_BYTES} bytes together."
        )
    return row


async def parts_of(connection: Connection, upload_id: str) -> list[Row]:
    """Ids and sizes of the parts, in the order in which they have come."""
    return await connection.fetch(_PARTS, upload_id=upload_id)


async def end(tx: Transaction, upload_id: str, status: UploadStatus) -> tuple[Row, list[str]]:
    """Give a locked upload its final status; gives its row and the keys of its parts, which are loose now."""
    row = await tx.fetch_row(_END, by_id=upload_id, status=status)
    assert row is not None
    return row, await _loosen_parts(tx, [upload_id])


async def expire(tx: Transaction) -> int:
    """Let pending uploads expire whose time has run out, `files.BATCH` at most; gives how many there were."""
    expired = [row["id"] for row in await tx.fetch(_EXPIRE)]
    await _loosen_parts(tx, expired)
    return len(expired)


async def _loosen_parts(tx: Transaction, upload_ids: list[str]) -> list[str]:
    return [row["key"] for row in await tx.fetch(_LOOSEN_PARTS, upload_ids=upload_ids)]


_CREATE = (
    insert(uploads)
    .values(
        {name: param(name, uploads.c[name].type) for name in ("id", "project_id", "purpose", "filename", "bytes")}
        | {name: param(name, uploads.c[name].type) for name in ("mime_type", "file_expires_after_s")}
        | {"status": UploadStatus.PENDING.value, "expires_at": unix_now + EXPIRES_AFTER_S}
    )
    .returning(uploads)
)
_expired = (uploads.c.status == UploadStatus.PENDING.value) & (uploads.c.expires_at <= unix_now)
_GET = select(uploads, case((_expired, UploadStatus.EXPIRED.value), else_=uploads.c.status).label("status_now")).where(
    uploads.c.id == param("by_id", Text()), uploads.c.project_id == param("project_id", Text())
)
_PARTS = (
    select(upload_parts.c.id, upload_parts.c.bytes)
    .where(upload_parts.c.upload_id == param("upload_id", Text()))
    .order_by(upload_parts.c.created_at, upload_parts.c.seq)
)
_END = (
    update(uploads)
    .where(uploads.c.id == param("by_id", Text()))
    .values(status=param("status", Text()))
    .returning(uploads)
)
_EXPIRE = (
    update(uploads)
    .where(uploads.c.id.in_(select(uploads.c.id).where(_expired).limit(files.BATCH).with_for_update(skip_locked=True)))
    .values(status=UploadStatus.EXPIRED.value)
    .returning(uploads.c.id)
)
_gone = (
    delete(upload_parts)
    .where(upload_parts.c.upload_id == func.any(param("upload_ids", ARRAY(Text()))))
    .returning((literal("parts/") + upload_parts.c.id).label("key"), upload_parts.c.project_id)  # as `key_of` says
    .cte("gone")
)
_LOOSEN_PARTS = (
    insert(loose_blobs)
    .from_select(["key", "project_id", "due_at"], select(_gone.c.key, _gone.c.project_id, literal(0, BigInteger())))
    .returning(loose_blobs.c.key)
)
