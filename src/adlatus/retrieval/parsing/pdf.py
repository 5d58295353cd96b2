"""PDF by pdfium: text page by page. Scripts, forms and embedded files are never run nor opened."""

import codecs
import re
from typing import BinaryIO

from pypdfium2 import PdfDocument, PdfiumError

from adlatus.retrieval.parsing.sink import InvalidFileError, Sink

codecs.lookup("utf-16-le")  # of pdfium's answers; loaded now, impossible later
_DIVIDED_WORD = re.compile("[\x02\ufffe](?:\r\n)?")
"""How pdfium shows a hyphen at the end of a line."""


def extract(source: BinaryIO, sink: Sink) -> None:
    try:
        document = PdfDocument(source)
    except PdfiumError as error:  # broken, or wants a password
        raise InvalidFileError(str(error)) from None
    readable = 0
    for number in range(len(document)):
        sink.page()
        content = _page(document, number)
        if content is not None:
            readable += 1
            sink.write(_DIVIDED_WORD.sub("", content) + "\n")
    if not readable:
        raise InvalidFileError("no page can be read")


def _page(document: PdfDocument, number: int) -> str | None:
    """The text of one page, or None if it is broken: the others are still worth finding."""
    try:
        page = document[number]
    except PdfiumError:
        return None
    try:
        text = page.get_textpage()
        try:
            return str(text.get_text_bounded())
        finally:
            text.close()
    except PdfiumError:
        return None
    finally:
        page.close()
