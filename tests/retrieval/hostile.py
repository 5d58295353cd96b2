"""Files that were made to harm whoever reads them, or were broken on the way; each with the end it must come to."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from adlatus.retrieval.parse import EMPTY, INVALID, TOO_LARGE, UNSUPPORTED, Failure
from tests.retrieval import documents as made


@dataclass(frozen=True)
class Bad:
    """A file and what parsing must say of it: a failure, or a part of its text.

    `also`: what it may say instead, where it depends on the speed of the machine or on the version of a parser.
    """

    filename: str
    content: Callable[[], bytes]
    outcome: Failure | str
    also: Failure | str | None = None
    slow: bool = False


def _noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def _bomb(filename: str, part: str, before: str, filler: bytes, times: int, after: str) -> bytes:
    """An Office file one of whose parts is as long as one likes and takes a thousandth of that."""
    parts = made.docx_parts(made.paragraph("x")) if filename.endswith("docx") else made.pptx_parts(["x"])
    parts.pop(part)
    out = io.BytesIO(made.zipped(parts))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(part, "w", force_zip64=True) as entry:
        entry.write(before.encode())
        for _ in range(times):
            entry.write(filler)
        entry.write(after.encode())
    return out.getvalue()


def _docx_bomb(filler: bytes, times: int, inside: bool = True) -> bytes:
    begin, end = ("<w:p><w:r><w:t>", "</w:t></w:r></w:p>") if inside else ("", "")
    before = f'<w:document xmlns:w="{made.W}"><w:body>{begin}'
    return _bomb("bomb.docx", "word/document.xml", before, filler, times, f"{end}</w:body></w:document>")


def _docx_with_dtd(dtd: str, entity: str) -> bytes:
    parts = made.docx_parts("")
    parts["word/document.xml"] = f"<?xml version='1.0'?>{dtd}" + str(parts["word/document.xml"]).replace(
        "<w:body>", f"<w:body>{made.paragraph(entity)}"
    )
    return made.zipped(parts)


def _billion_laughs() -> bytes:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return _docx_with_dtd(f'<!DOCTYPE w:document [<!ENTITY l0 "lol">{entities}]>', "&l9;")


def _docx_plus(name: str, content: bytes, mode: int = 0o644) -> bytes:
    out = io.BytesIO(made.docx("the real text"))
    with zipfile.ZipFile(out, "a") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return out.getvalue()


def _docx_whose_main_part_is(target: str, mode: str = "Internal") -> bytes:
    listed = made.relations(("officeDocument", "rId1", target)).replace("/>", f' TargetMode="{mode}"/>')
    return made.zipped(made.docx_parts(made.paragraph("x")) | {"_rels/.rels": listed})


def _docx_locked() -> bytes:
    """Every entry says that it is encrypted."""
    content = bytearray(made.docx("secret"))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(magic, at + 4)
    return bytes(content)


def _many_entries() -> bytes:
    parts = made.docx_parts(made.paragraph("among thousands"))
    return made.zipped(parts | {f"junk/{n}": b"" for n in range(20_000)})


def _slide_shown_often(times: int) -> bytes:
    parts = made.pptx_parts(["again and again " * 1000])
    presentation = str(parts["ppt/presentation.xml"])
    entry = '<p:sldId id="256" r:id="rId1"/>'
    return made.zipped(parts | {"ppt/presentation.xml": presentation.replace(entry, entry * times)})


def _slide_that_is_missing() -> bytes:
    parts = made.pptx_parts(["one", "two"])
    del parts["ppt/slides/slide1.xml"]
    return made.zipped(parts)


def _pdf_encrypted() -> bytes:
    trailer = "/Encrypt 9 0 R /ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>]"
    lock = b"<< /Filter /Standard /V 2 /R 3 /Length 128 /P -1 /O <%s> /U <%s> >>" % (b"ab" * 32, b"cd" * 32)
    return made.pdf(["secret"], objects={9: lock}).replace(b"/Root", trailer.encode() + b" /Root")


def _pdf_bomb() -> bytes:
    """A page whose content unpacks to a gigabyte."""
    packer = zlib.compressobj(9)
    line = b"BT /F1 12 Tf 72 720 Td (boom) Tj ET\n" * 30_000
    packed = b"".join(packer.compress(line) for _ in range(1000)) + packer.flush()
    stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
    return made.pdf(["x"], objects={11: stream})


def _pdf_with_attachment() -> bytes:
    stream = b"<< /Type /EmbeddedFile /Length 6 >>\nstream\nhidden\nendstream"
    spec = b"<< /Type /Filespec /F (a.txt) /EF << /F 8 0 R >> >>"
    return made.pdf(
        ["shown"], catalog="/Names << /EmbeddedFiles << /Names [(a) 7 0 R] >> >>", objects={7: spec, 8: stream}
    )


def _pdf_loop_of_references() -> bytes:
    content = made.pdf(["looping"])
    start = content.rindex(b"startxref\n") + 10
    return content.replace(b"/Root", b"/Prev %s /Root" % content[start:].split(b"\n")[0])


def _doc_patched(at: int, value: bytes) -> bytes:
    content = bytearray(made.doc([b"a broken document\r"]))
    content[at : at + len(value)] = value
    return bytes(content)


_FAT, _MAIN = 512, 1536
_DEEP = 1_000_000

BAD_FILES = {
    # nothing there
    "empty": Bad("a.txt", lambda: b"", EMPTY),
    "white space only": Bad("a.md", lambda: b" \n\t\r\n" * 1000, EMPTY),
    "byte order mark only": Bad("a.txt", lambda: b"\xef\xbb\xbf", EMPTY),
    "PDF of scanned pages without text": Bad("a.pdf", lambda: made.pdf(["", ""]), EMPTY),
    "HTML of scripts only": Bad("a.html", lambda: b"<script>alert(1)</script><style>p {}</style>", EMPTY),
    # not what the name says
    "unknown extension": Bad("a.csv", lambda: b"a,b", UNSUPPORTED),
    "no extension": Bad("README", lambda: b"text", UNSUPPORTED),
    "hostile name": Bad("../../etc/pass\0wd\n.txt/.exe", lambda: b"text", UNSUPPORTED),
    "zip as .txt": Bad("a.txt", lambda: made.docx("x"), INVALID),
    "PDF as .md": Bad("a.md", lambda: made.pdf(["x"]), INVALID),
    "text as .pdf": Bad("a.pdf", lambda: b"just text", INVALID),
    "text as .docx": Bad("a.docx", lambda: b"just text", INVALID),
    "PDF as .docx": Bad("a.docx", lambda: made.pdf(["still readable"]), "still readable"),
    "Word 2007 as .doc": Bad("a.doc", lambda: made.docx("newer than it says"), "newer than it says"),
    "noise as .md": Bad("a.md", lambda: _noise(100_000), INVALID),
    "gzip as .json": Bad("a.json", lambda: gzip.compress(_noise(5000)), INVALID),
    "zeros as .py": Bad("a.py", lambda: bytes(5_000_000), INVALID),
    "spreadsheet as .docx": Bad(
        "a.docx",
        lambda: made.zipped({"_rels/.rels": made.relations(("officeDocument", "r", "xl/w.xml")), "xl/w.xml": "<w/>"}),
        INVALID,
    ),
    # text
    "lone surrogates in UTF-8": Bad("a.txt", lambda: b"one \xed\xa0\x80 two \xed\xbf\xbf", "one \ufffd"),
    "lone surrogates in UTF-16": Bad("a.txt", lambda: b"\xff\xfeo\0n\0e\0\x00\xd8 \0t\0w\0o\0", "two"),
    "UTF-16 that ends in the middle": Bad("a.txt", lambda: "\ufeffhalf".encode("utf-16-le")[:-1], "hal"),
    "UTF-16 without a mark": Bad("a.txt", lambda: "no mark at all".encode("utf-16-be"), "no mark at all"),
    "overlong UTF-8": Bad("a.txt", lambda: "größer ".encode() * 9 + b"\xc0\x80 end", "größer"),
    "some zero bytes": Bad("a.txt", lambda: b"text " * 100 + b"\0\0" + b"more", "text more"),
    "escape sequences": Bad("a.sh", lambda: b"echo \x1b]0;owned\x07 " + b"echo " * 20, "owned"),
    "a line of megabytes": Bad("a.js", lambda: b"x" * 5_000_000, "xxx"),
    "spaces without an end": Bad("a.txt", lambda: b" " * 20_000_000, TOO_LARGE),
    "JSON nested a million times": Bad("a.json", lambda: b"[" * _DEEP + b"]" * _DEEP, "[[["),
    # HTML
    "HTML nested a million times": Bad("a.html", lambda: b"<div>" * (_DEEP // 4) + b"deep", "deep"),
    "HTML of endless beginnings": Bad("a.html", lambda: b"seen <a " * 100_000, "seen", also=INVALID, slow=True),
    "HTML of comments that never end": Bad("a.html", lambda: b"seen <!--" * 100_000, "seen", also=INVALID, slow=True),
    "HTML of impossible characters": Bad("a.html", lambda: b"seen &#0;&#xD800;&#x110000;&#99999999999999;", "seen"),
    "HTML with a script that never ends": Bad("a.html", lambda: b"seen <script>" + b"x=1;" * 500_000, "seen"),
    "HTML in an encoding that is none": Bad("a.html", lambda: b"<meta charset=zlib_codec>caf\xe9", "caf"),
    # PDF
    "PDF of one line": Bad("a.pdf", lambda: b"%PDF-1.7\n", INVALID),
    "PDF cut in half": Bad("a.pdf", lambda: (lambda c: c[: len(c) // 2])(made.pdf(["one", "two", "three"])), INVALID),
    "PDF cut before its end": Bad("a.pdf", lambda: made.pdf(["one", "two"])[:-200], INVALID),
    "PDF that wants a password": Bad("a.pdf", _pdf_encrypted, INVALID),
    "PDF whose page tree contains itself": Bad(
        "a.pdf", lambda: made.pdf([], objects={2: b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"}), INVALID
    ),
    "PDF that claims a billion pages": Bad(
        "a.pdf", lambda: made.pdf(["x"], objects={2: b"<< /Type /Pages /Kids [10 0 R] /Count 1000000000 >>"}), "x"
    ),
    "PDF without pages": Bad("a.pdf", lambda: made.pdf([]), INVALID),
    "PDF with scripts": Bad(
        "a.pdf", lambda: made.pdf(["shown"], catalog="/OpenAction << /S /JavaScript /JS (while\\(1\\);) >>"), "shown"
    ),
    "PDF with an embedded file": Bad("a.pdf", _pdf_with_attachment, "shown"),
    "PDF whose page is noise": Bad("a.pdf", lambda: made.pdf(["a", "b"], objects={10: _noise(500)}), "b"),
    "PDF whose stream has the wrong length": Bad(
        "a.pdf", lambda: made.pdf(["still there"]).replace(b"/Length 4", b"/Length 9999994"), "still there"
    ),
    "PDF of nested arrays": Bad("a.pdf", lambda: made.pdf(["x"], objects={3: b"[" * _DEEP + b"]" * _DEEP}), "x"),
    "PDF that unpacks to a gigabyte": Bad("a.pdf", _pdf_bomb, INVALID, also=TOO_LARGE, slow=True),
    "PDF whose references go round": Bad("a.pdf", _pdf_loop_of_references, "looping"),
    # Word and PowerPoint since 2007
    "zip cut in half": Bad("a.docx", lambda: (lambda c: c[: len(c) // 2])(made.docx("text")), INVALID),
    "zip bomb of text": Bad("a.docx", lambda: _docx_bomb(b"boom" * 250_000, 300), TOO_LARGE),
    "zip bomb of empty elements": Bad(
        "a.docx", lambda: _docx_bomb(b"<w:x/>" * 100_000, 1000, False), INVALID, also=TOO_LARGE, slow=True
    ),
    "zip bomb of white space": Bad(
        "a.docx", lambda: _docx_bomb(b" " * 1_000_000, 1000, False), TOO_LARGE, also=INVALID, slow=True
    ),
    "billion laughs": Bad("a.docx", _billion_laughs, INVALID),
    "entity that reads a file": Bad(
        "a.docx", lambda: _docx_with_dtd('<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]>', "&f;"), INVALID
    ),
    "XML nested a million times": Bad(
        "a.docx", lambda: made.zipped(made.docx_parts("<w:x>" * _DEEP + "</w:x>" * _DEEP)), EMPTY
    ),
    "XML that is no XML": Bad("a.docx", lambda: made.zipped(made.docx_parts("<w:p><w:t>a</w:p>")), INVALID),
    "zip with names that climb": Bad("a.docx", lambda: _docx_plus("../../../tmp/owned", b"x"), "the real text"),
    "zip with a symbolic link": Bad(
        "a.docx", lambda: _docx_plus("word/x.xml", b"/etc/passwd", 0o120777), "the real text"
    ),
    "main part outside of the file": Bad("a.docx", lambda: _docx_whose_main_part_is("../../../etc/passwd"), INVALID),
    "main part on the network": Bad("a.docx", lambda: _docx_whose_main_part_is("http://x.test/", "External"), INVALID),
    "zip with a password": Bad("a.docx", _docx_locked, INVALID),
    "zip of twenty thousand entries": Bad("a.docx", _many_entries, "among thousands"),
    "slide that is shown a million times": Bad(
        "a.pptx", lambda: _slide_shown_often(_DEEP), TOO_LARGE, also=INVALID, slow=True
    ),
    "slide that is missing": Bad("a.pptx", _slide_that_is_missing, INVALID),
    # Word before 2007
    "compound file cut in half": Bad("a.doc", lambda: made.doc([b"text"])[:2500], INVALID),
    "compound file without a document": Bad("a.doc", lambda: made.compound({"Book": b"x"}), INVALID),
    "compound file whose chain goes round": Bad(
        "a.doc", lambda: _doc_patched(_FAT + 8, struct.pack("<8I", 3, 2, 3, 2, 3, 2, 3, 2)), ""
    ),
    "Word file that wants a password": Bad("a.doc", lambda: made.doc([b"x"], flags=0x0100), INVALID),
    "Word file whose pieces are elsewhere": Bad(
        "a.doc", lambda: _doc_patched(_MAIN + 0x1A2, struct.pack("<II", 0x7FFFFFF0, 0x7FFFFFFF)), INVALID
    ),
    "Word file of one piece thousands of times": Bad(
        "a.doc", lambda: made.doc([b"again and again " * 150], repeated=4000), TOO_LARGE
    ),
}
