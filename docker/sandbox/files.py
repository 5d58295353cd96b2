"""Files of a session in `/mnt/data`, as the supervisor handles them: put, read, list, compare. Standard library only.

Whatever lies there was made by hostile code: no link is followed, nothing is opened but folders and regular files, one
component of a path at a time.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

MAX_ENTRIES = 20_000
MAX_DEPTH = 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WAITING = ".arriving"


class Seen(NamedTuple):
    """What tells one state of a file from another."""

    size: int
    mtime_ns: int
    inode: int


class Folder:
    """The folder of a session. Raises `OSError` for everything that is not as it should be."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, _FOLDER)
        self._called: set[str] = set()
        """The names under which files of the host are told of that have two."""

    def open(self, path: str) -> int:
        """A descriptor of a regular file; the caller closes it."""
        *folders, name = _components(path)
        at = os.dup(self._fd)
        try:
            for folder in folders:
                at, above = os.open(folder, _FOLDER, dir_fd=at), at
                os.close(above)
            file = os.open(name, _FILE, dir_fd=at)
        finally:
            os.close(at)
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file")

    def begin(self) -> int:
        """A descriptor to write a file to that has no name yet."""
        self.give_up()
        return os.open(_WAITING, _NEW, 0o644, dir_fd=self._fd)

    def give_up(self) -> None:
        """Remove what `begin` began, if it is still there."""
        try:
            os.unlink(_WAITING, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rename(_WAITING, f"{_WAITING}.{os.urandom(8).hex()}", src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def name(self, names: list[str]) -> None:
        """Give what was begun its names, in place of what had them; it is told of by the last of them."""
        try:
            for name in names:
                if len(_components(name)) != 1:
                    raise OSError(errno.EINVAL, "not a name")
                link = f"{_WAITING}.link"
                os.link(_WAITING, link, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                try:
                    os.rename(link, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                except OSError:
                    os.unlink(link, dir_fd=self._fd)
                    raise
        finally:
            self.give_up()
        self._called.add(names[-1])

    def scan(self) -> dict[str, Seen]:
        """All files that can be told of: not hidden, not too deep, with names that are text. One path for an inode."""
        found: dict[int, tuple[str, Seen]] = {}
        for path, status in self._walk():
            seen = Seen(status.st_size, status.st_mtime_ns, status.st_ino)
            if status.st_ino not in found or path in self._called:
                found[status.st_ino] = (path, seen)
        return dict(sorted(found.values()))

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        left = MAX_ENTRIES
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                at = self._descend(folder)
            except OSError:
                continue  # made unreadable, or deeper than paths can be
            try:
                with os.scandir(at) as entries:
                    for entry in entries:
                        left -= 1
                        if left < 0:
                            return
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if not _can_be_told(entry.name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            if path.count("/") < MAX_DEPTH:
                                waiting.append(path)
                        elif entry.is_file(follow_symlinks=False):
                            yield path, entry.stat(follow_symlinks=False)
            except OSError:
                continue
            finally:
                os.close(at)

    def _descend(self, path: str) -> int:
        at = os.dup(self._fd)
        for folder in path.split("/") if path else ():
            try:
                at, above = os.open(folder, _FOLDER, dir_fd=at), at
            except OSError:
                os.close(at)
                raise
            os.close(above)
        return at


def changed(before: dict[str, Seen], after: dict[str, Seen]) -> list[dict[str, object]]:
    """New and changed files. A write without a trace in size, time and inode cannot be seen."""
    return [{"path": path, "size": seen.size} for path, seen in after.items() if before.get(path) != seen]


def _components(path: str) -> list[str]:
    parts = path.split("/")
    if not all(parts) or "." in parts or ".." in parts or "\0" in path:
        raise OSError(errno.EINVAL, "not a path within the folder")
    return parts


def _can_be_told(name: str) -> bool:
    """Whether a name is neither hidden nor of bytes that are no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not name.startswith(".")
