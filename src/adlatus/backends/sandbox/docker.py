"""Sandboxes as containers of a Docker engine, by its official SDK, whose blocking calls happen in threads.

A container is attached to before it starts. It ends by itself when its standard input ends, which is when this process
does, and is removed by the engine then.
"""

import asyncio
import secrets
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import docker
import structlog
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Ulimit

from adlatus.backends.sandbox.engine import PREPARE, START, UID, Openings, SandboxLostError, SandboxUnavailableError
from adlatus.backends.sandbox.image import ENGINE_ERRORS

log = structlog.get_logger(__name__)

APP, INSTANCE, CREATED = "io.adlatus.app", "io.adlatus.instance", "io.adlatus.created"
MEGABYTE = 2**20
MEMORY = 1536 * MEGABYTE
"""For processes and for the files in memory, which count as well."""
_TIMEOUT_S = 30
_WRITE_S = 20
_THREADS = 16
_MOST_WAITING = 4 * MEGABYTE
_HEADER, _STDERR = 8, 2

Value = TypeVar("Value")


def _options(runtime: str | None) -> dict[str, Any]:
    """What a container may do and take: nothing beyond itself."""
    mine = f"mode=0700,uid={UID},gid={UID},nosuid,nodev"
    return {
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "user": f"{UID}:{UID}",
        "pids_limit": 128,
        "mem_limit": MEMORY,
        "memswap_limit": MEMORY,
        "nano_cpus": 10**9,
        "oom_score_adj": 500,
        "ipc_mode": "private",
        "shm_size": 64 * MEGABYTE,
        "hostname": "sandbox",
        "working_dir": "/mnt/data",
        "tmpfs": {
            "/mnt/data": f"size=512m,nr_inodes=20k,{mine}",
            "/tmp": f"size=64m,nr_inodes=10k,{mine}",  # noqa: S108 - inside
            "/home/sandbox": f"size=16m,nr_inodes=2k,noexec,{mine}",
        },
        "ulimits": [
            Ulimit(name="nofile", soft=1024, hard=1024),
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="fsize", soft=512 * MEGABYTE, hard=512 * MEGABYTE),
        ],
        "log_config": LogConfig(type="none"),  # all that is said would be copied to the host's disk
        "auto_remove": True,
        "stdin_open": True,
        "tty": False,
        "runtime": runtime,
    }


def unlimited(info: dict[str, Any]) -> tuple[str, ...]:
    """What an engine cannot hold containers to, by what it tells of itself: it starts them all the same."""
    limits = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "processor"}
    if without := [what for name, what in limits.items() if info.get(name) is False]:
        return (f"This engine limits no {', no '.join(without)}: delegate control groups to it, if it is rootless.",)
    return ()


class DockerEngine:
    """An engine that answers, with the image there. `instance` tells our containers from those of other servers."""

    name = "docker"

    def __init__(self, image: str, instance: str, runtime: str | None = None) -> None:
        self._image = image
        self._instance = instance
        self._runtime = runtime
        self._threads = ThreadPoolExecutor(_THREADS, "adlatus-docker")
        self._client: docker.DockerClient | None = None
        self._openings = Openings()
        shared = "A container shares the kernel of the engine's machine: a hole in that kernel is a way out."
        vm = "For code of strangers use a runtime with a kernel of its own (ADLATUS_SANDBOX_RUNTIME=runsc)."
        self._by_nature: tuple[str, ...] = () if runtime and runtime != "runc" else (shared, vm)
        self.lacks: tuple[str, ...] = self._by_nature

    async def check(self) -> None:
        """Raise `SandboxUnavailableError` if no engine answers or it has not got the image."""
        await self._run(self._check)

    def _check(self) -> docker.DockerClient:
        if self._client is None:
            self._client = docker.from_env(timeout=_TIMEOUT_S)
            self.lacks = self._by_nature + unlimited(self._client.info())
        self._client.ping()
        self._client.images.get(self._image)
        return self._client

    async def open(self) -> "DockerChannel":
        return await self._openings.wait(self._run(self._open))

    def _open(self) -> "DockerChannel":
        client = self._client or self._check()
        name = f"adlatus-sandbox-{secrets.token_hex(6)}"
        labels = {APP: "adlatus", INSTANCE: self._instance, CREATED: str(int(time.time()))}
        container = client.containers.create(
            self._image, entrypoint=list(START), command=[], name=name, labels=labels, **_options(self._runtime)
        )
        attached = None
        try:
            attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            channel = DockerChannel(name, attached, container, self._threads)
            container.start()
        except BaseException:
            if attached is not None:
                _close_socket(attached)
            _remove(container)
            raise
        return channel

    async def clean(self) -> int:
        return await self._run(self._clean)

    def _clean(self) -> int:
        ours: dict[str, str | list[str] | bool] = {"label": [f"{APP}=adlatus", f"{INSTANCE}={self._instance}"]}
        left = (self._client or self._check()).containers.list(all=True, filters=ours, ignore_removed=True)
        for container in left:
            _remove(container)
        return len(left)

    async def close(self) -> None:
        await self._openings.settle()
        if self._client is not None:
            await self._run(self._client.close)
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self, work: Callable[[], Value]) -> Value:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ImageNotFound:
            raise SandboxUnavailableError(f"The Docker engine has no image {self._image}: {PREPARE}.") from None
        except ENGINE_ERRORS as error:
            raise SandboxUnavailableError(f"The Docker engine cannot be used: {_reason(error)}") from None


class DockerChannel:
    """The attached streams of one container, read by a thread of its own."""

    def __init__(self, name: str, attached: Any, container: Container, threads: ThreadPoolExecutor) -> None:
        self.name = name
        self._attached = attached
        self._socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)
        with suppress(OSError, AttributeError):  # of SSH it is no socket
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _WRITE_S, 0))
        self._container = container
        self._threads = threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocks: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._arrived: asyncio.Event | None = None
        self._room = threading.Event()
        self._room.set()
        self._stderr = b""
        self._closing: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._listen, name=name, daemon=True)
        self._reader.start()

    async def read(self) -> bytes:
        if self._arrived is None:
            with self._lock:
                self._arrived = asyncio.Event()
                self._loop = asyncio.get_running_loop()
        while True:
            self._arrived.clear()
            with self._lock:
                if self._blocks:
                    block = self._blocks.popleft()
                    self._waiting -= len(block)
                    if self._waiting <= _MOST_WAITING:
                        self._room.set()
                    return block
                if self._ended:
                    return b""
            await self._arrived.wait()

    async def write(self, content: bytes) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._socket.sendall, content)
        except (OSError, RuntimeError):
            raise SandboxLostError("it ended") from None

    async def close(self) -> str:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_in_thread())
        await asyncio.shield(self._closing)
        return self._stderr.decode(errors="replace")

    async def _close_in_thread(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._close)

    def _close(self) -> None:
        try:
            _remove(self._container)
        except ENGINE_ERRORS as error:
            log.warning("a container cannot be removed", container=self.name, reason=_reason(error))
        finally:
            self._room.set()
            _close_socket(self._attached)
            self._reader.join(5)

    def _listen(self) -> None:
        """Divide the stream into frames of 8 bytes and their content: standard output, or error."""
        with suppress(OSError, ValueError):
            while header := self._exactly(_HEADER):
                left = int.from_bytes(header[4:], "big")
                while left:
                    block = self._socket.recv(min(left, MEGABYTE))
                    if not block:
                        break
                    left -= len(block)
                    self._take(header[0], block)
        with self._lock:
            self._ended = True
        self._wake()

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                return b""
            parts += part
        return parts

    def _take(self, stream: int, block: bytes) -> None:
        if stream == _STDERR:
            self._stderr = (self._stderr + block)[-4000:]
            return
        with self._lock:
            self._blocks.append(block)
            self._waiting += len(block)
            if self._waiting > _MOST_WAITING:
                self._room.clear()
        self._wake()
        while not self._room.wait(60) and self._closing is None:
            pass

    def _wake(self) -> None:
        with self._lock:
            loop, arrived = self._loop, self._arrived
        if loop is not None and arrived is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(arrived.set)


def _remove(container: Container) -> None:
    """Kill and remove a container; it may be gone or on its way."""
    try:
        container.remove(force=True)
    except NotFound:
        pass
    except APIError as error:
        if "already in progress" not in str(error):
            raise


def _close_socket(attached: Any) -> None:
    sock = getattr(attached, "_sock", attached)
    with suppress(OSError):
        sock.shutdown(2)
    parts: list[Any] = [attached, sock, getattr(attached, "_response", None)]
    for part in parts:
        with suppress(OSError, AttributeError, ValueError):  # some close one another
            part.close()


def _reason(error: BaseException) -> str:
    """What an SDK's error says, in one line."""
    explained = getattr(error, "explanation", None) or str(error) or type(error).__name__
    return str(explained).strip().splitlines()[0][:300]
