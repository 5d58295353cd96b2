"""Plain text and source code: which encoding it has, and whether it is text at all."""

import codecs
import io
import re
from collections.abc import Iterator
from importlib import import_module
from typing import BinaryIO

from charset_normalizer import from_bytes

from adlatus.retrieval.parsing.sink import InvalidFileError, Sink

SAMPLE = 1 << 16
BLOCK = 1 << 18
_BOMS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
# What the detector may answer: the encodings in which people left files behind. Loaded now, impossible later.
_LEGACY = frozenset(
    "cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp437 cp850 cp852 cp866 iso8859_2 iso8859_5 "  # noqa: SIM905
    "iso8859_15 koi8_r koi8_u mac_roman shift_jis cp932 euc_jp gb18030 big5 euc_kr cp949".split()
)
for _name in ("utf_8", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "latin_1", *_LEGACY):
    codecs.lookup(_name)
import_module("encodings.ascii")
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
_MOST_CONTROLS = 0.02
_SURROGATES = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")


def extract(source: BinaryIO, sink: Sink) -> None:
    for text in decoded(source):
        sink.write(text)


def decoded(source: BinaryIO, declared: str | None = None) -> Iterator[str]:
    """The text of a file, block by block, with newlines as line breaks; wrong bytes become U+FFFD.

    `declared` is the encoding that the file itself claims, believed where the bytes do not say it.
    """
    sample = source.read(SAMPLE)
    source.seek(0)
    with io.TextIOWrapper(source, encoding=_encoding(sample, declared), errors="replace", newline=None) as reader:
        while block := reader.read(BLOCK):
            yield block


def _encoding(sample: bytes, declared: str | None) -> str:
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    wide = _utf16(sample)
    if wide:
        return wide
    if sum(sample.count(code) for code in _CONTROLS) > _MOST_CONTROLS * len(sample):
        raise InvalidFileError("binary content")
    if _looks_like_utf8(sample):
        return "utf_8"
    return _known(declared) or _detected(sample)


def _utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of most texts is zero, and hardly ever the ones between."""
    pairs = len(sample) // 2
    first, second = sample[0::2].count(0), sample[1::2].count(0)
    if second > 0.3 * pairs and first <= 0.02 * pairs:
        return "utf_16_le"
    if first > 0.3 * pairs and second <= 0.02 * pairs:
        return "utf_16_be"
    return None


def _looks_like_utf8(sample: bytes) -> bool:
    """Whether more of the bytes beyond ASCII are UTF-8 than not. A lone surrogate is damaged UTF-8, nothing else."""
    text = _SURROGATES.sub("é".encode(), sample).decode("utf-8", "replace")
    if text.isascii():
        return True
    wrong = text.count("\ufffd")
    beyond = sum(1 for character in text if character > "\x7f")
    return wrong <= beyond - wrong or _only_cut(text, wrong)


def _only_cut(text: str, wrong: int) -> bool:
    """Whether the only thing wrong is that the sample ends inside a character."""
    return wrong == 1 and text.endswith("\ufffd") and len(text.encode()) > SAMPLE - 4


def _known(declared: str | None) -> str | None:
    try:
        name = codecs.lookup(declared).name.replace("-", "_") if declared else ""
    except LookupError:
        return None
    return {"iso8859_1": "cp1252", "latin_1": "cp1252"}.get(name, name if name in _LEGACY else None)


def _detected(sample: bytes) -> str:
    """The likeliest encoding; of several that are about as likely, as for a few accents, the most usual one."""
    matches = from_bytes(_around_the_strange(sample), cp_isolation=sorted(_LEGACY))
    best = matches.best()
    if best is None:
        raise InvalidFileError("unknown encoding")
    close = (match for match in matches if match.chaos <= best.chaos and match.coherence > best.coherence - 0.1)
    return "cp1252" if any("cp1252" in match.could_be_from_charset for match in close) else best.encoding


def _around_the_strange(sample: bytes) -> bytes:
    """Lines with something beyond ASCII: the others tell nothing and cost time."""
    lines = [line for line in sample.splitlines() if not line.isascii()]
    return b"\n".join(lines)[: SAMPLE // 4]
