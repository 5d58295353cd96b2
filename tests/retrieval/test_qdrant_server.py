"""What a Qdrant server can do wrong: each is an error that says so, never an empty answer."""

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adlatus.backends.vectors.protocol import Search
from adlatus.backends.vectors.qdrant import QdrantIndex, open_qdrant
from adlatus.errors import Unavailable
from tests.conftest import Loop
from tests.retrieval.asking import SPACE, chunk

EVERY_METHOD: list[Callable[[QdrantIndex], Awaitable[object]]] = [
    lambda index: index.ping(),
    lambda index: index.ensure(SPACE),
    lambda index: index.upsert(SPACE, [chunk("vs_1")]),
    lambda index: index.delete("vs_1"),
    lambda index: index.set_attributes("vs_1", "file-a", {}),
    lambda index: index.count(SPACE, "vs_1"),
    lambda index: index.chunks(SPACE, "vs_1", "file-a", 0, 1),
    lambda index: index.languages(SPACE, ["vs_1"]),
    lambda index: index.search(SPACE, Search(["vs_1"], "text")),
]


@contextmanager
def _answering(status: int, body: bytes = b'{"status":{"error":"so it is"}}') -> Iterator[str]:
    """The URL of a server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _refusals(loop: Loop, url: str) -> set[str]:
    """What each method says, which is as many messages as there are methods that say different things."""

    async def refused() -> set[str]:
        said = set()
        async with open_qdrant(url, None) as index:
            for ask in EVERY_METHOD:
                with pytest.raises(Unavailable) as raised:
                    await ask(index)
                said.add(raised.value.message)
        return said

    return loop.run(refused())


def test_a_server_that_is_not_there_is_an_error_of_every_method(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert _refusals(loop, f"http://user:secret@127.0.0.1:{port}") == {
        f"The vector database at http://127.0.0.1:{port} could not be reached: check that it runs, and "
        "ADLATUS_QDRANT_URL."
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "refused this server's key (401): check ADLATUS_QDRANT_API_KEY."),
        (403, "refused this server's key (403): check ADLATUS_QDRANT_API_KEY."),
        (404, "has lost a collection: restore it, or add the files to their vector stores again."),
        (400, "refused a request (400); the log of this server has the details."),
        (429, "refused a request (429); the log of this server has the details."),
        (503, "refused a request (503); the log of this server has the details."),
    ],
)
def test_what_a_server_refuses_is_told(loop: Loop, status: int, expected: str) -> None:
    with _answering(status) as url:
        assert _refusals(loop, url) == {f"The vector database at {url} {expected}"}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}", b"[]", b'{"result": 5}', b"\xff"])
def test_what_is_no_qdrant_server_is_told(loop: Loop, body: bytes) -> None:
    with _answering(200, body) as url:
        for said in _refusals(loop, url):
            assert said.startswith(f"The vector database at {url} ")
            assert "ADLATUS_QDRANT_URL" in said
