"""Where a parser's text goes: cleaned, counted, capped. The format is the one that `retrieval.parse` reads.

UTF-8; every page begins with a form feed. Text without pages has none.
"""

import re
from typing import BinaryIO

_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufeff\ufffe\uffff]")  # no document means them; PostgreSQL refuses NUL
_OTHER_BREAKS = re.compile("\r\n?|[\v\f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLOCK = 1 << 16


class InvalidFileError(Exception):
    """The file is broken, encrypted, or not what its name says."""


class TooLargeError(Exception):
    """The file has more text than may be taken from one."""


class Sink:
    """Writes text to a file until it is more than `most` bytes: then raises `TooLargeError`."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._left = most
        self._parts: list[str] = []
        self._waiting = 0
        self.has_text = False

    def page(self) -> None:
        """Begin the next page."""
        self.flush()
        self._send(b"\f")

    def write(self, text: str) -> None:
        """Add text. Line breaks become newlines: a pair of characters must not be divided between two calls."""
        if not text:
            return
        self._parts.append(text)
        self._waiting += len(text)
        if self._waiting >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        text = "".join(self._parts)
        self._parts, self._waiting = [], 0
        if not text:
            return
        text = _UNWANTED.sub("", _OTHER_BREAKS.sub("\n", text))
        self.has_text = self.has_text or bool(text.strip())
        self._send(_SURROGATE.sub("\ufffd", text).encode())

    def close(self) -> None:
        """Hand over what is still waiting. The file stays open."""
        self.flush()
        self._file.flush()

    def _send(self, content: bytes) -> None:
        self._left -= len(content)
        if self._left < 0:
            raise TooLargeError
        self._file.write(content)
