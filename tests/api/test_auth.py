"""Who gets in: keys and their projects, and the guards of a server that has no keys."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai import AuthenticationError, OpenAI

from adlatus.settings import Settings
from tests.conftest import BETA, Loop, Server, serving

NO_KEY = "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
EMPTY: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def refusal(response: httpx.Response) -> tuple[int, dict[str, Any]]:
    """Status and error of a response, whose shape is checked; files have one of their own."""
    shown: dict[str, Any] = response.json()["error"]
    of_a_file = shown["param"] == "id"
    assert list(response.json()) == (["error", "detail"] if of_a_file else ["error"])
    assert list(shown) == ["message", "type", "param", "code"]
    assert (shown["type"], shown["param"]) == ("invalid_request_error", "id" if of_a_file else None)
    return response.status_code, shown


@pytest.fixture(scope="module")
def anyone(server: Server) -> Iterator[httpx.Client]:
    """A client without a key; paths begin at the root."""
    with httpx.Client(base_url=server.url) as client:
        yield client


def routes(anyone: httpx.Client) -> list[tuple[str, str]]:
    """Method and path of every documented route."""
    paths = anyone.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


# --- Keys


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "bearer", "key-0", "Basic a2V5LTA6", "Basic OmtleS0w", "Token key-0", "Bearerkey-0"],
)
def test_without_a_bearer_key_nobody_gets_in(anyone: httpx.Client, authorization: str | None) -> None:
    headers = BETA if authorization is None else BETA | {"Authorization": authorization}
    status, shown = refusal(anyone.get("/v1/assistants", headers=headers))
    assert status == 401
    assert shown["message"].startswith(NO_KEY)
    assert shown["code"] is None


@pytest.mark.parametrize(
    ("key", "shown_key"),
    [
        ("key-nothing", "***"),
        ("key-0:project-0", "key***ct-0"),
        ("sk-0123456789abcdef", "sk-***cdef"),
        ("KEY-0", "***"),
        ("key-0 key-1", "***"),
        ("project-0", "***"),
        ("x" * 5000, "xxx***xxxx"),
    ],
)
def test_a_wrong_key_is_refused_and_not_repeated_in_full(anyone: httpx.Client, key: str, shown_key: str) -> None:
    headers = BETA | {"Authorization": f"Bearer {key}"}
    status, shown = refusal(anyone.get("/v1/assistants", headers=headers))
    assert status == 401
    assert shown["code"] == "invalid_api_key"
    assert shown["message"].startswith(f"Incorrect API key provided: {shown_key}. ")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
def test_the_scheme_may_be_written_in_any_case(anyone: httpx.Client, api_key: str, scheme: str) -> None:
    headers = BETA | {"Authorization": f"{scheme}{api_key}"}
    assert anyone.get("/v1/assistants", headers=headers).status_code == 200


def test_every_route_wants_a_key_before_it_looks_at_anything_else(anyone: httpx.Client) -> None:
    asked = 0
    for method, path in routes(anyone):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"content-type": "application/json"}):
            url = path.replace("{", "").replace("}", "")
            response = anyone.request(method, url, headers=headers, content=b"{" if method == "POST" else b"")
            assert refusal(response)[0] == 401, (method, path)
            asked += 1
    assert asked > 50


def test_the_sdk_raises_an_authentication_error(server: Server) -> None:
    with (
        OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0) as client,
        pytest.raises(AuthenticationError) as refused,
    ):
        client.beta.threads.create()
    assert refused.value.code == "invalid_api_key"


# --- Projects


@pytest.mark.parametrize("path", ["/threads/runs", "/threads/{thread_id}/runs"])
def test_no_run_takes_an_assistant_of_another_project(http: httpx.Client, stranger: httpx.Client, path: str) -> None:
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    own_thread_id = stranger.post("/threads").json()["id"]
    response = stranger.post(path.format(thread_id=own_thread_id), json={"assistant_id": assistant_id})
    assert refusal(response)[0] == 404
    assert response.json()["error"]["message"] == f"No assistant found with id '{assistant_id}'."


def test_two_keys_of_a_project_share_its_objects(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database(), api_keys="one:shared, two:shared ,three")
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url, headers=BETA) as client:
        one, two, three = ({"Authorization": f"Bearer {key}"} for key in ("one", "two", "three"))
        path = f"/threads/{client.post('/threads', headers=one).json()['id']}"
        shared = client.get(path, headers=two)
        assert (shared.status_code, shared.headers["openai-project"]) == (200, "shared")
        assert client.get(path, headers=three).status_code == 404
        assert client.get("/threads", headers=three).headers["openai-project"] == "default"


# --- A server without keys


@pytest.fixture(scope="module")
def keyless(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server that has no keys."""
    with serving(loop, Settings(database_url=new_database())) as server:
        yield server


@pytest.fixture(scope="module")
def local(keyless: Server) -> Iterator[httpx.Client]:
    """A client of the server without keys; paths begin at the root."""
    with httpx.Client(base_url=keyless.url, headers=BETA) as client:
        yield client


@pytest.mark.parametrize("authorization", [None, "Bearer anything", "Bearer sk-0123456789abcdef", "Basic eDp5", "x"])
def test_without_keys_any_bearer_or_none_is_the_default_project(local: httpx.Client, authorization: str | None) -> None:
    response = local.get("/v1/threads", headers={} if authorization is None else {"Authorization": authorization})
    assert response.status_code == 200
    assert response.headers["openai-project"] == "default"


def test_without_keys_the_sdk_works_as_usual(keyless: Server) -> None:
    with OpenAI(base_url=keyless.base_url, api_key="any") as client:
        made = client.beta.threads.create()
        assert client.beta.threads.retrieve(made.id).id == made.id


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST:1", "app.localhost", "app.localhost:3000"),
        *("127.0.0.1", "127.0.0.1:8000", "127.1.2.3:65535", "[::1]", "[::1]:8000"),
    ],
)
def test_without_keys_loopback_names_are_served(local: httpx.Client, host: str) -> None:
    assert local.get("/v1/threads", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("example.com", "example.com:8000", "localhost.example.com", "example.com.localhost.example", "notlocalhost"),
        *("127.0.0.1.example.com", "192.168.0.1", "10.0.0.1:8000", "0.0.0.0", "[::]", "[2001:db8::1]:8000"),
        *("localhost@example.com", "", ":8000", "[::1", "[", "::1", "2130706433", "0x7f.0.0.1"),
    ],
)  # fmt: skip
def test_without_keys_other_names_are_refused(local: httpx.Client, host: str) -> None:
    for path in ("/v1/threads", "/v1/nothing", "/readyz", "/metrics", "/docs", "/openapi.json"):
        status, shown = refusal(local.get(path, headers={"Host": host}))
        assert status == 403
        assert "answers on loopback only" in shown["message"]


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://[::1]:5173", "http://a.localhost"],
)
def test_without_keys_web_pages_of_this_machine_are_served(local: httpx.Client, origin: str) -> None:
    assert local.get("/v1/threads", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("https://example.com", "http://localhost.example.com", "http://127.0.0.1.example.com", "null", ""),
        *("file://", "chrome-extension://abcdef", "http://192.168.0.1", "http://localhost@example.com", "http://[::"),
    ],
)
def test_without_keys_foreign_web_pages_are_refused(local: httpx.Client, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        response = local.request(method, "/v1/threads", headers={"Origin": origin})
        status, shown = refusal(response)
        assert status == 403
        assert "does not answer web pages" in shown["message"]
        assert "access-control-allow-origin" not in response.headers


def test_without_keys_requests_that_foreign_pages_make_without_an_origin_are_refused(local: httpx.Client) -> None:
    status, shown = refusal(local.get("/v1/threads", headers={"Sec-Fetch-Site": "cross-site"}))
    assert (status, "other web pages" in shown["message"]) == (403, True)
    for own in ("same-origin", "same-site", "none"):
        assert local.get("/v1/threads", headers={"Sec-Fetch-Site": own}).status_code == 200
    page_of_this_machine = {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:3000"}
    assert local.get("/v1/threads", headers=page_of_this_machine).status_code == 200


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_without_keys_what_a_form_can_post_is_refused(local: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = local.post("/v1/threads", content=b"{}", headers=headers)
    status, shown = refusal(response)
    assert (status, shown["message"].startswith("Invalid Content-Type header")) == (400, True)


def test_without_keys_operators_see_everything(local: httpx.Client) -> None:
    assert "components" in local.get("/readyz").json()
    assert local.get("/metrics").text.startswith("# HELP")


def test_without_keys_named_origins_are_let_in(loop: Loop, new_database: Callable[[], str]) -> None:
    origin = "https://app.example.com"
    settings = Settings(database_url=new_database(), cors_origins=origin)
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url, headers=BETA) as client:
        allowed = client.get("/threads", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == origin
        assert client.get("/threads", headers={"Origin": "https://example.com"}).status_code == 403
        assert client.get("/threads", headers={"Origin": origin, "Host": "example.com"}).status_code == 403


def test_with_keys_any_name_and_any_page_is_served(http: httpx.Client) -> None:
    assert http.get("/threads", headers={"Host": "assistants.example.com"}).status_code == 200
    foreign = {"Origin": "https://example.com", "Sec-Fetch-Site": "cross-site"}
    assert http.get("/threads", headers=foreign).status_code == 200
