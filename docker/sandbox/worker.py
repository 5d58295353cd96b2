"""A Python session: started once as the zygote, which loads libraries and then forks workers that execute cells.

Everything here but the zygote before its first fork is at the mercy of the code that it executes; the supervisor, which
is another process, believes nothing of what it says. A worker reads requests from one pipe and answers on another, a
JSON object per line; standard output and error are pipes of their own.
"""

import base64
import ctypes
import errno
import json
import os
import resource
import runpy
import shutil
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

FOLDER = "/mnt/data"
MAX_TEXT = 100_000
MAX_IMAGE_BYTES = 10_000_000
MAX_IMAGES = 20
_PR_SET_DUMPABLE = 4
_IMAGES = ("image/png", "image/jpeg")
_PRELOADED = ("numpy", "pandas", "matplotlib", "matplotlib.pyplot", "matplotlib.figure", "PIL.Image")
_speaker = 0
"""The process id of the worker: what a cell has forked must not speak for it."""


class Answers:
    """Where results go."""

    def __init__(self) -> None:
        self.fd = self.receipts = -1
        self._images = 0
        self._writing = threading.Lock()

    def begin(self) -> None:
        self._images = 0

    def send(self, **message: object) -> None:
        """Say it, after everything that was printed before and ahead of what follows. Forked children say nothing."""
        if os.getpid() != _speaker:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        line = memoryview(json.dumps(message).encode() + b"\n")
        with self._writing, _interrupts_wait():
            while line:
                line = line[os.write(self.fd, line) :]
            if message["event"] not in ("ready", "end"):
                os.read(self.receipts, 1)

    def show(self, kind: str, shown: dict[str, Any]) -> None:
        """Say what a display or a result looks like: as one image if it has one, else as text."""
        for media_type in _IMAGES:
            if media_type in shown:
                return self._image(media_type, shown[media_type])
        text = shown.get("text/plain")
        if isinstance(text, str):
            self.send(event=kind, text=shortened(text, MAX_TEXT))
        return None

    def _image(self, media_type: str, content: bytes | str) -> None:
        encoded = base64.b64encode(content).decode() if isinstance(content, bytes) else content.replace("\n", "")
        self._images += 1
        if self._images > MAX_IMAGES:
            if self._images == MAX_IMAGES + 1:
                self.send(event="left_out", text=f"Only {MAX_IMAGES} images are shown; the others were left out.")
        elif len(encoded) > MAX_IMAGE_BYTES * 4 // 3:
            megabytes = MAX_IMAGE_BYTES // 10**6
            self.send(event="left_out", text=f"An image of more than {megabytes} MB was left out.")
        else:
            self.send(event="image", media_type=media_type, content=encoded)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Keep an interrupt until the end: half a line would cost the session its worker."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if came and callable(before):
        before(signal.SIGINT, None)


def shortened(text: str, most: int) -> str:
    """A text with its middle left out where it is long; what cannot be encoded is replaced."""
    if len(text) > most:
        text = f"{text[: most // 2]}\n… {len(text) - most} characters left out …\n{text[-(most // 2) :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def make_shell(answers: Answers) -> Any:
    """A bare IPython shell that reports what it shows. Imported here: the supervisor's own Python need not have it."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Hook(DisplayHook):  # type: ignore[misc]
        def write_output_prompt(self) -> None:
            pass

        def write_format_data(self, format_dict: dict[str, Any], md_dict: object = None) -> None:
            answers.show("result", format_dict)

        def finish_displayhook(self) -> None:
            self._is_active = False

    class Publisher(DisplayPublisher):  # type: ignore[misc]
        def publish(self, data: dict[str, Any], *_: object, **__: object) -> None:
            answers.show("display", data)

        def clear_output(self, wait: bool = False) -> None:
            pass

    class Shell(InteractiveShell):  # type: ignore[misc]
        def init_displayhook(self) -> None:
            self.displayhook_class = Hook
            super().init_displayhook()

        def init_display_pub(self) -> None:
            self.display_pub_class = Publisher
            super().init_display_pub()

        def _showtraceback(self, etype: type, evalue: object, stb: list[str]) -> None:
            name = getattr(etype, "__name__", "Exception")
            with suppress(Exception):
                answers.send(
                    event="error",
                    name=shortened(str(name), 200),
                    value=shortened(_text(evalue), 2000),
                    traceback=shortened("\n".join(stb), 20_000),
                )

        def ask_exit(self) -> None:
            print("The session goes on: exit() and quit() do nothing here.")  # noqa: T201

        def enable_gui(self, gui: object = None) -> None:
            pass

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.cache_size = 100
    shell = Shell.instance(config=config)
    shell.system = shell.system_raw
    shell.display_formatter.active_types = ["text/plain", *_IMAGES]
    return shell


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - of a hostile class
        return "(it cannot be shown)"


def preload(shell: Any) -> None:
    """Import what most sessions use, so that a forked worker has it at once."""
    warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # IPython's advice for people at a terminal
    with suppress(OSError):  # fonts that were looked through when this Python was made
        shutil.copytree(os.path.join(sys.prefix, "share", "matplotlib"), os.environ["MPLCONFIGDIR"], dirs_exist_ok=True)
    for module in _PRELOADED:
        with suppress(ImportError):
            __import__(module)
    with suppress(ImportError):
        from matplotlib_inline import backend_inline

        backend_inline.configure_inline_support(shell, "module://matplotlib_inline.backend_inline")


def execute(shell: Any, answers: Answers, code: str) -> bool:
    """Whether a cell went through. Only while it runs an interrupt reaches it."""
    answers.begin()
    went_well = False
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        went_well = bool(shell.run_cell(code, store_history=True).success)
    except BaseException as error:  # noqa: BLE001 - an interrupt between the lines of IPython
        with suppress(BaseException):
            answers.send(event="error", name=type(error).__name__, value=_text(error)[:2000], traceback="")
    while True:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return went_well
        except KeyboardInterrupt:
            continue


def work(shell: Any, answers: Answers, requests: int) -> None:
    """Execute the cells that arrive, one after the other, until nobody sends any."""
    with os.fdopen(requests, "rb", closefd=False) as lines:
        answers.send(event="ready")
        for line in lines:
            request = json.loads(line)
            went_well = execute(shell, answers, request["code"])
            if os.getpid() != _speaker:  # a child that the cell has forked ran off the cell's end
                with suppress(BaseException):
                    sys.stdout.flush()
                os._exit(0)
            if not _can_open_files():
                os._exit(1)  # the next cell gets another worker
            answers.send(event="end", id=request["id"], ok=went_well)


def _can_open_files() -> bool:
    """Whether the session has descriptors left: without any, not even a traceback can be made."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno != errno.EMFILE
    return True


def become_worker(shell: Any, answers: Answers, channel: socket.socket, fds: list[int]) -> None:
    """The life of a worker, from the fork to its end."""
    global _speaker
    requests, results, receipts, stdout, stderr = fds
    channel.close()
    os.setsid()  # an interrupt reaches what a cell has started as well
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # debuggers of memory and /proc/self/fd work as usual
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # the first to go
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd, target in ((nothing, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, target)
        os.close(fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    vars(sys).update(__stdout__=sys.stdout, __stderr__=sys.stderr)
    os.chdir(FOLDER)
    sys.path.insert(0, FOLDER)
    sys.argv[:] = [""]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # not the numbers of the worker before
    _speaker = os.getpid()
    answers.fd, answers.receipts = results, receipts
    work(shell, answers, requests)


def _stream(fd: int) -> Any:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def fork_worker(shell: Any, answers: Answers, channel: socket.socket, fds: list[int]) -> None:
    """A worker that is a child of the supervisor, which is told its process id, or why there is none."""
    try:
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            return
    except OSError as error:
        channel.send(b"E%d" % (error.errno or 0))
        return
    try:
        try:
            worker = os.fork()
        except OSError as error:
            channel.send(b"E%d" % (error.errno or 0))
            return
        if worker:
            channel.send(b"P%d" % worker)
        else:
            become_worker(shell, answers, channel, fds)
    finally:
        os._exit(1)


def limit(arguments: list[str]) -> None:
    """Limits as `name=number`; none of them can be raised again."""
    for argument in arguments:
        name, _, most = argument.partition("=")
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        resource.setrlimit(kind, (int(most), int(most)))


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    limit(sys.argv[2:])
    os.nice(19)  # the supervisor comes first, however many processes there are
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # what it holds is not the session's
    filtered = runpy.run_path(os.path.join(os.path.dirname(__file__), "filter.py"))["refuse_dangerous_calls"]()
    os.chdir("/")
    answers = Answers()
    shell = make_shell(answers)
    preload(shell)
    channel.send(b"R%d" % filtered)
    while True:
        asked, fds, _, _ = socket.recv_fds(channel, 1, 5)
        if not asked:
            return
        fork_worker(shell, answers, channel, list(fds))
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
