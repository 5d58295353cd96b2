"""An embedding endpoint that fails, refuses or lets wait, as a test says. Real HTTP."""

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.retrieval.service import Answer, answering

MODEL = "tests-embedding"
DIMENSIONS = 8
RELEASED_AT_LATEST_S = 60


@dataclass
class Embeddings:
    """The endpoint as tests see it.

    `fail_every`: each so-manieth request is answered with 500. `refusal`: the status that all are answered with.
    """

    base_url: str = ""
    fail_every: int = 0
    refusal: int = 0
    asked: int = 0
    texts: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _let_through: int | None = None
    _open: threading.Event = field(default_factory=threading.Event)

    @property
    def settings(self) -> dict[str, Any]:
        """What a server is told to use it."""
        return {"embedding_base_url": self.base_url, "embedding_model": MODEL}

    def hold_after(self, requests: int) -> None:
        """Let so many more requests through; all others wait until `release`."""
        with self._lock:
            self._open.clear()
            self._let_through = requests

    def release(self) -> None:
        """Let everything through again."""
        with self._lock:
            self._let_through = None
            self._open.set()

    def answer(self, texts: list[str]) -> tuple[int, object]:
        """The status and the body of an answer, when it may be given."""
        with self._lock:
            self.asked += 1
            number = self.asked
            self.texts += texts
            held = self._let_through == 0
            if self._let_through:
                self._let_through -= 1
        if held:
            self._open.wait(RELEASED_AT_LATEST_S)
        if self.refusal:
            return self.refusal, {"error": {"message": "You have no business here."}}
        if self.fail_every and number % self.fail_every == 0:
            return 500, {"error": {"message": "It fails every now and then."}}
        return 200, {"data": [{"index": n, "embedding": vector(text)} for n, text in enumerate(texts)]}


def vector(text: str) -> list[float]:
    """In any direction, the same for texts with the same first word."""
    source = random.Random(text.split()[0])
    return [source.gauss(0, 1) for _ in range(DIMENSIONS)]


@contextmanager
def embedding_server() -> Iterator[Embeddings]:
    """Run one until the block is left."""
    embeddings = Embeddings()

    def respond(request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        if request.command == "GET":  # it has no list of models
            return 404, b"{}"
        status, answer = embeddings.answer(json.loads(body)["input"])
        return status, json.dumps(answer).encode()

    with answering(respond) as url:
        embeddings.base_url = f"{url}/v1"
        try:
            yield embeddings
        finally:
            embeddings.release()
