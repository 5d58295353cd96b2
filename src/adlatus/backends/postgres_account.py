"""Whom the embedded PostgreSQL runs as, and which folders it may use.

As root PostgreSQL gets an account of its own, who is not trusted: what it could have replaced is not followed, and no
folder that exists already gets another mode so that it can pass. Everything here is short or may block.
"""

import hashlib
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adlatus.backends import accounts
from adlatus.errors import StartupError

ACCOUNT = "adlatus-postgres"
SOCKET = ".s.PGSQL.5432"
ELSEWHERE = "or set ADLATUS_DATABASE_URL to a PostgreSQL of your own"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
_SUN_PATH_BYTES = 107
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]+")  # needs no quoting in a DSN or in unix_socket_directories


@dataclass(frozen=True)
class Account:
    """Whom PostgreSQL runs as (`uid`, `gid`), and the name of whom it lets in: us."""

    uid: int
    gid: int
    client: str

    @property
    def is_other(self) -> bool:
        """Whether we are root and PostgreSQL is not."""
        return self.uid != os.geteuid()


def find_account(*, create: bool) -> Account | None:
    """The account of PostgreSQL: ourselves, or as root `adlatus-postgres`, which is made if `create` is set."""
    try:
        client = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise StartupError(
            f"The user id {os.geteuid()} has no name on this machine, but PostgreSQL knows its clients by name. "
            f"In a container: start it as a user of its /etc/passwd, add the id there, {ELSEWHERE}."
        ) from None
    if client.pw_uid != 0:
        return Account(client.pw_uid, client.pw_gid, client.pw_name)
    if create:
        _create_account()
    try:
        server = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None
    if server.pw_uid == 0:
        raise StartupError(f"The user {ACCOUNT} is root under another name; PostgreSQL refuses to run as root.")
    return Account(server.pw_uid, server.pw_gid, client.pw_name)


def _create_account() -> None:
    try:
        accounts.create(ACCOUNT)
    except accounts.NoAccountError as error:
        raise StartupError(
            f"PostgreSQL does not run as root, and its user {ACCOUNT} cannot be created ({error}). "
            f"Create a system user of this name, start adlatus as an ordinary user, {ELSEWHERE}."
        ) from None


def make_home(data_dir: Path, account: Account) -> Path:
    """The resolved data folder, created if missing. Raises `StartupError` where PostgreSQL could not reach it."""
    home = data_dir.resolve()
    blocked = first_unreachable(home, account.uid, account.gid) if account.is_other else None
    if blocked:
        raise StartupError(
            f"As root, PostgreSQL runs as the user {ACCOUNT}, who cannot pass the folder {blocked} "
            f"(mode {stat.S_IMODE(blocked.stat().st_mode):04o}). Use another data folder, such as "
            f"--data-dir /var/lib/adlatus, or let others pass this one: chmod o+x '{blocked}'"
        )
    make_data_folder(home, others_pass=account.is_other)
    return home


def make_data_folder(home: Path, *, others_pass: bool) -> None:
    """Create the data folder and those above it where they are missing. As root another user has to get through."""
    for folder in [*reversed(home.parents), home]:
        if folder.is_dir():
            continue
        with suppress(FileExistsError):
            folder.mkdir(0o700)
            if others_pass:
                folder.chmod(0o711 if folder == home else 0o755)


def first_unreachable(path: Path, uid: int, gid: int) -> Path | None:
    """The first existing folder on the way to `path`, itself included, that this user has no right to pass."""
    for folder in [*reversed(path.parents), path]:
        try:
            status = folder.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not status.st_mode >> shift & 1:
            return folder
    return None


def run_folders(home: Path, uid: int, runtime_dir: str | None) -> list[Path]:
    """Where the socket may live, best first: short whatever `home` is, because a socket's path has 107 bytes."""
    key = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    fallback = Path(f"/tmp/adlatus-{uid}") / key  # noqa: S108 - private_folder() checks whose it is
    if uid == 0:
        return [Path("/run/adlatus") / key, fallback]
    if not runtime_dir or not _PLAIN_PATH.fullmatch(runtime_dir):
        return [fallback]
    preferred = Path(runtime_dir) / "adlatus" / key
    fits = len(os.fsencode(preferred / f"{SOCKET}.lock")) <= _SUN_PATH_BYTES
    return [preferred, fallback] if fits else [fallback]


def private_folder(path: Path, uid: int, mode: int) -> None:
    """Make `path` a folder of `uid` with `mode`. Raises `StartupError` if somebody else has put something there."""
    with suppress(FileExistsError):
        path.mkdir(0o700)
        if uid != os.geteuid():
            os.chown(path, uid, -1, follow_symlinks=False)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
        raise StartupError(
            f"{path} should be a folder of user id {uid} but belongs to user id {status.st_uid} or is no folder. "
            "Remove it, if need be with the help of the machine's administrator."
        )
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)


def make_run_folder(home: Path, account: Account) -> Path:
    reasons = []
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime_dir or not _is_private(runtime_dir):
        runtime_dir = None
    for folder in run_folders(home, os.geteuid(), runtime_dir):
        try:
            private_folder(folder.parent, os.geteuid(), 0o755 if account.is_other else 0o700)
            private_folder(folder, account.uid, 0o700)
        except OSError as error:
            reasons.append(str(error))
        else:
            return folder
    raise StartupError(f"There is no place for PostgreSQL's socket: {'; '.join(reasons)}")


def _is_private(folder: str) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def check_owner(folder: Path, account: Account) -> None:
    """Raise `StartupError` if the cluster is not of the account that runs it."""
    owner = folder.lstat().st_uid
    if owner == account.uid:
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"user id {owner}"
    raise StartupError(
        f"The database {folder} belongs to {name}. Start adlatus as the user who made it, "
        f"or choose another folder with --data-dir."
    )


def spawn(account: Account, command: Sequence[str], folder: Path, output: int) -> subprocess.Popen[bytes]:
    """Start `command` as `account` in `folder`: no secrets, no open files, no Ctrl-C of our terminal."""
    return subprocess.Popen(  # noqa: S603 - our own command
        command,
        cwd=folder,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0o077,
        user=account.uid if account.is_other else None,
        group=account.gid if account.is_other else None,
        extra_groups=[] if account.is_other else None,
    )


def read_text(path: Path) -> str:
    """The text of a small file, which must not be a link; a pipe cannot keep us waiting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor
        return file.read(65536)
