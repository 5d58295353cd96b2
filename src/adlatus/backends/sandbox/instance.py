"""The name under which a process makes its sandboxes, so that those it leaves behind when it is killed can be told from
others: a place in the data folder that one process holds at a time, and the next one takes over.

Several processes may share a data folder (workers of a shared database), and several machines an engine.
"""

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


@contextmanager
def hold(data_dir: Path) -> Iterator[str]:
    """The name of the lowest place that is free, held until the block is left or the process dies.

    Where the data folder cannot be written to it is a name of this process alone, whose leftovers nobody will know.
    """
    folder = data_dir / "sandbox-instances"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = _name(folder)
        number, lock = _take(folder)
    except OSError as error:
        log.debug("no place for sandboxes in the data folder", error=str(error))
        yield secrets.token_hex(8)
        return
    try:
        yield f"{name}-{number}"
    finally:
        os.close(lock)


def _name(folder: Path) -> str:
    """Of this folder on this machine: a copy of it elsewhere, or in a container of the same image, has another one."""
    path = folder / "id"
    with suppress(FileExistsError), path.open("x", encoding="ascii") as file:
        file.write(secrets.token_hex(16))
    parts = (path.read_text("ascii"), str(folder.resolve()), socket.gethostname())
    return sha256("\0".join(parts).encode()).hexdigest()[:16]


def _take(folder: Path) -> tuple[int, int]:
    """The number of a place, and the descriptor that holds its lock."""
    for number in count():
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        except BaseException:
            os.close(lock)
            raise
        else:
            return number, lock
    raise AssertionError
