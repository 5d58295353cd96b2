"""The bytes of files, which lie beside the objects that tell of them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from adlatus.backends.blobs import PIECE_BYTES
from adlatus.errors import ApiError, DatabaseUnavailable
from adlatus.files import keeping
from adlatus.store import files
from adlatus.transfer.opening import Opened
from adlatus.transfer.reading import BYTES_FOLDER
from adlatus.wire.common import Json
from adlatus.wire.exports import ExportedFile


class NoBytes(Exception):  # noqa: N818
    """A file cannot be kept; the message says why."""


@dataclass(frozen=True)
class Kept:
    """A file that is to be kept: its row, and where its bytes are now."""

    project_id: str
    row: Json
    path: Path
    quota_bytes: int | None


def located(folder: Path, sent: ExportedFile) -> Path:
    """Where the bytes of a file are: at its `path` in the folder, or by its id in `files` there.

    Raises `NoBytes` where they are not, or not as many as the object says.
    """
    root = folder.resolve()
    path = (root / (sent.path or f"{BYTES_FOLDER}/{sent.id}")).resolve()
    if not path.is_relative_to(root):
        raise NoBytes(f"its path leads out of {folder}")
    try:
        size_bytes = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:
        raise NoBytes(f"its bytes cannot be read: {error}") from error
    if size_bytes is None:
        raise NoBytes(f"its bytes are not at {path}")
    if size_bytes != sent.bytes:
        raise NoBytes(f"it has {sent.bytes} bytes, but {path} has {size_bytes}")
    return path


async def keep(opened: Opened, file: Kept) -> None:
    """Keep a file with its bytes. Raises `NoBytes`."""
    file_id = file.row["id"]
    key = files.key_of(file_id)
    columns = {name: value for name, value in file.row.items() if name != "id"}
    try:
        async with keeping.incoming(opened, file.project_id, key):
            await opened.blobs.write(key, _pieces(file.path))
            async with opened.database.transaction() as tx:
                await files.add(tx, file_id, file.project_id, quota_bytes=file.quota_bytes, **columns)
    except DatabaseUnavailable:
        raise
    except ApiError as error:
        raise NoBytes(error.message) from error
    except OSError as error:
        raise NoBytes(f"its bytes cannot be read: {error.strerror}") from error


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
