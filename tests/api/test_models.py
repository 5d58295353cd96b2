"""Models by name: what is listed, what a name leads to, and what assistants are told of names that lead nowhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from adlatus.backends.llm import LIST_BYTES
from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import client_of, sent
from tests.runs.upstream import upstream

Json = dict[str, Any]
LISTED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + (
    b'{"object":"list","data":[{"id":"qwen3:32b","object":"model","created":17,"owned_by":"library"},'
    b'{"id":"gpt-4o","object":"model","created":18,"owned_by":"library"},{"id":"llama","created":"?"},{"name":"odd"}]}'
)
TABLE = """
[endpoints.ollama]
base_url = "{ollama}"

[models."gpt-4o"]
endpoint = "ollama"
model = "qwen3:32b"
context_window = 32768

[models.embed]
endpoint = "ollama"
model = "nomic-embed-text"
chat = false

[models.plain]
endpoint = "rehearsal"
model = "upstream-name"
json_schema = false
tools = false
reasoning = false
parameters = {{ temperature = 0.6, top_k = 20 }}
rename = {{ max_completion_tokens = "max_tokens" }}

[models."r/*"]
endpoint = "rehearsal"
model = "*"

[models."ll*"]
endpoint = "ollama"
"""


@contextmanager
def routed(loop: Loop, database_url: str, folder: Path, **more: Any) -> Iterator[httpx.Client]:
    """A client of a server with that table, whose Ollama answers every request with the list of its models."""
    with upstream(LISTED) as ollama:
        (folder / "models.toml").write_text(TABLE.format(ollama=more.pop("ollama", ollama.base_url)), "utf-8")
        settings = Settings(database_url=database_url, models_file=folder / "models.toml", **more)
        with serving(loop, settings) as server, client_of(server) as client:
            yield client


@pytest.fixture(scope="module")
def http(
    loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    with routed(loop, new_database(), tmp_path_factory.mktemp("table")) as client:
        yield client


def test_names_of_the_table_are_listed_with_what_leads_to_itself(http: httpx.Client) -> None:
    assert sent(http.get("/models")) == {
        "object": "list",
        "data": [
            {"id": "gpt-4o", "object": "model", "created": 17, "owned_by": "library"},
            {"id": "embed", "object": "model", "created": 0, "owned_by": "ollama"},
            {"id": "plain", "object": "model", "created": 0, "owned_by": "rehearsal"},
            {"id": "llama", "object": "model", "created": 0, "owned_by": "ollama"},
        ],
    }


@pytest.mark.parametrize("name", ["gpt-4o", "embed", "plain", "llama", "r/rehearsal"])
def test_a_name_that_can_be_asked_for_can_be_retrieved(http: httpx.Client, name: str) -> None:
    assert sent(http.get(f"/models/{name}"))["id"] == name


@pytest.mark.parametrize("name", ["gpt-5", "qwen3:32b", "llama-of-nobody", "r/other", "a\nb", "a\n", "../x"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_name_that_leads_nowhere_does_not_exist(http: httpx.Client, method: str, name: str) -> None:
    response = http.request(method, f"/models/{quote(name, safe='')}")
    assert (response.status_code, response.json()["error"]) == (
        404,
        {
            "message": f"The model '{name}' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        },
    )


def test_a_model_is_not_deleted_over_the_api(http: httpx.Client) -> None:
    assert http.delete("/models/gpt-4o").status_code == 403
    assert http.get("/models/gpt-4o").status_code == 200


def test_an_endpoint_that_is_down_hides_its_own_names_only(
    loop: Loop, database_url: str, tmp_path: Path, server: Server
) -> None:
    down = "http://127.0.0.1:9/v1"
    with routed(loop, database_url, tmp_path, ollama=down, model_base_url=server.model_url) as client:
        shown = [model["id"] for model in sent(client.get("/models"))["data"]]
    assert shown[:3] == ["gpt-4o", "embed", "plain"]
    assert "rehearsal" in shown
    assert "llama" not in shown


@pytest.mark.slow
def test_an_endpoint_that_hangs_is_not_waited_for_by_those_who_ask_for_others(
    loop: Loop, database_url: str, tmp_path: Path
) -> None:
    beginning, _, _ = LISTED.rpartition(b'{"id"')
    with (
        upstream(beginning, hold=True) as hangs,
        routed(loop, database_url, tmp_path, ollama=hangs.base_url) as client,
    ):
        assert sent(client.get("/models/r/rehearsal"))["id"] == "r/rehearsal"
        assert hangs.requests == 0
        assert [model["id"] for model in sent(client.get("/models"))["data"]][:3] == ["gpt-4o", "embed", "plain"]
        assert client.get("/models/llama").status_code == 503


def test_odd_lists_are_read_as_far_as_they_make_sense(loop: Loop, database_url: str) -> None:
    odd = (
        b'{"data":[{"id":5},{"id":"a","created":true,"owned_by":{}},{"id":"b\\u0000\\n","created":1e40},'
        b'{"id":"c","created":18446744073709551615},{"id":"a","created":1.5}]}'
    )
    with (
        upstream(LISTED.partition(b"{")[0] + odd) as other,
        serving(loop, Settings(database_url=database_url, model_base_url=other.base_url)) as server,
        client_of(server) as client,
    ):
        shown = [(model["id"], model["created"]) for model in sent(client.get("/models"))["data"]]
    assert shown == [("a", 0), ("b\0\n", 0), ("c", 2**64 - 1)]


def test_a_list_without_end_is_not_read_to_it(loop: Loop, database_url: str) -> None:
    with (
        upstream(LISTED, b'{"id":"a"},' * (LIST_BYTES // 8), hold=True) as endless,
        serving(loop, Settings(database_url=database_url, model_base_url=endless.base_url)) as server,
        client_of(server) as client,
    ):
        assert client.get("/models").status_code == 503


def test_where_nothing_can_be_listed_the_reason_is_told(loop: Loop, database_url: str) -> None:
    settings = Settings(database_url=database_url, model_base_url="http://127.0.0.1:9/v1")
    with serving(loop, settings) as server, client_of(server) as client:
        response = client.get("/models")
    assert response.status_code == 503
    assert response.json()["error"]["message"].endswith("check that it runs, and ADLATUS_MODEL_BASE_URL.")


def test_a_name_for_which_one_model_stands_in_can_be_retrieved(loop: Loop, database_url: str, server: Server) -> None:
    settings = Settings(database_url=database_url, model_base_url=server.model_url, model="rehearsal")
    with serving(loop, settings) as mapped, client_of(mapped) as client:
        assert sent(client.get("/models/gpt-4o"))["id"] == "gpt-4o"
        listed = [model["id"] for model in sent(client.get("/models"))["data"]]
    assert listed == ["rehearsal", "rehearsal-embedding"]  # for which no other model stands in


# --- Assistants and runs


def refused(response: httpx.Response) -> tuple[str, str | None, str | None]:
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    return error["message"], error["param"], error["code"]


NOWHERE = ("The requested model 'gpt-5' does not exist.", "model", "model_not_found")


def test_an_assistant_of_an_unknown_model_is_refused(http: httpx.Client) -> None:
    assert refused(http.post("/assistants", json={"model": "gpt-5"})) == NOWHERE
    assistant = sent(http.post("/assistants", json={"model": "gpt-4o"}))["id"]
    assert refused(http.post(f"/assistants/{assistant}", json={"model": "gpt-5"})) == NOWHERE
    assert sent(http.get(f"/assistants/{assistant}"))["model"] == "gpt-4o"


def test_an_assistant_of_a_model_that_does_not_chat_is_refused(http: httpx.Client) -> None:
    assert refused(http.post("/assistants", json={"model": "embed"})) == (
        "The requested model 'embed' cannot be used with the Assistants API.",
        "model",
        "unsupported_model",
    )


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [{"type": "code_interpreter"}]}, "tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format"),
    ],
)
def test_what_a_model_cannot_do_is_refused_of_assistants_and_runs(http: httpx.Client, asked: Json, param: str) -> None:
    _, named, code = refused(http.post("/assistants", json={"model": "plain", **asked}))
    assert (named, code) == (param, "unsupported_value")
    assistant = sent(http.post("/assistants", json={"model": "gpt-4o", **asked}))["id"]
    for path in ("/threads/runs", f"/threads/{sent(http.post('/threads'))['id']}/runs"):
        _, named, code = refused(http.post(path, json={"assistant_id": assistant, "model": "plain"}))
        assert (named, code) == (param, "unsupported_value")


def test_a_run_of_an_unknown_model_is_refused_and_leaves_no_thread(http: httpx.Client) -> None:
    assistant = sent(http.post("/assistants", json={"model": "gpt-4o"}))["id"]
    before = sent(http.get("/threads"))["data"]
    assert refused(http.post("/threads/runs", json={"assistant_id": assistant, "model": "gpt-5"})) == NOWHERE
    assert sent(http.get("/threads"))["data"] == before


def test_a_run_asks_its_upstream_in_the_upstreams_terms(http: httpx.Client) -> None:
    assistant = {"model": "plain", "reasoning_effort": "low"}
    run = {
        "assistant_id": sent(http.post("/assistants", json=assistant))["id"],
        "max_completion_tokens": 500,
        "thread": {"messages": [{"role": "user", "content": "[[echo: request]]"}]},
        "stream": True,
    }
    stream = http.post("/threads/runs", json=run).text
    completed = next(frame for frame in stream.split("\n\n") if "event: thread.message.completed" in frame)
    message = httpx.Response(200, text=completed.split("data: ", 1)[1]).json()
    assert httpx.Response(200, text=message["content"][0]["text"]["value"]).json() == {
        "model": "upstream-name",
        "messages": [{"role": "user", "content": "[[echo: request]]"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.6,
        "top_k": 20,
        "max_tokens": 500,
    }


def test_a_run_whose_model_is_routed_no_longer_fails_and_says_so(
    loop: Loop, database_url: str, tmp_path: Path, server: Server
) -> None:
    with serving(loop, Settings(database_url=database_url), executor=False) as before, client_of(before) as client:
        assistant = sent(client.post("/assistants", json={"model": "gone"}))["id"]
        run = sent(client.post("/threads/runs", json={"assistant_id": assistant}))
    with routed(loop, database_url, tmp_path) as client:
        while run["status"] in ("queued", "in_progress"):
            run = sent(client.get(f"/threads/{run['thread_id']}/runs/{run['id']}"))
    assert (run["status"], run["last_error"]["message"]) == ("failed", "The requested model 'gone' does not exist.")
