"""Azure's clients, unchanged: the official SDK's, and those that send the requests of its documentation."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import (
    AssistantEventHandler,
    AsyncAzureOpenAI,
    AuthenticationError,
    AzureOpenAI,
    NotFoundError,
    OpenAI,
)

from adlatus.backends import models_file
from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import eventually
from tests.sdks import smoke

VERSION = "2024-05-01-preview"
GATEWAY_401 = "Access denied due to invalid subscription key or wrong API endpoint."
OTHERS = (smoke.errors, smoke.request_ids, smoke.asynchronous)
"""Scenarios that make clients of their own, or are about what differs: they have tests of their own here."""


@pytest.fixture
def azure(server: Server, api_key: str) -> Iterator[AzureOpenAI]:
    """Azure's client of the official SDK."""
    with AzureOpenAI(azure_endpoint=server.url, api_key=api_key, api_version=VERSION, max_retries=0) as client:
        yield client


@pytest.fixture
def plain(server: Server, api_key: str) -> Iterator[httpx.Client]:
    """A client as of Azure's documentation: a key, a version, no beta header. Paths begin at the root."""
    headers, params = {"api-key": api_key}, {"api-version": VERSION}
    with httpx.Client(base_url=server.url, headers=headers, params=params, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    "scenario", [each for each in smoke.SCENARIOS if each not in OTHERS], ids=lambda scenario: scenario.__name__
)
def test_what_the_sdk_does_with_openai_it_does_with_azure(
    azure: AzureOpenAI, scenario: Callable[[OpenAI], None]
) -> None:
    scenario(azure)


def test_the_asynchronous_client_streams_and_uploads(server: Server, api_key: str) -> None:
    async def use() -> tuple[str, str]:
        async with AsyncAzureOpenAI(
            azure_endpoint=server.url, azure_ad_token=api_key, api_version=VERSION, max_retries=0
        ) as client:
            file = await client.files.create(file=("notes.txt", b"Filip likes cake."), purpose="assistants")
            store = await client.vector_stores.create(file_ids=[file.id])
            polled = await client.vector_stores.files.poll(file.id, vector_store_id=store.id)
            assistant = await client.beta.assistants.create(model="gpt-4o")
            thread = await client.beta.threads.create(messages=[{"role": "user", "content": "[[say: Hello]]"}])
            async with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
                return polled.status, "".join([delta async for delta in stream.text_deltas])

    assert asyncio.run(use()) == ("completed", "Hello")


def test_an_event_handler_hears_the_same_stream(azure: AzureOpenAI) -> None:
    thread_id, assistant_id = smoke.new_thread(azure), smoke.new_assistant(azure)
    arguments: Any = {"thread_id": thread_id, "assistant_id": assistant_id, "event_handler": AssistantEventHandler()}
    with azure.beta.threads.runs.stream(**arguments) as stream:
        names = [event.event for event in stream]
    assert (names[0], names[-1]) == ("thread.run.created", "thread.run.completed")


def test_deployments_answer_chats_streams_completions_and_embeddings(azure: AzureOpenAI) -> None:
    asked: Any = {"model": "my-deployment", "messages": [{"role": "user", "content": "[[say: Hello]]"}]}
    chat = azure.chat.completions.create(**asked)
    assert (chat.choices[0].message.content, chat.model) == ("Hello", "my-deployment")
    streamed = azure.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == "Hello"
    assert len(azure.embeddings.create(model="my-embeddings", input=["Hello", "World"]).data) == 2


@pytest.mark.parametrize("body", [{}, {"model": "another"}])
def test_the_deployment_of_the_path_is_the_model_whatever_the_body_says(plain: httpx.Client, body: Any) -> None:
    sent = body | {"messages": [{"role": "user", "content": "[[say: Hello]]"}]}
    for name, model in (("mine", "mine"), ("a%2Fb:c", "a/b:c"), ("x/completions", "x/completions")):
        answer = plain.post(f"/openai/deployments/{name}/chat/completions", json=sent)
        assert (answer.status_code, answer.json()["model"]) == (200, model)


def test_a_client_of_one_deployment_finds_everything_else_too(server: Server, api_key: str) -> None:
    with AzureOpenAI(
        azure_endpoint=server.url, azure_deployment="mine", api_key=api_key, api_version=VERSION, max_retries=0
    ) as client:
        chat = client.chat.completions.create(model="any", messages=[{"role": "user", "content": "[[say: Hello]]"}])
        assert (chat.choices[0].message.content, chat.model) == ("Hello", "mine")
        assert smoke.new_assistant(client) in [each.id for each in client.beta.assistants.list()]
        assert client.files.create(file=("a.txt", b"a"), purpose="assistants").bytes == 1


def test_a_deployment_that_is_not_there_is_told_in_the_words_of_azure(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text('[models.mine]\nendpoint = "rehearsal"', "utf-8")
    settings = Settings(database_url=new_database(), models_file=tmp_path / "models.toml")
    asked: Any = {"messages": [{"role": "user", "content": "[[say: Hello]]"}]}
    with (
        serving(loop, settings) as server,
        AzureOpenAI(azure_endpoint=server.url, api_key="any", api_version=VERSION, max_retries=0) as client,
    ):
        assert client.chat.completions.create(model="mine", **asked).choices[0].message.content == "Hello"
        with pytest.raises(NotFoundError) as refused:
            client.chat.completions.create(model="other", **asked)
    shown: Any = refused.value.body
    assert (refused.value.code, list(shown)) == ("DeploymentNotFound", ["code", "message"])


def test_the_newer_paths_want_no_version(server: Server, api_key: str) -> None:
    with OpenAI(base_url=f"{server.url}/openai/v1/", api_key=api_key, max_retries=0) as client:
        smoke.text_deltas(client)
        chat = client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "[[say: Hello]]"}])
        assert chat.choices[0].message.content == "Hello"
    headers = {"api-key": api_key}
    for query in ("", "?api-version=preview"):
        assert httpx.get(f"{server.url}/openai/v1/assistants{query}", headers=headers).status_code == 200


@pytest.mark.parametrize("version", ["2024-05-01-preview", "2025-04-01-preview", "2024-10-21", "latest"])
def test_every_version_is_the_same(plain: httpx.Client, version: str) -> None:
    assert plain.get("/openai/assistants", params={"api-version": version}).json()["object"] == "list"


@pytest.mark.parametrize("query", ["", "?api-version=", "?version=2024-05-01-preview"])
def test_without_a_version_nothing_is_found(server: Server, api_key: str, query: str) -> None:
    for path in ("assistants", "deployments/mine/chat/completions"):
        answer = httpx.get(f"{server.url}/openai/{path}{query}", headers={"api-key": api_key})
        assert (answer.status_code, list(answer.json()["error"])) == (404, ["code", "message"])
        assert answer.json()["error"]["code"] == "404"
        assert answer.json()["error"]["message"].startswith("Resource not found")


def test_azure_wants_no_beta_header_and_refuses_a_wrong_one(plain: httpx.Client) -> None:
    made = plain.post("/openai/threads", json={"messages": [{"role": "user", "content": "Hello"}]})
    assert (made.status_code, made.json()["object"]) == (200, "thread")
    assert plain.get(f"/openai/threads/{made.json()['id']}/messages").json()["data"][0]["role"] == "user"
    assert plain.get("/openai/threads", headers={"OpenAI-Beta": "assistants=v1"}).status_code == 400
    assert plain.get("/v1/threads").json()["error"]["code"] == "invalid_beta"


def test_a_key_or_a_token_lets_in_and_nothing_else_does(server: Server, api_key: str) -> None:
    url = f"{server.url}/openai/assistants?api-version={VERSION}"
    for headers in ({"api-key": api_key}, {"Authorization": f"Bearer {api_key}"}):
        assert httpx.get(url, headers=headers).headers["openai-project"] == api_key.replace("key", "project")
    refused: list[dict[str, str]] = [{}, {"api-key": ""}, {"api-key": "wrong"}, {"Authorization": "Bearer wrong"}]
    for headers in refused:
        answer = httpx.get(url, headers=headers)
        assert (answer.status_code, list(answer.json())) == (401, ["error"])
        assert answer.json()["error"] == {"code": "401", "message": answer.json()["error"]["message"]}
        assert answer.json()["error"]["message"].startswith(GATEWAY_401)
    with (
        AzureOpenAI(azure_endpoint=server.url, api_key="wrong", api_version=VERSION, max_retries=0) as client,
        pytest.raises(AuthenticationError) as told,
    ):
        client.beta.assistants.list()
    assert told.value.code == "401"


def test_other_errors_are_those_of_openai(azure: AzureOpenAI) -> None:
    with pytest.raises(NotFoundError) as told:
        azure.beta.assistants.retrieve("asst_unknown")
    shown = {"message": "No assistant found with id 'asst_unknown'.", "type": "invalid_request_error"}
    assert told.value.body == shown | {"param": None, "code": None}


def test_answers_and_refusals_have_the_ids_of_azure(plain: httpx.Client) -> None:
    for path in ("assistants", "nothing"):
        answer = plain.get(f"/openai/{path}", headers={"x-ms-client-request-id": "mine"})
        assert answer.headers["apim-request-id"] == answer.headers["x-request-id"]
        assert answer.headers["x-ms-client-request-id"] == "mine"
    ours = plain.get("/v1/models", headers={"x-ms-client-request-id": "mine"})
    assert "apim-request-id" not in ours.headers


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/openai/nothing", "Invalid URL (GET /openai/nothing) (HINT: this server does not offer that endpoint"),
        ("/openai", "Invalid URL (GET /openai) (HINT: this server does not offer that endpoint"),
        ("/openai/v1/x", "Invalid URL (GET /openai/v1/x) (HINT: this server does not offer that endpoint"),
        ("/v1/openai/assistants", "Invalid URL (GET /v1/openai/assistants) (HINT: an azure_endpoint has no path"),
        ("/openai/openai/assistants", "(HINT: an azure_endpoint has no path: set it to http://127.0.0.1:"),
        ("/openaix/assistants", "(HINT: the API lives under /v1"),
    ],
)
def test_wrong_paths_are_answered_with_what_to_do(plain: httpx.Client, path: str, hint: str) -> None:
    answer = plain.get(path)
    assert (answer.status_code, hint in answer.json()["error"]["message"]) == (404, True), answer.text


def test_a_wrong_method_is_told_with_the_right_ones(plain: httpx.Client) -> None:
    answer = plain.put("/openai/assistants")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


def test_requests_are_counted_by_their_routes(server: Server, plain: httpx.Client) -> None:
    def counts() -> dict[str, float]:
        [metric] = server.resources.metrics.requests.collect()
        counted = [sample for sample in metric.samples if sample.name.endswith("_total")]
        return {each.labels["route"]: each.value for each in counted if each.labels["method"] == "PATCH"}

    template = "/openai/threads/{thread_id}"
    before = counts().get(template, 0)
    assert plain.patch("/openai/threads/thread_any").status_code == 405
    eventually(lambda: counts().get(template, 0) == before + 1)  # it is counted after it was answered


def test_a_server_without_keys_takes_any_and_keeps_web_pages_out(loop: Loop, new_database: Callable[[], str]) -> None:
    with serving(loop, Settings(database_url=new_database())) as server:
        url = f"{server.url}/openai/assistants?api-version={VERSION}"
        for headers in ({"api-key": "any"}, {}):
            assert httpx.get(url, headers=headers).headers["openai-project"] == "default"
        assert httpx.get(url, headers={"Origin": "https://example.com"}).status_code == 403
        assert httpx.get(url, headers={"Host": "example.com"}).status_code == 403


DOCUMENT = (Path(__file__).parents[2] / "docs" / "azure.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.S)


def test_what_the_documentation_shows_works(server: Server, api_key: str, tmp_path: Path) -> None:
    [program], [command], [table] = blocks("python"), blocks("bash"), blocks("toml")
    shown: dict[str, Any] = {}
    program = program.replace("http://127.0.0.1:8000", server.url).replace('"any"', repr(api_key))
    exec(compile(program, "azure.md", "exec"), shown)
    shown["client"].close()
    assert shown["assistant"].model == "my-deployment"
    [url], [(name, value)] = re.findall(r'"(http\S+)"', command), re.findall(r'-H "(\S+): (\S+)"', command)
    assert (name, value) == ("api-key", "any")
    listed = httpx.get(url.replace("http://127.0.0.1:8000", server.url), headers={name: api_key}).json()
    assert [each["id"] for each in listed["data"]] == [shown["assistant"].id]
    (tmp_path / "models.toml").write_text(table, "utf-8")
    models = models_file.read(tmp_path / "models.toml")
    [route] = models.routes({}, timeout_s=1, image_urls="auto", rehearsal=None)
    assert (route.pattern, route.model, route.endpoint.base_url) == (
        "my-deployment",
        "qwen3:32b",
        "http://localhost:11434/v1",
    )
