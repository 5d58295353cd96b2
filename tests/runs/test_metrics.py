"""What the metrics say after things have happened that they are about."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.settings import Settings
from adlatus.telemetry.metrics import METHODS, Metrics, table
from tests.conftest import BETA, Loop, NoBoxes, Server, _execute, serving
from tests.runs.coding import coder, coding, interpreting
from tests.runs.functions import calculator
from tests.runs.searching import call, exchange, researcher, scripted, store_of, upload
from tests.runs.transcripts import converse, eventually, sent
from tests.runs.upstream import chunk, upstream

EXCHANGES = [
    exchange("Who eats pizza?", {"tool_calls": [call("pizza")]}),
    exchange("Who eats pizza?", {"text": "Effie."}, results="pizza"),
    exchange("Add.", {"tool_calls": [{"name": "add", "arguments": {}}]}),
]


class Measured:
    """The samples of a server, by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((f"adlatus_{name}", tuple(sorted(labels.items()))), 0.0)

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for each, labels in self._samples if each == f"adlatus_{name}"}


@pytest.fixture(scope="module")
def measured_server(
    loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with scripted(loop, new_database(), tmp_path_factory.mktemp("script"), EXCHANGES) as server:
        yield server


@pytest.fixture
def client(measured_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=measured_server.base_url, headers=BETA, timeout=30) as client:
        yield client


def measured(server: Server) -> Measured:
    return Measured(httpx.get(f"{server.url}/metrics", timeout=30).text)


def test_a_run_with_a_search_moves_what_is_about_it(client: httpx.Client, measured_server: Server) -> None:
    before = measured(measured_server)
    store = store_of(client, upload(client, "Tekakwitha Effie: pizza"))
    assert researcher(client, "Who eats pizza?", store).completed() == "Effie."
    eventually(
        lambda: measured(measured_server)("runs_total", status="completed") > before("runs_total", status="completed")
    )
    after = measured(measured_server)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    counted = {
        "run_seconds_count": more("run_seconds_count", status="completed"),
        "run_first_token_seconds_count": more("run_first_token_seconds_count"),
        "run_wait_seconds_count": more("run_wait_seconds_count"),
        "model_first_token_seconds_count": more("model_first_token_seconds_count", model="other"),
        "model_seconds_count": more("model_seconds_count", model="other", outcome="done"),
        "search_seconds_count": more("search_seconds_count", outcome="done"),
        "vector_store_files_total": more("vector_store_files_total", status="completed"),
        "vector_store_file_seconds_count": more("vector_store_file_seconds_count"),
        "vector_store_chunks_total": more("vector_store_chunks_total"),
    }
    assert counted == dict.fromkeys(counted, 1.0) | {
        "model_first_token_seconds_count": 2.0,
        "model_seconds_count": 2.0,
    }
    assert more("tokens_total", kind="prompt", model="other") > 0
    assert 0 < more("run_first_token_seconds_sum") <= more("run_seconds_sum", status="completed")


def test_what_ends_without_an_executor_is_counted_too(client: httpx.Client, measured_server: Server) -> None:
    before = measured(measured_server)("runs_total", status="cancelled")
    talk = calculator(client, "Add.")
    run = talk.start()
    eventually(lambda: talk.run(run["id"])["status"] == "requires_action")
    sent(client.post(f"{talk.path}/runs/{run['id']}/cancel"))
    assert measured(measured_server)("runs_total", status="cancelled") == before + 1


def test_a_run_that_waited_for_its_client_is_as_old_as_it_is(client: httpx.Client, measured_server: Server) -> None:
    talk = calculator(client, "Add.")
    run = talk.start()
    eventually(lambda: talk.run(run["id"])["status"] == "requires_action")
    settings = measured_server.resources.settings
    assert settings.database_url is not None
    aged = f"UPDATE runs SET created_at = created_at - 100 WHERE id = '{run['id']}'"
    measured_server.loop.run(_execute(settings.database_url.get_secret_value(), aged))
    before = measured(measured_server)
    [waiting] = talk.run(run["id"])["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = {"tool_outputs": [{"tool_call_id": waiting["id"], "output": "7"}]}
    sent(client.post(f"{talk.path}/runs/{run['id']}/submit_tool_outputs", json=outputs))
    ended = talk.ended(run["id"])["status"]  # the script knows no answer, so that it fails
    eventually(
        lambda: measured(measured_server)("run_seconds_count", status=ended) > before("run_seconds_count", status=ended)
    )
    took = measured(measured_server)("run_seconds_sum", status=ended) - before("run_seconds_sum", status=ended)
    assert 99 <= took < 200


def test_what_waits_is_counted_in_the_database(loop: Loop, new_database: Callable[[], str]) -> None:
    """By a server that executes nothing, while somebody else is said to."""
    database_url = new_database()
    settings = Settings(database_url=database_url, ingestion_concurrency=0)
    with (
        serving(loop, settings, executor=False) as server,
        httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
    ):
        loop.run(
            _execute(
                database_url,
                "INSERT INTO executors (id, runs, ingestion, search, sandbox) "
                "VALUES ('another', true, true, true, false)",
            )
        )
        for _ in range(2):
            converse(http, "Hello?").start()
        file_id = upload(http, "Hello!")
        sent(http.post("/vector_stores", json={"file_ids": [file_id]}))
        loop.run(
            _execute(
                database_url,
                "UPDATE runs SET claimable_at = now() - interval '100 seconds'",
                "UPDATE vector_store_files SET created_at = created_at - 50",
            )
        )
        shown = measured(server)
        assert (shown("runs_waiting"), shown("vector_store_files_waiting")) == (2.0, 1.0)
        assert 100 <= shown("runs_oldest_waiting_seconds") < 150
        assert 50 <= shown("vector_store_files_oldest_waiting_seconds") < 100


def test_the_names_of_models_that_clients_make_up_are_no_labels(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    said = (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n", chunk("Hi", "stop"))
    with upstream(*said) as model:
        routes = tmp_path / "models.toml"
        routes.write_text(
            f'[endpoints.e]\nbase_url = "{model.base_url}"\n[models."known"]\nendpoint = "e"\n'
            '[models."any-*"]\nendpoint = "e"\n',
            "utf-8",
        )
        with (
            serving(loop, Settings(database_url=new_database(), models_file=routes)) as server,
            httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
        ):
            for name in ("known", "any-thing", "any-other"):
                assert converse(http, "Hello?", model=name).completed() == "Hi"
            http.request("PROPFIND", "/assistants")
            shown = measured(server)
            assert shown.labels("tokens_total", "model") == {"known", "other"}
            assert {"GET", "other"} <= shown.labels("http_requests_total", "method") <= {*METHODS, "other"}


def test_the_pool_and_the_loop_are_measured(client: httpx.Client, measured_server: Server) -> None:
    resources = measured_server.resources

    async def held() -> Measured:
        held = resources.database.transaction()
        async with held, resources.database.transaction(), httpx.AsyncClient() as asking:
            return Measured((await asking.get(f"{measured_server.url}/metrics")).text)

    shown = measured_server.loop.run(held())
    assert shown("database_connections", state="in_use") >= 2.0
    assert shown("database_connections", state="waiting") == 0.0
    assert shown("database_connections_max") == resources.database.pool.most
    assert eventually(lambda: measured(measured_server)("event_loop_lag_seconds_count"))


@pytest.mark.slow
def test_sandboxes_are_measured(loop: Loop, new_database: Callable[[], str], tmp_path: Path) -> None:
    exchanges = coding("What is 3 + 4?", "print(3 + 4)", "7", "It is 7.")
    with (
        interpreting(loop, new_database(), tmp_path, "bubblewrap", exchanges) as server,
        httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
    ):
        assert coder(http, "What is 3 + 4?").completed() == "It is 7."
        eventually(lambda: measured(server)("sandboxes", state="warm"))
        shown = measured(server)
        assert (shown("sandboxes", state="idle"), shown("sandboxes", state="busy")) == (1.0, 0.0)
        assert shown("sandbox_seconds_count") == 1.0


def test_a_sandbox_that_cannot_be_had_is_counted(loop: Loop, new_database: Callable[[], str], tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump({"exchanges": coding("What is 3 + 4?", "print(3 + 4)", "7", "7")}), "utf-8")
    settings = Settings(database_url=new_database(), rehearsal_script=script)
    with (
        serving(loop, settings, sandboxes=Sandboxes(NoBoxes())) as server,
        httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http,
    ):
        talk = coder(http, "What is 3 + 4?")
        assert talk.ended(talk.start()["id"])["status"] == "failed"
        assert measured(server)("sandbox_failures_total", reason="unavailable") == 1.0


def test_names_and_labels_keep_to_the_conventions() -> None:
    for name, kind, meaning in Metrics().described:
        assert re.fullmatch(r"adlatus_[a-z_]+(\{[a-z, ]+\})?", name)
        bare = name.partition("{")[0]
        assert bare.endswith("_total") == (kind == "counter")
        assert bare.endswith("_seconds") or kind != "histogram"
        assert meaning[0].isupper() or meaning[0].isdigit()
        assert not set(re.findall("[a-z]+", name.partition("{")[2])) & {"id", "project", "thread", "path"}


def test_the_documentation_lists_every_metric_and_no_other() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "observing.md").read_text()
