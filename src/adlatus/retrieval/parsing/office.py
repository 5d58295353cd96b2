"""Word and PowerPoint files since 2007: zip files of XML, read as streams, so that no tree and no part is in memory.

Nothing is unpacked to a disk and no name in the archive is ever a path. A document type declaration is refused: the
format has none, and entities need one. Slides are pages; where a Word document's pages begin, its file does not say.
"""

import codecs
import posixpath
from collections.abc import Callable, Iterator
from typing import BinaryIO
from xml.parsers.expat import ParserCreate, XMLParserType
from zipfile import ZipFile

from adlatus.retrieval.parsing.sink import InvalidFileError, Sink, TooLargeError

for _name in ("cp437", "ascii", "utf_8", "utf_16"):
    codecs.lookup(_name)  # of names in a zip file; loaded now, impossible later
BLOCK = 1 << 16
MOST_UNPACKED = 1 << 29
"""Bytes of XML that are read of one file. Hundreds of thousands of pages have less."""
_UNSEEN = frozenset(("pPr", "rPr", "tblPr", "trPr", "tcPr", "sectPr", "moveFrom", "Fallback"))
_BREAKS = {"br": "\n", "cr": "\n", "tab": "\t", "noBreakHyphen": "-"}
_NOTES = ("footnotes", "endnotes", "comments")

Attributes = dict[str, str]


def extract(source: BinaryIO, sink: Sink) -> None:
    archive = _Archive(source)
    main = next((target for kind, _, target in archive.relations("") if kind == "officeDocument"), None)
    if main is None:
        raise InvalidFileError("not a document of Office")
    match archive.root(main):
        case "document":
            _document(archive, main, sink)
        case "presentation":
            _presentation(archive, main, sink)
        case other:
            raise InvalidFileError(f"neither a document nor a presentation but {other[:40]}")


def _document(archive: "_Archive", main: str, sink: Sink) -> None:
    """The body, then the notes. Headers and footers are left out: they repeat themselves."""
    _write_text(archive, main, sink)
    for kind, _, target in list(archive.relations(main)):
        if kind in _NOTES:
            _write_text(archive, target, sink)


def _presentation(archive: "_Archive", main: str, sink: Sink) -> None:
    """Every slide with its notes, in the order in which they are shown."""
    shown: list[str] = []

    def start(name: str, attributes: Attributes) -> None:
        if name == "sldId":
            shown.extend(value for key, value in attributes.items() if key.endswith("}id"))

    archive.read(main, start)
    slides = {id_: target for kind, id_, target in archive.relations(main) if kind == "slide"}
    for id_ in shown:
        sink.page()
        if id_ not in slides:
            continue
        _write_text(archive, slides[id_], sink)
        for kind, _, target in list(archive.relations(slides[id_])):
            if kind == "notesSlide":
                _write_text(archive, target, sink)


def _write_text(archive: "_Archive", part: str, sink: Sink) -> None:
    walk = _Walk(sink)
    archive.read(part, walk.start, walk.end, walk.characters)


class _Walk:
    """Where we are in a document: what is open decides whether characters are text and what an end means."""

    def __init__(self, sink: Sink) -> None:
        self._write = sink.write
        self._unseen = 0
        self._texts = 0
        self._cells = 0
        self._gap = ""
        """What parts the paragraphs of a cell, unless nothing follows."""

    def start(self, name: str, _attributes: Attributes) -> None:
        if self._unseen or name in _UNSEEN:
            self._unseen += 1
        elif name == "t":
            self._texts += 1
        elif name == "tc":
            self._cells += 1
        elif name in _BREAKS:
            self._write(_BREAKS[name])

    def end(self, name: str) -> None:
        if self._unseen:
            self._unseen -= 1
        elif name == "t":
            self._texts -= 1
        elif name == "p":
            self._break_line()
        elif name == "tc":
            self._cells -= 1
            self._write("\t")
            self._gap = ""
        elif name == "tr":
            self._break_line()

    def characters(self, text: str) -> None:
        if self._texts and not self._unseen:
            self._write(self._gap + text)
            self._gap = ""

    def _break_line(self) -> None:
        """A row of a table stays on one line, whatever its cells contain."""
        if self._cells:
            self._gap = " "
        else:
            self._write("\n")


class _Archive:
    """The parts of the file, by name; counts what it unpacks."""

    def __init__(self, source: BinaryIO) -> None:
        self._zip = ZipFile(source)
        self._left = MOST_UNPACKED

    def root(self, part: str) -> str:
        """The name of a part's outermost element."""
        found: list[str] = []

        def start(name: str, _attributes: Attributes) -> None:
            found.append(name)

        parser = _parser(start)
        for block in self._blocks(part):
            parser.Parse(block)
            if found:
                return found[0]
        return ""

    def read(
        self,
        part: str,
        start: Callable[[str, Attributes], None],
        end: Callable[[str], None] | None = None,
        characters: Callable[[str], None] | None = None,
    ) -> None:
        """Tell of the elements of a part, by their names without a namespace."""
        parser = _parser(start)
        if end is not None:
            ended = end
            parser.EndElementHandler = lambda name: ended(_local(name))
        if characters is not None:
            parser.CharacterDataHandler = characters
        for block in self._blocks(part):
            parser.Parse(block)
        parser.Parse(b"", True)

    def relations(self, part: str) -> Iterator[tuple[str, str, str]]:
        """What a part refers to within the file: kind, id and name. The file as a whole is the part with no name."""
        folder, name = posixpath.split(part)
        listed = posixpath.join(folder, "_rels", f"{name}.rels")
        found: list[Attributes] = []

        def start(name: str, attributes: Attributes) -> None:
            if name == "Relationship" and attributes.get("TargetMode") != "External":
                found.append(attributes)

        if listed in self._zip.namelist():
            self.read(listed, start)
        for attributes in found:
            target = posixpath.normpath(posixpath.join("/", folder, attributes.get("Target", ""))).lstrip("/")
            yield attributes.get("Type", "").rpartition("/")[2], attributes.get("Id", ""), target

    def _blocks(self, part: str) -> Iterator[bytes]:
        with self._zip.open(part) as content:
            while block := content.read(BLOCK):
                self._left -= len(block)
                if self._left < 0:
                    raise TooLargeError
                yield block


def _parser(start: Callable[[str, Attributes], None]) -> XMLParserType:
    parser = ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: start(_local(name), attributes)
    parser.StartDoctypeDeclHandler = _refuse
    return parser


def _refuse(*_: object) -> None:
    raise InvalidFileError("declares a document type")


def _local(name: str) -> str:
    return name.rpartition("}")[2]
