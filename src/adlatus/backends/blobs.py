"""Where the bytes of files are: a folder of this machine, or an object store. Knows keys, not what they stand for.

Bytes stream in and out; none of it blocks the event loop, and no more than a few pieces are ever in memory.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from adlatus.errors import StartupError, Unavailable

log = structlog.get_logger(__name__)

PIECE_BYTES = 4 * 2**20
"""How much is read or written at a time."""
_PART_BYTES = 8 * 2**20  # an object store takes 10,000 parts of an object at most: enough for an upload of 8 GB
_PARTS_AT_A_TIME = 2
_PIECE_S = 30.0
_PROBE = "probe"
_FAULTS = (BaseError, OSError, TimeoutError)
_CLOUDS = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")


class Blobs(Protocol):
    """Bytes by keys such as `files/file-123`. What is written is there as a whole, or not at all.

    Raises `Unavailable` where the storage does not answer or does not take or give what it should.
    """

    shown: str

    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep the bytes; after this they outlive a crash. What `pieces` raises comes out, and nothing is kept."""

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`, in pieces of which the first has been read already.

        Raises `FileNotFoundError` where there are none of this key.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget the bytes, and what a writer that was killed has left of them; unknown keys are passed over."""

    async def check(self) -> None:
        """Write something, and read it."""

    async def glance(self) -> None:
        """Read what `check` has written, which costs less."""


class ObstoreBlobs:
    """Bytes in any store that `obstore` knows; `folder` is where it is, for the one on this machine."""

    def __init__(self, store: ObjectStore, shown: str, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder
        self.shown = shown

    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        beginning = await _up_to(_PART_BYTES, pieces)
        with _unavailable():
            if len(beginning) < _PART_BYTES:  # that is all: one request instead of three
                await obstore.put_async(self._store, key, beginning)
            else:
                await obstore.put_async(
                    self._store,
                    key,
                    _after(beginning, pieces),
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_A_TIME,
                )
            if self._folder:
                await asyncio.to_thread(_sync, self._folder / key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        first = await self._piece(key, start, end)
        return self._pieces(key, first, start, end)

    async def _pieces(self, key: str, first: bytes, start: int, end: int) -> AsyncIterator[bytes]:
        # A request for each piece: a client that is slow holds no connection to the store, and none times out
        piece = first
        while piece:
            yield piece
            start += len(piece)
            piece = await self._piece(key, start, end)

    async def _piece(self, key: str, start: int, end: int) -> bytes:
        with _unavailable(absent_is_known=True):
            if start >= end:
                if end == 0:  # an empty one: is it there?
                    await obstore.head_async(self._store, key)
                return b""
            async with asyncio.timeout(_PIECE_S):
                return bytes(
                    await obstore.get_range_async(self._store, key, start=start, end=min(end, start + PIECE_BYTES))
                )

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with _unavailable(), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
            if self._folder:
                await asyncio.to_thread(_remove_partial, self._folder / key)

    async def check(self) -> None:
        with _unavailable():
            await obstore.put_async(self._store, _PROBE, b"Adlatus")
        await self.glance()

    async def glance(self) -> None:
        try:
            await self._piece(_PROBE, 0, 1)
        except FileNotFoundError as error:
            raise Unavailable("The file storage does not give back what was written to it.") from error


def open_blobs(url: str | None, data_dir: Path) -> Blobs:
    """The storage of `url`, or the folder `files` of the data folder. Raises `StartupError` with advice."""
    scheme = urlsplit(url).scheme if url else "file"
    if url is None or scheme == "file":
        folder = Path(unquote(urlsplit(url).path)) if url else data_dir / "storage"
        return _in_folder(folder)
    if scheme not in _CLOUDS:
        raise StartupError(
            f"ADLATUS_STORAGE_URL: '{scheme or url}' is no kind of storage; write s3://bucket/prefix, "
            "gs://bucket/prefix, az://container/prefix or file:///folder."
        )
    try:
        store = from_url(
            url,
            client_options={"connect_timeout": "5s", "timeout": "2m", "allow_http": _is_plain_http()},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
        )
    except (*_FAULTS, ValueError) as error:
        raise StartupError(f"ADLATUS_STORAGE_URL: {_told(error)}.") from error
    return ObstoreBlobs(store, url)


def _is_plain_http() -> bool:
    """Whether the address of the object store, which obstore reads from the environment itself, is no HTTPS."""
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    return any(os.environ.get(name, "").startswith("http://") for name in names)


def _in_folder(folder: Path) -> Blobs:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = LocalStore(folder)
    except (*_FAULTS, ValueError) as error:
        raise StartupError(
            f"cannot keep files in {folder}: {_told(error)}. Choose another --data-dir or ADLATUS_STORAGE_URL."
        ) from error
    return ObstoreBlobs(store, f"folder {folder}", folder)


class _OfTheSource(Exception):  # noqa: N818 - not a fault of the storage, whatever kind of error it is
    """Carries what a source of bytes raised past the storage's own errors."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


async def _up_to(size_bytes: int, pieces: AsyncIterator[bytes]) -> bytes:
    """The first pieces, as few as are that long together; less if there are no more."""
    taken = bytearray()
    while len(taken) < size_bytes:
        try:
            taken += await anext(pieces)
        except StopAsyncIteration:
            break
    return bytes(taken)


async def _after(beginning: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield beginning
    try:
        async for piece in pieces:
            yield piece
    except Exception as error:
        raise _OfTheSource(error) from error


_SILENT = "The file storage does not answer at the moment. Try again in a second."
_FULL = "The disk of the file storage is full: no file can be kept until there is room again."


def _is_full(error: BaseException) -> bool:
    """Whether a folder has no room: obstore tells it in words only."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


@contextmanager
def _unavailable(*, absent_is_known: bool = False) -> Iterator[None]:
    try:
        yield
    except _OfTheSource as error:
        raise error.cause from None
    except _FAULTS as error:
        if absent_is_known and isinstance(error, FileNotFoundError):
            raise
        log.error("file storage unavailable", error=_told(error))
        raise Unavailable(_FULL if _is_full(error) else _SILENT) from error


def why(error: Unavailable) -> str:
    """What a storage had to say when it was not available, for operators."""
    return _told(error.__cause__ or error)


def _told(error: BaseException) -> str:
    """What is wrong, without what obstore adds for those who debug it."""
    return str(error).partition("\n")[0].strip().rstrip(".") or type(error).__name__


def _sync(path: Path) -> None:
    """Have the file, and its name, on disk."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_partial(path: Path) -> None:
    """Remove what a writer that was killed has left: obstore writes to `name#1` and renames it at the end."""
    for partial in path.parent.glob(f"{path.name}#*"):
        partial.unlink(missing_ok=True)
