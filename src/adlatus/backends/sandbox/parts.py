"""What a sandbox is made of: the files of `docker/`, which a wheel has inside the package, and their hash."""

import hashlib
from importlib import resources
from pathlib import Path

DOCKERFILE = "sandbox.Dockerfile"


def folder() -> Path:
    """The folder of the programs and requirements; the Dockerfile lies beside it."""
    packaged = Path(str(resources.files("adlatus") / "_sandbox"))
    return packaged.resolve() if packaged.is_dir() else Path(__file__).parents[4] / "docker" / "sandbox"


def build_context() -> dict[str, Path]:
    """The files that an image is built of, by their names in the build context."""
    named = {f"sandbox/{path.name}": path for path in folder().iterdir() if path.is_file()}
    named[DOCKERFILE] = folder().with_name(DOCKERFILE)
    return dict(sorted(named.items()))


def content_hash(files: dict[str, Path] | None = None) -> str:
    """What tells one version of these files from another: 16 hexadecimal digits of names and contents.

    `.ci/engine` computes the same: the hash of the output of `sha256sum`.
    """
    chosen = build_context() if files is None else files
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in chosen.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
