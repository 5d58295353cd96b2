"""No secret gets out: a server that knows many, through the success and the failure of everything that it works with.

All that it writes, answers, measures and traces is looked through, and what the doctor says of it. The keys must be
nowhere; what people wrote and uploaded is for its project alone, and in no log, metric, span or line of the doctor.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.server import ThreadedMotoServer

from adlatus.doctor import examine
from adlatus.errors import StartupError
from adlatus.resources import open_resources
from adlatus.settings import Settings
from adlatus.telemetry import Metrics
from tests.collector import Collector, collecting
from tests.faults.processes import Process, data_folder, serve
from tests.faults.proxy import Proxy, database_behind_proxy, proxy_of
from tests.retrieval.embedding_server import Embeddings, embedding_server
from tests.retrieval.qdrant_server import Qdrant, qdrant_server
from tests.retrieval.service import Answer, answering
from tests.runs.transcripts import converse, eventually, sent

pytestmark = pytest.mark.slow

KEYS = {
    name: f"geheim{name}0123456789"
    for name in ("api", "wrong", "model", "embedding", "rerank", "qdrant", "database", "storage", "collector")
}
CONTENTS = {
    name: f"inhalt{name}0123456789"
    for name in ("message", "instructions", "answer", "file", "query", "metadata", "arguments", "output", "malformed")
}
BUCKET = "s3://files-of-secrets"


@dataclass
class Stage:
    """What the server works with. `model` and `reranker` answer with this status; an error repeats what was sent."""

    collector: Collector
    storage: Proxy
    embeddings: Embeddings
    qdrant: Qdrant
    database: Proxy
    settings: dict[str, str]
    statuses: dict[str, int] = field(default_factory=lambda: {"model": 200, "reranker": 200})
    answers: list[str] = field(default_factory=list)

    def heard(self, response: httpx.Response) -> httpx.Response:
        """Keep an answer to be looked through."""
        self.answers.append(f"{response.status_code} {response.headers} {response.text}")
        return response


def _model(statuses: dict[str, int], request: BaseHTTPRequestHandler, body: bytes) -> Answer:
    if request.path.endswith("/models"):
        return 200, b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'
    return _or_echo(statuses["model"], request, body, _completion(json.loads(body)))


def _completion(asked: dict[str, Any]) -> object:
    wants_call = asked.get("tools") and asked["messages"][-1]["role"] == "user"
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look", "arguments": json.dumps(CONTENTS["arguments"])},
    }
    said = {"content": CONTENTS["answer"]} | ({"tool_calls": [call]} if wants_call else {})
    choice = {
        "index": 0,
        "message": {"role": "assistant", **said},
        "finish_reason": "tool_calls" if wants_call else "stop",
    }
    return {"object": "chat.completion", "model": "m", "choices": [choice]}


def _reranker(statuses: dict[str, int], request: BaseHTTPRequestHandler, body: bytes) -> Answer:
    scores = [{"index": n, "relevance_score": 0.5} for n, _ in enumerate(json.loads(body).get("documents", []))]
    return _or_echo(statuses["reranker"], request, body, {"results": scores})


def _or_echo(status: int, request: BaseHTTPRequestHandler, body: bytes, answer: object) -> Answer:
    """An error as of a server that is careless with what it was sent."""
    if status == 200:
        return 200, json.dumps(answer).encode()
    said = f"Wrong: {request.headers.get('authorization')} {body.decode()}"
    return status, json.dumps({"error": {"message": said}}).encode()


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], str]) -> Iterator[Stage]:
    statuses = {"model": 200, "reranker": 200}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        storage = stack.enter_context(proxy_of(moto.get_host_and_port()))
        address = f"http://127.0.0.1:{storage.port}"
        httpx.put(f"{address}/{BUCKET.removeprefix('s3://')}").raise_for_status()
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["storage"])
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={KEYS['collector']}")
        collector = stack.enter_context(collecting())
        qdrant, embeddings = stack.enter_context(qdrant_server()), stack.enter_context(embedding_server())
        model = stack.enter_context(answering(lambda request, body: _model(statuses, request, body)))
        reranker = stack.enter_context(answering(lambda request, body: _reranker(statuses, request, body)))
        database, dsn = stack.enter_context(database_behind_proxy(new_database()))
        scheme, _, rest = dsn.partition("://")
        login, _, at = rest.rpartition("@")
        settings = {
            "database_url": f"{scheme}://{login}:{KEYS['database']}@{at}",
            "model_base_url": f"{model}/v1",
            "model_api_key": KEYS["model"],
            "model": "m",
            "api_keys": f"{KEYS['api']}:blue",
            "storage_url": BUCKET,
            "qdrant_api_key": KEYS["qdrant"],
            "embedding_api_key": KEYS["embedding"],
            "rerank_url": f"{reranker}/rerank",
            "rerank_api_key": KEYS["rerank"],
            "log_level": "debug",
            "log_format": "json",
            **qdrant.settings,
            **embeddings.settings,
        }
        yield Stage(collector, storage, embeddings, qdrant, database, settings, statuses)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        folder.mkdir(mode=0o755)
        yield folder


@contextmanager
def client_of(server: Process, stage: Stage) -> Iterator[httpx.Client]:
    """A client with the key, whose answers are kept."""

    def keep(response: httpx.Response) -> None:
        response.read()
        stage.heard(response)

    with server.client() as http:
        http.headers["authorization"] = f"Bearer {KEYS['api']}"
        http.event_hooks["response"].append(keep)
        yield http


def everything_works(http: httpx.Client) -> str:
    """Use all of it once; the id of a vector store with a file."""
    sent(http.post("/assistants", json={"model": "m", "metadata": {"a": CONTENTS["metadata"]}}))
    assert converse(http, CONTENTS["message"], instructions=CONTENTS["instructions"]).completed() == CONTENTS["answer"]
    tools = [{"type": "function", "function": {"name": "look"}}]
    talk = converse(http, CONTENTS["message"], tools=tools)
    run_id = talk.start()["id"]
    run = eventually(lambda: (run := talk.run(run_id))["status"] == "requires_action" and run)
    assert run
    [call] = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = {"tool_outputs": [{"tool_call_id": call["id"], "output": CONTENTS["output"]}]}
    sent(http.post(f"{talk.path}/runs/{run_id}/submit_tool_outputs", json=outputs))
    assert talk.ended(run_id)["status"] == "completed"
    store_id = index(http)
    found = sent(http.post(f"/vector_stores/{store_id}/search", json={"query": CONTENTS["query"]}))
    assert CONTENTS["file"] in found["data"][0]["content"][0]["text"]
    return store_id


def index(http: httpx.Client) -> str:
    named = {"file": (f"{CONTENTS['file']}.txt", f"{CONTENTS['file']} is in it".encode())}
    file_id = sent(http.post("/files", data={"purpose": "assistants"}, files=named))["id"]
    store_id: str = sent(http.post("/vector_stores", json={"file_ids": [file_id]}))["id"]
    eventually(lambda: not sent(http.get(f"/vector_stores/{store_id}"))["file_counts"]["in_progress"])
    return store_id


def everything_fails(http: httpx.Client, stage: Stage, store_id: str, server: Process) -> None:
    """Break one thing after another, and have each asked for."""
    for wrong in (
        {"json": {"model": [CONTENTS["malformed"]]}},
        {"content": f'{{"model": "{CONTENTS["malformed"]}'.encode()},
    ):
        assert http.post("/assistants", **wrong).status_code == 400
    refused = httpx.get(f"{server.url}/v1/assistants", headers={"Authorization": f"Bearer {KEYS['wrong']}"})
    assert stage.heard(refused).status_code == 401
    for status in (400, 401, 404, 418):
        stage.statuses["model"] = status
        talk = converse(http, CONTENTS["message"])
        assert talk.ended(talk.start()["id"])["status"] == "failed"
        assert http.post("/chat/completions", json={"model": "m", "messages": []}).status_code >= 400
    search = {"query": CONTENTS["query"]}
    stage.statuses["reranker"] = 401
    assert http.post(f"/vector_stores/{store_id}/search", json=search).status_code == 200
    stage.embeddings.refusal = 401
    http.post(f"/vector_stores/{store_id}/search", json=search)
    stage.embeddings.refusal, stage.qdrant.down = 0, True
    assert http.post(f"/vector_stores/{store_id}/search", json=search).status_code == 503
    stage.storage.refuse()
    files = {"file": ("a.txt", CONTENTS["file"].encode())}
    assert http.post("/files", data={"purpose": "assistants"}, files=files).status_code == 503
    stage.database.refuse()
    assert http.get("/assistants").status_code == 503


def leaks_of(what: str, text: str, secrets: Mapping[str, str]) -> list[str]:
    """The secrets that stand in a text, with what is before them."""
    found = {name: text.find(secret) for name, secret in secrets.items() if secret in text}
    return [f"{name} in {what}: {text[max(at - 300, 0) : at + 20]}" for name, at in found.items()]


def examined(stage: Stage, folder: Path) -> int:
    """The exit code of the doctor."""
    return asyncio.run(examine(Settings.model_validate({**stage.settings, "data_dir": folder, "port": 1})))


async def opened(settings: Settings) -> None:
    async with open_resources(settings, Metrics(), has_folder=False):
        pass


def test_no_secret_gets_out(stage: Stage, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    key = {"Authorization": f"Bearer {KEYS['api']}"}
    with serve(folder, user=None, **stage.settings) as server, client_of(server, stage) as http:
        store_id = everything_works(http)
        healthy = httpx.get(f"{server.url}/readyz", headers=key)
        assert (healthy.status_code, examined(stage, folder)) == (200, 0)
        everything_fails(http, stage, store_id, server)
        broken = httpx.get(f"{server.url}/readyz", headers=key)
        assert (broken.status_code, examined(stage, folder)) == (503, 1)
        with pytest.raises(StartupError) as refused:
            asyncio.run(opened(Settings.model_validate({**stage.settings, "data_dir": folder})))
        metrics = httpx.get(f"{server.url}/metrics", headers=key).text
        stage.database.pass_on()
        assert server.stop() == 0
        log = server.log
    doctor = "".join(capfd.readouterr())
    assert "FAILS" in doctor
    assert len(stage.answers) > 40
    written = {
        "the log": log,
        "/readyz": healthy.text + broken.text,
        "/metrics": metrics,
        "the doctor": doctor,
        "a start that is refused": str(refused.value),
        "the traces": stage.collector.raw.decode(errors="replace"),
    }
    leaks = [leak for what, text in written.items() for leak in leaks_of(what, text, KEYS | CONTENTS)]
    leaks += leaks_of("the answers", "\n".join(stage.answers), KEYS)
    assert not leaks, "\n\n".join(leaks)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    of_runs = [line for line in lines if line["event"] == "run ended"]
    assert of_runs
    assert all(line["request_id"].startswith("req_") and line["run_id"].startswith("run_") for line in of_runs)
