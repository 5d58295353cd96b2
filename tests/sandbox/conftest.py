"""Sandboxes of every engine that this machine has, as tests use them: in the loop of the test session, one per test."""

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest

from adlatus.backends.sandbox.engine import Engine, SandboxUnavailableError
from adlatus.backends.sandbox.events import Done, Error, Event, Image, Kind, Notice, Result, Stderr, Stdout
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.sandbox.pool import Limits, Sandboxes, keep
from adlatus.backends.sandbox.session import Sandbox
from adlatus.settings import Settings
from tests.conftest import MACHINE_DATA_DIR, Loop, missing

ENGINES = ("docker", "bubblewrap")
CLEAN = "'find /mnt/data /tmp /dev/shm /home/sandbox -mindepth 1 -not -path /tmp/.* -delete'"
Value = TypeVar("Value")
_numbers = itertools.count()


@dataclass(frozen=True)
class Told:
    """What an execution said."""

    events: list[Event]

    @property
    def done(self) -> Done:
        done = self.events[-1]
        assert isinstance(done, Done)
        return done

    def of(self, kind: type[Value]) -> list[Value]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def stdout(self) -> str:
        return "".join(event.text for event in self.of(Stdout))

    @property
    def stderr(self) -> str:
        return "".join(event.text for event in self.of(Stderr))

    @property
    def results(self) -> list[str]:
        return [event.text for event in self.of(Result)]

    @property
    def errors(self) -> list[str]:
        return [event.name for event in self.of(Error)]

    @property
    def images(self) -> list[Image]:
        return self.of(Image)

    @property
    def notices(self) -> list[Kind]:
        return [notice.kind for notice in self.of(Notice)]

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.done.files]

    @property
    def all(self) -> str:
        """Everything in one text, with the status at its end."""
        errors = "".join(f"{error.name}: {error.value}\n" for error in self.of(Error))
        notices = "".join(f"{notice.text}\n" for notice in self.of(Notice))
        results = "".join(f"{result}\n" for result in self.results)
        return f"{self.stdout}{self.stderr}{results}{errors}{notices}[{self.done.status}]"


@dataclass(frozen=True)
class Thread:
    """One thread's sandbox."""

    loop: Loop
    sandboxes: Sandboxes
    id: str

    def run(self, code: str, timeout_s: float = 20) -> Told:
        return self.loop.run(self._run(code, timeout_s), timeout_s + 90)

    async def _run(self, code: str, timeout_s: float) -> Told:
        async with self.sandboxes.use(self.id) as sandbox:
            return await execute(sandbox, code, timeout_s)

    def put(self, content: bytes, *names: str) -> None:
        async def put() -> None:
            async with self.sandboxes.use(self.id) as sandbox:
                await sandbox.put(content, names)

        self.loop.run(put())

    def get(self, path: str, max_bytes: int = 2**20) -> bytes:
        async def get() -> bytes:
            async with self.sandboxes.use(self.id) as sandbox, aclosing(sandbox.get(path, max_bytes=max_bytes)) as got:
                return b"".join([block async for block in got])

        return self.loop.run(get())

    @property
    def listed(self) -> list[str]:
        async def files() -> list[str]:
            async with self.sandboxes.use(self.id) as sandbox:
                return [file.path for file in await sandbox.files()]

        return self.loop.run(files())

    @property
    def box(self) -> str:
        async def box() -> str:
            async with self.sandboxes.use(self.id) as sandbox:
                return sandbox.box

        return self.loop.run(box())

    def clean(self) -> None:
        """Leave the sandbox as if it were new, for the next test; one that cannot be cleaned goes."""

        async def clean() -> bool:
            async with self.sandboxes.use(self.id) as sandbox:
                await sandbox.restart()
                sandbox.names.clear()
                told = await execute(sandbox, f"import subprocess; subprocess.run({CLEAN}.split()).returncode")
                return told.results == ["0"] and not await sandbox.files()

        if self.id in self.sandboxes.threads and not self.loop.run(clean(), 120):
            self.discard()

    def discard(self) -> None:
        self.loop.run(self.sandboxes.discard(self.id))


async def execute(sandbox: Sandbox, code: str, timeout_s: float = 20) -> Told:
    async with aclosing(sandbox.execute(code, timeout_s=timeout_s)) as events:
        return Told([event async for event in events])


@pytest.fixture(scope="session", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def new_engine(loop: Loop, engine_name: str) -> Callable[[], Engine]:
    """Makes engines, each with an instance of its own unless one is named; whoever makes one closes it."""
    settings = Settings(data_dir=MACHINE_DATA_DIR, sandbox=engine_name)

    def make(instance: str = "") -> Engine:
        try:
            return loop.run(pick_engine(settings, instance or f"test-{uuid.uuid4().hex[:12]}"))
        except SandboxUnavailableError as error:
            missing(engine_name, str(error))

    return make


@contextmanager
def keeping(loop: Loop, engine: Engine, limits: Limits) -> Iterator[Sandboxes]:
    """Sandboxes of an engine until the block is left."""
    with loop.stack() as stack:
        yield loop.run(_enter(stack, engine, limits))


async def _enter(stack: AsyncExitStack, engine: Engine, limits: Limits) -> Sandboxes:
    return await stack.enter_async_context(keep(engine, limits))


@pytest.fixture(scope="session")
def sandboxes(loop: Loop, new_engine: Callable[[], Engine]) -> Iterator[Sandboxes]:
    """The sandboxes that most tests share."""
    with keeping(loop, new_engine(), Limits(warm=1)) as sandboxes:
        yield sandboxes


@pytest.fixture
def thread(loop: Loop, sandboxes: Sandboxes) -> Iterator[Thread]:
    """A thread whose sandbox may have seen other tests, and was restarted and emptied after each."""
    thread = Thread(loop, sandboxes, "shared")
    yield thread
    thread.clean()


@pytest.fixture
def new_thread(loop: Loop, sandboxes: Sandboxes) -> Iterator[Thread]:
    """A thread of this test alone, whose sandbox ends with the test."""
    thread = Thread(loop, sandboxes, f"thread-{next(_numbers)}")
    yield thread
    thread.discard()


def wait_until(condition: Callable[[], bool], within_s: float = 60) -> None:
    """Return as soon as a condition holds; fail if it does not."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
