"""What HTTP wants of downloads: names of attachments, and ranges of bytes."""

import re
from urllib.parse import quote

from adlatus.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE | re.ASCII)


def attachment(filename: str) -> str:
    """The value of `Content-Disposition` for a name that may hold anything (RFC 6266)."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", filename)
    encoded = quote(filename.encode("utf-8", "replace"), safe="")
    told = f'attachment; filename="{plain}"'
    return told if plain == filename else f"{told}; filename*=UTF-8''{encoded}"


def satisfiable(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Start and end, exclusive, of the range to send; nothing where all is to be sent.

    A range that makes no sense is passed over, and so are several at once, as HTTP allows (RFC 9110, 14.2). Raises
    `RangeNotSatisfiable` where no byte of it exists.
    """
    found = _RANGE.fullmatch(header or "")
    if not found:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size_bytes - int(suffix)), size_bytes
    else:
        start, end = int(first), min(int(last) + 1 if last else size_bytes, size_bytes)
        if last and int(last) < start:
            return None
    if start >= size_bytes or start >= end:
        raise RangeNotSatisfiable(
            f"The file has {size_bytes} bytes, and none of the range '{(header or '')[:64]}'.",
            headers={"content-range": f"bytes */{size_bytes}"},
        )
    return start, end
