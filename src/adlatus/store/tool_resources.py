"""What tools of assistants and threads work with: vector stores that are made or checked, and files of messages."""

from collections.abc import Sequence

from adlatus.errors import FileNotFound, no_file_to_attach
from adlatus.store import files as file_rows
from adlatus.store import rows, vector_store_files, vector_stores
from adlatus.store.db import Connection, Row, Transaction
from adlatus.store.tables import threads
from adlatus.wire.common import Json, ToolResources
from adlatus.wire.messages import CreateMessageRequest
from adlatus.wire.threads import CreateToolResources
from adlatus.wire.vector_stores import attaching


def store_ids(tool_resources: Json) -> list[str]:
    """The vector stores among tool resources."""
    ids: list[str] = tool_resources.get("file_search", {}).get("vector_store_ids", [])
    return ids


def code_file_ids(tool_resources: Json) -> list[str]:
    """The files for the code interpreter among tool resources."""
    ids: list[str] = tool_resources.get("code_interpreter", {}).get("file_ids", [])
    return ids


async def kept(tx: Transaction, project_id: str, request: ToolResources | None, *, days: int | None = None) -> Json:
    """Tool resources as their owner keeps them: the stores of the helper are made, those that are named are there.

    `days` is how long stores that are made stay after their last use. Raises `NotFound`, `InvalidRequest`.
    """
    if request is None:
        return {}
    resources = request.model_dump()
    await vector_stores.usable(tx, project_id, store_ids(resources))
    if isinstance(request, CreateToolResources) and request.file_search:
        made = []
        for helper in request.file_search.vector_stores or ():
            store_id = await vector_stores.add(tx, project_id, metadata=helper.metadata or {}, expires_after_days=days)
            files = attaching(helper.file_ids or (), helper.chunking_strategy)
            await vector_store_files.attach(tx, project_id, store_id, files)
            made.append(store_id)
        if made:
            resources["file_search"] = {"vector_store_ids": made}
    return resources


async def take_attachments(tx: Transaction, thread: Row, requests: Sequence[CreateMessageRequest]) -> Row:
    """Give the files of messages to the tools of their locked thread; the thread's row as it is then.

    For file search they go into the thread's store, which is made if there is none that can be used; for the code
    interpreter they are listed with the thread. *Source*: the guides. Raises `NotFound`, `InvalidRequest`.
    """
    searched, worked_with = _attached(requests, "file_search"), _attached(requests, "code_interpreter")
    if not searched and not worked_with:
        return thread
    project_id, resources = thread["project_id"], dict(thread["tool_resources"])
    if worked_with:
        await _check_files(tx, project_id, worked_with)
        before = code_file_ids(resources)
        resources.pop("code_interpreter", None)
        listed = {"file_ids": list(dict.fromkeys([*before, *worked_with]))}
        resources = {"code_interpreter": listed, **resources}  # in the order in which they are always shown
    if searched:
        store_id = await _store_of(tx, project_id, resources)
        await vector_store_files.attach(tx, project_id, store_id, attaching(searched, None))
        resources["file_search"] = {"vector_store_ids": [store_id]}
    if resources == thread["tool_resources"]:
        return thread
    changes = {"tool_resources": resources}
    return await rows.modify(tx, threads, "thread", thread["id"], changes, project_id=project_id)


def _attached(requests: Sequence[CreateMessageRequest], tool: str) -> list[str]:
    """The files that messages bring for a tool, each once."""
    return list(
        dict.fromkeys(
            attachment.file_id
            for request in requests
            for attachment in request.attachments or ()
            if any(each.type == tool for each in attachment.tools)
        )
    )


async def _check_files(connection: Connection, project_id: str, file_ids: Sequence[str]) -> None:
    for file_id in file_ids:
        try:
            await file_rows.get(connection, project_id, file_id)
        except FileNotFound as error:
            raise no_file_to_attach(file_id) from error


async def _store_of(tx: Transaction, project_id: str, resources: Json) -> str:
    """The store of a thread; a new one in place of none, or of one that is gone or has expired."""
    for store_id, state in (await vector_stores.states(tx, project_id, store_ids(resources))).items():
        if not state["expired"]:
            return store_id
    return await vector_stores.add(tx, project_id, metadata={}, expires_after_days=vector_stores.THREAD_STORE_DAYS)
