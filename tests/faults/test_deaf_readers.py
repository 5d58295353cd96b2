"""Clients that open streams and never read them, as the memory of the server sees them."""

import socket
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.faults.processes import Process, data_folder, serve
from tests.runs.transcripts import converse

pytestmark = pytest.mark.slow

TOKENS = 50_000
"""Some 8 MB of events."""
READERS = 15


def deaf(server: Process, path: str) -> socket.socket:
    """A stream of which nothing is read but that it has begun."""
    at = httpx.URL(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect((at.host, at.port))
    head = f"GET /v1{path} HTTP/1.1\r\nhost: {at.host}\r\nopenai-beta: assistants=v2\r\n\r\n"
    connection.sendall(head.encode())
    received = b""
    while b"thread.run.created" not in received:
        received += connection.recv(1024)
    return connection


def test_readers_that_do_not_read_cost_little_memory_and_the_run_goes_on() -> None:
    with data_folder() as folder, serve(folder, model_timeout_s="60") as server, server.client() as http:
        memory = psutil.Process(server.pid).memory_info
        talk = converse(http, f"[[tokens: {TOKENS}]] [[stall: {TOKENS}]]")
        with talk.streaming() as stream:
            run_id = next(stream).payload["id"]
            next(event for event in stream if f"word{TOKENS - 1}" in str(event.payload))
            before = memory().rss
            with ExitStack() as stack:
                for _ in range(READERS):
                    stack.enter_context(deaf(server, f"{talk.path}/runs/{run_id}/events"))
                grown = memory().rss - before
                assert grown < READERS * 6 * 2**20
                talk.cancel(run_id)
                assert talk.ended(run_id)["status"] == "cancelled"
        assert server.stop() == 0
