"""Model servers of tests, over real HTTP, that behave as badly as a test wants."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def running(
    answer: Callable[[int, dict[str, Any]], tuple[int, Any]], path: str = "/v1/embeddings"
) -> Iterator[tuple[Service, Endpoint]]:
    """A `Service` that answers at one path, and the endpoint that it is, without the last part of the path."""
    service = Service(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == path
            service.headers.append(dict(self.headers))
            status, content = service.handle(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield (
            service,
            Endpoint("theirs", f"http://127.0.0.1:{server.server_port}{path.rpartition('/')[0]}", set_by=SET_BY),
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
