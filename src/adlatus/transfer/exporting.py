"""Writes all objects of a project into a folder, as of one moment: a back-up, which `importing` reads.

Each kind is a file of JSON lines, the oldest first; the bytes of files lie in `files`, by their ids. Repeated, it
begins again, but for the bytes that are there already.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from adlatus.errors import StartupError
from adlatus.store import bulk
from adlatus.store.db import Row, Transaction
from adlatus.store.files import key_of
from adlatus.transfer.kinds import KINDS, Kind
from adlatus.transfer.opening import Opened
from adlatus.transfer.reading import BYTES_FOLDER
from adlatus.wire.assistants import Assistant
from adlatus.wire.common import WireObject
from adlatus.wire.exports import StoreFileWithBatch
from adlatus.wire.files import File
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run
from adlatus.wire.steps import RunStep
from adlatus.wire.threads import Thread
from adlatus.wire.vector_stores import FileBatch, VectorStore

_UNFINISHED = ".part"
_SHOWN: dict[str, Callable[[Row], WireObject]] = {
    "file": File.of,
    "vector_store": VectorStore.of,
    "vector_store.file_batch": FileBatch.of,
    "vector_store.file": StoreFileWithBatch.of,
    "assistant": Assistant.of,
    "thread": Thread.of,
    "thread.message": Message.of,
    # Whole: with what clients are not shown, which the model is
    "thread.run": lambda row: Run.model_validate(dict(row)),
    "thread.run.step": lambda row: RunStep.model_validate(dict(row)),
}


async def export(opened: Opened, project_id: str, folder: Path, say: Callable[[str], None]) -> dict[str, int]:
    """Export a project; gives how many objects of each kind there were.

    Raises `StartupError` for a folder with something else in it, and for a project that is not there.
    """
    if project_id not in await bulk.project_ids(opened.database):
        raise StartupError(f"there is no project '{project_id}'.")
    await asyncio.to_thread(_prepare, folder)
    counts = {}
    gone: set[str] = set()
    async with opened.database.transaction() as tx:
        await tx.fetch(bulk.SNAPSHOT)
        for kind in KINDS:
            target = folder / f"{kind.stem}.jsonl"
            counts[kind.name] = await _write(opened, tx, kind, project_id, target, gone)
    for file_id in sorted(gone):
        say(f"file {file_id}: was deleted while the export ran, and is left out")
    return counts


def _prepare(folder: Path) -> None:
    """Make the folder, or find nothing else in it than an export. Raises `StartupError`."""
    ours = {f"{kind.stem}.jsonl" for kind in KINDS}
    ours |= {f"{name}{_UNFINISHED}" for name in ours} | {BYTES_FOLDER}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = sorted(each.name for each in folder.iterdir() if each.name not in ours)
        if others:
            raise StartupError(f"{folder} has something else in it ({others[0]}): name an empty folder.")
        (folder / BYTES_FOLDER).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot write to {folder}: {error.strerror}.") from error


async def _write(opened: Opened, tx: Transaction, kind: Kind, project_id: str, target: Path, gone: set[str]) -> int:
    count = 0
    unfinished = target.with_name(target.name + _UNFINISHED)
    shown = _SHOWN[kind.name]
    try:
        with await asyncio.to_thread(unfinished.open, "wb") as lines:
            async for row in tx.stream(bulk.everything(kind.table, project_id)):
                if kind.stem == "files" and not await _copy(opened, row, target.parent / BYTES_FOLDER):
                    gone.add(row["id"])
                if row["id"] in gone:  # also out of the stores that it was in
                    continue
                lines.write(shown(row).json_bytes() + b"\n")
                count += 1
        await asyncio.to_thread(unfinished.replace, target)
    except OSError as error:
        raise StartupError(f"cannot write {target}: {error.strerror}.") from error
    return count


async def _copy(opened: Opened, row: Row, folder: Path) -> bool:
    """Have the bytes of a file in the folder; whether they were there to be had."""
    target = folder / row["id"]
    if target.is_file() and target.stat().st_size == row["bytes"]:
        return True
    unfinished = target.with_name(target.name + _UNFINISHED)
    try:
        pieces = await opened.blobs.read(key_of(row["id"]), 0, row["bytes"])
    except FileNotFoundError:
        return False
    await _save(unfinished, pieces)
    await asyncio.to_thread(unfinished.replace, target)
    return True


async def _save(target: Path, pieces: AsyncIterator[bytes]) -> None:
    with await asyncio.to_thread(target.open, "wb") as file:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)


def lines(counts: dict[str, int]) -> Iterator[str]:
    """The counts, for people."""
    width = max(len(name) for name in counts)
    return (f"{name:<{width}}  {count}" for name, count in counts.items())
