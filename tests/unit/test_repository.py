"""The repository keeps its own rules: nothing of the machine it was made on, requirements that are in step."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("git: this is not a checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_requirements_name_no_registry() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "docker/sandbox/requirements.txt"):
        text = (ROOT / name).read_text()
        assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|@ file", text), name


def test_requirements_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements-dev.txt").read_text(), re.M))
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[\[<>=!~ ]", wish, maxsplit=1)[0].lower().replace("_", "-") for wish in wanted}
    assert names <= pinned


def test_the_sandbox_pins_every_package() -> None:
    folder = ROOT / "docker" / "sandbox"
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (folder / "requirements.txt").read_text(), re.M))
    assert set(re.findall(r"^([a-z0-9-]+)$", (folder / "requirements.in").read_text(), re.M)) <= pinned


def test_nothing_of_this_machine_is_written_down() -> None:
    here = str(ROOT)
    for path in _files():
        if path.suffix not in {".png", ".onnx"}:
            assert here not in path.read_text(errors="replace"), path


def test_every_python_module_says_what_it_owns() -> None:
    for path in _files():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "src"):
            assert path.read_text().lstrip().startswith('"""'), path
