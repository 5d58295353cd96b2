"""Small documents of every kind, made by hand, so that a test can break them where it wants."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
P = "http://schemas.openxmlformats.org/presentationml/2006/main"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"


def pdf(pages: Sequence[str], *, catalog: str = "", objects: Mapping[int, bytes] | None = None) -> bytes:
    """A PDF with one line of text per page. `catalog` is added to the catalog; `objects` replace or follow ours."""
    bodies: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog.encode(),
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    }
    kids = []
    for index, line in enumerate(pages):
        page, content = 10 + 2 * index, 11 + 2 * index
        kids.append(f"{page} 0 R")
        shown = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252")
        stream = b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % shown
        bodies[content] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)
        bodies[page] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        ).encode()
    bodies[2] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    return pdf_of(bodies | dict(objects or {}))


def pdf_of(bodies: Mapping[int, bytes], trailer: str = "") -> bytes:
    """The file with these objects, its table of references and its trailer."""
    out = bytearray(b"%PDF-1.7\n")
    places = {}
    for number, body in sorted(bodies.items()):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(out), max(bodies) + 1
    out += b"xref\n0 %d\n" % size
    out += b"".join(
        b"%010d %05d %s \n" % ((places[n], 0, b"n") if n in places else (0, 65535, b"f")) for n in range(size)
    )
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer.encode(), start)
    return bytes(out)


def zipped(parts: Mapping[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def relations(*targets: tuple[str, str, str]) -> str:
    """The XML of a part's relations: kind, id, target."""
    listed = "".join(
        f'<Relationship Type="{OFFICE}/{kind}" Id="{id_}" Target="{target}"/>' for kind, id_, target in targets
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{listed}</Relationships>'
    )


def docx_parts(body: str, **more: str) -> dict[str, bytes | str]:
    """The parts of a Word file with this XML as its body; `more` are further relations by kind and their XML."""
    parts: dict[str, bytes | str] = {
        "_rels/.rels": relations(("officeDocument", "rId1", "word/document.xml")),
        "word/document.xml": f'<w:document xmlns:w="{W}"><w:body>{body}</w:body></w:document>',
        "word/_rels/document.xml.rels": relations(*((kind, f"rId{kind}", f"{kind}.xml") for kind in more)),
    }
    return parts | {f"word/{kind}.xml": xml for kind, xml in more.items()}


def paragraph(text: str) -> str:
    return f'<w:p><w:pPr><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'


def docx(*paragraphs: str) -> bytes:
    return zipped(docx_parts("".join(paragraph(text) for text in paragraphs)))


def pptx_parts(slides: Sequence[str], notes: str = "") -> dict[str, bytes | str]:
    """The parts of a presentation whose files are numbered from its end; `notes` belong to the first slide shown."""
    numbers = range(len(slides), 0, -1)
    ids = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in numbers)
    parts: dict[str, bytes | str] = {
        "_rels/.rels": relations(("officeDocument", "rId1", "/ppt/presentation.xml")),
        "ppt/presentation.xml": (
            f'<p:presentation xmlns:p="{P}" xmlns:r="{OFFICE}"><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>'
        ),
        "ppt/_rels/presentation.xml.rels": relations(
            *(("slide", f"rId{number}", f"slides/slide{number}.xml") for number in sorted(numbers))
        ),
    }
    for number, text in zip(numbers, slides, strict=True):
        parts[f"ppt/slides/slide{number}.xml"] = _slide(text)
    if notes:
        listed = relations(("notesSlide", "rId1", "../notesSlides/notes1.xml"))
        parts[f"ppt/slides/_rels/slide{len(slides)}.xml.rels"] = listed
        parts["ppt/notesSlides/notes1.xml"] = _slide(notes)
    return parts


def _slide(text: str) -> str:
    return f'<p:sld xmlns:p="{P}" xmlns:a="{A}"><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:sld>'


def pptx(*slides: str, notes: str = "") -> bytes:
    return zipped(pptx_parts(slides, notes))


def doc(pieces: Sequence[str | bytes], *, flags: int = 0, repeated: int = 1) -> bytes:
    """A Word 97 file: pieces of bytes are stored in cp1252, text in UTF-16; each is shown `repeated` times."""
    main = bytearray(2048)
    struct.pack_into("<HH", main, 0, 0xA5EC, 0xC1)
    struct.pack_into("<H", main, 0x0A, flags)
    ends, places, position = [0], b"", 0
    for piece in pieces:
        start, length = len(main), len(piece)
        main += piece if isinstance(piece, bytes) else piece.encode("utf-16-le")
        place = 0x40000000 | start * 2 if isinstance(piece, bytes) else start
        for _ in range(repeated):
            places += struct.pack("<HIH", 0, place, 0)
            position += length
            ends.append(position)
    plc = struct.pack(f"<{len(ends)}I", *ends) + places
    clx = b"\x01\x02\x00\xaa\xbb\x02" + struct.pack("<I", len(plc)) + plc
    struct.pack_into("<i", main, 0x4C, position)
    struct.pack_into("<II", main, 0x1A2, 0, len(clx))
    return compound({"WordDocument": bytes(main), "0Table": clx})


def compound(streams: Mapping[str, bytes]) -> bytes:
    """A compound file (OLE) with these streams, each padded to the 4096 bytes that keep it out of the small sectors."""
    free, end, fat_sector = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    fat, sectors = [fat_sector, end], b""
    directory = _entry("Root Entry", 5, child=1, start=end, size=0)
    for index, (name, content) in enumerate(streams.items(), 1):
        padded = content + bytes(-max(len(content), 4096) % 512 + max(4096 - len(content), 0))
        padded += bytes(-len(padded) % 512)
        first, count = len(fat), len(padded) // 512
        fat += [*range(first + 1, first + count), end]
        sectors += padded
        right = index + 1 if index < len(streams) else free
        directory += _entry(name, 2, right=right, start=first, size=len(padded))
    assert len(fat) <= 128
    assert len(streams) <= 3
    directory = directory.ljust(512, b"\0")
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<HHHHH6xIIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, end, 0, end, 0, 0)
    header += struct.pack("<108I", *[free] * 108)
    table = struct.pack("<128I", *fat, *[free] * (128 - len(fat)))
    return header + table + directory + sectors


def _entry(name: str, kind: int, *, child: int = 0xFFFFFFFF, right: int = 0xFFFFFFFF, start: int, size: int) -> bytes:
    encoded = (name + "\0").encode("utf-16-le")
    return struct.pack("<64sHBBIII16xI16xIQ", encoded, len(encoded), kind, 1, 0xFFFFFFFF, right, child, 0, start, size)
