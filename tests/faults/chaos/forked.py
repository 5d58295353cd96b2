"""`adlatus` as a process of its own that starts in a moment: forked by one that has imported it already.

Python needs seconds to import it, in which a process that is killed every few seconds would do nothing else.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adlatus import cli
from tests.forks import forking

IMPORTED_BEFORE = ("__main__", "adlatus.cli", __name__)


@dataclass(frozen=True)
class Forked:
    """A process and what it has written, standard output and standard error together."""

    process: BaseProcess
    log_file: Path

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)

    def stop(self, within_s: float = 30) -> int | None:
        """The exit code after an orderly stop."""
        self.process.terminate()
        self.process.join(within_s)
        return self.process.exitcode


def adlatus(log_file: Path, arguments: Sequence[str], settings: Mapping[str, Any]) -> Forked:
    """`adlatus` with these arguments and settings (`model="x"` is `ADLATUS_MODEL=x`), and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADLATUS_")}
    environment |= {f"ADLATUS_{name.upper()}": str(value) for name, value in settings.items()}
    log_file.touch()
    process = forking(IMPORTED_BEFORE).Process(target=_run, args=(str(log_file), list(arguments), environment))
    process.start()
    return Forked(process, log_file)


def _run(log_file: str, arguments: list[str], environment: dict[str, str]) -> None:
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir("/")
    sys.argv = ["adlatus", *arguments]
    cli.main()
