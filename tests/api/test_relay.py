"""The other APIs behind the same base_url: requests are handed on, and nothing of theirs is changed but the model."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI
from structlog.testing import capture_logs

from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.upstream import HEAD, Upstream, upstream

DEADLINE_S = 60
PATHS = ("chat/completions", "completions", "embeddings", "moderations", "responses")
BODY = b'{ "model" : "gpt-4o",  "n": 1.50, "seed": 123456789012345678901234567890, "input": ["\\u00e9 model"] }'
ANSWER = b'{ "odd":  [1.0, 1e2],\n "model": "qwen3:32b" }'
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-ratelimit-remaining-requests: 7\r\nset-cookie: a=b\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(ANSWER), ANSWER)
)


@contextmanager
def routed(loop: Loop, database_url: str, folder: Path, base_url: str, **entry: str) -> Iterator[httpx.Client]:
    """A client of a server whose table has `gpt-4o` only, at this endpoint."""
    lines = [
        f'[endpoints.other]\nbase_url = "{base_url}"\napi_key = "sk-upstream"\n',
        '[models."gpt-4o"]\nendpoint = "other"\nmodel = "qwen3:32b"\nparameters = { temperature = 0.5 }\n',
        *(f'{name} = "{value}"\n' for name, value in entry.items()),
    ]
    (folder / "models.toml").write_text("".join(lines), "utf-8")
    settings = Settings(database_url=database_url, models_file=folder / "models.toml", api_keys="sk-client")
    headers = {"authorization": "Bearer sk-client", "content-type": "application/json"}
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url, headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def module_database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def behind(
    loop: Loop, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Upstream, httpx.Client]]:
    """An upstream that answers the same to everything, and a client of the server before it."""
    with (
        upstream(WHOLE) as other,
        routed(loop, module_database_url, tmp_path_factory.mktemp("table"), other.base_url) as client,
    ):
        yield other, client


def shown(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


@pytest.mark.parametrize("path", PATHS)
def test_a_request_arrives_with_another_model_and_nothing_else_changed(
    behind: tuple[Upstream, httpx.Client], path: str
) -> None:
    other, client = behind
    response = client.post(path, content=BODY)
    head, body = other.received[-1]
    assert body == BODY.replace(b"gpt-4o", b"qwen3:32b")
    assert head.startswith(f"POST /v1/{path} HTTP/1.1\r\n".encode())
    assert (response.status_code, response.content) == (200, ANSWER)


def test_the_keys_of_both_sides_stay_on_their_side(behind: tuple[Upstream, httpx.Client]) -> None:
    other, client = behind
    headers = {
        "cookie": "session=1",
        "openai-organization": "org-client",
        "x-forwarded-for": "10.0.0.1",
        "openai-beta": "responses=v1",
        "idempotency-key": "k-1",
    }
    response = client.post("embeddings", content=BODY, headers=headers)
    head = other.received[-1][0].lower()
    assert b"authorization: bearer sk-upstream\r\n" in head
    assert b"openai-beta: responses=v1\r\n" in head
    assert b"idempotency-key: k-1" in head
    for kept in (b"sk-client", b"cookie", b"org-client", b"10.0.0.1"):
        assert kept not in head
    assert "set-cookie" not in response.headers
    assert response.headers["x-ratelimit-remaining-requests"] == "7"
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-project"] == "default"


def test_a_moderation_without_a_model_is_of_the_originals_default(behind: tuple[Upstream, httpx.Client]) -> None:
    other, client = behind
    before = other.requests
    error = shown(client.post("moderations", json={"input": "x"}), 404)
    assert error["message"].startswith("The model `omni-moderation-latest` does not exist")
    assert other.requests == before


def test_a_model_that_is_not_routed_is_a_404(behind: tuple[Upstream, httpx.Client]) -> None:
    other, client = behind
    before = other.requests
    for path in PATHS:
        assert shown(client.post(path, json={"model": "gpt-5", "input": "x"}), 404) == {
            "message": "The model `gpt-5` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    assert other.requests == before


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": 4}, {"model": ""}, {"model": ["gpt-4o"]}])
def test_a_request_without_a_model_is_refused(behind: tuple[Upstream, httpx.Client], model: dict[str, Any]) -> None:
    error = shown(behind[1].post("chat/completions", json={"messages": [], **model}), 400)
    assert error["message"] == "you must provide a model parameter"


def test_what_is_no_json_object_is_refused(behind: tuple[Upstream, httpx.Client]) -> None:
    _, client = behind
    assert shown(client.post("chat/completions", content=b'{"model"'), 400)["message"].startswith("We could not parse")
    assert shown(client.post("chat/completions", content=b"[]"), 400)["code"] == "invalid_type"
    deep = b'{"model":"gpt-4o","x":' + b"[" * 500 + b"]" * 500 + b"}"
    assert "nested deeper" in shown(client.post("chat/completions", content=deep), 400)["message"]
    text = client.post("chat/completions", content=BODY, headers={"content-type": "text/plain"})
    assert "Content-Type" in shown(text, 400)["message"]


def test_strangers_are_turned_away(behind: tuple[Upstream, httpx.Client]) -> None:
    other, client = behind
    before = other.requests
    for path in PATHS:
        response = client.post(path, content=b"not even JSON", headers={"authorization": "Bearer wrong"})
        assert shown(response, 401)["code"] == "invalid_api_key"
    assert other.requests == before


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
def test_an_upstreams_error_is_the_answer(loop: Loop, database_url: str, tmp_path: Path, status: int) -> None:
    body = b'{"error":{"message":"Theirs","type":"x","param":null,"code":"y"}}'
    head = f"HTTP/1.1 {status} Some\r\ncontent-type: application/json\r\nretry-after: 7\r\nconnection: close\r\n\r\n"
    with (
        upstream(head.encode() + body) as other,
        routed(loop, database_url, tmp_path, other.base_url) as client,
    ):
        response = client.post("chat/completions", content=BODY)
        assert (response.status_code, response.content, response.headers["retry-after"]) == (status, body, "7")
        assert other.requests == 1


def test_a_key_that_the_upstream_refuses_is_the_operators_affair(loop: Loop, database_url: str, tmp_path: Path) -> None:
    said = b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\nconnection: close\r\n\r\nIncorrect key: sk-up...eam"
    with upstream(said) as other, routed(loop, database_url, tmp_path, other.base_url) as client:
        error = shown(client.post("chat/completions", content=BODY), 502)
    assert error["message"] == (
        "The model endpoint (other) refused its API key (401): check endpoints.other.api_key in ADLATUS_MODELS_FILE."
    )


def test_an_endpoint_that_is_down_is_told(loop: Loop, database_url: str, tmp_path: Path) -> None:
    with upstream() as gone:
        base_url = gone.base_url
    with routed(loop, database_url, tmp_path, base_url) as client:
        response = client.post("chat/completions", content=BODY)
        assert shown(response, 503)["message"] == (
            "The model endpoint (other) could not be reached: check that it runs, and endpoints.other.base_url in "
            "ADLATUS_MODELS_FILE."
        )
        assert response.headers["retry-after"]


ODD = {
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 20\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx",
    "no status": b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("said", ODD.values(), ids=ODD)
def test_a_status_that_is_not_for_clients_does_not_reach_them(
    loop: Loop, database_url: str, tmp_path: Path, said: bytes
) -> None:
    with upstream(said) as odd, routed(loop, database_url, tmp_path, odd.base_url) as client:
        response = client.post("chat/completions", content=BODY)
    assert "not as a model endpoint does: check endpoints.other.base_url" in shown(response, 502)["message"]
    assert "location" not in response.headers


def test_an_answer_does_not_speak_for_this_server(loop: Loop, database_url: str, tmp_path: Path) -> None:
    ours = b"access-control-allow-origin: *\r\nAccess-Control-Allow-Credentials: true\r\nclear-site-data: *\r\n"
    theirs = (
        b"www-authenticate: Basic\r\nx-request-id: theirs\r\nx-odd: \xff\r\nconnection: close, x-hop\r\nx-hop: 1\r\n"
    )
    said = b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n" + ours + theirs + b"\r\n{}"
    with upstream(said) as other, routed(loop, database_url, tmp_path, other.base_url) as client:
        headers = client.post("chat/completions", content=BODY, headers={"origin": "http://evil.example"}).headers
    assert not [name for name in headers if name.startswith("access-control-") or name in ("clear-site-data", "x-hop")]
    assert "www-authenticate" not in headers
    assert headers["x-odd"] == "\xff"
    assert len(headers.get_list("x-request-id")) == 1
    assert headers["x-request-id"].startswith("req_")


BROKEN_HEADS = {
    "a line that is none": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    "a break in a value": b"HTTP/1.1 200 OK\r\nx-a: b\rset-cookie: c\r\ncontent-length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nhello",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("said", BROKEN_HEADS.values(), ids=BROKEN_HEADS)
def test_an_answer_that_is_no_http_is_told_and_the_log_keeps_the_key(
    loop: Loop, database_url: str, tmp_path: Path, said: bytes
) -> None:
    with (
        capture_logs() as logged,
        upstream(said) as other,
        routed(loop, database_url, tmp_path, other.base_url) as client,
    ):
        shown(client.post("chat/completions", content=BODY), 503)
    [line] = [line for line in logged if line["event"] == "model endpoint unreachable"]
    assert line["error"]
    assert "sk-upstream" not in str(logged)


def test_headers_that_cannot_be_sent_on_stay_here(behind: tuple[Upstream, httpx.Client]) -> None:
    other, client = behind
    headers = {b"idempotency-key": b"\xe9\xff", b"openai-beta": b"a=v1"}
    assert client.post("chat/completions", content=BODY, headers=headers).status_code == 200
    head = other.received[-1][0].lower()
    assert b"idempotency-key" not in head
    assert b"openai-beta: a=v1" in head


def test_a_name_that_is_too_long_for_one_does_not_exist(behind: tuple[Upstream, httpx.Client]) -> None:
    _, client = behind
    error = shown(client.post("chat/completions", json={"model": "a" * 1_000_000}), 404)
    assert error["code"] == "model_not_found"
    assert len(error["message"]) < 500


def test_a_stream_arrives_as_it_comes_and_ends_where_it_breaks_off(
    loop: Loop, database_url: str, tmp_path: Path
) -> None:
    first, second = b'data: {"first": 1}\n\n', b": odd comment\n\ndata: [DONE]\n\n"
    chunked = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (first, second)]
    with (
        upstream(chunked, pieces[0], hold=True) as slow,
        routed(loop, database_url, tmp_path, slow.base_url) as client,
        client.stream("POST", "chat/completions", content=BODY) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        assert next(response.iter_raw()) == first  # and the upstream is silent from here on
    with (
        upstream(chunked, *pieces) as breaks_off,
        routed(loop, database_url, tmp_path, breaks_off.base_url) as client,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.post("chat/completions", content=BODY)
    with (
        upstream(chunked, *pieces, b"0\r\n\r\n") as whole,
        routed(loop, database_url, tmp_path, whole.base_url) as client,
    ):
        assert client.post("chat/completions", content=BODY).content == first + second


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"data: {}\n\n"])
def test_a_client_that_leaves_takes_its_request_with_it(
    loop: Loop, database_url: str, tmp_path: Path, said: bytes
) -> None:
    with upstream(said, hold=True) as silent, routed(loop, database_url, tmp_path, silent.base_url) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("chat/completions", content=BODY, timeout=httpx.Timeout(30, read=0.5))
        give_up_at = time.monotonic() + DEADLINE_S
        while silent.hung_up_at is None:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)


def test_the_sdk_chats_with_the_rehearsal_model(sdk: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "[[say: Hello, Jane!]]"}]
    whole = sdk.chat.completions.create(model="gpt-4o", messages=messages)
    assert whole.choices[0].message.content == "Hello, Jane!"
    streamed = sdk.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == "Hello, Jane!"


def test_what_the_upstream_does_not_offer_is_its_own_404(sdk: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        sdk.responses.create(model="gpt-4o", input="x")
    assert json.loads(refused.value.response.text)["error"]["message"] == "Invalid URL (POST /v1/responses)"


def test_relays_want_no_beta_header(server: Server, api_key: str) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[say: Hello]]"}]}
    headers = {"authorization": f"Bearer {api_key}"}
    assert httpx.post(f"{server.base_url}/chat/completions", json=body, headers=headers).status_code == 200
