"""Three processes, which are killed, stopped and started again, and what they share, which outlives them."""

import asyncio
import random
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adlatus.backends import postgres_cluster
from adlatus.backends.postgres import embedded_postgres
from adlatus.backends.sandbox.instance import hold
from adlatus.store import migrate
from tests.conftest import MACHINE_DATA_DIR, Loop
from tests.faults import processes
from tests.faults.chaos.forked import Forked, adlatus
from tests.faults.processes import data_folder, is_running
from tests.retrieval.embedding_server import embedding_server
from tests.retrieval.ingesting import Records
from tests.retrieval.qdrant_server import Qdrant, qdrant_server

READY_WITHIN_S = 60
AT_A_TIME = 4
"""Runs that one process executes at a time, and so takes with it."""
_SERVES = re.compile(r"serves the Assistants API on (http://\S+)/v1")
_NO_DATABASE = ("cannot connect to the database", "database does not answer")
FAULTS = ("Traceback", "executor failed", "at fault", "a fault", "run failed")
"""What no log may say, whatever was killed."""


class Postgres:
    """A PostgreSQL of the test's own, which comes back at the same address. Its data are lost with the machine only."""

    def __init__(self, folder: Path) -> None:
        self.dsn = ""
        self._folder = folder
        self._running = AsyncExitStack()
        self._pid = 0

    async def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(postgres_cluster.SETTINGS, "fsync", "off")
            started = await self._running.enter_async_context(embedded_postgres(self._folder))
        assert self.dsn in ("", started.dsn)
        self.dsn, self._pid = started.dsn, started.pid

    async def stop(self) -> None:
        await self._running.aclose()

    async def crash(self) -> None:
        """End it at once, without a checkpoint; what is unlogged is lost."""
        psutil.Process(self._pid).kill()
        await self.stop()


@dataclass
class Member:
    """One of the processes. `url` is where it serves, or has served last; a worker has none.

    `logs` are of all its lives, one after the other.
    """

    name: str
    command: tuple[str, ...]
    settings: dict[str, Any]
    home: Path
    url: str = ""
    is_up: bool = False
    stopped: bool = False
    logs: list[Path] = field(default_factory=list)
    _process: Forked | None = None

    @property
    def process(self) -> Forked:
        assert self._process, f"{self.name} has not been started"
        return self._process

    def start(self) -> None:
        self.logs.append(self.home / f"log-{len(self.logs)}")
        self._process = adlatus(self.logs[-1], self.command, self.settings)

    async def ready(self) -> None:
        """Wait until it is there. Where it has ended, because the database was not there, it is started again."""
        give_up_at = time.monotonic() + READY_WITHIN_S
        while not await self._is_there():
            assert time.monotonic() < give_up_at, self.process.log
            if self.process.has_ended:
                assert any(why in self.process.log for why in _NO_DATABASE), self.process.log
                self.start()
            await asyncio.sleep(0.1)
        self.is_up = True

    async def _is_there(self) -> bool:
        if self.command[0] == "worker":
            return "executing runs" in self.process.log
        if said := _SERVES.search(self.process.log):
            self.url = said[1]
            async with httpx.AsyncClient() as http:
                with suppress(httpx.TransportError):
                    return (await http.get(f"{self.url}/healthz")).is_success
        return False

    def kill(self) -> None:
        """End it at once; it has told of no fault before."""
        assert not self.process.has_ended, f"{self.name} has ended by itself:\n{self.process.log}"
        self.is_up = False
        self.process.kill()
        self._check_log()

    def pause(self) -> None:
        self.stopped = True
        self.process.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send(signal.SIGCONT)
        self.stopped = False

    def stop(self) -> None:
        """End it in order; it has told of no fault."""
        code = self.process.stop()
        self._check_log()
        assert code == 0, self.process.log

    def _check_log(self) -> None:
        told = self.process.log
        assert not any(fault in told for fault in FAULTS), f"{self.name}:\n{told}"

    def close(self) -> None:
        if self._process:
            self._process.kill()


@dataclass(frozen=True)
class Deployment:
    """What there is. `sandboxes` are the instances under which the members make theirs."""

    folder: Path
    postgres: Postgres
    records: Records
    qdrant: Qdrant
    members: Sequence[Member]
    instances: Sequence[str]

    @property
    def up(self) -> list[Member]:
        return [member for member in self.members if member.is_up and not member.stopped]

    def front(self, chance: random.Random) -> str:
        """Where some front is, or has been a moment ago: who asks cannot know."""
        return chance.choice([member.url for member in self.members if member.url])

    def boxes(self) -> list[psutil.Process]:
        """The sandboxes on this machine whose environment is this deployment's."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "bwrap" and str(self.folder) in " ".join(process.info["cmdline"] or ())
        ]

    def orphans(self) -> list[psutil.Process]:
        """The sandboxes whose process is dead."""
        ours = {member.process.pid for member in self.members}
        return [box for box in self.boxes() if is_running(box.pid) and not _descends(box, ours)]


def _descends(process: psutil.Process, ancestors: set[int]) -> bool:
    try:
        return bool(ancestors & {parent.pid for parent in process.parents()})
    except psutil.NoSuchProcess:
        return True  # it has just ended


@contextmanager
def deployment(loop: Loop) -> Iterator[Deployment]:
    """Two servers, the first without sandboxes, and a worker, all of which are there."""
    with ExitStack() as stack:
        folder = stack.enter_context(data_folder())
        folder.mkdir(mode=0o755)
        postgres = Postgres(folder / "database")
        stack.callback(lambda: loop.run(postgres.stop()))
        loop.run(postgres.start())
        loop.run(migrate.upgrade(postgres.dsn))
        qdrant = stack.enter_context(qdrant_server())
        shared = {
            "database_url": postgres.dsn,
            "storage_url": (folder / "storage").as_uri(),
            "model_base_url": stack.enter_context(processes.rehearsing()),
            "run_concurrency": AT_A_TIME,
            **qdrant.settings,
            **stack.enter_context(embedding_server()).settings,
        }
        (folder / "storage").mkdir()
        members = [
            _member(folder, "first", "serve", shared, sandbox="off"),
            _member(folder, "second", "serve", shared, sandbox="bubblewrap"),
            _member(folder, "worker", "worker", shared, sandbox="bubblewrap"),
        ]
        instances = [_instance(folder / member.name) for member in members]
        for member in members:
            stack.callback(member.close)
            member.start()
        for member in members:
            loop.run(member.ready(), READY_WITHIN_S)
        yield Deployment(folder, postgres, Records(loop, postgres.dsn), qdrant, members, instances)


def _member(folder: Path, name: str, command: str, shared: dict[str, Any], *, sandbox: str) -> Member:
    home = folder / name
    home.mkdir(mode=0o755)
    (home / "sandbox").symlink_to(MACHINE_DATA_DIR / "sandbox")
    port = ("--port", "0") if command == "serve" else ()
    return Member(name, (command, *port, "--data-dir", str(home)), {**shared, "sandbox": sandbox}, home)


def _instance(home: Path) -> str:
    with hold(home) as instance:
        return instance
