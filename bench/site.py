"""What stands while the benchmark runs: the model, both floors, the server; the load's processes; the turns.

Also what rows need beforehand, made over the API: an assistant, threads with a message each.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil

from adlatus.backends.postgres import attach
from bench import load
from bench.client import request
from bench.processes import Server, free_port, served

P = ParamSpec("P")
T = TypeVar("T")

READY = "/v1/assistants?limit=1"
LOAD_S = 180
"""A load that takes longer has got stuck."""


@dataclass(frozen=True)
class Options:
    """How thorough: repeats of each measurement, `scale` of their lengths, messages of other threads for P7.

    `database_url` is the server's database, in place of an embedded one.
    """

    repeats: int
    scale: float
    other_messages: int
    database_url: str | None = None


@dataclass(frozen=True)
class Site:
    """Servers that run, and a pool of processes for the load."""

    options: Options
    folder: Path
    pool: Pool
    model: Server
    relay: Server
    crud: Server
    server: Server

    def load(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a job of `load`, done in a process of its own."""
        return self.begin(job, *args, **kwargs).get(LOAD_S)

    def begin(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "AsyncResult[T]":
        """A job of `load` that has been given to a process of its own; two can run at a time."""
        return self.pool.apply_async(job, args, kwargs)

    def scaled(self, count: int) -> int:
        """A count as the options want it, at least 1."""
        return max(1, round(count * self.options.scale))

    def scaled_s(self, seconds: float) -> float:
        """A length as the options want it."""
        return seconds * self.options.scale

    @cached_property
    def assistant_id(self) -> str:
        """An assistant on the server."""
        return self.load(load.create, self.server.port, [assistant_request(self.server.port)], 1)[0]

    def threads(self, server: Server, count: int, text: str) -> list[str]:
        """Ids of so many new threads with one user message each."""
        body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
        return self.load(load.create, server.port, [request(server.port, "POST", "/v1/threads", body)] * count)

    def run_requests(
        self, count: int, text: str, server: Server | None = None, assistant_id: str | None = None
    ) -> list[bytes]:
        """Requests for streamed runs on the server, or on another with an assistant of its own, each on a new thread
        with this message.
        """
        server = server or self.server
        body = json.dumps({"assistant_id": assistant_id or self.assistant_id, "stream": True}).encode()
        threads = self.threads(server, count, text)
        return [request(server.port, "POST", f"/v1/threads/{thread}/runs", body) for thread in threads]

    def chat_requests(self, server: Server, count: int, text: str) -> list[bytes]:
        """The same for the relay floor, or for the model itself."""
        messages = [{"role": "user", "content": text}]
        body = json.dumps({"model": "rehearsal", "messages": messages, "stream": True}).encode()
        return [request(server.port, "POST", "/v1/chat/completions", body)] * count


@contextmanager
def open_site(options: Options) -> Iterator[Site]:
    """Start everything; end all of it however the block is left."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(2, _leave_signals_to_the_parent))
        model = stack.enter_context(_rehearsal(folder))
        relay = stack.enter_context(_floor("floor_relay", folder, {"BENCH_MODEL_PORT": str(model.port)}))
        crud = stack.enter_context(_floor("floor_crud", folder, {}))
        server = stack.enter_context(adlatus(folder / "main", model, options.database_url))
        site = Site(options, folder, pool, model, relay, crud, server)
        _warm_up(site)
        yield site


@contextmanager
def adlatus(data_dir: Path, model: Server | None, database_url: str | None = None) -> Iterator[Server]:
    """`adlatus serve` on a data folder; without a model it plays its built-in one."""
    environment = {"ADLATUS_SANDBOX": "off"}
    if model:
        environment["ADLATUS_MODEL_BASE_URL"] = f"http://127.0.0.1:{model.port}/v1"
    if database_url:
        environment["ADLATUS_DATABASE_URL"] = database_url
        subprocess.run([sys.executable, "-m", "adlatus.cli", "migrate"], env={**os.environ, **environment}, check=True)
    port = free_port()
    command = [sys.executable, "-m", "adlatus.cli", "serve", "--data-dir", str(data_dir), "--port", str(port)]
    with served(command, port, READY, data_dir.with_suffix(".log"), environment) as server:
        yield server


async def embedded_dsn(data_dir: Path) -> str:
    """The embedded database of a running server."""
    database = await attach(data_dir)
    assert database is not None
    return database.dsn


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for data folders and logs, which an unprivileged PostgreSQL may pass through. Gone at the end."""
    with tempfile.TemporaryDirectory(prefix="adlatus-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            _end_orphans(folder)


def interleaved(count: int, *measure: Callable[[], T]) -> list[list[T]]:
    """Measure in turns, A B A B …; one list per thing measured."""
    rounds = [[one() for one in measure] for _ in range(count)]
    return [list(results) for results in zip(*rounds, strict=True)]


def assistant_request(port: int) -> bytes:
    """A request that makes an assistant, on the server or on the floor."""
    body = {"model": "rehearsal", "name": "Bench", "instructions": "Answer.", "metadata": {"purpose": "bench"}}
    return request(port, "POST", "/v1/assistants", json.dumps(body).encode())


def settle(seconds: float = 0.3) -> None:
    """Let what was started by the measurement before come to its end: late writes, closing connections."""
    time.sleep(seconds)


def _warm_up(site: Site) -> None:
    """Let every server do a little of everything first: open its connections, prepare its statements."""
    text = "[[tokens: 20]]"
    site.load(load.stream, site.relay.port, site.chat_requests(site.relay, 500, text), 16, 20)
    site.load(load.stream, site.server.port, site.run_requests(100, text), 16, 20)
    for server in (site.crud, site.server):
        requests = (request(server.port, "GET", f"/v1/assistants/{site.assistant_id}"), assistant_request(server.port))
        for one in requests:
            site.load(load.hammer, server.port, [one] * 16, 0.3)


def _rehearsal(folder: Path) -> Any:
    port = free_port()
    command = [sys.executable, "-m", "adlatus.cli", "rehearse", "--port", str(port)]
    return served(command, port, "/v1/models", folder / "model.log", {})


def _floor(module: str, folder: Path, environment: Mapping[str, str]) -> Any:
    port = free_port()
    flags = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--no-proxy-headers")
    command = [sys.executable, "-m", "uvicorn", f"bench.{module}:app", "--port", str(port), "--lifespan", "off", *flags]
    return served(command, port, "/v1/assistants/asst_floor", folder / f"{module}.log", environment)


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_orphans(folder: Path) -> None:
    """End databases below the folder whose owner died without stopping them."""
    for pid_file in folder.glob("*/postgres-*/postmaster.pid"):
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int(pid_file.read_text().splitlines()[0]))
            if str(pid_file.parent) in process.cmdline():
                process.send_signal(signal.SIGQUIT)
                process.wait(10)


def busy_share() -> float:
    """The load average of the last minute as a share of the cores."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
