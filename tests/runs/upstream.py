"""A model endpoint of raw bytes, for what the rehearsal model does not do: exact chunks, and when a client hangs up."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import orjson

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def chunk(
    content: str | None = None, finish_reason: str | None = None, *, delta: object = None, **rest: object
) -> bytes:
    """One chat.completion.chunk as an event; `delta` is for what is more than content."""
    delta = delta or ({"content": content} if content else {})
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": [choice], **rest}) + b"\n\n"


class Upstream:
    """Answers every request with the same bytes, and keeps what it `received`.

    With `hold` it then keeps the connection until the client goes.
    """

    def __init__(self, *pieces: bytes, hold: bool = False) -> None:
        self.hung_up_at: float | None = None
        self.requests = 0
        self.received: list[tuple[bytes, bytes]] = []
        self._pieces = pieces
        self._hold = hold
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(30)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.received.append(_read_request(connection))
            self.requests += 1
            for piece in self._pieces:
                connection.sendall(piece)
            if self._hold:
                while connection.recv(65536):
                    pass
                self.hung_up_at = time.monotonic()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def _read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head and the body of a request."""
    head, _, body = b"", b"", b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    head, _, body = head.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head, body


@contextmanager
def upstream(*pieces: bytes, hold: bool = False) -> Iterator[Upstream]:
    """An `Upstream` until the block is left."""
    model = Upstream(*pieces, hold=hold)
    try:
        yield model
    finally:
        model.close()
