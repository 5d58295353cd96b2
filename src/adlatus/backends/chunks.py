"""A streamed answer as model servers send it, read into chunks. Knows neither endpoints nor retries."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import aiohttp
import orjson

from adlatus.backends import faults
from adlatus.backends.alike import Alike
from adlatus.backends.refusals import ModelError
from adlatus.backends.upstreams import TRANSPORT_ERRORS, Answer
from adlatus.wire.common import Json

_GAVE_UP = {"abort", "error"}
"""Finish reasons of an answer that is not whole although its stream ends in good order: vLLM's, and OpenRouter's."""

Chunk = Json | list[str]
"""One `chat.completion.chunk`, as the upstream sent it, or the texts of several that add text and nothing else."""

READ_ON_S = 0.25
"""How long the end of a body is waited for after `[DONE]`. It is what lets the connection be used again."""

LONGEST_LINE_BYTES = 16 * 2**20
LONGEST_ANSWER_BYTES = 128 * 2**20
"""What is read of one answer, chunks with all that is around their few characters of text."""


class Reading:
    """An answer as it is read, and how far it has come.

    `over` when there is no more to read: at its mark of the end (`done`), at the end of its body, or at a fault in it.
    `gave_up` is the reason for which the server gave up an answer that ends in good order.
    """

    def __init__(self) -> None:
        self.over = self.done = self.begun = self.finished = False
        self.gave_up: str | None = None
        self.fault: ModelError | None = None
        self._lines = _Lines()
        self._alike = Alike()

    def feed(self, piece: bytes) -> list[Chunk]:
        """The chunks in a piece of the body, none of it being its end. Raises `ModelError` where it is too long."""
        self.over = not piece
        chunks: list[Chunk] = []
        if piece:
            lines = self._lines.add(piece)
            place = 0
            while place < len(lines) and not (self.done or self.fault):
                texts, place = self._alike.texts(lines, place)
                if texts:
                    chunks.append(texts)
                else:
                    end = lines.index(b"\n", place)
                    chunks += self._parsed(lines[place:end])
                    place = end + 1
        else:
            chunks += self._parsed(self._lines.end())
        if self.done or self.fault:
            self.over = True
            self.finished = self.finished or (self.done and self.begun)
        return chunks

    def _parsed(self, line: bytes) -> Iterator[Json]:
        """The chunk of a line, unless that is the end of the answer, a fault in it, or nothing."""
        payload = _payload(line)
        if not payload:
            return
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self.fault = ModelError("The model endpoint sent a line that is not JSON.", "server_error")
            return
        if not isinstance(chunk, dict):
            self.fault = ModelError("The model endpoint sent a chunk that is not an object.", "server_error")
        elif faults.is_fault(chunk):
            fault = faults.of(chunk)
            self.fault = ModelError(f"The model endpoint reported an error: {fault.said}", fault.code, fault.said)
        else:
            self.begun = self.begun or "choices" in chunk
            if reason := _finish_reason(chunk):
                self.finished = True
                self.gave_up = self.gave_up or (reason if reason in _GAVE_UP else None)
            self._alike.learn(line, payload, chunk)
            yield chunk


class _Lines:
    """A stream, cut into whole lines.

    A body that is one JSON object is one line: some gateways overlook that a stream was asked for.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # the beginning of a line
        self._rest_bytes = self._read_bytes = 0
        self._begun = self._whole = False

    def add(self, piece: bytes) -> bytes:
        """The lines that a piece of the body ends. Raises `ModelError` where one, or all, is too long for an answer."""
        self._rest_bytes += len(piece)
        self._read_bytes += len(piece)
        if self._rest_bytes > LONGEST_LINE_BYTES or self._read_bytes > LONGEST_ANSWER_BYTES:
            raise ModelError("The model endpoint sent more than an answer can be.", "server_error")
        if not self._begun:
            head = b"".join([*self._rest, piece]).lstrip()
            self._begun, self._whole = bool(head), head.startswith(b"{")
        end = 0 if self._whole else piece.rfind(b"\n") + 1
        if not end:
            self._rest.append(piece)
            return b""
        ended = piece if end == len(piece) else piece[:end]
        if self._rest:
            ended = b"".join([*self._rest, ended])
        self._rest, self._rest_bytes = ([], 0) if end == len(piece) else ([piece[end:]], len(piece) - end)
        return ended

    def end(self) -> bytes:
        """What is left when the body has ended, as one line."""
        left = b"".join(self._rest)
        return left.lstrip() if self._whole else left


def _payload(line: bytes) -> bytes:
    """What a line of a stream carries: nothing if it is a comment, a field of no interest or empty."""
    if line.startswith(b"data:"):
        return line[5:].strip()
    if line.startswith(b"{"):  # an error without its `data:`, which servers write that fail outside of their streaming
        return line.strip()
    if line.startswith(b"error:"):  # older builds of llama.cpp
        return b'{"error":' + line[6:].strip() + b"}"
    return b""


class Pieces:
    """The pieces of a body as they come, with one timer for all of them; only time that is spent waiting counts.

    Raises `aiohttp.SocketTimeoutError` after a silence of `timeout_s`.
    """

    def __init__(self, body: aiohttp.StreamReader, timeout_s: float) -> None:
        self._body = body
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waits_since: float | None = None
        self._timer = self._loop.call_later(timeout_s, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    async def next(self) -> bytes:
        """The next piece; empty at the end."""
        self._waits_since = self._loop.time()
        piece = await self._body.readany()
        self._waits_since = None
        return piece

    def _look(self) -> None:
        now = self._loop.time()
        silent_s = 0.0 if self._waits_since is None else now - self._waits_since
        if silent_s >= self._timeout_s:
            self._body.set_exception(aiohttp.SocketTimeoutError("nothing came for too long"))
        else:
            self._timer = self._loop.call_later(self._timeout_s - silent_s, self._look)


async def read_on(body: aiohttp.StreamReader) -> None:
    """Read to the end of the body, which comes at once unless the server has more to do."""
    with suppress(TimeoutError, *TRANSPORT_ERRORS):
        async with asyncio.timeout(READ_ON_S):
            while await body.readany():
                pass


def _finish_reason(chunk: Json) -> str | None:
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
