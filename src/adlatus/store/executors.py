"""The processes that execute: a row each, which they renew as long as they live, by the clock of the database alone."""

from collections.abc import Collection
from enum import StrEnum

from sqlalchemy import ARRAY, Boolean, ColumnElement, Text, all_, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from adlatus.store.db import Connection, Row, param
from adlatus.store.tables import executors, sandbox_sessions

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats of a process."""
LIVE_S = 3 * HEARTBEAT_S
"""Seconds without a heartbeat after which a process is taken for dead."""
FORGOTTEN_S = 600.0
"""Seconds after which any other process removes the row of a dead one."""


_UNUSED_S = 30.0
"""A session that was used since may belong to a sandbox that the heartbeat does not know of yet."""


class Ability(StrEnum):
    """What not every executor of runs has, and some runs need. The names are columns of `executors`."""

    SEARCH = "search"  # it reaches the index of files
    SANDBOX = "sandbox"  # it has sandboxes for code


live: ColumnElement[bool] = executors.c.heartbeat > func.now() - text(f"interval '{LIVE_S} seconds'")
"""Whether an executor is alive."""


async def beat(
    connection: Connection,
    executor_id: str,
    *,
    runs: bool,
    ingestion: bool,
    search: bool,
    sandbox_engine: str | None,
    sandbox_problem: str | None,
    sandboxed: Collection[str] = (),
) -> None:
    """Tell that a process is alive and what it can do; removes the rows of processes that are dead for long.

    `sandboxed` are the threads that have a sandbox there: its sessions of others, unused for a while, are forgotten.
    """
    await connection.fetch(
        _BEAT,
        id=executor_id,
        runs=runs,
        ingestion=ingestion,
        search=search,
        sandbox=sandbox_engine is not None,
        sandbox_engine=sandbox_engine,
        sandbox_problem=sandbox_problem,
        sandboxed=list(sandboxed),
    )


async def leave(connection: Connection, executor_id: str) -> None:
    """A process executes nothing more. Its sandbox sessions are forgotten with it."""
    await connection.fetch(_LEAVE, id=executor_id)


async def remove_all(connection: Connection) -> None:
    """Remove the rows of all. Only for who knows that no other process works on this database."""
    await connection.fetch(_REMOVE_ALL)


async def of_runs(connection: Connection) -> list[Row]:
    """The live executors of runs."""
    return await connection.fetch(_OF_RUNS)


def is_able(executor: Row, needs: Collection[Ability]) -> bool:
    """Whether an executor has all that a run needs."""
    return all(executor[need] for need in needs)


_TOLD = ("runs", "ingestion", "search", "sandbox", "sandbox_engine", "sandbox_problem")
_id = param("id", Text())
_values = {name: param(name, Boolean() if name in _TOLD[:4] else Text()) for name in _TOLD}
_BEAT = (
    insert(executors)
    .values(id=_id, **_values)
    .on_conflict_do_update(index_elements=["id"], set_={"heartbeat": func.now(), **_values})
    .add_cte(
        delete(executors)
        .where(executors.c.id != _id, executors.c.heartbeat < func.now() - text(f"interval '{FORGOTTEN_S} seconds'"))
        .cte("forgotten")
    )
    .add_cte(
        delete(sandbox_sessions)
        .where(
            sandbox_sessions.c.executor_id == _id,
            sandbox_sessions.c.thread_id != all_(param("sandboxed", ARRAY(Text))),
            sandbox_sessions.c.last_used_at < func.now() - text(f"interval '{_UNUSED_S} seconds'"),
        )
        .cte("closed")
    )
)
_LEAVE = delete(executors).where(executors.c.id == _id)
_REMOVE_ALL = delete(executors)
_OF_RUNS = select(executors).where(executors.c.runs, live).order_by(executors.c.started_at, executors.c.id)
