"""The lines of the protocol, as this side writes and reads them. Everything that comes from a sandbox is hostile.

The supervisor has capped and checked already; here it is done again, because it could have been taken over.
"""

import base64
import binascii
from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson

from adlatus.backends.sandbox.engine import Channel, SandboxLostError
from adlatus.backends.sandbox.events import SandboxFile, safe_name

PROTOCOL = 1
MAX_LINE_BYTES = 17 * 2**20
MAX_TEXT = 2**20
MAX_IMAGES = 20
MAX_IMAGE_BYTES = 10_000_000
MAX_FILES = 100
MAX_LISTED = 1000
MAX_FILES_BYTES = 512 * 2**20
BLOCK_BYTES = 768 * 1024
_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}

Json = dict[str, Any]


@dataclass(frozen=True)
class NonsenseError(Exception):
    """A line that no supervisor of ours writes."""

    what: str


def request(op: str, **fields: object) -> bytes:
    return orjson.dumps({"op": op, **fields}) + b"\n"


class Lines:
    """The messages of a sandbox, each with an `event`. Waiting for one may be cancelled without losing any."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ended: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._size = 0

    async def next(self) -> Json | None:
        """The next one, or None at the end. Raises `NonsenseError`."""
        while not self._ended:
            block = await self._channel.read()
            if not block:
                return None
            self._take(block)
        return _message(self._ended.popleft())

    def _take(self, block: bytes) -> None:
        *ended, rest = block.split(b"\n")
        for end in ended:
            self._ended.append(b"".join([*self._parts, end]))
            self._parts, self._size = [], 0
        self._parts.append(rest)
        self._size += len(rest)
        if self._size > MAX_LINE_BYTES:
            raise NonsenseError("an endless line")


def _message(line: bytes) -> Json:
    try:
        message = orjson.loads(line)
    except ValueError:
        raise NonsenseError("no JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        raise NonsenseError("no event")
    return message


def text(message: Json, field: str) -> str:
    """A text without NUL, which PostgreSQL does not store."""
    value = message.get(field)
    if not isinstance(value, str):
        raise NonsenseError(f"{field} is no text")
    return value.replace("\0", "\ufffd")


def number(message: Json, field: str) -> float:
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NonsenseError(f"{field} is no number")
    return value


def content(message: Json, field: str, most: int) -> bytes:
    """Bytes that were written as base64."""
    try:
        decoded = base64.b64decode(text(message, field), validate=True)
    except (binascii.Error, ValueError):
        raise NonsenseError(f"{field} is not base64") from None
    if len(decoded) > most:
        raise NonsenseError(f"{field} is too long")
    return decoded


def image(message: Json) -> tuple[str, bytes] | None:
    """Media type and content of an image that begins as what it is called; else nothing."""
    media_type = text(message, "media_type")
    shown = content(message, "content", MAX_IMAGE_BYTES + 10)
    magic = _MAGIC.get(media_type)
    return (media_type, shown) if magic and shown.startswith(magic) else None


def files(message: Json, most: int) -> tuple[SandboxFile, ...]:
    """The files that a message lists: at most so many, and not more bytes than may be taken out of a sandbox."""
    listed = message.get("files")
    if not isinstance(listed, list):
        raise NonsenseError("files are no list")
    found = []
    left = MAX_FILES_BYTES
    for entry in listed[:most]:
        if not isinstance(entry, dict):
            raise NonsenseError("a file is no object")
        path, size = text(entry, "path"), int(number(entry, "size"))
        left -= max(size, 0)
        if size >= 0 and left >= 0:
            found.append(SandboxFile(path, safe_name(path), size))
    return tuple(found)


def lost(complaint: str, reason: str) -> SandboxLostError:
    """The error of a sandbox that is gone, with the last line that its supervisor wrote of it."""
    last = complaint.strip().splitlines()[-1:]
    return SandboxLostError(f"{reason}: {last[0][:300]}" if last else reason)
