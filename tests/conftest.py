"""What all tests share: a real PostgreSQL, a real server on a free port, the rehearsal model, one project per test.

A missing component skips a test with its reason, unless `ADLATUS_TEST_REQUIRE` names it (comma-separated): then the
test fails. `ADLATUS_TEST_DATABASE_URL` names a PostgreSQL to use in place of the embedded one.
"""

import asyncio
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import asyncpg
import httpx
import pytest
import uvicorn
from hypothesis.configuration import set_hypothesis_home_dir
from openai import OpenAI

from adlatus.api.connections import Limits, guarded
from adlatus.app import create_app
from adlatus.backends import postgres_cluster
from adlatus.backends.embeddings import fetch, local
from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.postgres import embedded_postgres
from adlatus.backends.sandbox.availability import Availability
from adlatus.backends.sandbox.engine import Channel, SandboxUnavailableError
from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.resources import Resources, open_resources
from adlatus.settings import Settings
from adlatus.store import migrate
from adlatus.store.db import Database, open_database
from adlatus.telemetry import Metrics, configure_logging
from tests.witness import WITNESS
from tests.workers import ByFile, worker_of

MACHINE_DATA_DIR = Settings().data_dir
"""Where `adlatus models fetch` has put the local model, if it ran; tests have data folders of their own."""

os.environ.pop("ADLATUS_DATA_DIR", None)
os.environ["ADLATUS_SANDBOX"] = "off"  # who wants sandboxes says so
configure_logging("json", "warning")  # the servers of this process log what matters, to stderr

Result = TypeVar("Result")
KEYS = 4000
BETA = {"OpenAI-Beta": "assistants=v2"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make conformance` writes what the suite has seen into the documentation; `--deaf` is to doubt polls."""
    parser.addoption("--write-conformance", action="store_true", help="write the table of docs/compatibility.md")
    parser.addoption("--deaf", action="store_true", help="the databases of the tests lose all wake-ups")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, lest one worker be left with them; what judges the whole suite after all of it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name == "test_whole_suite.py", item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Workers get whole files."""
    return ByFile(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker leaves what its servers sent to the one that judges the whole suite."""
    if worker := worker_of(session.config):
        WITNESS.leave(worker.seen)


def missing(component: str, reason: str) -> NoReturn:
    """Skip the test because a component is missing; fail it where the component is required."""
    if component in os.environ.get("ADLATUS_TEST_REQUIRE", "").split(","):
        pytest.fail(f"{component} is required here, but {reason}")
    pytest.skip(f"{component}: {reason}")


class Loop:
    """An event loop in a thread of its own, for servers that tests talk to from outside."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float = 60) -> Result:
        """The result of a coroutine that runs in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    @contextmanager
    def stack(self) -> Iterator[AsyncExitStack]:
        """An exit stack whose async contexts live in the loop, opened and closed by one task as anyio wants it."""
        stack = AsyncExitStack()
        try:
            yield stack
        finally:
            self.run(stack.aclose())

    async def _cancel_rest(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def close(self) -> None:
        """Stop the loop and its thread, and what libraries left running in it."""
        self.run(self._cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass(frozen=True)
class Server:
    """A running server of the test process. `resources` may be looked into, from its own loop."""

    url: str
    resources: Resources
    loop: Loop

    @property
    def base_url(self) -> str:
        """What an application sets as `base_url`."""
        return f"{self.url}/v1"

    @property
    def model_url(self) -> str:
        """The base URL of the one endpoint behind it."""
        [endpoint] = self.resources.llm.routing.endpoints
        return endpoint.base_url


def shared_reference() -> Path:
    """The folder of reference material, which is not part of the repository."""
    named = os.environ.get("ADLATUS_TEST_REFERENCE")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "reference"
    if not folder.is_dir():
        missing("reference", "set ADLATUS_TEST_REFERENCE to the folder of reference material")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_repository(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hypothesis keeps what it has worked out in the working directory unless it is told otherwise."""
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The reference material; tests skip where it is absent."""
    return shared_reference()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """The event loop in which the servers of the test session live."""
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def postgres(loop: Loop) -> Iterator[str]:
    """The DSN of a PostgreSQL that may create databases."""
    if dsn := os.environ.get("ADLATUS_TEST_DATABASE_URL"):
        yield dsn
        return
    with loop.stack() as opened:
        yield loop.run(opened.enter_async_context(scratch_postgres()))


@asynccontextmanager
async def scratch_postgres() -> AsyncIterator[str]:
    """The DSN of an embedded PostgreSQL whose data are lost with the machine, and so never waits for its disk."""
    # Beside the system's temporary folder's root, because the database's own user has to get in
    with (
        tempfile.TemporaryDirectory(prefix="adlatus-tests-", dir="/tmp") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        patch.setitem(postgres_cluster.SETTINGS, "fsync", "off")
        async with embedded_postgres(folder / "data") as embedded:
            patch.undo()  # as soon as it runs
            yield embedded.dsn


def _named(dsn: str, database: str) -> str:
    head, _, query = dsn.partition("?")
    return f"{head.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template(loop: Loop, postgres: str) -> str:
    """The name of a database that the migrations have built."""
    name = f"adlatus_test_template_{uuid.uuid4().hex}"
    loop.run(_execute(postgres, f"CREATE DATABASE {name}"))
    loop.run(migrate.upgrade(_named(postgres, name)))
    return name


def deafen(loop: Loop, dsn: str) -> None:
    """A database that loses all wake-ups from now on: to whom connects, `pg_notify` is a function that does nothing."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    loop.run(
        _execute(
            dsn,
            "CREATE SCHEMA deaf",
            "CREATE FUNCTION deaf.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''",
            f"ALTER DATABASE {name} SET search_path = deaf, pg_catalog, public",
        )
    )


@pytest.fixture(scope="session")
def new_database(loop: Loop, postgres: str, template: str, pytestconfig: pytest.Config) -> Iterator[Callable[[], str]]:
    """Makes databases, each at head, and drops them at the end."""
    made = [template]

    def make(*, empty: bool = False) -> str:
        name = f"adlatus_test_{uuid.uuid4().hex}"
        made.append(name)
        loop.run(_execute(postgres, f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {template}")))
        dsn = _named(postgres, name)
        if pytestconfig.getoption("--deaf") and not empty:
            deafen(loop, dsn)
        return dsn

    yield make
    if "ADLATUS_TEST_DATABASE_URL" in os.environ:  # the embedded one goes as a whole
        loop.run(_execute(postgres, *(f"DROP DATABASE {name} WITH (FORCE)" for name in made)))


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """The DSN of a database of this test alone, at head."""
    return new_database()


@pytest.fixture
def database(loop: Loop, database_url: str) -> Iterator[Database]:
    """An open database of this test alone; use it through `loop.run`."""
    with loop.stack() as stack:
        database = loop.run(stack.enter_async_context(open_database(database_url)))
        loop.run(_execute(database_url, "INSERT INTO projects (id) VALUES ('default'), ('other')"))
        yield database


class NoBoxes:
    """An engine that is there and makes no boxes: for runs whose model never calls the code interpreter."""

    name = "docker"
    lacks: tuple[str, ...] = ()

    async def open(self) -> Channel:
        raise SandboxUnavailableError("This test has no sandboxes.")

    async def check(self) -> None:
        """It is there."""

    async def clean(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing is open."""


@contextmanager
def serving(
    loop: Loop,
    settings: Settings,
    *,
    executor: bool = True,
    sandboxes: Sandboxes | None = None,
    admin: socket.socket | None = None,
    limits: Limits | None = None,
) -> Iterator[Server]:
    """A server with these settings on a free port, in the loop, until the block is left.

    `sandboxes` are those that it has, whatever the settings say; whoever made them closes them.
    """
    with loop.stack() as stack, tempfile.TemporaryDirectory(prefix="adlatus-tests-") as folder:
        if "data_dir" not in settings.model_fields_set:
            settings = settings.model_copy(update={"data_dir": Path(folder)})
        resources = loop.run(stack.enter_async_context(open_resources(settings, Metrics(), executes=executor)))
        if sandboxes:
            resources = replace(resources, code=Availability(sandboxes))
        app = create_app(settings, resources=resources, executor=executor, admin=admin)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        watched = WITNESS.watching(app)
        config = uvicorn.Config(
            watched,
            log_config=None,
            access_log=False,
            http=guarded(limits or Limits()),
            ws="none",
            timeout_graceful_shutdown=2,
        )
        server = _QuietServer(config)
        done = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), loop._loop)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            _wait_until_up(url)
            yield Server(url, resources, loop)
        finally:
            server.should_exit = True
            done.result(30)
            listener.close()


class _QuietServer(uvicorn.Server):
    """Signals are pytest's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _wait_until_up(url: str) -> None:
    transport = httpx.HTTPTransport(retries=20)
    with httpx.Client(transport=transport, timeout=60) as client:
        client.get(f"{url}/healthz").raise_for_status()


@pytest.fixture(scope="session")
def server(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """The server that most tests share. Every test has a key, and so a project, of its own."""
    keys = ",".join(f"key-{n}:project-{n}" for n in range(KEYS))
    settings = Settings(database_url=new_database(), api_keys=keys)
    with serving(loop, settings, sandboxes=Sandboxes(NoBoxes())) as server:
        yield server


_numbers = iter(range(KEYS))


@pytest.fixture
def api_key() -> str:
    """A key that opens a project which is empty at the start of the test."""
    return f"key-{next(_numbers)}"


@pytest.fixture
def sdk(server: Server, api_key: str) -> Iterator[OpenAI]:
    """The official SDK, pointed at the server."""
    with OpenAI(base_url=server.base_url, api_key=api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def http(server: Server, api_key: str) -> Iterator[httpx.Client]:
    """A plain HTTP client with the key and the beta header; paths begin at /v1."""
    headers = {"Authorization": f"Bearer {api_key}", **BETA}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=30, verify=False) as client:
        yield client


@pytest.fixture(scope="session")
def fetched_data_dir() -> Path:
    """The data folder of this machine, which has the local embedding model; only to be read."""
    if not local.installed():
        missing("embeddings", "onnxruntime or tokenizers is not installed (adlatus[local])")
    if fetch.find(MACHINE_DATA_DIR) is None:
        missing("embeddings", f"there is no local model in {MACHINE_DATA_DIR}: run `adlatus models fetch`")
    return MACHINE_DATA_DIR


@pytest.fixture(scope="session")
def local_model(fetched_data_dir: Path) -> Iterator[LocalModel]:
    """The local embedding model, loaded once."""
    folder = fetch.find(fetched_data_dir)
    assert folder
    model = LocalModel(folder)
    yield model
    model.close()
