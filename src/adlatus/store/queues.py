"""How much work waits in the database, for all processes together. Knows nothing of who does it."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, ClauseElement, ColumnElement, Double, cast, func, literal_column, or_, select

from adlatus.store.db import Connection
from adlatus.store.tables import runs, unix_now, vector_store_files


@dataclass(frozen=True)
class Queue:
    """Pieces of work that nobody does, and the seconds for which the oldest has waited, 0 where there is none."""

    waiting: float
    oldest_s: float


async def of_runs(connection: Connection) -> Queue:
    """Runs that wait for an executor; not those that wait for their client."""
    return await _queue(connection, _RUNS)


async def of_files(connection: Connection) -> Queue:
    """Files of vector stores that wait for being indexed, those that are tried again later included."""
    return await _queue(connection, _FILES)


async def _queue(connection: Connection, statement: ClauseElement) -> Queue:
    row = await connection.fetch_row(statement)
    assert row is not None
    return Queue(row["waiting"], max(row["oldest_s"] or 0.0, 0.0))


def _seconds_since(instant: ColumnElement[object]) -> ColumnElement[float]:
    return cast(func.extract("epoch", func.now() - func.min(instant)), Double)


_waiting = func.count().label("waiting")
# Literals, so that every plan may use the partial indexes
_unfinished = runs.c.status.in_([literal_column(f"'{status}'") for status in ("queued", "in_progress", "cancelling")])
_RUNS = select(
    _waiting, _seconds_since(func.greatest(runs.c.claimable_at, runs.c.lease_expires_at)).label("oldest_s")
).where(_unfinished, or_(runs.c.lease_token.is_(None), runs.c.lease_expires_at < func.now()))
_files = vector_store_files
_FILES = select(
    _waiting, cast(cast(unix_now, BigInteger) - func.min(_files.c.created_at), Double).label("oldest_s")
).where(
    _files.c.status == literal_column("'in_progress'"),
    or_(_files.c.lease_token.is_(None), _files.c.lease_expires_at < func.now()),
)
