"""Clients that are slow, endless or shameless: their connection ends, and others are served meanwhile."""

import json
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import psutil
import pytest

from adlatus.api.connections import Limits, limits_for
from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import converse, eventually

LIMITS = Limits(connections=12, head_s=1, body_s=2, linger_s=0.5, linger_bytes=2**20, unread_s=1)
KEY = b"Authorization: Bearer key\r\nOpenAI-Beta: assistants=v2\r\nHost: x\r\n"
JSON_POST = b"POST /v1/threads HTTP/1.1\r\n" + KEY + b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def impatient(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server whose limits are reached within a second or two."""
    with serving(loop, Settings(database_url=new_database(), api_keys="key"), limits=LIMITS) as server:
        yield server


@pytest.fixture
def client(impatient: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer key", "OpenAI-Beta": "assistants=v2"}
    with httpx.Client(base_url=impatient.base_url, headers=headers, timeout=30) as client:
        yield client


@contextmanager
def connected(server: Server, sent: bytes = b"") -> Iterator[socket.socket]:
    at = httpx.URL(server.url)
    with socket.create_connection((at.host, at.port), timeout=30) as connection:
        connection.sendall(sent)
        yield connection


def answers(connection: socket.socket, until: bytes | None = None) -> bytes:
    """What comes until the server ends the connection, or until something has come."""
    received = b""
    with suppress(ConnectionError):
        while (until is None or until not in received) and (piece := connection.recv(65536)):
            received += piece
    return received


def refusal(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, content = answer.partition(b"\r\n\r\n")
    error = json.loads(content)["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert b"x-request-id: req_" in head
    assert b"connection: close" in head
    return int(head.split(b" ")[1]), error


# --- What is too large


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (b"GET /v1/models HTTP/1.1\r\nX: " + b"a" * 2**20, 431, "bytes of URL and headers"),
        (b"GET /v1/models HTTP/1.1\r\nX: " + b"a" * 66_000 + b"\r\n\r\n", 431, "bytes of URL and headers"),
        (b"GET /v1/models HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431, "more than 200 headers"),
        (b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n\r\n", 414, "URL is longer"),
        (b"GET /v1/models?" + b"a=b&" * 10_000 + b" HTTP/1.1\r\n\r\n", 414, "URL is longer"),
        (JSON_POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 300, 431, "headers"),
        (JSON_POST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 2**20, 431, "bytes of URL and headers"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "does not follow HTTP/1.1"),
        (b"GET /v1/\xff HTTP/1.1\r\n\r\n", 400, "does not follow HTTP/1.1"),
        (b"CONNECT evil:443 HTTP/1.1\r\n\r\n", 400, "does not follow HTTP/1.1"),
        (JSON_POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "does not follow HTTP/1.1"),
        (JSON_POST + b"Content-Length: -2\r\n\r\n{}", 400, "does not follow HTTP/1.1"),
        (
            JSON_POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            400,
            "does not follow HTTP/1.1",
        ),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, bytes) else None,
)
def test_what_no_client_sends_is_refused_and_the_connection_ends(
    impatient: Server, client: httpx.Client, request_bytes: bytes, status: int, words: str
) -> None:
    with connected(impatient) as connection:
        with suppress(ConnectionError):
            connection.sendall(request_bytes)
        answer = answers(connection)
    code, error = refusal(answer)
    assert (code, error["type"]) == (status, "invalid_request_error")
    assert words in error["message"]
    assert client.get("models").status_code == 200


def test_heads_of_the_greatest_size_are_read(client: httpx.Client) -> None:
    headers = [(f"x-{number}", "a" * 300) for number in range(150)]
    assert client.get("models", params={"a": "b" * 10_000}, headers=headers).status_code == 200


def test_bodies_of_any_size_follow_one_another_on_a_connection(impatient: Server) -> None:
    head = JSON_POST + b"Content-Length: %d\r\n\r\n"
    bodies = [b" " * size + b"{}" for size in (900_000, 300_000, 0, 200_000, 10)]
    with connected(impatient) as connection:
        for body in bodies:
            connection.sendall(head % len(body) + body)
            assert answers(connection, until=b"}").startswith(b"HTTP/1.1 200")


def test_headers_that_are_no_utf_8_are_read_as_bytes(impatient: Server) -> None:
    for value in (b"Bearer \xff\xfe", b"\xed\xa0\x80", b"Basic \x80"):
        with connected(impatient, b"GET /v1/models HTTP/1.0\r\nAuthorization: " + value + b"\r\n\r\n") as connection:
            assert answers(connection).startswith(b"HTTP/1.1 401 ")


def test_a_head_without_end_costs_no_memory(impatient: Server) -> None:
    before = psutil.Process().memory_info().rss
    with ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(connected(impatient, b"GET / HTTP/1.1\r\nX: "))
            with suppress(ConnectionError):
                for _ in range(8):
                    connection.sendall(b"a" * 2**20)
        assert psutil.Process().memory_info().rss - before < 16 * 2**20


def test_pipelined_requests_are_answered_in_order_if_they_are_few(impatient: Server) -> None:
    with connected(impatient, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5) as connection:
        received = b""
        while received.count(b"HTTP/1.1 200") < 5:
            received += connection.recv(65536)


def test_pipelined_requests_that_are_many_end_the_connection(impatient: Server, client: httpx.Client) -> None:
    with connected(impatient, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2000) as connection:
        assert answers(connection).count(b"HTTP/1.1 200") <= LIMITS.pipelined
    assert client.get("models").status_code == 200


# --- Who is too slow


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(impatient: Server) -> None:
    with connected(impatient, b"GET /v1/models HTTP/1.1\r\n") as connection:
        connection.settimeout(0.05)
        answer = b""
        for _ in range(200):
            try:
                connection.sendall(b"a")
                answer += connection.recv(4096)
            except TimeoutError:
                continue
            break
    code, error = refusal(answer)
    assert code == 400
    assert "head of the request did not come" in error["message"]


def test_connections_that_ask_for_nothing_end(impatient: Server) -> None:
    with connected(impatient) as connection:
        assert answers(connection) == b""
    with connected(impatient, b"\r\n") as connection:
        assert refusal(answers(connection))[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        JSON_POST + b"Content-Length: 100\r\n\r\n{",
        JSON_POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"POST /v1/files HTTP/1.1\r\n" + KEY + b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 10000\r\n\r\n--b\r\n",
    ],
    ids=["length", "chunks", "form"],
)
def test_a_body_that_does_not_come_is_not_waited_for(impatient: Server, head: bytes) -> None:
    with connected(impatient, head) as connection:
        code, error = refusal(answers(connection))
    assert code == 400
    assert "bytes of the body came" in error["message"]


@pytest.mark.slow
def test_an_upload_over_a_slow_but_steady_line_is_taken(impatient: Server) -> None:
    """It takes several times as long as the limit for silence."""
    piece = b"x" * 2048
    content = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + piece * 20 + b"\r\n--b--\r\n"
    )
    head = b"POST /v1/files HTTP/1.1\r\n" + KEY + b"Content-Type: multipart/form-data; boundary=b\r\n"
    with connected(impatient, head + b"Content-Length: %d\r\n\r\n" % len(content)) as connection:
        connection.settimeout(0.2)
        for at in range(0, len(content), len(piece)):
            connection.sendall(content[at : at + len(piece)])
            if at + len(piece) < len(content):
                with pytest.raises(TimeoutError):  # nothing comes back: this is the line's pace
                    connection.recv(1)
        connection.settimeout(30)
        answer = answers(connection, until=b'"bytes":40960')
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_a_stream_is_not_cut_for_being_long(client: httpx.Client) -> None:
    talk = converse(client, "[[tokens: 40]] [[pace: 0.1]]")
    with talk.streaming() as stream:
        names = [event.name for event in stream]
    assert names[-1] == "done"


def test_who_takes_nothing_of_an_answer_is_left(impatient: Server, client: httpx.Client) -> None:
    talk = converse(client, "[[tokens: 30000]]")
    run_id = talk.start()["id"]
    talk.ended(run_id)
    at = httpx.URL(impatient.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect((at.host, at.port))
        connection.sendall(f"GET /v1{talk.path}/runs/{run_id}/events HTTP/1.1\r\n".encode() + KEY + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        own = connection.getsockname()[1]
        eventually(lambda: own not in _clients_of(at.port))


def _clients_of(port: int | None) -> set[int]:
    """Ports of the clients whose connections the server has."""
    return {
        each.raddr.port
        for each in psutil.Process().net_connections("tcp4")
        if each.laddr.port == port and each.raddr and each.status == "ESTABLISHED"
    }


# --- Who is nobody


def test_nobody_is_told_so_before_a_body_is_read(impatient: Server, client: httpx.Client) -> None:
    paths = httpx.get(f"{impatient.url}/openapi.json").json()["paths"]
    posts = [path for path, methods in paths.items() if "post" in methods]
    assert len(posts) > 25
    for path in posts:
        for content_type in (b"application/json", b"multipart/form-data; boundary=b"):
            head = b"POST %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" % path.encode()
            head += b"OpenAI-Beta: assistants=v2\r\nContent-Type: " + content_type
            with connected(impatient, head + b"\r\nContent-Length: 33554432\r\n\r\n") as connection:
                assert connection.recv(12) == b"HTTP/1.1 401", path


def test_a_body_that_comes_after_its_answer_is_not_read_to_its_end(impatient: Server) -> None:
    head = b"POST /v1/threads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 33554432\r\n\r\n"
    with connected(impatient, head) as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"
        with pytest.raises(ConnectionError):
            connection.sendall(b" " * 2**24)
    with connected(impatient, head) as connection:
        assert answers(connection).startswith(b"HTTP/1.1 401")  # and then it ends, though nothing comes


def test_connections_of_nobody_give_way_to_those_that_ask(impatient: Server, client: httpx.Client) -> None:
    with ExitStack() as stack:
        talk = converse(client, "[[tokens: 10]] [[pace: 0.1]]")
        with talk.streaming() as stream:
            next(stream)
            for _ in range(3 * LIMITS.connections):
                stack.enter_context(connected(impatient))
            with httpx.Client(base_url=impatient.base_url, headers=client.headers) as other:
                assert other.get("models").status_code == 200
            assert [event.name for event in stream][-1] == "done"


def test_a_server_whose_connections_all_ask_refuses_more(impatient: Server, client: httpx.Client) -> None:
    client.get("models")
    with ExitStack() as stack:
        for _ in range(LIMITS.connections):
            head = JSON_POST + b"Content-Length: 9000\r\nExpect: 100-continue\r\n\r\n"
            assert stack.enter_context(connected(impatient, head)).recv(12) == b"HTTP/1.1 100"
        code, error = refusal(answers(stack.enter_context(connected(impatient, b"GET /healthz HTTP/1.1\r\n\r\n"))))
    assert (code, error["type"]) == (503, "server_error")


def test_there_are_no_more_connections_than_files_may_be_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert limits_for(10**9 if hard < 10**9 else 10).connections < max(hard, 11)
        assert limits_for(100).connections == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_leaves_amid_a_body_is_no_fault_of_the_server(impatient: Server) -> None:
    def counted(status: int) -> float:
        labels = {"method": "POST", "route": "/v1/threads", "status": str(status)}
        return float(impatient.resources.metrics.requests.labels(**labels)._value.get())

    before = counted(400)
    with connected(impatient, JSON_POST + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 100"
        connection.sendall(b"{")
    eventually(lambda: counted(400) == before + 1)
    assert counted(500) == 0
