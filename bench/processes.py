"""Starts, observes and ends the processes of a benchmark. Ends only what it started, by process id."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

START_S = 60
STOP_S = 20
_PORTS_GIVEN: set[int] = set()


@dataclass(frozen=True)
class Server:
    """A server that answers on `port`; `start_s` went by from its start to its first answer."""

    pid: int
    port: int
    start_s: float

    def cpu_s(self, *, family: bool = False) -> float:
        """CPU seconds, user and system, that the process has used; with `family` those of its children too."""
        used_s = 0.0
        for process in self._all(family):
            with suppress(psutil.NoSuchProcess):  # a connection's process may end between being listed and being read
                times = process.cpu_times()
                used_s += times.user + times.system
        return used_s

    def pss_bytes(self) -> tuple[int, int]:
        """Proportional set size of the process, and of its children together."""
        own, *children = (_pss_bytes(process.pid) for process in self._all(family=True))
        return own, sum(children)

    def _all(self, family: bool) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *(process.children(recursive=True) if family else [])]


@contextmanager
def served(
    command: Sequence[str], port: int, ready_path: str, log: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    """Run a server until the block is left; what it writes goes to `log`. Raises `RuntimeError` if it does not answer.

    Its ADLATUS settings are those of `environment` alone.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ADLATUS_")}
    begun = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env={**kept, **environment}, stdout=output, stderr=output)
    try:
        while not _answers(port, ready_path):
            if process.poll() is not None or time.perf_counter() - begun > START_S:
                raise RuntimeError(f"{' '.join(command)} does not serve:\n{log.read_text()[-2000:]}")
            time.sleep(0.005)
        yield Server(process.pid, port, time.perf_counter() - begun)
    finally:
        _end(process)


def free_port() -> int:
    """A port that nobody listens on, and that was not given before."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        if port not in _PORTS_GIVEN:
            _PORTS_GIVEN.add(port)
            return port


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    try:
        connection.request("GET", path, headers={"OpenAI-Beta": "assistants=v2"})
        return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    except OSError:
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, then make it and what it has left behind stop: an embedded database outlives a killed owner."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in family:
        with suppress(psutil.NoSuchProcess):  # psutil compares start times: an id that was given anew is not signalled
            left.send_signal(signal.SIGQUIT)
    psutil.wait_procs(family, timeout=STOP_S)


def _pss_bytes(pid: int) -> int:
    """PSS by `smaps_rollup`; 0 for a process that has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
