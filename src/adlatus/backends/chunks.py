"""A streamed answer as model servers send it, read into chunks. Knows neither endpoints nor retries."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import aiohttp
import orjson

from adlatus.backends import faults
from adlatus.backends.refusals import ModelError
from adlatus.backends.upstreams import TRANSPORT_ERRORS, Answer
from adlatus.wire.common import Json

Chunk = Json
"""One `chat.completion.chunk`, as the upstream sent it."""

READ_ON_S = 0.25
"""How long the end of a body is waited for after `[DONE]`. It is what lets the connection be used again."""

LONGEST_LINE_BYTES = 16 * 2**20
LONGEST_ANSWER_BYTES = 128 * 2**20
"""What is read of one answer, chunks with all that is around their few characters of text."""


async def payloads(body: aiohttp.StreamReader) -> AsyncGenerator[list[bytes]]:
    """The payloads of a stream's lines, in the batches in which the network delivers them.

    A body that is one JSON object is one payload: some gateways overlook that a stream was asked for. Raises
    `ModelError` where a line, or all of it, is too long to be an answer.
    """
    rest: list[bytes] = []  # the beginning of a line
    rest_bytes, read_bytes, begun, whole = 0, 0, False, False
    while piece := await body.readany():
        rest_bytes += len(piece)
        read_bytes += len(piece)
        if rest_bytes > LONGEST_LINE_BYTES or read_bytes > LONGEST_ANSWER_BYTES:
            raise ModelError("The model endpoint sent more than an answer can be.", "server_error")
        rest.append(piece)
        if not begun:
            head = b"".join(rest).lstrip()
            begun, whole = bool(head), head.startswith(b"{")
        if whole or b"\n" not in piece:
            continue
        *lines, last = (b"".join(rest) if len(rest) > 1 else piece).split(b"\n")
        rest = [last] if last else []
        rest_bytes = len(last)
        if data := [payload for line in lines if line and (payload := _payload(line))]:
            yield data
    left = b"".join(rest)
    if payload := left if whole else _payload(left):
        yield [payload]


def _payload(line: bytes) -> bytes:
    """What a line of a stream carries: nothing if it is a comment, a field of no interest or empty."""
    if line.startswith(b"data:"):
        return line[5:].strip()
    if line.startswith(b"{"):  # an error without its `data:`, which servers write that fail outside of their streaming
        return line.strip()
    if line.startswith(b"error:"):  # older builds of llama.cpp
        return b'{"error":' + line[6:].strip() + b"}"
    return b""


async def read_on(batches: AsyncGenerator[list[bytes]]) -> None:
    """Read to the end of the body, which comes at once unless the server has more to do."""
    with suppress(TimeoutError, ModelError, *TRANSPORT_ERRORS):
        async with asyncio.timeout(READ_ON_S):
            async for _ in batches:
                pass


def parse(lines: list[bytes]) -> tuple[list[Chunk], bool, ModelError | None]:
    """The chunks up to the end of the answer or the first fault in it, whether it has ended, and the fault."""
    chunks: list[Chunk] = []
    for line in lines:
        if line == b"[DONE]":
            return chunks, True, None
        try:
            chunk = orjson.loads(line)
        except orjson.JSONDecodeError:
            return chunks, False, ModelError("The model endpoint sent a line that is not JSON.", "server_error")
        if not isinstance(chunk, dict):
            return chunks, False, ModelError("The model endpoint sent a chunk that is not an object.", "server_error")
        if faults.is_fault(chunk):
            fault = faults.of(chunk)
            return chunks, False, ModelError(f"The model endpoint reported an error: {fault.said}", fault.code)
        chunks.append(chunk)
    return chunks, False, None


def finish_reason(chunk: Chunk) -> str | None:
    """Why the answer ends, in the chunk that says so."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (reason := choice.get("finish_reason")) and isinstance(reason, str):
            return reason
    return None


def is_stream(response: Answer) -> bool:
    """Whether an answer is at least said to be a stream."""
    kind: str = response.headers.get("content-type", "text/event-stream")
    return kind.startswith("text/event-stream")
