"""Which executor has the sandbox of a thread: its runs are left to that one for a moment.

What is said here may be out of date: the executor may have closed the sandbox, or have lost it.
"""

from typing import Any

from sqlalchemy import ColumnElement, Text, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from adlatus.store.db import Connection, Row, param
from adlatus.store.executors import live
from adlatus.store.tables import executors, sandbox_sessions, threads

_table = sandbox_sessions
_thread, _executor = param("the_thread", Text()), param("executor_id", Text())


async def record(connection: Connection, thread_id: str, executor_id: str, engine: str, box: str) -> bool:
    """An executor has opened a sandbox for a thread, in place of any other. False if either is not known any more."""
    return bool(
        await connection.fetch(_RECORD, the_thread=thread_id, executor_id=executor_id, the_engine=engine, the_box=box)
    )


async def touch(connection: Connection, thread_id: str) -> None:
    """The sandbox of a thread is used."""
    await connection.fetch(_TOUCH, the_thread=thread_id)


async def forget(connection: Connection, thread_id: str) -> None:
    """The sandbox of a thread is closed."""
    await connection.fetch(_FORGET, the_thread=thread_id)


async def of_thread(connection: Connection, thread_id: str) -> Row | None:
    """The session of a thread, if it has one."""
    return await connection.fetch_row(_OF_THREAD, the_thread=thread_id)


async def is_elsewhere(connection: Connection, thread_id: str, executor_id: str) -> bool:
    """Whether another live executor has the sandbox of a thread."""
    row = await connection.fetch_row(_IS_ELSEWHERE, the_thread=thread_id, executor_id=executor_id)
    return row is not None and bool(row["elsewhere"])


def elsewhere(thread_id: ColumnElement[Any], executor_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether another live executor, with sandboxes that work, has the sandbox of a thread."""
    of_another = select(literal(1)).select_from(_table.join(executors, executors.c.id == _table.c.executor_id))
    return exists(
        of_another.where(
            _table.c.thread_id == thread_id, executors.c.id != executor_id, executors.c.runs, executors.c.sandbox, live
        )
    )


_found = select(threads.c.id, executors.c.id, param("the_engine", Text()), param("the_box", Text())).where(
    threads.c.id == _thread, executors.c.id == _executor
)
_adding = insert(_table).from_select(["thread_id", "executor_id", "engine", "box"], _found)
_RECORD = _adding.on_conflict_do_update(
    index_elements=["thread_id"],
    set_={
        "executor_id": _adding.excluded.executor_id,
        "engine": _adding.excluded.engine,
        "box": _adding.excluded.box,
        "opened_at": func.now(),
        "last_used_at": func.now(),
    },
).returning(_table.c.thread_id)
_TOUCH = update(_table).where(_table.c.thread_id == _thread).values(last_used_at=func.now())
_FORGET = delete(_table).where(_table.c.thread_id == _thread)
_OF_THREAD = select(_table).where(_table.c.thread_id == _thread)
_IS_ELSEWHERE = select(elsewhere(_thread, _executor).label("elsewhere"))
