"""What operators and tools see: health, metrics, documentation, headers of every response, CORS."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from openai import OpenAI

from adlatus import __version__
from adlatus.settings import Settings
from tests.conftest import BETA, Loop, Server, serving
from tests.runs.transcripts import eventually

PAGE = "https://app.example.com"


def test_health_is_told_to_everyone(server: Server) -> None:
    response = httpx.get(f"{server.url}/healthz")
    assert (response.status_code, response.text) == (200, '{"status":"ok"}')


@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_readiness_has_no_details_for_those_without_a_key(server: Server, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = httpx.get(f"{server.url}/readyz", headers=headers)
    assert (response.status_code, response.text) == (200, '{"status":"ok"}')


def test_readiness_shows_each_component_to_those_with_a_key(server: Server, api_key: str) -> None:
    response = httpx.get(f"{server.url}/readyz", headers={"Authorization": f"Bearer {api_key}"})
    shown = response.json()
    assert response.status_code == 200
    assert shown["components"] == dict.fromkeys(("database", "storage", "executor", "index", "code"), "ok")
    assert "rehearsal" in shown["uses"]["models"]
    assert api_key not in response.text


@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_metrics_need_a_key(server: Server, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = httpx.get(f"{server.url}/metrics", headers=headers)
    assert response.status_code == 401
    assert "adlatus_" not in response.text


def counted(http: httpx.Client, server: Server, name: str, *labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    response = http.get(f"{server.url}/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = re.findall(rf"^{name}{{(.*)}} (\S+)$", response.text, re.M)
    return sum(float(value) for shown, value in samples if all(label in shown for label in labels))


def test_metrics_count_requests_by_route_and_status_without_ids(http: httpx.Client, server: Server) -> None:
    of_found = ("adlatus_http_requests_total", 'method="GET"', 'assistants/{assistant_id}"', 'status="200"')
    of_absent = (*of_found[:-1], 'status="404"')
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    found, absent = counted(http, server, *of_found), counted(http, server, *of_absent)
    for _ in range(3):
        http.get(f"/assistants/{assistant_id}").raise_for_status()
    http.get("/assistants/asst_nothing")
    assert counted(http, server, *of_found) == found + 3
    assert counted(http, server, *of_absent) == absent + 1
    text = http.get(f"{server.url}/metrics").text
    assert assistant_id not in text
    assert "asst_nothing" not in text


def test_metrics_count_runs_and_tokens(http: httpx.Client, server: Server) -> None:
    ended, tokens = "adlatus_runs_total", "adlatus_tokens_total"
    before = counted(http, server, ended, 'status="completed"'), counted(http, server, tokens)
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    thread = {"messages": [{"role": "user", "content": "[[say: Hi]]"}]}
    http.post("/threads/runs", json={"assistant_id": assistant_id, "thread": thread, "stream": True})
    eventually(lambda: counted(http, server, ended, 'status="completed"') == before[0] + 1)
    assert counted(http, server, tokens) > before[1]


def test_every_response_has_the_headers_of_the_original(http: httpx.Client, server: Server, api_key: str) -> None:
    seen = set()
    for response in (
        http.get("/assistants"),
        http.post("/assistants", json={}),
        http.get("/assistants/asst_nothing"),
        http.get("/nothing"),
        http.put("/assistants"),
        httpx.get(f"{server.base_url}/assistants"),
        httpx.get(f"{server.url}/healthz"),
        http.get("/assistants/%00"),
    ):
        headers = response.headers
        assert headers["content-type"] == "application/json", response.url
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["openai-version"] == "2020-10-01"
        assert headers["openai-organization"] == "adlatus"
        assert int(headers["openai-processing-ms"]) >= 0
        assert re.fullmatch("req_[0-9a-f]{32}", headers["x-request-id"])
        seen.add(headers["x-request-id"])
    assert len(seen) == 8


def test_a_response_names_the_project_of_its_key(http: httpx.Client, server: Server, api_key: str) -> None:
    project = api_key.replace("key", "project")
    assert http.get("/assistants").headers["openai-project"] == project
    assert http.get("/assistants/asst_nothing").headers["openai-project"] == project
    assert "openai-project" not in httpx.get(f"{server.base_url}/assistants").headers


def test_streams_have_the_headers_too(http: httpx.Client) -> None:
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    thread = {"messages": [{"role": "user", "content": "[[say: Hi]]"}]}
    response = http.post("/threads/runs", json={"assistant_id": assistant_id, "thread": thread, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert re.fullmatch("req_[0-9a-f]{32}", response.headers["x-request-id"])


def test_a_request_id_of_the_client_is_not_taken_over(http: httpx.Client) -> None:
    response = http.get("/assistants", headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"] != "mine"


def test_the_sdk_knows_the_request_id(sdk: OpenAI) -> None:
    request_id = sdk.beta.assistants.list()._request_id
    assert request_id is not None
    assert request_id.startswith("req_")


def test_the_documentation_lists_the_routes_of_the_api_only(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "/openapi.json" in page.text
    described = httpx.get(f"{server.url}/openapi.json").json()
    assert described["info"]["version"] == __version__
    assert all(path.startswith("/v1/") for path in described["paths"])
    assert {"get", "post", "delete"} == set(described["paths"]["/v1/assistants/{assistant_id}"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs"])
def test_what_operators_read_cannot_be_written(server: Server, path: str) -> None:
    response = httpx.post(f"{server.url}{path}")
    assert response.status_code == 405
    assert list(response.json()["error"]) == ["message", "type", "param", "code"]


@pytest.mark.parametrize("path", ["/healthz/", "/v1/healthz", "/favicon.ico"])
def test_what_is_not_there_is_not_found(server: Server, path: str) -> None:
    response = httpx.get(f"{server.url}{path}")
    assert response.status_code == 404
    assert response.json()["error"]["message"].startswith(f"Invalid URL (GET {path})")


# --- CORS


@pytest.fixture(scope="module")
def for_pages(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server with keys that lets two pages in."""
    origins = f"{PAGE}/, http://localhost:3000"
    with serving(loop, Settings(database_url=new_database(), api_keys="key", cors_origins=origins)) as server:
        yield server


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,openai-beta,x-stainless-os",
}


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_named_pages_may_call_the_api(for_pages: Server, origin: str) -> None:
    asked = httpx.options(f"{for_pages.base_url}/threads", headers={"Origin": origin, **PREFLIGHT})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "POST" in asked.headers["access-control-allow-methods"]
    for header in PREFLIGHT["Access-Control-Request-Headers"].split(","):
        assert header in asked.headers["access-control-allow-headers"].lower()
    answered = httpx.post(
        f"{for_pages.base_url}/threads", headers={"Origin": origin, "Authorization": "Bearer key", **BETA}
    )
    assert answered.status_code == 200
    assert answered.headers["access-control-allow-origin"] == origin
    assert "x-request-id" in answered.headers["access-control-expose-headers"]


def test_named_pages_can_read_refusals(for_pages: Server) -> None:
    for path in ("/threads", "/nothing"):
        refused = httpx.get(f"{for_pages.base_url}{path}", headers={"Origin": PAGE})
        assert refused.status_code in (401, 404)
        assert refused.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://example.com", "https://app.example.com.evil.example", "null"])
def test_other_pages_may_not_call_the_api(for_pages: Server, origin: str) -> None:
    asked = httpx.options(f"{for_pages.base_url}/threads", headers={"Origin": origin, **PREFLIGHT})
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
    answered = httpx.get(f"{for_pages.base_url}/threads", headers={"Origin": origin, "Authorization": "Bearer key"})
    assert "access-control-allow-origin" not in answered.headers


def test_cors_is_off_unless_it_is_set(server: Server, api_key: str) -> None:
    asked = httpx.options(f"{server.base_url}/threads", headers={"Origin": PAGE, **PREFLIGHT})
    assert asked.status_code == 405
    headers = {"Origin": PAGE, "Authorization": f"Bearer {api_key}", **BETA}
    answered = httpx.get(f"{server.base_url}/threads", headers=headers)
    assert answered.status_code == 200
    for response in (asked, answered):
        assert not [name for name in response.headers if name.startswith("access-control-")]
