"""Uploads: files that come in parts, in any order, and are one file once their client says which parts follow which."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import md5
from typing import Protocol

import structlog

from adlatus.errors import InternalError, InvalidRequest
from adlatus.files import keeping
from adlatus.ids import new_id
from adlatus.resources import Resources
from adlatus.store import files
from adlatus.store import uploads as statements
from adlatus.store.db import Row
from adlatus.wire.files import FilePurpose
from adlatus.wire.uploads import CompleteUploadRequest, CreateUploadRequest, UploadStatus

log = structlog.get_logger(__name__)


class Arrives(Protocol):
    """Takes bytes in, writes them under a key, and tells how many there were."""

    async def __call__(self, key: str, /) -> int: ...


async def create(resources: Resources, project_id: str, request: CreateUploadRequest) -> Row:
    """A pending upload. Raises `QuotaExceeded`."""
    async with resources.database.transaction() as tx:
        await files.check_quota(tx, project_id, keeping.quota_bytes(resources, project_id), more=request.bytes)
        return await statements.create(
            tx,
            id=new_id("upload"),
            project_id=project_id,
            file_expires_after_s=request.expires_after.seconds if request.expires_after else None,
            **request.model_dump(exclude={"expires_after"}),
        )


async def add_part(resources: Resources, project_id: str, upload_id: str, arrives: Arrives) -> Row:
    """Take in a part. Raises `NotFound` and, where the upload takes none, `InvalidRequest` before any byte is read;
    `QuotaExceeded` once it is known how long the part is.
    """
    await statements.pending(resources.database, project_id, upload_id, "add parts to")
    part_id = new_id("part")
    key = statements.key_of(part_id)
    async with keeping.incoming(resources, project_id, key):
        size_bytes = await arrives(key)
        async with resources.database.transaction() as tx:
            await statements.pending_locked(tx, project_id, upload_id, "add parts to")
            row = await statements.add_part(tx, part_id, project_id, upload_id, size_bytes)
            await files.check_quota(tx, project_id, keeping.quota_bytes(resources, project_id))
    return row


async def cancel(resources: Resources, project_id: str, upload_id: str) -> Row:
    """Cancel a pending upload. Raises `NotFound`, `InvalidRequest`."""
    await statements.pending(resources.database, project_id, upload_id, "cancel")
    async with resources.database.transaction() as tx:
        await statements.pending_locked(tx, project_id, upload_id, "cancel")
        row, keys = await statements.end(tx, upload_id, UploadStatus.CANCELLED)
    await keeping.discard(resources, keys)
    return row


async def complete(
    resources: Resources, project_id: str, upload_id: str, request: CompleteUploadRequest
) -> tuple[Row, Row]:
    """Make a file of parts, in the order of the request; gives the rows of the upload and the file.

    Raises `NotFound`, and `InvalidRequest` where the parts are not what the client says; the upload stays pending then.
    """
    upload = await statements.pending(resources.database, project_id, upload_id, "complete")
    parts = _in_order(await statements.parts_of(resources.database, upload_id), request.part_ids)
    size_bytes = sum(part["bytes"] for part in parts)
    if size_bytes != upload["bytes"]:
        raise InvalidRequest(
            f"The parts have {size_bytes} bytes together, but the upload was created for {upload['bytes']}.",
            param="part_ids",
        )
    file_id = new_id("file")
    key = files.key_of(file_id)
    async with keeping.incoming(resources, project_id, key):
        await resources.blobs.write(key, _joined(resources, parts, request.md5))
        async with resources.database.transaction() as tx:
            await statements.pending_locked(tx, project_id, upload_id, "complete")
            upload, keys = await statements.end(tx, upload_id, UploadStatus.COMPLETED)
            file = await keeping.add(
                resources,
                tx,
                file_id,
                project_id,
                filename=upload["filename"],
                purpose=FilePurpose(upload["purpose"]),
                size_bytes=size_bytes,
                expires_after_s=upload["file_expires_after_s"],
            )
    await keeping.discard(resources, keys)
    return upload, file


def _in_order(parts: list[Row], part_ids: list[str]) -> list[Row]:
    by_id = {part["id"]: part for part in parts}
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequest("Each part may be named once in 'part_ids'.", param="part_ids")
    for part_id in part_ids:
        if part_id not in by_id:
            raise InvalidRequest(f"No part of this upload found with id '{part_id[:64]}'.", param="part_ids")
    return [by_id[part_id] for part_id in part_ids]


async def _joined(resources: Resources, parts: list[Row], expected_md5: str | None) -> AsyncIterator[bytes]:
    """The bytes of the parts, one after the other. Raises `InvalidRequest` at the end if they are not as expected."""
    digest = md5(usedforsecurity=False)
    for part in parts:
        try:
            pieces = await resources.blobs.read(statements.key_of(part["id"]), 0, part["bytes"])
        except FileNotFoundError as error:
            log.error("the bytes of a part are gone", part_id=part["id"], storage=resources.blobs.shown)
            raise InternalError from error
        async for piece in pieces:
            if expected_md5:
                await asyncio.to_thread(digest.update, piece)
            yield piece
    if expected_md5 and digest.hexdigest() != expected_md5.lower():
        raise InvalidRequest(
            f"The md5 checksum of the parts is '{digest.hexdigest()}', not '{expected_md5}'.", param="md5"
        )
