"""Model servers of tests, over real HTTP, that behave as badly as a test wants."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from adlatus.backends.routing import Endpoint

SET_BY = {"base_url": "SETTING_URL", "api_key": "SETTING_KEY", "model": "SETTING_MODEL"}


class Service:
    """A model server of a test. `answer` gets the number of the request, from 1, and its body.

    It gives the status and the body to answer with; status 0 hangs up without an answer.
    """

    def __init__(self, answer: Callable[[int, dict[str, Any]], tuple[int, Any]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_a_time = 0
        self._answer = answer
        self._under_way = 0
        self._lock = threading.Lock()

    def handle(self, body: dict[str, Any]) -> tuple[int, bytes]:
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
            self._under_way += 1
            self.most_at_a_time = max(self.most_at_a_time, self._under_way)
        status, content = self._answer(number, body)
        with self._lock:
            self._under_way -= 1
        return status, content if isinstance(content, bytes) else json.dumps(content).encode()


Answer = tuple[int, bytes]
"""Status and body; status 0 hangs up without an answer."""


@contextmanager
def answering(respond: Callable[[BaseHTTPRequestHandler, bytes], Answer]) -> Iterator[str]:
    """An HTTP server on a free port that answers what `respond` says to a request and its body; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, content = respond(self, self.rfile.read(int(self.headers.get("content-length", 0))))
            if status == 0:
                self.close_connection = True
                return
            with suppress(ConnectionError):  # who asked may have been killed
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


@contextmanager
def running(
    answer: Callable[[int, dict[str, Any]], tuple[int, Any]], path: str = "/v1/embeddings"
) -> Iterator[tuple[Service, Endpoint]]:
    """A `Service` that answers at one path, and the endpoint that it is, without the last part of the path."""
    service = Service(answer)

    def respond(request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        assert (request.command, request.path) == ("POST", path)
        service.headers.append(dict(request.headers))
        return service.handle(json.loads(body))

    with answering(respond) as url:
        yield service, Endpoint("theirs", url + path.rpartition("/")[0], set_by=SET_BY)
