"""What the sandbox is made of has one hash, wherever it is computed."""

import subprocess
from pathlib import Path

from adlatus.backends.sandbox import image, parts
from adlatus.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_hash_tells_contents_and_names_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    known = {
        parts.content_hash({"a": tmp_path / "a"}),
        parts.content_hash({"b": tmp_path / "a"}),
        parts.content_hash({"a": tmp_path / "b"}),
        parts.content_hash({"a": tmp_path / "a", "b": tmp_path / "b"}),
    }
    assert len(known) == 4
    assert parts.content_hash({"a": tmp_path / "a"}) in known


def test_what_is_compiled_meanwhile_does_not_count() -> None:
    context = parts.build_context()
    assert list(context) == sorted(context)
    assert {"sandbox.Dockerfile", "sandbox/requirements.txt", "sandbox/fonts.txt", "sandbox/finish.py"} <= set(context)
    assert all("__pycache__" not in name and path.is_file() for name, path in context.items())


def test_ci_tags_the_image_that_this_version_looks_for() -> None:
    computed = subprocess.run([ROOT / ".ci" / "engine", "hash"], capture_output=True, text=True, check=True).stdout
    assert f"adlatus-sandbox:{computed.strip()}" == image.name(Settings(sandbox_image=None))


def test_a_named_image_is_the_one_to_use() -> None:
    assert image.name(Settings(sandbox_image="registry.example/sandbox:7")) == "registry.example/sandbox:7"
