"""Sandboxes as processes of this machine in namespaces of their own, by bubblewrap: for where no Docker engine is.

As root every sandbox runs as a user of its own, and within a control group where we may make one. bubblewrap dies with
us, and everything in its sandbox with it.
"""

import asyncio
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from adlatus.backends.postgres_account import first_unreachable
from adlatus.backends.sandbox import cgroups, environment
from adlatus.backends.sandbox.cgroups import Group, Groups
from adlatus.backends.sandbox.engine import PREPARE, START, UID, Openings, SandboxLostError, SandboxUnavailableError
from adlatus.backends.sandbox.environment import Environment
from adlatus.backends.sandbox.uids import FIRST, Lease, Uids

MEGABYTE = 2**20
LIMITS = cgroups.Limits(memory_bytes=1536 * MEGABYTE, pids=130, cpus=1.0)
_LIMITS = ("nproc=120", "core=0", f"fsize={512 * MEGABYTE}", "nofile=1024")
_ADDRESS_SPACE = 2048 * MEGABYTE
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_OLDEST = (0, 8)
_NO_NETWORK_NEEDED = ("/etc/fonts", "/etc/ld.so.cache", "/etc/alternatives", "/etc/mime.types", "/etc/localtime")
_USERS = {
    "/etc/passwd": f"sandbox:x:{UID}:{UID}::/home/sandbox:/bin/sh\n".encode(),
    "/etc/group": f"sandbox:x:{UID}:\n".encode(),
}
# Waits to be moved to its control group before anything is started that would stay outside
_WAIT_AND_START = 'read -r go && exec "$@"'

_SHARED = "Sandboxes are processes of this machine: a hole in its kernel is a way out to it."
_READABLE = "The code can read the programs of this machine in /usr, though no data, settings or homes."
_NO_GROUP = (
    "Memory and processes are limited one by one, not together, and processor time is not: code can slow this machine "
    "down. Only root can make control groups."
)
_SAME_USER = "All sandboxes run as the user of this server, held apart by namespaces only."
_FILES = "The number of files in a sandbox is not limited but by their size, and they may be executed everywhere."


class BubblewrapEngine:
    """bubblewrap with an environment of Python packages. `instance` tells our control groups from others."""

    name = "bubblewrap"

    def __init__(self, data_dir: Path, instance: str) -> None:
        self._data_dir = data_dir
        self._environment: Environment | None = None
        self._uids = Uids() if os.geteuid() == 0 else None
        self._groups: Groups | None = cgroups.find_groups(instance)
        self._spawner = ThreadPoolExecutor(1, "adlatus-bubblewrap")
        self._openings = Openings()
        lacks = [_SHARED, _READABLE, _FILES]
        if self._groups is None:
            lacks.append(_NO_GROUP)
        if self._uids is None:
            lacks.append(_SAME_USER)
        self.lacks: tuple[str, ...] = tuple(lacks)

    async def check(self) -> None:
        """Raise `SandboxUnavailableError` if bubblewrap or the environment is missing, or namespaces are forbidden."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxUnavailableError("bubblewrap is not installed. On Debian: apt install bubblewrap")
        said = subprocess.run([program, "--version"], capture_output=True, check=False, text=True)  # noqa: S603
        version = re.search(r"(\d+)\.(\d+)", said.stdout)
        if version is None or (int(version[1]), int(version[2])) < _OLDEST:
            raise SandboxUnavailableError(f"bubblewrap 0.8 or newer is needed, not {said.stdout.strip()}.")
        found = environment.find(self._data_dir)
        if found is None:
            raise SandboxUnavailableError(f"{self._data_dir} has no environment for sandboxes: {PREPARE}.")
        if self._uids:
            for folder in (found.python, found.programs, found.base):
                if blocked := first_unreachable(folder, FIRST, FIRST):
                    raise SandboxUnavailableError(
                        f"Sandboxes run as users of their own, who cannot pass the folder {blocked}. "
                        "Use a data folder such as /var/lib/adlatus, and a Python in /usr."
                    )
        self._environment = found
        whom = FIRST if self._uids else None
        command = [program, "--unshare-all", "--ro-bind", "/usr", "/usr", *_system_folders(), "--", "/usr/bin/env"]
        tried = _spawn(command, whom, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        complaint = tried.communicate()[1].decode(errors="replace").strip()
        if tried.returncode:
            raise SandboxUnavailableError(
                f"bubblewrap does not work here ({complaint[:200]}). It needs namespaces of ordinary users "
                "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, AppArmor's restriction on Ubuntu)."
            )

    async def open(self) -> "BubblewrapChannel":
        if self._environment is None:
            await self.check()
        assert self._environment
        return await self._openings.wait(self._open(self._environment))

    async def _open(self, found: Environment) -> "BubblewrapChannel":
        loop = asyncio.get_running_loop()
        started = await loop.run_in_executor(self._spawner, self._start, found)
        reader, writer = await asyncio.open_unix_connection(sock=started.socket, limit=2**20)
        return BubblewrapChannel(started, reader, writer)

    def _start(self, found: Environment) -> "_Started":
        """A box that is starting, in a control group of its own. Always in the same thread: a box dies with it."""
        with ExitStack() as closing, ExitStack() as undoing:
            try:
                lease = self._uids.take() if self._uids else None
                if lease:
                    undoing.callback(lease.release)
                elif self._uids:
                    raise SandboxUnavailableError("All user ids of sandboxes are taken on this machine.")
                group = self._groups.make(secrets.token_hex(6), LIMITS) if self._groups else None
                if group:
                    undoing.callback(group.remove)
                ours, theirs = socket.socketpair()
                undoing.callback(ours.close)
                closing.callback(theirs.close)
                complaints = closing.enter_context(tempfile.TemporaryFile())
                files = {path: _memory_file(closing, path, content) for path, content in _USERS.items()}
                limits = [*_LIMITS, *([] if group else [f"as={_ADDRESS_SPACE}"])]
                popen = _spawn(
                    ["/bin/sh", "-c", _WAIT_AND_START, "sh", *_arguments(found, files), "--", *START, *limits],
                    lease.uid if lease else None,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=complaints.fileno(),
                    pass_fds=list(files.values()),
                )
                undoing.callback(popen.wait)
                undoing.callback(popen.kill)
                if group:
                    group.add(popen.pid)
                ours.send(b"go\n")
                kept = os.dup(complaints.fileno())
            except OSError as error:
                raise SandboxUnavailableError(f"bubblewrap does not start: {error}") from None
            undoing.pop_all()
        return _Started(popen, ours, kept, lease, group)

    async def clean(self) -> int:
        return await asyncio.to_thread(self._groups.clean) if self._groups else 0

    async def close(self) -> None:
        await self._openings.settle()
        await asyncio.to_thread(self._spawner.shutdown)


@dataclass(frozen=True)
class _Started:
    """What a box is made of on this side."""

    popen: "subprocess.Popen[bytes]"
    socket: socket.socket
    complaints: int
    lease: Lease | None
    group: Group | None


class BubblewrapChannel:
    """The socket that is standard input and output of one sandbox, and the process that holds it."""

    def __init__(self, started: _Started, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = str(started.popen.pid)
        self._started = started
        self._reader = reader
        self._writer = writer
        self._closing: asyncio.Task[str] | None = None

    async def read(self) -> bytes:
        try:
            return await self._reader.read(2**20)
        except OSError:
            return b""

    async def write(self, content: bytes) -> None:
        try:
            self._writer.write(content)
            await self._writer.drain()
        except (OSError, RuntimeError):
            raise SandboxLostError("it ended") from None

    async def close(self) -> str:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        return await asyncio.shield(self._closing)

    async def _close(self) -> str:
        started = self._started
        started.popen.kill()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        await asyncio.to_thread(started.popen.wait)
        await asyncio.to_thread(_let_go, started.lease, started.group)
        said = os.pread(started.complaints, 4000, 0)
        os.close(started.complaints)
        return said.decode(errors="replace")


def _let_go(lease: Lease | None, group: Group | None) -> None:
    if group:
        group.remove()
    if lease:
        lease.release()


def _system_folders() -> list[str]:
    """The folders beside /usr that programs expect, mostly links into it."""
    arguments = []
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        folder = Path("/", name)
        if folder.is_symlink():
            arguments += ["--symlink", f"usr/{name}", f"/{name}"]
        elif folder.exists():
            arguments += ["--ro-bind", f"/{name}", f"/{name}"]
    return arguments


def _arguments(found: Environment, files: dict[str, int]) -> list[str]:
    """bubblewrap's own: a world of read-only programs, empty folders in memory, and nothing else."""

    def memory(folder: str, megabytes: int) -> list[str]:
        return ["--perms", "0700", "--size", str(megabytes * MEGABYTE), "--tmpfs", folder]

    return [
        *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(UID), "--gid", str(UID)),
        *("--hostname", "sandbox", "--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL"),
        *("--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--ro-bind", "/usr", "/usr", *_system_folders()),
        *(argument for path in _NO_NETWORK_NEEDED for argument in ("--ro-bind-try", path, path)),
        *(() if found.base.is_relative_to("/usr") else ("--ro-bind", str(found.base), str(found.base))),
        *("--ro-bind", str(found.python), "/opt/py", "--ro-bind", str(found.programs), "/opt/adlatus"),
        *("--proc", "/proc", "--dev", "/dev"),
        *memory("/dev/shm", 64),  # noqa: S108 - inside
        *memory("/tmp", 64),  # noqa: S108
        *memory("/mnt/data", 512),
        *memory("/home/sandbox", 16),
        *(argument for path, fd in files.items() for argument in ("--perms", "0444", "--ro-bind-data", str(fd), path)),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/mnt/data"),
    ]


def _memory_file(closing: ExitStack, name: str, content: bytes) -> int:
    """A descriptor from which bubblewrap reads the content of a file that only the sandbox has."""
    fd = os.memfd_create(Path(name).name)
    closing.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _spawn(
    command: Sequence[str], uid: int | None, *, stdin: int, stdout: int, stderr: int, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own command
        command,
        cwd="/",
        env=_ENVIRONMENT,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
