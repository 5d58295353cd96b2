"""Processes of a sandbox as the supervisor sees them: booting, listening, stopping, killing. Standard library only."""

import codecs
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

TEXTS = {"display": ("text",), "result": ("text",), "left_out": ("text",), "error": ("name", "value", "traceback")}
"""What a worker may say in words, and in which fields."""
_ENVIRONMENT = {
    "PATH": "/opt/py/bin:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/sandbox",
    "USER": "sandbox",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "TMPDIR": "/tmp",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MPLCONFIGDIR": "/tmp/.matplotlib",
    "IPYTHONDIR": "/tmp/.ipython",
    "XDG_CACHE_HOME": "/tmp/.cache",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Worker:
    """A forked worker as the supervisor holds it: three pipes to read, one for requests, and one for receipts.

    The worker waits for a receipt of what it shows, a byte: so nothing that is printed afterwards can come before it.
    """

    def __init__(self) -> None:
        self.pid = 0
        requests, self.requests = os.pipe()
        self.results, results = os.pipe()
        receipts, self.receipts = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        self.theirs = [requests, results, receipts, stdout, stderr]
        self.streams = {self.stdout: "stdout", self.stderr: "stderr"}
        self.decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in self.streams}
        self.line = bytearray()
        self.outgoing = b""
        self.is_ready = False
        for fd in (self.requests, self.results, self.receipts, *self.streams):
            os.set_blocking(fd, False)

    def give_away(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def confirm(self) -> None:
        """Let it go on after something that it has shown; where it does not wait this does no harm."""
        with suppress(OSError):
            os.write(self.receipts, b".")

    def exit_code(self) -> int | None:
        """How one that has closed its end ended, if it did: a process loses its descriptors a moment before it ends."""
        give_up_at = time.monotonic() + 0.1
        while self.pid and time.monotonic() < give_up_at:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def forget(self, fd: int) -> None:
        """Close a stream that all its writers have closed."""
        del self.streams[fd]
        os.close(fd)

    def close(self) -> None:
        self.give_away()
        for fd in (self.requests, self.results, self.receipts, *self.streams):
            os.close(fd)


def boot(limits: list[str]) -> tuple[int, socket.socket]:
    """Start a zygote within `limits`: its process id and the channel to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.set_inheritable(True)
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
    command = [sys.executable, "-I", program, str(theirs.fileno()), *limits]
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
    pid = os.posix_spawn(sys.executable, command, _ENVIRONMENT, file_actions=actions)
    theirs.close()
    return pid, ours


def kill_all_but(keep: int) -> None:
    """Kill all processes but this one and `keep`. First all are stopped, at one blow: none escapes by forking."""
    for _ in range(50):
        signal_all(signal.SIGSTOP)
        others = _living() - {1, keep}
        if not others:
            break
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
        _reap()
    else:
        signal_all(signal.SIGKILL)
    signal_all(signal.SIGCONT)
    _reap()


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def signal_all(number: int) -> None:
    """Send a signal to every process but this one."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(-1, number)


def _living() -> set[int]:
    """The process ids of this sandbox, without those that have ended and only wait to be reaped."""
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
            if stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                found.add(int(name))
    return found


def checked(line: bytes | bytearray) -> dict[str, Any] | None:
    """A message of a worker, if it is one."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match message:
        case {"event": "ready"}:
            return {"event": "ready"}
        case {"event": "end", "id": str(), "ok": bool()}:
            return dict(message)
        case {"event": "image", "media_type": ("image/png" | "image/jpeg") as media_type, "content": str(content)}:
            if not content.isascii():
                return None
            return {"event": "image", "media_type": media_type, "content": content}
        case {"event": str(event)} if event in TEXTS:
            texts = [message.get(name) for name in TEXTS[event]]
            if not all(isinstance(text, str) for text in texts):
                return None
            sound = [text.encode("utf-8", "replace").decode() for text in texts]  # no lone surrogates
            return {"event": event, **dict(zip(TEXTS[event], sound, strict=True))}
    return None
