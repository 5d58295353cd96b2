"""Traces, as a collector gets them: what a request led to, by OpenTelemetry's conventions, and nobody's words."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from adlatus.errors import StartupError
from adlatus.settings import Settings
from adlatus.telemetry import tracing
from tests.collector import Collector, Span, collecting
from tests.conftest import BETA, Loop, Server, serving
from tests.runs.searching import call, exchange, researcher, scripted, store_of, upload
from tests.runs.transcripts import converse
from tests.runs.upstream import chunk, upstream

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "the harbour of Nowhere"
EXCHANGES = [
    exchange("Who eats pizza?", {"tool_calls": [call(f"pizza in {SECRET}")]}),
    exchange("Who eats pizza?", {"text": f"Effie, in {SECRET}."}, results="pizza"),
]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(
    collector: Collector, loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with scripted(loop, new_database(), tmp_path_factory.mktemp("script"), EXCHANGES) as server:
        collector.hide()
        yield server


@pytest.fixture
def client(traced: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=traced.base_url, headers=BETA, timeout=30) as client:
        yield client


def said(span: Span, *names: str) -> list[object]:
    return [span.attributes.get(name) for name in names]


def test_a_run_is_traced_from_its_request_to_the_search_of_its_tool(collector: Collector, client: httpx.Client) -> None:
    store = store_of(client, upload(client, f"Tekakwitha Effie: pizza, {SECRET}", "foods.txt"))
    talk = researcher(client, "Who eats pizza?", store, name="Foods")
    created = client.post(
        f"{talk.path}/runs?include[]=none-of-the-words",
        json={"assistant_id": talk.assistant_id, "stream": True},
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
    )
    assert created.status_code == 400  # a query string that is wrong has a span as well
    body = {"assistant_id": talk.assistant_id, "stream": True}
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    streamed = client.post(f"{talk.path}/runs", json=body, headers=headers)
    run = client.get(f"{talk.path}/runs").json()["data"][0]
    assert run["status"] == "completed", run

    [root] = collector.named("POST /v1/threads/{thread_id}/runs", request_id=streamed.headers["x-request-id"])
    assert (root.kind, root.trace_id, root.parent_id) == ("server", TRACE, CALLER)
    method, route, status = said(root, "http.request.method", "http.route", "http.response.status_code")
    assert (method, route, status) == ("POST", "/v1/threads/{thread_id}/runs", 200)

    [of_run] = collector.named("invoke_agent Foods", run_id=run["id"])
    assert (of_run.kind, of_run.parent_id) == ("internal", root.span_id)
    assert said(of_run, "gen_ai.operation.name", "gen_ai.agent.id", "gen_ai.agent.name", "gen_ai.conversation.id") == [
        "invoke_agent",
        talk.assistant_id,
        "Foods",
        talk.thread_id,
    ]
    assert of_run.attributes["adlatus.run_status"] == "completed"

    asked, answered = [span for span in collector.below(of_run) if span.name.startswith("chat ")]
    assert (asked.name, asked.kind) == ("chat gpt-4o", "client")
    assert asked.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert answered.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert said(answered, "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")[0] > 0  # type: ignore[operator]

    [tool] = [span for span in collector.below(of_run) if span.name == "execute_tool file_search"]
    assert said(tool, "gen_ai.operation.name", "gen_ai.tool.name") == ["execute_tool", "file_search"]
    [search] = [span for span in collector.below(tool) if span.name == "search"]
    assert said(search, "gen_ai.data_source.id", "adlatus.results") == [store, 1]
    assert {span.trace_id for span in (of_run, asked, answered, tool, search)} == {TRACE}


def test_what_is_indexed_is_traced(collector: Collector, client: httpx.Client) -> None:
    file_id = upload(client, f"{SECRET} again", "harbour.txt")
    store = store_of(client, file_id)
    [span] = collector.named("index file", file_id=file_id)
    assert said(span, "adlatus.vector_store_id", "adlatus.chunks") == [store, 1]
    assert not span.failed
    empty = upload(client, "\0\0\0", "empty.pdf")
    store_of(client, empty)
    [failed] = collector.named("index file", file_id=empty)
    assert failed.failed
    assert failed.attributes["error.type"] in ("invalid_file", "unsupported_file")


def test_no_span_has_anybodys_words_in_it(collector: Collector, client: httpx.Client) -> None:
    request_id = client.get("/assistants", params={"after": SECRET}).headers["x-request-id"]
    collector.named("GET /v1/assistants", request_id=request_id)
    collector.named("execute_tool file_search")
    assert b"execute_tool" in collector.raw
    for words in (SECRET, SECRET.replace(" ", "+"), "pizza", "foods.txt"):
        assert words.encode() not in collector.raw


def test_the_process_says_who_it_is(collector: Collector, client: httpx.Client, traced: Server) -> None:
    client.get("/assistants")
    collector.named("GET /v1/assistants")
    shown = collector.resource
    assert (shown["service.name"], shown["service.instance.id"]) == ("adlatus", traced.resources.executor_id)


def test_what_machines_ask_all_the_time_is_not_traced(
    collector: Collector, client: httpx.Client, traced: Server
) -> None:
    for path in ("healthz", "readyz", "metrics"):
        httpx.get(f"{traced.url}/{path}").raise_for_status()
    request_id = client.get("/models").headers["x-request-id"]
    collector.named("GET /v1/models", request_id=request_id)
    assert not [
        span for span in collector.spans if span.name.startswith(("GET /healthz", "GET /readyz", "GET /metrics"))
    ]


def test_the_model_endpoint_is_told_whose_trace_it_is(loop: Loop, new_database: Callable[[], str]) -> None:
    pieces = (
        chunk("Hello", model="their-model-7", id="chatcmpl-7"),
        chunk(finish_reason="length"),
        b"data: [DONE]\n\n",
    )
    with (
        collecting() as collector,
        upstream(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n", *pieces) as model,
    ):
        settings = Settings(database_url=new_database(), model_base_url=model.base_url, model="theirs")
        with (
            serving(loop, settings) as server,
            httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
        ):
            talk = converse(http, "Hi", name="Greeter")
            run = talk.ended(talk.start()["id"])
            assert run["status"] == "incomplete"
            [span] = collector.named("chat theirs")
            [(head, _)] = model.received
            assert f"traceparent: 00-{span.trace_id}-{span.span_id}-".encode() in head.lower()
            names = ("request.model", "response.model", "response.id", "response.finish_reasons")
            assert said(span, *(f"gen_ai.{name}" for name in names)) == [
                "theirs",
                "their-model-7",
                "chatcmpl-7",
                ["length"],
            ]
            port = int(model.base_url.rpartition(":")[2].partition("/")[0])
            assert said(span, "server.address", "server.port") == ["127.0.0.1", port]


def test_what_fails_is_marked(loop: Loop, new_database: Callable[[], str]) -> None:
    refusal = b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    with collecting() as collector, upstream(refusal) as model:
        settings = Settings(database_url=new_database(), model_base_url=model.base_url, model="gone")
        with (
            serving(loop, settings) as server,
            httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
        ):
            talk = converse(http, "Hi")
            run = talk.ended(talk.start()["id"])
            assert run["status"] == "failed"
            [of_run], [asked] = collector.named("invoke_agent"), collector.named("chat gone")
            assert (of_run.failed, of_run.attributes["error.type"]) == (True, "server_error")
            assert (asked.failed, asked.attributes["error.type"]) == (True, "ModelError")


def test_a_collector_that_is_gone_is_no_obstacle(
    loop: Loop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with (
        serving(loop, Settings(database_url=database_url)) as server,
        httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
    ):
        assert server.resources.tracing is not None
        assert converse(http, "[[say: I am well.]]").completed() == "I am well."


# --- Whether it is on


@pytest.mark.slow
def test_without_a_collector_nothing_of_the_sdk_is_loaded(server: Server) -> None:
    assert server.resources.tracing is None
    shown = "import sys, adlatus.cli; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    assert subprocess.run([sys.executable, "-c", shown], capture_output=True, check=True, cwd="/").stdout == b"[]\n"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"},
    ],
)
def test_it_is_off_unless_a_collector_of_traces_is_named(environment: dict[str, str]) -> None:
    assert not tracing.configured(environment)
    assert tracing.configured({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"})


@pytest.mark.parametrize(
    ("environment", "advice"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "name the collector's HTTP port, usually 4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "is not an address such as http://localhost:4318"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "may be 'otlp' or 'none', not 'zipkin'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, environment: dict[str, str], advice: str
) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=advice):
        loop.run(tracing.open_tracing("me").__aenter__())


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)  # as if it were not installed
    with pytest.raises(StartupError, match=r"pip install 'adlatus\[otel\]'"):
        loop.run(tracing.open_tracing("me").__aenter__())
