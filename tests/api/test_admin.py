"""The listener for operators: no key, any name by which it is reached, and no web page."""

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from adlatus.errors import StartupError
from adlatus.listening import listen
from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.upstream import upstream

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with upstream(REFUSED) as model:
        yield model.base_url


@pytest.fixture(scope="module")
def operated(loop: Loop, new_database: Callable[[], str], model: str) -> Iterator[tuple[Server, str]]:
    """A server with a key, and the address of its listener for operators."""
    settings = Settings(database_url=new_database(), api_keys="key", model_base_url=model)
    admin = listen("127.0.0.1", 0, "")
    with serving(loop, settings, admin=admin) as server:
        yield server, f"http://127.0.0.1:{admin.getsockname()[1]}"


def test_operators_need_no_key(operated: tuple[Server, str]) -> None:
    server, admin = operated
    assert httpx.get(f"{admin}/healthz").json() == {"status": "ok"}
    assert "adlatus_runs_executing 0.0" in httpx.get(f"{admin}/metrics").text
    ready = httpx.get(f"{admin}/readyz")
    shown = ready.json()
    assert (ready.status_code, shown["components"]["database"], shown["components"]["executor"]) == (200, "ok", "ok")
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    assert "components" not in httpx.get(f"{server.url}/readyz").json()


def test_a_model_that_is_down_is_shown_and_makes_nothing_unready(operated: tuple[Server, str], model: str) -> None:
    server, admin = operated
    for url in (f"{admin}/readyz", f"{server.url}/readyz"):
        ready = httpx.get(url, headers={"Authorization": "Bearer key"})
        shown = ready.json()["models"]
        assert ready.status_code == 200
        assert shown.pop("embeddings") == "none: files are found by their words only"
        [said] = shown.values()
        assert said.endswith("refused its API key (401): check ADLATUS_MODEL_API_KEY.")


def test_nothing_else_is_there(operated: tuple[Server, str]) -> None:
    _, admin = operated
    for path in ("/v1/assistants", "/docs", "/"):
        refused = httpx.get(f"{admin}{path}")
        assert refused.status_code == 404
        assert "for operators and has /healthz, /readyz and /metrics only" in refused.json()["error"]["message"]
    assert httpx.post(f"{admin}/metrics").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example:9090"},  # a name of theirs that leads here
    ],
)
def test_web_pages_cannot_read_it(operated: tuple[Server, str], headers: dict[str, str]) -> None:
    _, admin = operated
    for path in ("/healthz", "/readyz", "/metrics"):
        refused = httpx.get(f"{admin}{path}", headers=headers)
        assert refused.status_code == 403
        assert "adlatus_" not in refused.text
        assert not [name for name in refused.headers if name.startswith("access-control-")]


def test_on_other_addresses_any_host_is_fine(loop: Loop, new_database: Callable[[], str]) -> None:
    admin = listen("0.0.0.0", 0, "")
    with serving(loop, Settings(database_url=new_database()), admin=admin):
        url = f"http://127.0.0.1:{admin.getsockname()[1]}/readyz"
        assert httpx.get(url, headers={"Host": "adlatus.monitoring.svc:9090"}).status_code == 200


@pytest.mark.parametrize("bind", ["9090", "host:", ":9090", "::1:9090", "127.0.0.1:70000", "127.0.0.1:http"])
def test_what_is_no_address_is_refused(bind: str) -> None:
    with pytest.raises(ValueError, match=r"write host:port, as in 127\.0\.0\.1:9090"):
        Settings(admin_bind=bind)


@pytest.mark.parametrize(("bind", "address"), [("[::1]:9090", ("[::1]", 9090)), ("0.0.0.0:0", ("0.0.0.0", 0))])
def test_an_address_has_a_host_and_a_port(bind: str, address: tuple[str, int]) -> None:
    assert Settings(admin_bind=bind).admin_address == address


def test_a_port_that_is_taken_is_told_of_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"127.0.0.1:{port}: Address already in use. Choose another."):
            listen("127.0.0.1", port, "Choose another.")
    with pytest.raises(StartupError, match="Choose another"):
        listen("no.such.host.invalid", 1, "Choose another.")
