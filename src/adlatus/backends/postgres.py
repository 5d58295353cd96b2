"""The embedded PostgreSQL: a real server in the data folder, owned by one process of ours at a time.

The owner holds the folder's lock, starts the server or adopts the orphan of an owner that was killed, starts it again
when it dies, and stops it at the end. Others may attach. The server is recognised by its command line, never by its
process id alone.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import structlog

from adlatus.backends.postgres_account import SOCKET, Account, check_owner, find_account, make_home, read_text, spawn
from adlatus.backends.postgres_cluster import MAJOR, ROLE, Cluster, dsn, last_lines, prepare, trim_log
from adlatus.errors import StartupError

log = structlog.get_logger(__name__)
T = TypeVar("T")

_POLL_S = 0.01
_READY_S = 120  # recovery after a crash can take long
_STILL_IN_USE_S = 20
_AT_ONCE = ((signal.SIGQUIT, 10), (signal.SIGKILL, 10))  # without a checkpoint, then by force
_IN_ORDER = ((signal.SIGINT, 20), *_AT_ONCE)
_TRIM_EVERY_S = 60
_LOOK_S = 0.2
_START_AGAIN_S = 5.0


@dataclass(frozen=True)
class EmbeddedDatabase:
    """A running database; `dsn` is for asyncpg and, with the scheme `postgresql+asyncpg`, for SQLAlchemy."""

    dsn: str
    pid: int  # the postmaster
    adopted: bool  # it ran already, an orphan of a killed server


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[EmbeddedDatabase]:
    """Own the database of `data_dir`: created on first use, started or adopted, stopped at the end.

    Raises `StartupError` with advice if the folder is in use or cannot be used, or if PostgreSQL does not start.
    """
    with _advice(data_dir):
        account = await asyncio.to_thread(find_account, create=True)
        assert account is not None, "it was created"
        folder = await asyncio.to_thread(_cluster_folder, data_dir, account)
        home = make_home(data_dir, account)
    with _locked(home):
        with _advice(home):
            await _rightful(folder, account)
            cluster = await _finished(asyncio.to_thread(prepare, home, account))
        try:
            with _advice(home):
                server = await _adopt_or_start(cluster)
            log.info("database ready", pid=server.pid, adopted=server.child is None)
            async with _served(server, cluster):
                yield EmbeddedDatabase(dsn(cluster.run_folder), server.pid, adopted=server.child is None)
        finally:
            with suppress(OSError):
                cluster.run_folder.rmdir()


async def attach(data_dir: Path) -> EmbeddedDatabase | None:
    """The running database of `data_dir`, without owning it; `None` if none runs.

    Waits while it is starting. Raises `StartupError` if the database is another user's.
    """
    with _advice(data_dir):
        account = find_account(create=False)
        if account is None:
            return None
        folder = await asyncio.to_thread(_cluster_folder, data_dir, account)
        server = _named(folder, account)
        if server and await _is_ready(folder, server):
            with suppress(FileNotFoundError, IndexError):  # it has just ended
                return EmbeddedDatabase(dsn(_lines(folder / "postmaster.pid")[4]), server.pid, adopted=False)
        return None


def _cluster_folder(data_dir: Path, account: Account) -> Path:
    folder = data_dir.resolve() / f"postgres-{MAJOR}"
    if folder.exists():
        check_owner(folder, account)
    return folder


# --- The lock


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the folder's lock. No child inherits its descriptor, or an orphan would keep the next owner off."""
    with _advice(home):
        descriptor = os.open(home / "adlatus.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with _advice(home):
            _lock(descriptor, home)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, home: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "that just started"
        raise StartupError(
            f"The data folder {home} is in use by the adlatus process {owner}. "
            "Stop that one, or give this one a folder of its own with --data-dir."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def _advice(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartupError(
            f"The data folder {folder} cannot be used: {error}. Choose a local folder of your own with --data-dir."
        ) from error


# --- Which process it is


@dataclass(frozen=True)
class _Server:
    """A postmaster: our child, or one that was found running (`child` is None)."""

    pid: int
    argv: tuple[str, ...]
    account: Account
    child: subprocess.Popen[bytes] | None = None

    def runs(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        return _argv(self.pid, self.account) == self.argv


def _named(folder: Path, account: Account) -> _Server | None:
    """The postmaster that works in `folder` and that the folder's own lock file names in its first line."""
    with suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(_lines(folder / "postmaster.pid")[0])
        argv = _argv(pid, account)
        return _Server(pid, argv, account) if argv and _works_in(pid, argv, folder) else None
    return None


def _all_of(folder: Path, account: Account) -> list[_Server]:
    """Every postmaster that works in `folder`, or did before the folder was deleted."""
    found = [(int(name), _argv(int(name), account)) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    return [
        _Server(pid, argv, account)
        for pid, argv in found
        if argv and (argv[1:3] == ("-D", str(folder)) or _works_in(pid, argv, folder))
    ]


def _argv(pid: int, account: Account) -> tuple[str, ...]:
    """The command line of `pid` if it is a postmaster of `account`, else nothing. That of a zombie is empty."""
    process = Path(f"/proc/{pid}")
    try:
        if process.stat().st_uid != account.uid:
            return ()
        argv = tuple(os.fsdecode(part) for part in (process / "cmdline").read_bytes().split(b"\0")[:-1])
    except OSError:
        return ()
    return argv if argv and Path(argv[0]).name == "postgres" else ()


def _works_in(pid: int, argv: tuple[str, ...], folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except PermissionError:  # root in a container may not look at another user's process
        return argv[1:3] == ("-D", str(folder))
    except OSError:
        return False


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines()]


# --- Start


async def _rightful(folder: Path, account: Account) -> _Server | None:
    """The postmaster that belongs to `folder`, once all others that would write to this path have ended.

    That of a deleted folder must not end in order: its last checkpoint goes to the *path* of pg_control, and so would
    break the database that is there by now.
    """
    rightful = _named(folder, account)
    for server in await asyncio.to_thread(_all_of, folder, account):
        if rightful is None or server.pid != rightful.pid:
            await _finished(_stop(server, _AT_ONCE))
    return rightful


async def _adopt_or_start(cluster: Cluster) -> _Server:
    give_up_at = time.monotonic() + _STILL_IN_USE_S
    while True:
        orphan = await _rightful(cluster.folder, cluster.account)
        if orphan and await _adopted(cluster, orphan):
            return orphan
        for stale in (cluster.folder / "postmaster.pid", cluster.run_folder / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        server, output = await _start(cluster)
        if server is not None:
            return server
        # The children of a postmaster that was killed need a moment to die.
        if "pre-existing shared memory block" not in output or time.monotonic() > give_up_at:
            raise StartupError(f"PostgreSQL does not start. The end of its log, {cluster.log}:\n{last_lines(output)}")
        await asyncio.sleep(_POLL_S)


async def _adopted(cluster: Cluster, orphan: _Server) -> bool:
    """Keep the orphan of a killed owner if it is what we would start and if it answers; otherwise stop it."""
    keep = False
    try:
        keep = orphan.argv == cluster.command and await _answers(cluster, orphan)
    finally:
        if not keep:
            await _finished(_stop(orphan))
    return keep


async def _answers(cluster: Cluster, server: _Server) -> bool:
    try:
        if not await _is_ready(cluster.folder, server):
            return False
        await _create_database(cluster)
    except StartupError:
        return False
    return True


async def _start(cluster: Cluster) -> tuple[_Server | None, str]:
    """The postmaster once it serves; if it ends instead, what it wrote to its log."""
    trim_log(cluster.log)
    output = os.open(cluster.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        written_bytes = os.fstat(output).st_size
        child = spawn(cluster.account, cluster.command, cluster.folder, output)
    finally:
        os.close(output)
    server = _Server(child.pid, cluster.command, cluster.account, child)
    try:
        if await _is_ready(cluster.folder, server):
            await _create_database(cluster)
            return server, ""
    except BaseException:
        await _finished(_stop(server))
        raise
    await _finished(_stop(server))
    return None, cluster.log.read_bytes()[written_bytes:].decode(errors="replace")


async def _is_ready(folder: Path, server: _Server) -> bool:
    """Wait until the server takes connections; False if it ends instead. Source: PostgreSQL's pidfile.h."""
    try:
        async with asyncio.timeout(_READY_S):
            while server.runs():
                with suppress(FileNotFoundError):
                    lines = _lines(folder / "postmaster.pid")
                    if len(lines) >= 8 and lines[0] == str(server.pid) and lines[7] in ("ready", "stopping"):
                        return lines[7] == "ready"
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise StartupError(f"PostgreSQL in {folder} is not ready after {_READY_S} seconds.") from None
    return False


async def _create_database(cluster: Cluster) -> None:
    """Make our database if it is missing, and so see whether the server lets us in."""
    try:
        connection = await asyncpg.connect(dsn(cluster.run_folder, "postgres"), timeout=10)
        try:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", ROLE):
                await connection.execute(f"CREATE DATABASE {ROLE} OWNER {ROLE}")
        finally:
            await connection.close(timeout=10)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartupError(
            f"PostgreSQL runs but does not let the user {cluster.account.client} in: {error}. Its log is {cluster.log}."
        ) from error


# --- Run and stop


@asynccontextmanager
async def _served(server: _Server, cluster: Cluster) -> AsyncIterator[None]:
    """Keep the server alive and its log short meanwhile, and stop it at the end."""
    keeper = _Keeper(server, cluster)
    tasks = [asyncio.create_task(keeper.keep_alive()), asyncio.create_task(_keep_short(cluster.log))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await _finished(_ended(tasks))
        await _finished(_stop(keeper.server))


@dataclass
class _Keeper:
    """Starts the server again when it has died: the lock on its folder is still held, so nobody else does."""

    server: _Server
    cluster: Cluster

    async def keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self.server.runs():
                log.error("the database has died; it is started again", pid=self.server.pid)
                await self._start_again()

    async def _start_again(self) -> None:
        try:
            self.server = await _adopt_or_start(self.cluster)
            log.info("database ready", pid=self.server.pid, adopted=self.server.child is None)
        except (StartupError, OSError) as error:  # such as a disk that is full
            log.error("the database does not start; it is tried again", error=str(error), after_s=_START_AGAIN_S)
            await asyncio.sleep(_START_AGAIN_S)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_short(log_file: Path) -> None:
    while True:
        await asyncio.sleep(_TRIM_EVERY_S)
        with suppress(OSError):
            await asyncio.to_thread(trim_log, log_file)


async def _stop(server: _Server, signals: Iterable[tuple[signal.Signals, int]] = _IN_ORDER) -> None:
    """End the server by these signals, each with its seconds of patience. All of them keep what was committed."""
    for number, patience_s in signals:
        if server.runs():
            log.debug("stopping the database", pid=server.pid, signal=number.name)
            with suppress(ProcessLookupError):
                os.kill(server.pid, number)
        give_up_at = time.monotonic() + patience_s
        while server.runs() and time.monotonic() < give_up_at:  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(_POLL_S)


async def _finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which a cancellation of the caller does not interrupt; it is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # seen, though the cancellation comes first
    raise cancelled
