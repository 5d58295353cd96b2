"""Keeps and gives up files, so that a crash between bytes and row loses nothing acknowledged and leaves nothing behind.

The order is always: a loose blob, the bytes, the row in place of the loose blob; and back: a loose blob in place of the
row, then the bytes, then the loose blob (`store/files.py`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog

from adlatus.backends.blobs import Blobs
from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.settings import Settings
from adlatus.store import files
from adlatus.store.db import Database, Row, Transaction
from adlatus.store.projects import Limits
from adlatus.wire.files import BATCH_EXPIRES_AFTER_S, FilePurpose

log = structlog.get_logger(__name__)


class Storage(Protocol):
    """What bytes and their rows are kept in."""

    @property
    def database(self) -> Database: ...

    @property
    def blobs(self) -> Blobs: ...


def quota_bytes(resources: Resources, project_id: str) -> int | None:
    """How much a project may keep: its own limit, else that of the settings."""
    return quota_of(resources.settings, resources.access.limits(project_id))


def quota_of(settings: Settings, limits: Limits) -> int | None:
    """How much a project with these limits may keep."""
    own, gigabytes = limits.storage_bytes, settings.storage_quota_gb
    return own if own is not None or gigabytes is None else round(gigabytes * 10**9)


@asynccontextmanager
async def incoming(resources: Storage, project_id: str, key: str) -> AsyncIterator[None]:
    """A block in which bytes of this key may be written; they stay if a row has settled them when it is left."""
    await files.loosen(resources.database, project_id, key)
    try:
        yield
    except Exception:
        await discard(resources, [key])
        raise


async def add(
    resources: Resources,
    tx: Transaction,
    file_id: str,
    project_id: str,
    *,
    filename: str,
    purpose: FilePurpose,
    size_bytes: int,
    expires_after_s: int | None,
) -> Row:
    """The row of a file whose bytes have come in."""
    if expires_after_s is None and purpose is FilePurpose.BATCH:
        expires_after_s = BATCH_EXPIRES_AFTER_S
    return await files.add(
        tx,
        file_id,
        project_id,
        quota_bytes=quota_bytes(resources, project_id),
        purpose=purpose,
        filename=filename,
        bytes=size_bytes,
        expires_after_s=expires_after_s,
    )


async def remove(resources: Resources, project_id: str, file_id: str) -> None:
    """Delete a file. Raises `FileNotFound`."""
    key = await files.remove(resources.database, project_id, file_id)
    await _delete(resources, [key])


async def discard(resources: Storage, keys: list[str]) -> None:
    """Delete bytes that no row stands for; what has a row stays. What cannot be deleted now is swept later."""
    with suppress(Unavailable):
        await _delete(resources, await files.make_due(resources.database, keys))


async def _delete(resources: Storage, keys: list[str]) -> None:
    try:
        await resources.blobs.delete(keys)
        await files.forget(resources.database, keys)
    except Unavailable:
        log.warning("bytes are deleted later", keys=keys)
