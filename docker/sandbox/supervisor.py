"""Process 1 of a sandbox: speaks with the host in JSON lines, and keeps the process that executes code in its place.

Standard library only, and never a line of the session's code. It believes the host and nobody else: what a worker
writes is counted, capped and checked. Nothing here waits for a process of the session.

Host to sandbox: exec{id,code,timeout,grace} cancel{id} restart{id} put{id,first,data,names} get{id,path,max} list{id}
ping{id}.
Sandbox to host: hello ready stream image display result error left_out timeout done, and for the other requests
put_ok data get_ok files restart_ok pong op_error, each with the id of its request.
"""

import base64
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from files import Folder, Seen, changed
from processes import TEXTS, Worker, boot, checked, kill_all_but, signal_all

PROTOCOL = 1
FOLDER = "/mnt/data"
MAX_LINE = 16 * 2**20
MAX_TEXT = 2**20
MAX_IMAGES = 20
MAX_IMAGE_CHARACTERS = 13_400_000
MAX_CHANGED, MAX_LISTED = 100, 1000
BLOCK = 768 * 1024
BOOTS = 3
BREATH_S = 0.02
"""Small pieces of output that come quicker than this go together."""
_PR_SET_DUMPABLE = 4


class Execution:
    """One cell: its limits, and how much it has said."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.id = request["id"]
        self.code = request["code"]
        self.timeout_s = float(request["timeout"])
        self.grace_s = float(request["grace"])
        self.began = self.deadline = 0.0
        self.is_running = False
        self.was_interrupted = self.was_cancelled = False
        self.before: dict[str, Seen] = {}
        self.text_left = MAX_TEXT
        self.left_out = 0
        self.images = 0
        self.waiting: list[tuple[str, str]] = []
        self.told_at = 0.0


class Supervisor:
    """All state of the sandbox. One thread; `run` is the loop."""

    def __init__(self, limits: list[str]) -> None:
        self._limits = limits
        self._folder = Folder(FOLDER)
        self._zygote: tuple[int, socket.socket] | None = None
        self._zygote_is_ready = False
        self._has_filter = False
        self._boots = 0
        self._worker: Worker | None = None
        self._execution: Execution | None = None
        self._arriving: int | None = None
        self._restarting: str | None = None
        self._is_paused = False
        self._incoming = bytearray()
        self._wakes, wake = os.pipe()
        for fd in (self._wakes, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    # --- The loop

    def run(self) -> None:
        """Serve until the host closes its end."""
        self._say("hello", protocol=PROTOCOL, python=sys.version.split()[0], machine=os.uname().machine)
        self._need_worker()
        while True:
            ready = self._poll()
            worker = self._worker
            if self._wakes in ready:
                with suppress(BlockingIOError):
                    os.read(self._wakes, 4096)
            self._reap()
            if self._zygote and self._zygote[1].fileno() in ready:
                self._hear_zygote()
            if worker and worker is self._worker:
                self._serve(worker, ready)
            if 0 in ready and not self._hear_host():
                return
            if self._execution and time.monotonic() - self._execution.told_at > BREATH_S:
                self._breathe(self._execution)
            self._check_deadline()

    def _poll(self) -> set[int]:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._wakes, select.POLLIN)
        if self._zygote:
            poll.register(self._zygote[1], select.POLLIN)
        if self._worker and self._worker.pid:
            for fd in (self._worker.results, *self._worker.streams):
                poll.register(fd, select.POLLIN)
            if self._worker.outgoing:
                poll.register(self._worker.requests, select.POLLOUT)
        wait_ms = None
        if self._execution and self._execution.is_running:
            wake_at = self._execution.deadline
            if self._execution.waiting:
                wake_at = min(wake_at, self._execution.told_at + BREATH_S)
            wait_ms = max(0.0, wake_at - time.monotonic()) * 1000 + 1
        return {fd for fd, _ in poll.poll(wait_ms)}

    def _say(self, event: str, **fields: object) -> None:
        line = memoryview(json.dumps({"event": event, **fields}, separators=(",", ":")).encode() + b"\n")
        while line:
            line = line[os.write(1, line) :]

    # --- What the host asks for

    def _hear_host(self) -> bool:
        """Whether it is still there."""
        arrived = os.read(0, 2**20)
        self._incoming += arrived
        *lines, rest = self._incoming.split(b"\n")
        self._incoming = rest
        for line in lines:
            request = json.loads(line)
            try:
                self._do(request)
            except OSError as error:
                self._say("op_error", id=request.get("id"), code=errno.errorcode.get(error.errno or 0, "EIO"))
        return bool(arrived)

    def _do(self, request: dict[str, Any]) -> None:
        match request["op"]:
            case "exec":
                if self._execution or self._restarting:
                    raise OSError(errno.EBUSY, "a cell is running")
                self._execution = Execution(request)
                self._need_worker()
                self._begin_if_ready()
            case "cancel":
                if self._execution and self._execution.id == request["id"]:
                    self._cancel(self._execution)
            case "restart":
                self._restart(request["id"])
            case "put":
                self._put(request)
            case "get":
                self._get(request)
            case "list":
                files = [{"path": path, "size": seen.size} for path, seen in self._folder.scan().items()]
                self._say("files", id=request["id"], files=files[:MAX_LISTED])
            case "ping":
                self._say("pong", id=request["id"])

    def _cancel(self, execution: Execution) -> None:
        execution.was_cancelled = True
        execution.deadline = 0
        if not execution.is_running:
            execution.began, execution.before = time.monotonic(), self._folder.scan()
            self._finish("interrupted", None)

    def _restart(self, request_id: str) -> None:
        if self._execution:
            raise OSError(errno.EBUSY, "a cell is running")
        self._drop_worker()
        self._restarting = request_id
        self._need_worker()

    def _put(self, request: dict[str, Any]) -> None:
        """A file in blocks; the last one has its names, or none: then it is given up."""
        try:
            if request.get("first"):
                self._arriving = self._folder.begin()
            if self._arriving is None:
                return  # the rest of one that has failed
            block = memoryview(base64.b64decode(request["data"]))
            while block:
                block = block[os.write(self._arriving, block) :]
            names = request.get("names")
            if names is None:
                return
            os.close(self._arriving)
            self._arriving = None
            if names:
                self._folder.name(names)
            else:
                self._folder.give_up()
            self._say("put_ok", id=request["id"])
        except OSError:
            if self._arriving is not None:
                os.close(self._arriving)
                self._arriving = None
            with suppress(OSError):
                self._folder.give_up()
            raise

    def _get(self, request: dict[str, Any]) -> None:
        file = self._folder.open(request["path"])
        try:
            left = int(request["max"])
            if os.fstat(file).st_size > left:
                raise OSError(errno.EFBIG, "too large")
            while left > 0 and (block := os.read(file, min(BLOCK, left))):
                left -= len(block)
                self._say("data", id=request["id"], data=base64.b64encode(block).decode())
        finally:
            os.close(file)
        self._say("get_ok", id=request["id"])

    # --- The zygote and its workers

    def _need_worker(self) -> None:
        """See to it that there is a worker, sooner or later."""
        if self._worker:
            return
        self._resume()
        if self._zygote is None:
            self._boot()
        elif self._zygote_is_ready:
            self._ask_for_worker(self._zygote[1])

    def _boot(self) -> None:
        self._boots += 1
        if self._boots > BOOTS:
            self._fail("Python does not start in this sandbox")
        self._zygote, self._zygote_is_ready = boot(self._limits), False

    def _ask_for_worker(self, channel: socket.socket) -> None:
        self._worker = Worker()
        try:
            socket.send_fds(channel, [b"F"], self._worker.theirs)
        except OSError:
            self._zygote_is_gone()
            return
        self._worker.give_away()

    def _hear_zygote(self) -> None:
        assert self._zygote
        try:
            said = self._zygote[1].recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        kind, number = said[:1], int(said[1:] or 0)
        if kind == b"R":
            self._zygote_is_ready = True
            self._has_filter = bool(number)
            self._need_worker()
        elif kind == b"P" and self._worker:
            self._worker.pid = number
        elif kind == b"E":
            # No room for another process: whoever takes it has to go
            self._drop_worker()
            self._boots += 1
            if self._boots > BOOTS:
                self._fail(f"no process can be started: {os.strerror(number)}")
            self._need_worker()
        else:
            self._zygote_is_gone()

    def _zygote_is_gone(self) -> None:
        """The session's code may kill it. A worker that it has started stays; the next one needs another zygote."""
        assert self._zygote
        self._zygote[1].close()
        self._zygote, self._zygote_is_ready = None, False
        if self._worker and not self._worker.pid:
            self._worker.close()
            self._worker = None
        if self._worker is None:
            self._kill_others()
            self._need_worker()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._worker and pid == self._worker.pid:
                self._worker_is_gone(os.waitstatus_to_exitcode(status))

    def _worker_is_gone(self, exit_code: int | None) -> None:
        if self._worker:
            self._read_streams(self._worker)
        self._drop_worker()
        if self._execution and self._execution.is_running:
            was_killed = self._execution.was_interrupted and time.monotonic() >= self._execution.deadline
            self._finish("killed" if was_killed else "died", exit_code)
        self._need_worker()

    def _drop_worker(self) -> None:
        """End the worker and everything that it has started; files stay."""
        self._kill_others()
        if self._worker:
            self._worker.close()
            self._worker = None

    def _kill_others(self) -> None:
        kill_all_but(self._zygote[0] if self._zygote else 0)
        self._is_paused = False

    def _pause(self) -> None:
        """Stop everything between calls: a session that waits costs nothing."""
        signal_all(signal.SIGSTOP)
        self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            signal_all(signal.SIGCONT)
            self._is_paused = False

    # --- The worker's work

    def _serve(self, worker: Worker, ready: set[int]) -> None:
        for fd in list(worker.streams):
            if fd in ready:
                self._read_stream(worker, fd)
        if worker.requests in ready and not self._write(worker):
            return
        if worker.results in ready:
            self._read_results(worker)

    def _begin_if_ready(self) -> None:
        execution, worker = self._execution, self._worker
        if execution is None or execution.is_running or worker is None or not worker.is_ready:
            return
        execution.before = self._folder.scan()
        execution.began = time.monotonic()
        execution.deadline = execution.began + execution.timeout_s
        execution.is_running = True
        worker.outgoing = json.dumps({"id": execution.id, "code": execution.code}).encode() + b"\n"
        self._resume()
        self._write(worker)

    def _write(self, worker: Worker) -> bool:
        """Whether the worker still listens."""
        try:
            worker.outgoing = worker.outgoing[os.write(worker.requests, worker.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:  # it has closed its end
            self._worker_is_gone(None)
            return False
        return True

    def _read_stream(self, worker: Worker, fd: int) -> bool:
        """Whether there was something."""
        try:
            content = os.read(fd, 2**16)
        except BlockingIOError:
            return False
        if not content:
            worker.forget(fd)
            return False
        text = worker.decoders[fd].decode(content)
        if execution := self._execution:
            execution.waiting.append((worker.streams[fd], self._within_limit(execution, text)))
        return True

    def _read_streams(self, worker: Worker) -> None:
        """What was printed before a result comes before it; more than a pipe holds was not printed before."""
        for fd in list(worker.streams):
            for _ in range(4):
                if not self._read_stream(worker, fd):
                    break

    def _read_results(self, worker: Worker) -> None:
        try:
            content = os.read(worker.results, 2**18)
        except BlockingIOError:
            return
        worker.line += content
        if not content or (b"\n" not in content and len(worker.line) > MAX_LINE):
            self._worker_is_gone(None if content else worker.exit_code())
            return
        *lines, worker.line = worker.line.split(b"\n") if b"\n" in content else [worker.line]
        for line in lines:
            message = checked(line) if len(line) <= MAX_LINE else None
            if message is None:
                self._worker_is_gone(None)
            else:
                self._hear_worker(worker, message)
                if message["event"] not in ("ready", "end"):
                    worker.confirm()
            if worker is not self._worker:
                return

    def _hear_worker(self, worker: Worker, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "ready" and not worker.is_ready:
            worker.is_ready = True
            self._boots = 0
            self._say("ready", filter=self._has_filter)
            if self._restarting:
                self._say("restart_ok", id=self._restarting)
                self._restarting = None
            if self._execution:
                self._begin_if_ready()
            else:
                self._pause()
            return
        execution = self._execution
        if execution is None or not execution.is_running:
            return
        if event == "end":
            if message["id"] == execution.id:
                self._end(worker, execution, bool(message["ok"]))
            return
        self._read_streams(worker)
        self._breathe(execution)
        if event == "image":
            execution.images += 1
            if execution.images <= MAX_IMAGES and len(message["content"]) <= MAX_IMAGE_CHARACTERS:
                self._say(id=execution.id, **message)
        elif event in TEXTS and (execution.text_left or event == "error"):
            texts = {name: self._within_limit(execution, message[name]) for name in TEXTS[event]}
            self._say(event, id=execution.id, **texts)

    def _end(self, worker: Worker, execution: Execution, went_well: bool) -> None:
        self._pause()
        self._read_streams(worker)
        if execution.was_interrupted:
            self._finish("interrupted", None)
        else:
            self._finish("ok" if went_well else "error", None)

    def _finish(self, status: str, exit_code: int | None) -> None:
        """Say how a cell ended and what it left behind."""
        execution = self._execution
        assert execution
        self._breathe(execution)
        self._execution = None
        files = changed(execution.before, self._folder.scan())
        self._say(
            "done",
            id=execution.id,
            status=status,
            exit_code=exit_code,
            seconds=round(time.monotonic() - execution.began, 6),
            left_out=execution.left_out,
            files=files[:MAX_CHANGED],
            more_files=max(0, len(files) - MAX_CHANGED),
        )

    def _breathe(self, execution: Execution) -> None:
        """Say what was printed, in as few pieces as the order of the streams allows."""
        if not execution.waiting:
            return
        pieces = [list(execution.waiting[0])]
        for name, text in execution.waiting[1:]:
            if name == pieces[-1][0]:
                pieces[-1][1] += text
            else:
                pieces.append([name, text])
        execution.waiting = []
        execution.told_at = time.monotonic()
        for name, text in pieces:
            if text:
                self._say("stream", id=execution.id, name=name, text=text)

    def _within_limit(self, execution: Execution, text: str) -> str:
        """As much of a text as the cell may still say."""
        kept = text[: execution.text_left]
        execution.text_left -= len(kept)
        execution.left_out += len(text) - len(kept)
        return kept

    def _check_deadline(self) -> None:
        execution, worker = self._execution, self._worker
        if execution is None or worker is None or not execution.is_running:
            return
        if time.monotonic() < execution.deadline:
            return
        if execution.was_interrupted:
            self._worker_is_gone(None)
            return
        execution.was_interrupted = True
        execution.deadline = time.monotonic() + execution.grace_s
        if not execution.was_cancelled:
            self._say("timeout", id=execution.id)
        # It is our child and not reaped, so that its number is still its own
        for interrupt in (os.killpg, os.kill):
            with suppress(OSError):
                interrupt(worker.pid, signal.SIGINT)
                return

    def _fail(self, reason: str) -> None:
        self._say("failed", reason=reason)
        sys.exit(1)


def main() -> None:
    if os.getpid() != 1:
        sys.exit("The supervisor has to be process 1 of a sandbox: it sends signals to everybody else.")
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody looks into its memory and descriptors
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Supervisor(sys.argv[1:]).run()


if __name__ == "__main__":
    main()
