"""Word 97 to 2003: the text of the main document and its footnotes, found by the piece table.

*Source*: [MS-DOC], 2.4.1 "Retrieving Text"; the compound file around it is read by olefile.
"""

import codecs
import re
from collections.abc import Iterator
from struct import unpack_from
from typing import BinaryIO

from olefile import OleFileIO

from adlatus.retrieval.parsing.sink import InvalidFileError, Sink

for _name in ("cp1252", "utf_16_le", "latin_1"):
    codecs.lookup(_name)  # loaded now, impossible later
_WORD97 = 0xC1
_ENCRYPTED, _SECOND_TABLE = 0x0100, 0x0200
_IN_FIELD = re.compile("([\x13\x14\x15])")
_SIGNS = str.maketrans({"\x07": "\t", "\x1e": "-"})  # the end of a cell; a hyphen that does not break


def extract(source: BinaryIO, sink: Sink) -> None:
    with OleFileIO(source) as compound:
        if not compound.exists("WordDocument"):
            raise InvalidFileError("not a document of Word")
        main = compound.openstream("WordDocument").read()
        magic, version = unpack_from("<HH", main, 0)
        (flags,) = unpack_from("<H", main, 0x0A)
        if magic != 0xA5EC or version < _WORD97 or flags & _ENCRYPTED:
            raise InvalidFileError("a version of Word that is not known, or encrypted")
        table = compound.openstream("1Table" if flags & _SECOND_TABLE else "0Table").read()
    instructions = _Fields()
    for piece in _pieces(main, table):
        sink.write(instructions.without(piece).translate(_SIGNS).replace("\r", "\n"))
    sink.write("\n")


def _pieces(main: bytes, table: bytes) -> Iterator[str]:
    body, footnotes = unpack_from("<ii", main, 0x4C)
    position, size = unpack_from("<II", main, 0x1A2)
    plc = _piece_table(table[position : position + size])
    count = (len(plc) - 4) // 12
    ends = unpack_from(f"<{count + 1}I", plc, 0)
    most = max(body, 0) + max(footnotes, 0)
    for index in range(count):
        length = min(ends[index + 1], most) - ends[index]
        (start,) = unpack_from("<I", plc, 4 * (count + 1) + 8 * index + 2)
        if length <= 0:
            continue
        if start & 0x40000000:
            begin = (start & 0x3FFFFFFF) // 2
            yield main[begin : begin + length].decode("cp1252", "replace")
        else:
            yield main[start : start + 2 * length].decode("utf_16_le", "replace")


def _piece_table(clx: bytes) -> bytes:
    """The table behind the formatting that may stand before it."""
    at = 0
    while clx[at] == 1:
        at += 3 + int(unpack_from("<H", clx, at + 1)[0])
    if clx[at] != 2:
        raise InvalidFileError("no piece table")
    (size,) = unpack_from("<I", clx, at + 1)
    return clx[at + 5 : at + 5 + size]


class _Fields:
    """Leaves out the instructions of fields, such as the address of a link, and keeps what they show."""

    def __init__(self) -> None:
        self._open: list[bool] = []  # for each open field whether its instruction is still going on
        self._hidden = 0

    def without(self, text: str) -> str:
        kept = []
        for part in _IN_FIELD.split(text):
            if part == "\x13":
                self._open.append(True)
                self._hidden += 1
            elif part in ("\x14", "\x15") and self._open:
                self._hidden -= self._open.pop()
                if part == "\x14":
                    self._open.append(False)
            elif not self._hidden:
                kept.append(part)
        return "".join(kept)
