"""Connections and transactions. Knows nothing of tables.

Statements are SQLAlchemy Core, compiled once and run on plain asyncpg connections: of a single-row SELECT's 250 µs of
CPU on an AsyncEngine, asyncpg itself takes 60.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from typing import Any, Protocol

import asyncpg
import orjson
import structlog
from sqlalchemy import BindParameter, ClauseElement, bindparam
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.types import TypeEngine

from adlatus.errors import DatabaseUnavailable
from adlatus.store.pool import ANSWERS_S, GONE, WAIT_S, Pool, answers

log = structlog.get_logger(__name__)

Row = Mapping[str, Any]
"""A row: its columns by name."""

CONNECT_S = 6.0
"""How long the server may take to open one."""
ANSWER_S = 10.0
"""How long a statement may take: less than a lease lasts, so that a heartbeat can be sent again in time."""
_CLOSE_S = 5.0

_DIALECT = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]


class Connection(Protocol):
    """Anything that runs statements: the database itself (each statement its own transaction) or a transaction."""

    async def fetch(self, statement: ClauseElement, **params: object) -> list[Row]:
        """All rows of a statement."""
        ...

    async def fetch_row(self, statement: ClauseElement, **params: object) -> Row | None:
        """The first row of a statement, if there is one."""
        ...


class _OnConnection:
    """Runs statements on one asyncpg connection or pool."""

    def __init__(self, target: Any) -> None:
        self._target = target

    async def fetch(self, statement: ClauseElement, **params: object) -> list[Row]:
        sql, values = _bind(statement, params)
        try:
            return list(await self._target.fetch(sql, *values))
        except GONE as error:
            raise _unavailable(error) from error

    async def fetch_row(self, statement: ClauseElement, **params: object) -> Row | None:
        sql, values = _bind(statement, params)
        try:
            row: Row | None = await self._target.fetchrow(sql, *values)
        except GONE as error:
            raise _unavailable(error) from error
        return row


class Transaction(_OnConnection):
    """An open transaction: committed at the end of `async with database.transaction()`, or rolled back by an error."""

    async def stream(self, statement: ClauseElement, **params: object) -> AsyncIterator[Row]:
        """The rows of a statement, never more than some hundred of them in memory."""
        sql, values = _bind(statement, params)
        try:
            async for row in self._target.cursor(sql, *values, prefetch=200):
                yield row
        except GONE as error:
            raise _unavailable(error) from error


class Database:
    """A pool of connections to PostgreSQL. `fetch` and `fetch_row` run one statement in a transaction of its own.

    Raises `DatabaseUnavailable` where the server does not answer, or hangs, or all connections stay in use.
    """

    def __init__(self, pool: Pool, dsn: str) -> None:
        self.pool = pool
        self.dsn = dsn

    async def fetch(self, statement: ClauseElement, **params: object) -> list[Row]:
        """All rows of a statement."""
        sql, values = _bind(statement, params)
        connection, answered = await self._borrow(), False
        try:
            rows = list(await connection.fetch(sql, *values))
            answered = True
            return rows
        except GONE as error:
            raise await self._gone(connection, error) from error
        finally:
            self.pool.give_back(connection, sure=answered)

    async def fetch_row(self, statement: ClauseElement, **params: object) -> Row | None:
        """The first row of a statement, if there is one."""
        sql, values = _bind(statement, params)
        connection, answered = await self._borrow(), False
        try:
            row: Row | None = await connection.fetchrow(sql, *values)
            answered = True
            return row
        except GONE as error:
            raise await self._gone(connection, error) from error
        finally:
            self.pool.give_back(connection, sure=answered)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction on a connection of its own; never hold one while waiting for anything but the database."""
        connection, committed = await self._borrow(), False
        try:
            transaction = connection.transaction()
            try:
                await transaction.start()
            except GONE as error:
                raise await self._gone(connection, error) from error
            try:
                yield Transaction(connection)
            except BaseException as error:
                await _roll_back(connection, transaction)
                if isinstance(error, DatabaseUnavailable):
                    await self._suspect(connection, error.__cause__)
                raise
            try:
                await transaction.commit()
            except GONE as error:
                raise await self._gone(connection, error) from error
            committed = True
        finally:
            self.pool.give_back(connection, sure=committed)

    async def _borrow(self) -> asyncpg.Connection:
        """A connection of the pool; where all are in use, the next that is given back."""
        try:
            return await self.pool.borrow()
        except GONE as error:
            raise _unavailable(error, "to connect") from error

    async def _gone(self, connection: asyncpg.Connection, error: BaseException) -> DatabaseUnavailable:
        await self._suspect(connection, error)
        return _unavailable(error)

    async def _suspect(self, connection: asyncpg.Connection, error: BaseException | None) -> None:
        """A connection that is dead takes the others with it: they may be as dead."""
        if isinstance(error, TimeoutError) and not await answers(connection):
            self.pool.distrust()


async def _roll_back(connection: asyncpg.Connection, transaction: Any) -> None:
    """Undo what a transaction has done. A server that does not answer does so itself, once the connection is cut."""
    try:
        async with asyncio.timeout(ANSWERS_S):
            await transaction.rollback()
    except GONE:
        with suppress(asyncpg.InterfaceError):  # it is cut already
            connection.terminate()


@asynccontextmanager
async def open_database(
    dsn: str, *, max_connections: int = 16, answer_s: float = ANSWER_S, wait_s: float = WAIT_S
) -> AsyncIterator[Database]:
    """A pool on `dsn` (`postgresql://…`). Raises `OSError` or an asyncpg error if the server does not let us in.

    A statement may take `answer_s`, and wait `wait_s` for a connection.
    """
    pool = Pool(partial(_connect, plain_dsn(dsn), answer_s), max_connections, wait_s=wait_s)
    try:
        pool.give_back(await pool.borrow())
        yield Database(pool, dsn)
    finally:
        await pool.close(_CLOSE_S)


def plain_dsn(dsn: str) -> str:
    """The DSN without SQLAlchemy's driver suffix."""
    scheme, _, rest = dsn.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


async def _connect(dsn: str, answer_s: float) -> asyncpg.Connection:
    connection = await asyncpg.connect(
        dsn,
        command_timeout=answer_s,
        timeout=CONNECT_S,
        server_settings={"application_name": "adlatus", "timezone": "UTC"},
    )
    try:
        # Compiling takes longer than any statement here; by a statement, because poolers refuse it when connecting
        await connection.execute("SET jit = off")
        await _use_orjson(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _use_orjson(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )


_SILENT = "The database does not answer at the moment. Try again in a second."
_DISK_FULL = "The disk of the database is full: nothing can be kept until there is room again."


def _unavailable(error: BaseException, doing: str = "to answer") -> DatabaseUnavailable:
    log.error("database unavailable", error=str(error) or f"took too long {doing}")
    return DatabaseUnavailable(_DISK_FULL if isinstance(error, asyncpg.DiskFullError) else _SILENT)


def param(name: str, type_: TypeEngine[Any]) -> BindParameter[Any]:
    """A parameter of a statement that is built once; its value comes with each execution."""
    return bindparam(name, type_=type_, required=False)


@lru_cache(maxsize=1024)
def _compiled(statement: ClauseElement) -> tuple[str, Sequence[str], dict[str, Any]]:
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    positions: Sequence[str] = getattr(compiled, "positiontup", None) or ()
    return str(compiled), positions, dict(compiled.params)


def _bind(statement: ClauseElement, params: dict[str, object]) -> tuple[str, list[object]]:
    sql, positions, own = _compiled(statement)
    unknown = params.keys() - own.keys()
    assert not unknown, f"the statement has no parameters {sorted(unknown)}"
    return sql, [params.get(name, own[name]) for name in positions]
