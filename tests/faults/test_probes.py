"""The listener for operators of real processes: a worker's probes, and what a start says of a bad address."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.processes import Process, adlatus, data_folder, run
from tests.faults.proxy import database_behind_proxy
from tests.runs.transcripts import eventually


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        folder.mkdir(mode=0o755)
        yield folder


def admin_of(worker: Process) -> str:
    """The address on which a worker answers operators."""
    said = '"address":"'
    log = eventually(lambda: worker.log if said in worker.log else "")
    return "http://" + log.partition(said)[2].partition('"')[0]


@pytest.mark.slow
@pytest.mark.parametrize("only", ["runs", pytest.param("ingestion", marks=pytest.mark.nightly)])
def test_a_worker_is_probed_on_its_listener(folder: Path, new_database: Callable[[], str], only: str) -> None:
    with database_behind_proxy(new_database()) as (proxy, dsn):
        settings = {"database_url": dsn, "admin_bind": "127.0.0.1:0", "log_format": "json"}
        with adlatus("worker", "--only", only, "--data-dir", str(folder), user=None, **settings) as worker:
            admin = admin_of(worker)
            ready = httpx.get(f"{admin}/readyz")
            components = ready.json()["components"]
            assert ready.status_code == 200
            needed = ("database", "storage", "executor")
            assert {name: components[name] for name in needed} == dict.fromkeys(needed, "ok")
            assert "index" in components
            assert "adlatus_runs_waiting 0.0" in httpx.get(f"{admin}/metrics").text
            proxy.refuse()
            unready = httpx.get(f"{admin}/readyz")
            assert unready.status_code == 503
            assert unready.json()["components"]["database"] == "does not answer"
            assert httpx.get(f"{admin}/healthz").status_code == 200
            proxy.pass_on()
            eventually(lambda: httpx.get(f"{admin}/readyz").status_code == 200)
            assert worker.stop() == 0
            assert "Traceback" not in worker.log


def test_an_address_that_is_taken_is_told_of_before_anything_starts(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        code, log = run("serve", "--port", "0", "--data-dir", str(folder), admin_bind=bind)
    assert (code, list(folder.iterdir())) == (1, [])
    assert f"cannot listen on {bind}: Address already in use. Choose another ADLATUS_ADMIN_BIND." in log
