"""What a kind of sandbox has to offer: a stream of bytes to a supervisor in a box, and the means to destroy the box."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

START = ("/opt/py/bin/python", "-I", "/opt/adlatus/supervisor.py")
UID = 10001
"""The user inside, whoever that is outside."""
PREPARE = "run `adlatus sandbox prepare`"


class SandboxUnavailableError(Exception):
    """No sandbox can be had: the message tells the operator what to do. Nothing that was running is affected."""


class SandboxLostError(Exception):
    """The sandbox is gone, with variables and files; the message says what is known. Use the thread's next one."""


class SandboxFileError(Exception):
    """A file can be neither put nor got. `code` is the name of an errno, such as ENOSPC, ENOENT, EFBIG."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Channel(Protocol):
    """The supervisor's standard input and output, in a box that lives as long as the channel is open."""

    @property
    def name(self) -> str:
        """What an operator finds the box by: the name of a container, the id of a process."""

    async def read(self) -> bytes:
        """Some bytes, at most about a megabyte; none at the end. May be cancelled without losing any."""

    async def write(self, content: bytes) -> None:
        """Send bytes. Raises `SandboxLostError` where nobody can receive them."""

    async def close(self) -> str:
        """Destroy the box with everything in it; again and again does no harm. What its supervisor complained of."""


AnyChannel = TypeVar("AnyChannel", bound=Channel)


class Openings:
    """Boxes that are being opened. One that nobody waits for any more is closed as soon as it is there."""

    def __init__(self) -> None:
        self._unwanted: set[asyncio.Task[None]] = set()

    async def wait(self, opening: Coroutine[Any, Any, AnyChannel]) -> AnyChannel:
        """The channel of a box. May be cancelled."""
        task = asyncio.create_task(opening)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            closing = asyncio.create_task(_close(task))
            self._unwanted.add(closing)
            closing.add_done_callback(self._unwanted.discard)
            raise

    async def settle(self) -> None:
        """Wait until those that nobody wanted are closed."""
        await asyncio.gather(*self._unwanted)


async def _close(opening: "asyncio.Task[AnyChannel]") -> None:
    with suppress(SandboxUnavailableError):
        await (await opening).close()


class Engine(Protocol):
    """Makes boxes. `lacks` are sentences about what its boxes do not protect from, for people."""

    name: str
    lacks: tuple[str, ...]

    async def open(self) -> Channel:
        """A new box whose supervisor is starting. Raises `SandboxUnavailableError`."""

    async def check(self) -> None:
        """Raise `SandboxUnavailableError`, with advice, if boxes cannot be made."""

    async def clean(self) -> int:
        """Destroy the boxes that an earlier process of the same instance has left; how many there were."""

    async def close(self) -> None:
        """Let go of the engine. Boxes are closed before."""
