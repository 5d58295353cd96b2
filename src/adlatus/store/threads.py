"""Threads and what is inserted into them together."""

from collections.abc import Collection, Sequence

from sqlalchemy import ARRAY, Table, Text, func, insert, literal, select

from adlatus.errors import InvalidRequest
from adlatus.ids import new_id
from adlatus.store import leases, pages, rows, tool_resources, vector_stores
from adlatus.store.db import Connection, Row, Transaction, param
from adlatus.store.pages import Page
from adlatus.store.tables import ENDED, messages, runs, threads, unix_now
from adlatus.wire.messages import CreateMessageRequest, MessageStatus
from adlatus.wire.threads import CreateThreadRequest


async def page(
    connection: Connection,
    table: Table,
    noun: str,
    wanted: Page,
    *,
    project_id: str,
    thread_id: str,
    **scope: str | None,
) -> tuple[list[Row], bool]:
    """A page of what belongs to a thread. Raises `NotFound`: for the thread, if it is the thread that is not there."""
    found: list[Row] = []
    try:
        found, has_more = await pages.read(
            connection, table, noun, wanted, project_id=project_id, thread_id=thread_id, **scope
        )
    finally:
        if not found:
            await rows.get(connection, threads, "thread", thread_id, project_id=project_id)
    return found, has_more


_THERE = select(threads.c.id).where(threads.c.id == func.any(param("thread_ids", ARRAY(Text))))
_ACTIVE_RUN = (
    select(runs.c.id).where(runs.c.thread_id == param("the_thread", Text()), runs.c.status.not_in(ENDED)).limit(1)
)
_RESOURCES = select(threads.c.tool_resources).where(threads.c.id == param("the_thread", Text()))
_ADD_MESSAGE = (
    insert(messages)
    .values(
        **{name: param(name, messages.c[name].type) for name in ("id", "project_id", "thread_id", "role")},
        **{name: param(name, messages.c[name].type) for name in ("content", "attachments", "metadata")},
        status=literal(MessageStatus.COMPLETED.value),
        completed_at=unix_now,
    )
    .returning(messages)
)
_HOLD_ACTIVE_RUN = _ACTIVE_RUN.with_for_update()


async def add(tx: Transaction, project_id: str, request: CreateThreadRequest) -> Row:
    """Insert a thread and its first messages; returns the thread's row.

    Raises `FileNotFound`, `NotFound` and `InvalidRequest` for what tools are to work with.
    """
    days = vector_stores.THREAD_STORE_DAYS
    row = await rows.add(
        tx,
        threads,
        id=new_id("thread"),
        project_id=project_id,
        metadata=request.metadata or {},
        tool_resources=await tool_resources.kept(tx, project_id, request.tool_resources, days=days),
    )
    row, _ = await add_messages(tx, row, request.messages or ())
    return row


async def vector_store_ids(connection: Connection, thread_id: str) -> list[str]:
    """The vector stores of a thread; none where it is gone."""
    row = await connection.fetch_row(_RESOURCES, the_thread=thread_id)
    return tool_resources.store_ids(row["tool_resources"]) if row else []


async def code_file_ids(connection: Connection, thread_id: str) -> list[str]:
    """The files that a thread has for the code interpreter; none where it is gone."""
    row = await connection.fetch_row(_RESOURCES, the_thread=thread_id)
    return tool_resources.code_file_ids(row["tool_resources"]) if row else []


async def gone(connection: Connection, thread_ids: Collection[str]) -> set[str]:
    """Those of the threads that are not there any more."""
    found = await connection.fetch(_THERE, thread_ids=list(thread_ids))
    return {*thread_ids} - {row["id"] for row in found}


async def lock(tx: Transaction, project_id: str, thread_id: str) -> Row:
    """The thread's row, locked: who adds to a thread takes turns. Raises `NotFound`."""
    return await rows.get_locked(tx, threads, "thread", thread_id, project_id=project_id)


async def remove(tx: Transaction, project_id: str, thread_id: str) -> None:
    """Delete a thread with all that belongs to it. Raises `NotFound`.

    Who creates a run locks the thread first, who executes one the run: locking both in advance, nobody waits in a ring.
    """
    await lock(tx, project_id, thread_id)
    if await tx.fetch(_HOLD_ACTIVE_RUN, the_thread=thread_id):
        await leases.wake(tx)  # its executor may stop
    await rows.remove(tx, threads, "thread", thread_id, project_id=project_id)


async def active_run(connection: Connection, thread_id: str) -> str | None:
    """The id of the run that locks the thread, if there is one."""
    row = await connection.fetch_row(_ACTIVE_RUN, the_thread=thread_id)
    return row["id"] if row else None


async def refuse_while_active(tx: Transaction, thread_id: str) -> None:
    """Raise the original's refusal of a message while a run is active. *Source*: a field report."""
    if run_id := await active_run(tx, thread_id):
        raise InvalidRequest(f"Can't add messages to {thread_id} while a run {run_id} is active.")


async def remove_message(tx: Transaction, project_id: str, thread_id: str, message_id: str) -> None:
    """Delete a message. Raises `NotFound`, and `InvalidRequest` while a run is writing it."""
    scope = {"project_id": project_id, "thread_id": thread_id}
    row = await rows.get_locked(tx, messages, "message", message_id, **scope)
    if row["status"] == MessageStatus.IN_PROGRESS:
        raise InvalidRequest(
            f"Can't delete {message_id} while a run {row['run_id']} is writing it. Cancel the run first."
        )
    await rows.remove(tx, messages, "message", message_id, **scope)


async def add_messages(tx: Transaction, thread: Row, requests: Sequence[CreateMessageRequest]) -> tuple[Row, list[Row]]:
    """Insert messages of the client on a locked thread, in order. They are completed from the start.

    Gives the thread as it is then, whose tools have got the attachments, and the messages.
    """
    thread = await tool_resources.take_attachments(tx, thread, requests)
    added = []
    for request in requests:
        values = {
            "id": new_id("msg"),
            "project_id": thread["project_id"],
            "thread_id": thread["id"],
            **request.columns(),
        }
        row = await tx.fetch_row(_ADD_MESSAGE, **values)
        assert row is not None
        added.append(row)
    return thread, added
