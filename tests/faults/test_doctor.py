"""`adlatus doctor` with each component really broken in turn: it says which one, and what to do, and ends with 1."""

import asyncio
import os
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from adlatus.doctor import examine
from adlatus.settings import Settings
from adlatus.store import migrate
from tests.conftest import Loop, _execute, missing
from tests.faults.processes import adlatus, data_folder, small_disk
from tests.retrieval.embedding_server import embedding_server
from tests.retrieval.qdrant_server import qdrant_server
from tests.retrieval.service import Answer, answering

NOBODY = "http://127.0.0.1:1"
Examined = Callable[..., tuple[int, dict[str, list[str]]]]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Examined:
    """The doctor's exit code, and what it says of each component: the mark, then the lines."""

    def examined(**settings: Any) -> tuple[int, dict[str, list[str]]]:
        code = asyncio.run(examine(Settings(**{"data_dir": tmp_path, "port": 1, **settings})))
        said: dict[str, list[str]] = {}
        name = ""
        for line in capsys.readouterr().out.splitlines():
            if not line.startswith(" "):
                name, _, rest = line.partition("  ")
                mark, _, found = rest.strip().partition(" ")
                said[name] = [mark, found.strip()]
            else:
                said[name].append(line.strip())
        return code, said

    return examined


def fails(examined: tuple[int, dict[str, list[str]]], component: str) -> str:
    """What is said of the one component that fails."""
    code, said = examined
    assert [name for name, (mark, *_) in said.items() if mark == "FAILS"] == [component], said
    assert code == 1
    return " ".join(said[component][1:])


def refusing(status: int) -> Any:
    """A server that answers everything with this status."""

    def respond(_request: BaseHTTPRequestHandler, _body: bytes) -> Answer:
        return status, b'{"error": {"message": "No."}}'

    return answering(respond)


def test_all_is_well_where_everything_answers(
    doctor: Examined, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4318")
    scores = b'{"results": [{"index": 0, "relevance_score": 0.5}]}'
    with qdrant_server() as qdrant, embedding_server() as embeddings, answering(lambda *_: (200, scores)) as reranker:
        code, said = doctor(
            database_url=database_url,
            rerank_url=f"{reranker}/rerank",
            api_keys="key",
            **qdrant.settings,
            **embeddings.settings,
        )
    marks = {name: mark for name, (mark, *_) in said.items()}
    assert code == 0
    assert marks == {
        **dict.fromkeys(("data folder", "disk", "database", "clock", "storage", "index", "embeddings"), "ok"),
        **dict.fromkeys(("reranker", "keys", "traces"), "ok"),
        **dict.fromkeys(("model", "code", "server"), "-"),
    }
    assert said["traces"][1] == "sent to http://collector:4318"


# --- The machine


def test_a_data_folder_that_cannot_be_written_to(doctor: Examined, database_url: str, tmp_path: Path) -> None:
    storage = {"storage_url": f"file://{tmp_path}/files", "database_url": database_url}
    said = fails(doctor(data_dir=Path("/proc/self"), **storage), "data folder")  # not even by root
    assert "/proc/self cannot be written to" in said
    assert "choose another one by --data-dir or ADLATUS_DATA_DIR" in said
    file = tmp_path / "a file"
    file.touch()
    assert "cannot be made in" in fails(doctor(data_dir=file / "below", **storage), "data folder")


@pytest.mark.nightly
def test_a_folder_of_somebody_else() -> None:
    if os.geteuid() != 0:
        missing("root", "only root runs programs as somebody else")
    with data_folder() as folder:
        folder.mkdir(mode=0o755)
        with adlatus("doctor", "--data-dir", str(folder), user=65534, port="1") as process:
            assert process.ended(60) == 1
            assert re.search("^data folder +FAILS", process.log, re.M), process.log
            assert "Give it to the user that runs Adlatus" in process.log


def test_a_disk_that_is_full(doctor: Examined, database_url: str) -> None:
    with small_disk(20) as disk:
        said = fails(doctor(data_dir=disk, database_url=database_url), "disk")
    assert "MB free" in said
    assert "Make room, or choose another ADLATUS_DATA_DIR" in said


# --- The database


def test_a_database_that_is_not_there(doctor: Examined) -> None:
    said = fails(doctor(database_url="postgresql://nobody:geheim@127.0.0.1:1/none"), "database")
    assert "cannot connect" in said
    assert "Check ADLATUS_DATABASE_URL and the server." in said
    assert "geheim" not in said


def test_a_database_that_does_not_know_the_user(doctor: Examined, database_url: str) -> None:
    address, _, query = database_url.partition("?")
    scheme, _, rest = address.partition("://")
    stranger = f"{scheme}://stranger:geheim@{rest.rpartition('@')[2]}?{query}"
    said = fails(doctor(database_url=stranger), "database")
    assert "stranger" in said
    assert "Check ADLATUS_DATABASE_URL and the server." in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ("DROP TABLE alembic_version", "at revision none Run `adlatus migrate`."),
        ("UPDATE alembic_version SET version_num = '0001'", "at revision 0001 Run `adlatus migrate`."),
        ("UPDATE alembic_version SET version_num = '9999'", "which this version does not know Use the Adlatus that"),
    ],
    ids=["empty", "older", "newer"],
)
def test_a_database_of_another_version(
    doctor: Examined, loop: Loop, database_url: str, change: str, advice: str
) -> None:
    assert migrate.knows("0001")
    loop.run(_execute(database_url, change))
    assert advice in fails(doctor(database_url=database_url), "database")


@pytest.mark.parametrize(("shift", "found"), [("1 hour", "3,600 s ahead of"), ("-1 hour", "3,600 s behind")])
def test_a_database_whose_clock_is_wrong(
    doctor: Examined, loop: Loop, database_url: str, shift: str, found: str
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    loop.run(
        _execute(
            database_url,
            "CREATE SCHEMA shifted",
            "CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
            f"'SELECT pg_catalog.clock_timestamp() + interval ''{shift}'''",
            f"ALTER DATABASE {name} SET search_path = shifted, pg_catalog, public",
        )
    )
    said = fails(doctor(database_url=database_url), "clock")
    assert found in said
    assert "keep time by NTP" in said


# --- What it works with


def test_a_storage_that_refuses_its_keys(doctor: Examined, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing(403) as address:
        for name, value in {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "geheim"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        said = fails(doctor(database_url=database_url, storage_url="s3://bucket"), "storage")
    assert "Check ADLATUS_STORAGE_URL, and the address and keys in the environment" in said
    assert "geheim" not in said


def test_an_index_that_does_not_answer(doctor: Examined, database_url: str) -> None:
    said = fails(doctor(database_url=database_url, qdrant_url=NOBODY), "index")
    assert "Check ADLATUS_QDRANT_URL and ADLATUS_QDRANT_API_KEY." in said
    with qdrant_server() as qdrant:
        qdrant.down = True
        assert "refused a request (503)" in fails(doctor(database_url=database_url, **qdrant.settings), "index")


def test_an_index_that_refuses_its_key(doctor: Examined, database_url: str) -> None:
    with refusing(401) as address:
        said = fails(doctor(database_url=database_url, qdrant_url=address, qdrant_api_key="geheim"), "index")
    assert "refused this server's key (401): check ADLATUS_QDRANT_API_KEY" in said
    assert "geheim" not in said


def test_a_model_that_cannot_be_reached_or_refuses_its_key(doctor: Examined, database_url: str) -> None:
    code, said = doctor(database_url=database_url, model_base_url=f"{NOBODY}/v1")
    assert (code, said["model (127.0.0.1:1)"][0]) == (1, "FAILS")
    assert "check that it runs, and ADLATUS_MODEL_BASE_URL" in said["model (127.0.0.1:1)"][1]
    with refusing(401) as address:
        examined = doctor(database_url=database_url, model_base_url=f"{address}/v1", model_api_key="geheim")
        said_of_it = fails(examined, f"model ({address.removeprefix('http://')})")
    assert "check ADLATUS_MODEL_API_KEY" in said_of_it
    assert "geheim" not in said_of_it


def test_embeddings_that_are_refused(doctor: Examined, database_url: str) -> None:
    with embedding_server() as embeddings:
        embeddings.refusal = 401
        said = fails(doctor(database_url=database_url, **embeddings.settings), "embeddings")
    assert "check ADLATUS_EMBEDDING_API_KEY" in said


@pytest.mark.parametrize(
    ("status", "found"), [(404, "has no reranker at this address"), (401, "check ADLATUS_RERANK_API_KEY")]
)
def test_a_reranker_that_is_none(doctor: Examined, database_url: str, status: int, found: str) -> None:
    with refusing(status) as address:
        said = fails(doctor(database_url=database_url, rerank_url=f"{address}/rerank"), "reranker")
    assert found in said
    assert "Check ADLATUS_RERANK_URL, ADLATUS_RERANK_API_KEY and ADLATUS_RERANK_MODEL" in said


def test_sandboxes_without_an_engine(doctor: Examined, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert "Docker" in fails(doctor(database_url=database_url, sandbox="docker"), "code")


def test_sandboxes_without_their_image(doctor: Examined, database_url: str) -> None:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        missing("docker", "there is no Docker engine")
    said = fails(doctor(database_url=database_url, sandbox="docker", sandbox_image="adlatus-nothing:none"), "code")
    assert "adlatus-nothing:none" in said


def test_keys_of_the_database_count(doctor: Examined, database_url: str, loop: Loop) -> None:
    def said() -> list[str]:
        return doctor(database_url=database_url)[1]["keys"]

    assert said()[:2] == ["-", "none: loopback only"]
    assert "`adlatus keys create`" in said()[2]
    loop.run(
        _execute(
            database_url,
            "INSERT INTO projects (id) VALUES ('blue')",
            "INSERT INTO api_keys (id, project_id, sha256, shown) VALUES ('key_1', 'blue', 'x', 'sk-…1')",
        )
    )
    assert said() == ["ok", "0 configured and 1 made"]


def test_traces_that_could_not_be_sent(doctor: Examined, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    assert "is not an address such as http://localhost:4318" in fails(doctor(database_url=database_url), "traces")


def test_a_server_that_is_not_ready(doctor: Examined, database_url: str) -> None:
    with answering(lambda *_: (503, b'{"status": "unavailable", "components": {"storage": "does not answer"}}')) as url:
        port = int(url.rpartition(":")[2])
        said = fails(doctor(database_url=database_url, port=port), "server")
    assert "{'storage': 'does not answer'} Its log has the details." in said
