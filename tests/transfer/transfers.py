"""Imports and exports of the test process, as the commands do them, and objects to bring in."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adlatus.settings import Settings
from adlatus.transfer import commands
from tests.conftest import Loop

Json = dict[str, Any]
AT = 1_700_000_000


@dataclass(frozen=True)
class Told:
    """How a transfer ended, and what it said."""

    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def counts(self, kind: str) -> list[int]:
        """How many objects of a kind were created, unchanged, kept though they differ, and refused."""
        [row] = [line for line in self.lines if line.split()[:1] == [kind] and line.split()[-1].isdigit()]
        return [int(number) for number in row.split()[1:]]


@dataclass(frozen=True)
class Transfers:
    """Does transfers on the database and the storage of some settings."""

    loop: Loop
    settings: Settings

    def bring(self, *paths: Path, project: str = "default", dry_run: bool = False) -> Told:
        said: list[str] = []
        work = commands.bring(self.settings, project, paths, dry_run=dry_run, say=said.append)
        return Told(self.loop.run(work, 120), said)

    def take(self, folder: Path, project: str = "default") -> Told:
        said: list[str] = []
        return Told(self.loop.run(commands.take(self.settings, project, folder, say=said.append), 120), said)


def write(path: Path, objects: Iterable[Any]) -> Path:
    """A file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in objects), "utf-8")
    return path


def assistant(mark: str = "a", /, **fields: Any) -> Json:
    return {"object": "assistant", "id": f"asst_{mark}", "created_at": AT, "model": "gpt-4o"} | fields


def thread(name: str = "t", **fields: Any) -> Json:
    return {"object": "thread", "id": f"thread_{name}", "created_at": AT} | fields


def message(number: int = 0, name: str = "t", **fields: Any) -> Json:
    """A message of a user, by the rest of the original: without a status."""
    return {
        "object": "thread.message",
        "id": f"msg_{name}{number}",
        "created_at": AT + number,
        "thread_id": f"thread_{name}",
        "assistant_id": None,
        "run_id": None,
        "role": "user",
        "content": [{"type": "text", "text": {"value": f"Message {number}", "annotations": []}}],
        "attachments": [],
        "metadata": {},
    } | fields


def run(status: str = "completed", name: str = "r", **fields: Any) -> Json:
    ids = {"id": f"run_{name}", "thread_id": "thread_t", "assistant_id": "asst_a"}
    return {"object": "thread.run", "created_at": AT, "status": status, "model": "gpt-4o"} | ids | fields


def file(name: str = "f", content: bytes = b"Filip likes cake.", **fields: Any) -> Json:
    shown = {"object": "file", "id": f"file-{name}", "created_at": AT, "filename": f"{name}.txt"}
    return shown | {"purpose": "assistants", "bytes": len(content)} | fields


def put(folder: Path, name: str = "f", content: bytes = b"Filip likes cake.") -> None:
    """The bytes of a file, beside the objects in the folder."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    (folder / "files" / f"file-{name}").write_bytes(content)


def store(name: str = "v", **fields: Any) -> Json:
    return {"object": "vector_store", "id": f"vs_{name}", "created_at": AT, "name": "Foods"} | fields


def store_file(name: str = "f", of: str = "v", **fields: Any) -> Json:
    ids = {"id": f"file-{name}", "vector_store_id": f"vs_{of}"}
    return {"object": "vector_store.file", "created_at": AT, "status": "completed", **ids} | fields
