"""User ids of this machine for sandboxes, where we are root: one for each, so that none can touch another."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adlatus.errors import StartupError

FIRST, LAST = 60578, 61183
"""Ids that no distribution gives away. *Source*: "Users, Groups, UIDs and GIDs on systemd systems", table of ranges."""
FOLDER = Path("/run/adlatus/uids")


@dataclass
class Lease:
    """A user id that is ours alone while the lock on its file is held, whichever process holds it."""

    uid: int
    _lock: int

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Uids:
    """Leases of user ids. Blocks only for moments."""

    def __init__(self, folder: Path = FOLDER) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022 or folder.is_symlink():
            raise StartupError(f"{folder} is not ours alone: remove it.")
        self._folder = folder
        self._candidates = self._forever()

    def take(self) -> Lease | None:
        """A user id that no other sandbox of this machine has, or None if all are taken."""
        for _ in range(FIRST, LAST + 1):
            uid = next(self._candidates)
            lock = os.open(self._folder / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Lease(uid, lock)
            os.close(lock)
        return None

    @staticmethod
    def _forever() -> Iterator[int]:
        while True:
            yield from range(FIRST, LAST + 1)
