"""What a newcomer does first: `make run` in a fresh clone, the wheel in an empty folder.

These install from the package registry. Each runs with a home, a clone and a data folder of its own.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from adlatus import __version__
from adlatus.backends.sandbox import parts
from tests.conftest import missing
from tests.faults.processes import free_port

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SIX_LINES = """
import sys, warnings
warnings.simplefilter("ignore")
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="any")
assistant = client.beta.assistants.create(model="gpt-4o")
thread = client.beta.threads.create(messages=[{"role": "user", "content": "[[say: it works]]"}])
with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
    print("".join(stream.text_deltas))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can pass through."""
    with tempfile.TemporaryDirectory(prefix="adlatus-fresh-", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def _clone(target: Path) -> None:
    """The committed tree, or, with changes that are not committed yet, the tree as it is."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        missing("checkout", "this folder is not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a person: no settings of this test run, a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADLATUS_", "XDG_", "MAKE"))}
    return kept | {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"} | settings


@contextmanager
def _started(command: list[str], cwd: Path, environment: dict[str, str], user: int | None = None) -> Iterator[Path]:
    """A started server in a session of its own, and its log; nothing of it is left afterwards."""
    log = cwd.parent / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=user,
        )
    try:
        yield log
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        process.wait(30)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(port: int, log: Path, at_most_s: float) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < at_most_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:  # refused, or not answered yet: the port is taken before anything is started
            time.sleep(0.1)
    pytest.fail(f"not ready after {at_most_s} s:\n{log.read_text()[-3000:]}")


def _six_lines(port: int) -> str:
    command = [sys.executable, "-c", SIX_LINES, f"http://127.0.0.1:{port}/v1"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _system_python() -> str:
    """A Python that every user can run, which the one of a virtual environment or a private home is not."""
    candidates = [f"/usr/bin/python3{minor}" for minor in (".11", ".12", ".13", "")]
    probe = ["-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
    fit = [
        python
        for python in candidates
        if Path(python).exists() and subprocess.run([python, *probe], check=False).returncode == 0
    ]
    if not fit:
        missing("ordinary-user", "the system has no Python 3.11 with venv that every user can run")
    return fit[0]


def test_make_run_works_twice_for_an_ordinary_user(folder: Path) -> None:
    if os.geteuid() != 0:
        missing("ordinary-user", "only root can become somebody else")
    user = pwd.getpwnam("nobody")
    home, clone = folder / "home", folder / "home" / "clone"
    clone.mkdir(parents=True)
    _clone(clone)
    for path in (home, *home.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    home.chmod(0o700)
    port = free_port()
    environment = _environment(home, ADLATUS_PORT=str(port))
    command = ["make", "run", f"PYTHON={_system_python()}"]
    for at_most_s in (400.0, 30.0):
        with _started(command, clone, environment, user.pw_uid) as log:
            _wait_until_ready(port, log, at_most_s)
            assert "rehearsal" in log.read_text()
            assert _six_lines(port) == "it works\n"
    assert (home / ".local" / "share" / "adlatus").stat().st_uid == user.pw_uid


@pytest.mark.nightly
def test_make_run_works_for_root_in_a_clone_below_a_private_home(folder: Path) -> None:
    if os.geteuid() != 0:
        missing("root", "these tests do not run as root")
    home, clone = folder / "home", folder / "home" / "clone"
    clone.mkdir(parents=True)
    _clone(clone)
    home.chmod(0o700)
    port = free_port()
    settings = {"ADLATUS_PORT": str(port), "ADLATUS_DATA_DIR": str(folder / "data"), "ADLATUS_SANDBOX": "off"}
    environment = _environment(home, PIP_NO_COMPILE="1", **settings)
    with _started(["make", "run", f"PYTHON={_system_python()}"], clone, environment) as log:
        _wait_until_ready(port, log, 400)
        assert _six_lines(port) == "it works\n"
    assert home.stat().st_mode & 0o777 == 0o700


def test_the_installed_wheel_serves_in_an_empty_folder(folder: Path, database_url: str) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = folder / "dist" / f"adlatus-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert len(names) == len(set(names))
    assert {f"adlatus/_{name}" for name in parts.build_context() if "/" in name} < set(names)
    assert f"adlatus/{parts.DOCKERFILE}" in names
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv" / "bin" / "pip"), "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "--requirement", str(ROOT / "requirements.txt")], check=True, capture_output=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, capture_output=True)
    empty = folder / "empty"
    empty.mkdir()
    port = free_port()
    environment = _environment(folder, ADLATUS_DATA_DIR=str(folder / "data"))
    command = [str(folder / "venv" / "bin" / "adlatus"), "serve", "--port", str(port)]
    with _started(command, empty, environment) as log:
        _wait_until_ready(port, log, 60)
        assert _six_lines(port) == "it works\n"
    # The same as `pip install adlatus` without the extra
    subprocess.run([pip[0], "uninstall", "--quiet", "--yes", *_local_packages()], check=True, capture_output=True)
    told = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "pip install 'adlatus[local]', or set ADLATUS_DATABASE_URL" in told.stderr
    with _started(command, empty, environment | {"ADLATUS_DATABASE_URL": database_url}) as log:
        _wait_until_ready(port, log, 60)
        assert _six_lines(port) == "it works\n"
    assert list(empty.iterdir()) == []


def _local_packages() -> list[str]:
    """What the extra `local` brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [requirement.partition(">=")[0] for requirement in project["optional-dependencies"]["local"]]


@pytest.mark.parametrize(
    ("without", "advice"), [("venv", "apt install python3-venv"), ("python", "needs Python 3.11 or newer")]
)
def test_a_bare_machine_is_told_what_to_install(folder: Path, without: str, advice: str) -> None:
    clone = folder / "clone"
    clone.mkdir()
    _clone(clone)
    fake = folder / "fake-python"
    version = "sys.version_info" if without == "venv" else "nothing"
    fake.write_text(f'#!/bin/sh\ncase "$2" in *{version}*) exit 0;; esac\nexit 1\n')
    fake.chmod(0o755)
    made = subprocess.run(
        ["make", "setup", f"PYTHON={fake}"],
        cwd=clone,
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    assert advice in made.stderr
