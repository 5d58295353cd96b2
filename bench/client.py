"""A lean HTTP/1.1 client: one keep-alive connection, one request at a time, bodies as the network delivers them.

It serves the load, which must not be what is measured, and the relay floor, which must not be slower than it can be.
"""

import asyncio
from typing import Final

import httptools

OK: Final = 200


class Connection(asyncio.Protocol):
    """A connection: `send` a request, then `read` its answer until that gives nothing more."""

    def __init__(self) -> None:
        self.status = 0
        self._pieces: list[bytes] = []
        self._complete = True
        self._lost: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    @property
    def idle(self) -> bool:
        """Whether it can take a request: the last answer is whole, and the server has not closed it since."""
        return self._complete and not self._pieces and self._lost is None

    def send(self, request: bytes) -> None:
        """Send a request. The answer before it has to be read to its end."""
        assert self.idle
        assert self._transport
        self.status, self._complete = 0, False
        self._transport.write(request)

    async def read(self) -> bytes:
        """What has arrived of the body since the last read; nothing at its end. Raises `ConnectionError`."""
        while not self._pieces:
            if self._lost:
                raise self._lost
            if self._complete:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def whole(self, request: bytes) -> bytes:
        """The whole body of the answer to a request. Raises `ConnectionError` unless its status is 200."""
        self.send(request)
        body = b""
        while piece := await self.read():
            body += piece
        if self.status != OK:
            raise ConnectionError(f"status {self.status}: {body[:300].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._transport.close()

    # What the transport and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = ConnectionError(f"the server closed the connection: {exc}")
        self._wake()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._complete = True

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done() and (self._pieces or self._complete or self._lost):
            self._waiter.set_result(None)


async def connect(port: int) -> Connection:
    """A connection to a server on this machine."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


def request(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of a request, with the headers that the Assistants API wants."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nopenai-beta: assistants=v2\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body
