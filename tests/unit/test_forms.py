"""Forms that are longer than they may be, without saying so."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import Request
from starlette.types import Message

from adlatus.api.downloads import attachment
from adlatus.api.forms import Form, read_form
from adlatus.errors import ContentTooLarge, InvalidRequest

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def read(pieces: list[bytes], max_bytes: int) -> tuple[Form, bytes]:
    """The form that comes in these pieces, and what was written of its file."""
    coming, written = iter(pieces), bytearray()

    async def receive() -> Message:
        piece = next(coming, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def write(pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            written.extend(piece)

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    return asyncio.run(read_form(request, "file", max_bytes, write)), bytes(written)


def test_a_file_of_the_greatest_size_is_read() -> None:
    form, written = read([HEAD, b"x" * 10, b"\r\n--b--\r\n"], 10)
    assert form.file
    assert (form.file.size_bytes, written) == (10, b"x" * 10)


def test_a_file_that_turns_out_to_be_too_large_is_refused() -> None:
    with pytest.raises(ContentTooLarge, match=r"Maximum content size limit \(10\) exceeded \(11 bytes read\)"):
        read([HEAD, b"x" * 11, b"\r\n--b--\r\n"], 10)


def test_a_form_that_goes_on_after_its_end_is_refused() -> None:
    with pytest.raises(ContentTooLarge):
        read([HEAD, b"x\r\n--b--\r\n", *[b"y" * 2**16] * 100], 10)


def test_fields_are_counted_in_bytes() -> None:
    field = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    fits, too_much = ([field.format(name, "\u4f60" * count).encode() for name in "pq"] for count in (10_000, 11_000))
    assert len(read([*fits, b"--b--\r\n"], 10)[0].fields) == 2
    with pytest.raises(InvalidRequest, match="the fields are longer than"):
        read([*too_much, b"--b--\r\n"], 10)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_form_may_come_in_pieces_of_any_size(size: int) -> None:
    whole = HEAD + b"Hello\r\n--\r\n-" + b"\r\n--b--\r\n"
    _, written = read([whole[at : at + size] for at in range(0, len(whole), size)], 100)
    assert written == b"Hello\r\n--\r\n-"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.txt", 'attachment; filename="a.txt"'),
        ("你.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%E4%BD%A0.txt"),
        ('a"\r\n\\', "attachment; filename=\"a____\"; filename*=UTF-8''a%22%0D%0A%5C"),
    ],
)
def test_the_name_of_an_attachment_is_encoded(name: str, told: str) -> None:
    assert attachment(name) == told
