"""Which files can be searched, and which parser a file gets: by its extension, then by its first bytes.

The extension decides whether a file is taken at all, and whether it is text or a container. Which container it is, its
first bytes say: a PDF that is called `.docx` is read as the PDF that it is. Text with the first bytes of a container
is refused, not searched as gibberish; the parser of text refuses other binary content.
"""

from enum import StrEnum

from adlatus.wire.vector_stores import SEARCHABLE, extension


class Kind(StrEnum):
    """A parser: the name of its module in `parsing`."""

    TEXT = "text"
    HTML = "html"
    PDF = "pdf"
    OFFICE = "office"
    """.docx and .pptx: zip files of XML."""
    WORD = "word"
    """.doc: the binary format of Word 97 to 2003."""


_CONTAINED = {
    ".html": Kind.HTML,
    ".pdf": Kind.PDF,
    ".docx": Kind.OFFICE,
    ".pptx": Kind.OFFICE,
    ".doc": Kind.WORD,
}
_CONTAINERS = {b"PK\x03\x04": Kind.OFFICE, b"PK\x05\x06": Kind.OFFICE, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Kind.WORD}
HEAD_BYTES = 1024
"""How much of a file `kind` wants to see. A PDF's first line may stand this far behind some rubbish."""


def is_supported(filename: str) -> bool:
    """Whether files of this extension can be searched."""
    return extension(filename) in SEARCHABLE


def kind(filename: str, head: bytes) -> Kind | None:
    """The parser for a supported file that begins with `head`, or None if its content is not what its name says."""
    named = _CONTAINED.get(extension(filename), Kind.TEXT)
    contained = _container(head)
    if named in (Kind.TEXT, Kind.HTML):
        begins_as_one = contained is not None and (contained is not Kind.PDF or head.startswith(b"%PDF-"))
        return None if begins_as_one else named
    return contained


def _container(head: bytes) -> Kind | None:
    for magic, container in _CONTAINERS.items():
        if head.startswith(magic):
            return container
    return Kind.PDF if b"%PDF-" in head[:HEAD_BYTES] else None
