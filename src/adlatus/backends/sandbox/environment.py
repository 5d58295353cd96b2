"""bubblewrap's counterpart of the image, in the data folder: the same packages, and the programs that run them.

Code runs there as somebody who must not be trusted: all of it is readable by everybody as root, and written by us only.
Everything here blocks.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from adlatus.backends.postgres_account import first_unreachable, make_data_folder
from adlatus.backends.sandbox import parts
from adlatus.errors import StartupError

log = structlog.get_logger(__name__)

NOBODY = 65534
_PACKAGE_FILES = ("requirements.txt", "finish.py")
_PROBE = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"


@dataclass(frozen=True)
class Environment:
    """What bubblewrap mounts, read-only."""

    python: Path
    """A virtual environment with the packages, for /opt/py. Its Python leans on the installation in `base`."""
    programs: Path
    """The supervisor and what it starts, for /opt/adlatus."""
    base: Path
    """The prefix of the Python installation, to be mounted where it is; mostly /usr."""


def find(data_dir: Path) -> Environment | None:
    """The environment of this version, if it is there."""
    python, programs = _folders(data_dir)
    binary = python / "bin" / "python"
    if not binary.exists() or not programs.is_dir():  # its link dangles when the system has got another Python
        return None
    return Environment(python, programs, binary.resolve().parents[1])


@contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """The folder of sandboxes, for one process at a time, as the lock's descriptor; others wait.

    Children that get the descriptor hold the lock too: when we are killed, the next process waits until they are done.
    """
    home = data_dir.resolve()
    as_root = os.geteuid() == 0
    try:
        make_data_folder(home, others_pass=as_root)
        folder = home / "sandbox"
        folder.mkdir(0o700, exist_ok=True)
        if as_root:
            folder.chmod(0o755)
        descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"Sandboxes cannot be prepared in {data_dir}: {error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is preparing the sandbox, waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def build(data_dir: Path, lock: int) -> Environment:
    """Make what is missing of the environment. The caller holds the lock. Raises `StartupError` with advice.

    A folder gets its name when it is whole; what a killed process has left is thrown away.
    """
    python, programs = _folders(data_dir)
    if os.geteuid() == 0:
        _check_reachable(python.parent)
    try:
        if not (python / "bin" / "python").exists():
            building = python.with_name("building")
            shutil.rmtree(building, ignore_errors=True)
            _build_python(building, lock)
            _put(building, python)
        if not programs.is_dir():
            building = programs.with_name("building-programs")
            shutil.rmtree(building, ignore_errors=True)
            _copy_programs(building)
            _put(building, programs)
    except OSError as error:
        raise StartupError(f"The sandbox's environment cannot be stored in {python.parent}: {error}") from error
    found = find(data_dir)
    assert found
    return found


def _folders(data_dir: Path) -> tuple[Path, Path]:
    """Two, because the programs change with every version and are quickly copied; packages take a minute."""
    programs = parts.folder()
    packages = parts.content_hash({name: programs / name for name in _PACKAGE_FILES})
    home = data_dir.resolve() / "sandbox"
    return home / f"python-{packages}", home / f"programs-{parts.content_hash()}"


def _check_reachable(folder: Path) -> None:
    if blocked := first_unreachable(folder, NOBODY, NOBODY):
        raise StartupError(
            f"As root, model-written code runs as a user of its own, who cannot pass the folder {blocked}. Use another "
            f"data folder, such as --data-dir /var/lib/adlatus, or let others pass this one: chmod o+x '{blocked}'"
        )


def _build_python(building: Path, lock: int) -> None:
    base = _base_python()
    log.info("building the sandbox's Python environment (150 MB to fetch, once)", python=str(base))
    requirements, finish = (parts.folder() / name for name in _PACKAGE_FILES)
    python = building / "bin" / "python"
    asking = ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=1"]
    _run([base, "-I", "-m", "venv", building], lock)
    _run([python, "-m", "pip", "install", "--quiet", *asking, "--requirement", requirements], lock)
    if warnings := _run([python, "-I", finish], lock):
        log.warning(warnings)
    if os.geteuid() == 0:
        building.chmod(0o755)
        _run([python, "-I", "-B", "-c", "pass"], lock, user=NOBODY)


def _base_python() -> Path:
    """The Python to build on: the one that runs us, or a system's, whichever an untrusted user can run too."""
    own = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    candidates = [own, *(Path("/usr/bin", f"python3.{minor}") for minor in (13, 12, 11))]
    for candidate in candidates:
        try:
            base = candidate.resolve(strict=True)
            _run([base, "-I", "-c", _PROBE], None, user=NOBODY if os.geteuid() == 0 else None)
        except (OSError, StartupError) as error:
            log.debug("not a Python to build on", python=str(candidate), reason=str(error))
        else:
            return base
    raise StartupError(
        "There is no Python of 3.11 or later with venv"
        + (" that other users than root may run" if os.geteuid() == 0 else "")
        + ". On Debian and Ubuntu: apt install python3-venv"
    )


def _run(command: Sequence[str | Path], lock: int | None, user: int | None = None) -> str:
    """What a program of ours prints. Raises `StartupError` with the last it said."""
    finished = subprocess.run(  # noqa: S603 - no shell, and only constants of ours
        [str(word) for word in command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=[lock] if lock is not None else [],
        umask=0o022,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    if finished.returncode != 0:
        said = (finished.stderr.strip() or finished.stdout.strip())[-900:]
        raise StartupError(
            f"The sandbox's environment cannot be built: {said or f'{command[0]} ended with {finished.returncode}'}"
        )
    return finished.stdout.strip()


def _copy_programs(building: Path) -> None:
    building.mkdir()
    building.chmod(0o755)
    for path in parts.folder().iterdir():
        if path.is_file():
            shutil.copyfile(path, building / path.name)
            (building / path.name).chmod(0o644)


def _put(building: Path, folder: Path) -> None:
    os.sync()  # a name must not outlive a power failure that its files do not
    shutil.rmtree(folder, ignore_errors=True)  # what is there leans on a Python that is gone
    building.rename(folder)
