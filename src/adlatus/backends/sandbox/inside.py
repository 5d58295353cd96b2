"""The programs that run inside a sandbox, and what their Python needs of this machine where there is no image."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

PROGRAMS = ("supervisor.py", "processes.py", "files.py", "worker.py", "filter.py")
PYTHON = "/opt/py/bin/python"
START = (PYTHON, "-I", "/opt/adlatus/supervisor.py")
UID = 10001
"""The user inside, in the image too."""
PREPARE = "run `adlatus sandbox prepare`"


def programs() -> dict[str, bytes]:
    """Name and content of every program that lies in `/opt/adlatus`."""
    folder = resources.files("adlatus") / "_sandbox"
    return {name: (folder / name).read_bytes() for name in PROGRAMS}


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folders outside of it and of /usr that its Python needs."""

    folder: Path
    needs: tuple[Path, ...]


def find_environment(folder: Path) -> Environment | None:
    """The environment in a folder, or None if there is none that could run. Blocks."""
    folder = folder.resolve()
    try:
        lines = (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
        python = (folder / "bin" / "python").resolve(strict=True)
    except OSError:
        return None
    home = next((line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == "home"), None)
    if home is None or not any(folder.glob("lib/python3*/site-packages/IPython")):
        return None
    prefixes = {Path(home).parent, python.parent.parent}
    return Environment(folder, tuple(sorted(prefix for prefix in prefixes if not prefix.is_relative_to("/usr"))))
