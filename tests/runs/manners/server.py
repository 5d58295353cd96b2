"""A server of given bytes over real HTTP: the path picks the manner, the model's name the scenario."""

import json
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from tests.runs.manners import Answer, Manner, body

Json = dict[str, Any]
_UNKNOWN = body(b"the test asks for something that no manner has", 599, {"content-type": "text/plain"})


class MannersServer:
    """Keeps connections and counts them, by manner; keeps the requests for each model."""

    def __init__(self, manners: tuple[Manner, ...]) -> None:
        self.connections: defaultdict[str, set[int]] = defaultdict(set)
        self.requests: defaultdict[tuple[str, str], list[Json]] = defaultdict(list)
        self.headers: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self._manners = {manner.name: manner for manner in manners}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def base_url(self, manner: Manner) -> str:
        """Where this manner is served."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/{manner.name}{manner.path}"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for connection in [self._listener, *self._open]:
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(30)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as received, suppress(OSError, ValueError):
            while request_line := received.readline():
                method, path, _ = request_line.decode().split()
                headers = {}
                while (line := received.readline().decode().strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                content = received.read(int(headers.get("content-length", "0")))
                _, name, *rest = path.split("/")
                self.connections[name].add(id(connection))
                self.headers[name].append(headers)
                _write(connection, self._answer(name, method, rest, content))

    def _answer(self, name: str, method: str, rest: list[str], content: bytes) -> Answer:
        manner = self._manners[name]
        match method, rest[-2:]:
            case "GET", [_, "models"]:
                return manner.models
            case "POST", ["chat", "completions" | "completions?api-version=2024-10-21"]:
                request = json.loads(content)
                # a deployment of Azure's is in the path, and its model's name in the request is of no interest
                model = rest[rest.index("deployments") + 1] if "deployments" in rest else request["model"]
                asked = self.requests[name, model]
                asked.append(request)
                for scenario in manner.scenarios:
                    if scenario.name == model:
                        return scenario.answers[min(len(asked), len(scenario.answers)) - 1]
        return _UNKNOWN


def _write(connection: socket.socket, answer: Answer) -> None:
    head = dict(answer.headers)
    if answer.chunked:
        head["transfer-encoding"] = "chunked"
    elif answer.status != HTTPStatus.NO_CONTENT:
        head["content-length"] = str(sum(map(len, answer.pieces)))
    lines = [f"HTTP/1.1 {answer.status} Whatever", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode())
    for piece in answer.pieces:
        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
    if answer.chunked and answer.ends_after_s is not None:
        time.sleep(answer.ends_after_s)
        connection.sendall(b"0\r\n\r\n")  # in a write of its own, as servers do


@contextmanager
def serving_manners(*manners: Manner) -> Iterator[MannersServer]:
    """A `MannersServer` until the block is left."""
    server = MannersServer(manners)
    try:
        yield server
    finally:
        server.close()
