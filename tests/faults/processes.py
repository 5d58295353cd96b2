"""`adlatus` as processes of their own: started, waited for, read, killed, and in any case cleaned up."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.conftest import BETA, MACHINE_DATA_DIR, missing
from tests.runs.transcripts import eventually
from tests.witness import WITNESS

ADLATUS = (sys.executable, "-m", "adlatus.cli")
_SERVES = re.compile(r"serves the Assistants API on (http://\S+)/v1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever started the tests in the background of a shell has made them, and all that they start, deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Process:
    """A process of ours and what it has written, standard output and standard error together."""

    popen: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Where it serves; fails if it does not come up."""
        give_up_at = time.monotonic() + 60
        while (said := _SERVES.search(self.log)) is None:
            assert self.popen.poll() is None, self.log
            assert time.monotonic() < give_up_at, self.log
            time.sleep(0.005)
        while True:
            with suppress(httpx.TransportError):
                httpx.get(f"{said[1]}/healthz").raise_for_status()
                return said[1]
            assert time.monotonic() < give_up_at, self.log
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ended(self, within_s: float = 30) -> int:
        """The exit code."""
        return self.popen.wait(within_s)

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 30) -> int:
        """The exit code after a signal."""
        self.send(number)
        return self.ended(within_s)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(10)

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A plain HTTP client of the server; paths begin at /v1."""
        hooks = {"response": [WITNESS.overhearing]}
        with httpx.Client(base_url=f"{self.url}/v1", headers=BETA, timeout=30, event_hooks=hooks) as client:
            yield client


def _environment(settings: dict[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADLATUS_")}
    environment["ADLATUS_SANDBOX"] = "off"  # who wants sandboxes says so
    return environment | {f"ADLATUS_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def adlatus(*arguments: str, user: int | None = None, **settings: str) -> Iterator[Process]:
    """`adlatus` with these arguments and settings (`model="x"` is `ADLATUS_MODEL=x`), and no others."""
    environment = _environment(settings)
    if user is not None:
        environment = {name: value for name, value in environment.items() if name != "XDG_RUNTIME_DIR"}
        environment["HOME"] = "/nonexistent"
    with ExitStack() as stack:
        log_file = Path(stack.enter_context(tempfile.NamedTemporaryFile(prefix="adlatus-log-")).name)
        with log_file.open("wb") as log:
            popen = subprocess.Popen(
                [*ADLATUS, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        stack.callback(popen.wait)
        stack.callback(popen.kill)
        yield Process(popen, log_file)


@contextmanager
def serve(folder: Path, *arguments: str, user: int | None = None, **settings: str) -> Iterator[Process]:
    """`adlatus serve` on a free port and a data folder."""
    with adlatus("serve", "--port", "0", "--data-dir", str(folder), *arguments, user=user, **settings) as process:
        yield process


@contextmanager
def rehearsing() -> Iterator[str]:
    """The base URL of the scripted model, in a process of its own."""
    said = "Rehearsal model on "
    with adlatus("rehearse", "--port", "0") as process:
        line = eventually(lambda: [line for line in process.log.splitlines() if line.startswith(said)])[0]
        yield line.removeprefix(said).partition(": ")[0]


def run(*arguments: str, **settings: str) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    with adlatus(*arguments, user=None, **settings) as process:
        return process.ended(60), process.log


def outputs(*arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that ends by itself."""
    done = subprocess.run(
        [*ADLATUS, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_environment(settings),
        cwd="/",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def postmasters(folder: Path) -> list[psutil.Process]:
    """The PostgreSQL servers that work below a folder, without their children."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if process.name() == "postgres" and "-D" in command and str(folder) in command[command.index("-D") + 1]:
                found.append(process)
    return found


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_tree(postmaster: psutil.Process) -> None:
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.kill()
    eventually(lambda: not any(is_running(process.pid) for process in processes))  # some may stay zombies


@contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder that is not there yet, below one that every user can reach; nothing in it outlives the block."""
    root = Path(tempfile.mkdtemp(prefix="adlatus-serve-", dir="/tmp"))
    root.chmod(0o755)
    try:
        yield root / "data"
    finally:
        for postmaster in postmasters(root):
            with suppress(psutil.NoSuchProcess):
                postmaster.send_signal(signal.SIGQUIT)
                postmaster.wait(20)
        shutil.rmtree(root)


@contextmanager
def small_disk(size_mb: int) -> Iterator[Path]:
    """A disk of its own, which an ordinary user may enter."""
    if os.geteuid() != 0:
        missing("root", "only root mounts a small disk")
    with data_folder() as folder:
        folder.mkdir(mode=0o755)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=755", "adlatus-tests", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode:
            missing("root", f"no small disk can be mounted: {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def prepared_folder() -> Iterator[Path]:
    """A data folder in which `adlatus sandbox prepare` has done what it has done for this machine, if anything."""
    with data_folder() as folder:
        folder.mkdir(mode=0o755)
        if (prepared := MACHINE_DATA_DIR / "sandbox").is_dir():
            (folder / "sandbox").symlink_to(prepared)
        yield folder
