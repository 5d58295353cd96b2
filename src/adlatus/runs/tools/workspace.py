"""The files of a thread's sandbox: brought in before code is executed, taken out after it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from adlatus.backends.sandbox.engine import SandboxFileError
from adlatus.backends.sandbox.events import Image, SandboxFile, safe_name
from adlatus.backends.sandbox.session import Sandbox
from adlatus.errors import DatabaseUnavailable, InvalidRequest, Unavailable
from adlatus.files import keeping
from adlatus.ids import new_id
from adlatus.resources import Resources
from adlatus.runs.tools.work import Work
from adlatus.store import files, threads
from adlatus.store import runs as statements
from adlatus.store.db import Connection
from adlatus.wire.files import FilePurpose

MOST_BYTES = 512 * 2**20
"""Of all files that are brought into a sandbox, and of those that one call may leave."""


class NotTaken(Exception):  # noqa: N818
    """A file cannot be kept; the message says why."""


@dataclass(frozen=True)
class Given:
    """A file for the code interpreter: in `/mnt/data` it is under its id and under its `name`."""

    file_id: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Earlier:
    """What earlier calls of a thread have left: the ids of files by their paths, the latest of each."""

    has_executed: bool
    made: dict[str, str]


async def given(resources: Resources, project_id: str, thread_id: str, of_assistant: Sequence[str]) -> list[Given]:
    """The files of an assistant and a thread that are still there. Those of the same name get numbers."""
    of_thread = await threads.code_file_ids(resources.database, thread_id)
    file_ids = list(dict.fromkeys([*of_assistant, *of_thread]))
    if not file_ids:
        return []
    rows = await files.several(resources.database, project_id, file_ids)
    taken: set[str] = set()
    found = []
    for file_id in file_ids:
        if row := rows.get(file_id):
            name = _free(safe_name(row["filename"]), taken)
            taken.add(name)
            found.append(Given(file_id, name, row["bytes"]))
    return found


def _free(name: str, taken: set[str]) -> str:
    stem, dot, extension = name.rpartition(".")
    stem, end = (stem, dot + extension) if dot else (name, "")
    number = 2
    while name in taken:
        name, number = f"{stem}_{number}{end}", number + 1
    return name


def told(found: Sequence[Given]) -> str:
    """What the model is told of them."""
    listed = "\n".join(
        f"- /mnt/data/{file.name} (also /mnt/data/{file.file_id}), {file.size_bytes} bytes" for file in found
    )
    return f"Files that the user has given to the code interpreter:\n{listed}"


async def earlier(connection: Connection, thread_id: str) -> Earlier:
    """What earlier calls of a thread have left."""
    rows = await connection.fetch(statements.MADE, the_thread=thread_id)
    return Earlier(bool(rows), {path: file_id for row in rows for path, file_id in row["made"].items()})


async def bring(work: Work, sandbox: Sandbox, found: Sequence[Given], left: Earlier) -> list[str]:
    """Put files into a sandbox that are not there yet; into a fresh one also what earlier calls have left.

    Returns sentences about those that could not be put. Raises `SandboxLostError`.
    """
    problems = []
    missing = [file for file in found if file.file_id not in sandbox.names]
    names = {file.name for file in found}
    again = {
        path: file_id
        for path, file_id in left.made.items()
        if sandbox.is_fresh and "/" not in path and path not in names
    }
    rows = await files.several(work.resources.database, work.project_id, list(again.values())) if again else {}
    wanted = [(file.file_id, [file.file_id, file.name], file.size_bytes) for file in missing]
    wanted += [(file_id, [path], rows[file_id]["bytes"]) for path, file_id in again.items() if file_id in rows]
    for file_id, called, size_bytes in wanted:
        try:
            pieces = await work.resources.blobs.read(files.key_of(file_id), 0, size_bytes)
            await sandbox.put(pieces, called)
        except FileNotFoundError:  # deleted meanwhile
            continue
        except SandboxFileError as error:
            why = "there is no room left" if error.code == "ENOSPC" else error.code
            problems.append(f"The file {called[-1]} could not be put into /mnt/data: {why}.\n")
    sandbox.is_fresh = False
    return problems


async def take(work: Work, sandbox: Sandbox, file: SandboxFile) -> str:
    """Keep a file that code has written; its id. Raises `NotTaken`, `SandboxLostError`."""
    try:
        return await _keep(work, file.name, sandbox.get(file.path, max_bytes=min(file.size_bytes, MOST_BYTES)))
    except SandboxFileError as error:
        raise NotTaken("it is no longer what it was" if error.code == "EFBIG" else error.code) from None


async def keep_image(work: Work, image: Image) -> str:
    """Keep an image that code has shown; its id. Raises `NotTaken`."""

    async def content() -> AsyncIterator[bytes]:
        yield image.content

    return await _keep(work, image.media_type.replace("/", "."), content())


async def _keep(work: Work, name: str, pieces: AsyncIterator[bytes]) -> str:
    file_id = new_id("file")
    size_bytes = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal size_bytes
        async for piece in pieces:
            size_bytes += len(piece)
            yield piece

    resources, key = work.resources, files.key_of(file_id)
    try:
        async with keeping.incoming(resources, work.project_id, key):
            await resources.blobs.write(key, counted())
            async with resources.database.transaction() as tx:
                await keeping.add(
                    resources,
                    tx,
                    file_id,
                    work.project_id,
                    filename=name,
                    purpose=FilePurpose.ASSISTANTS_OUTPUT,
                    size_bytes=size_bytes,
                    expires_after_s=None,
                )
    except DatabaseUnavailable:
        raise
    except (InvalidRequest, Unavailable) as error:  # the project's quota, the storage
        raise NotTaken(error.message) from None
    return file_id
