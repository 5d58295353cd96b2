"""Leases on work: who executes a run or indexes a file, fenced by a token, by the clock of the database alone.

A lease is renewed by heartbeats and free to be claimed by anyone once it has run out. Status is none of its business.
"""

import enum
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Double,
    Table,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    text,
    tuple_,
    update,
)

from adlatus.store import sandbox_sessions, turns
from adlatus.store.db import Connection, Database, Row, param
from adlatus.store.executors import Ability
from adlatus.store.tables import runs, unix_now, vector_store_files
from adlatus.wire.runs import RunStatus
from adlatus.wire.vector_stores import FileStatus

LEASE_S = 15.0
"""Seconds a lease lasts without a heartbeat."""

PREFERRED_S = 2.0
"""Seconds for which a run that needs a sandbox is left to the executor that has its thread's."""

CLAIMABLE = (RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.CANCELLING)
"""Statuses in which somebody has to work on a run."""

WAKE_CHANNEL = "adlatus_wakeup"
"""NOTIFY channel that tells executors to look at the database; it carries no data."""


class Interruption(enum.Enum):
    """Why a worker cancels the task that works under a lease."""

    CANCEL = "the run is to be cancelled"
    LOST = "the lease ran out or the work is gone: write nothing more"
    STOP = "this process stops: hand the work back"


@dataclass(frozen=True)
class Claim:
    """What an executor brings to a run that it wants: its name, a fresh fencing token, and what it is able to do.

    `per_project` is how many runs of a project may be leased at once; None: any number.
    """

    owner: str
    token: str
    abilities: frozenset[Ability] = frozenset()
    per_project: int | None = None


@dataclass
class Lease:
    """A claimed run. `abandoned` counts the executors that died with it.

    `claimed` is the run as it was then, with the seconds that were left to it, `waited_s` how long it had waited for
    that, `age_then_s` how old it was, `first_page` what its thread begins with, if that is known. `interruption` is set
    by the worker before it cancels the executing task.
    """

    run_id: str
    thread_id: str
    project_id: str
    token: str
    attempt: int
    abandoned: int = 0
    claimed: Row | None = field(default=None, compare=False, repr=False)
    first_page: list[Row] | None = field(default=None, compare=False, repr=False)
    waited_s: float = field(default=0.0, compare=False)
    age_then_s: float = field(default=0.0, compare=False)
    interruption: Interruption | None = field(default=None, compare=False)
    _since: float = field(default_factory=time.monotonic, compare=False, repr=False)

    @property
    def age_s(self) -> float:
        """The seconds since the run was created."""
        return self.age_then_s + time.monotonic() - self._since

    @property
    def told(self) -> dict[str, str]:
        """What a log says of whom it is about."""
        return {"run_id": self.run_id, "project_id": self.project_id}


@dataclass
class FileLease:
    """A claimed file of a vector store, which is to be made searchable. Otherwise as `Lease`.

    An executor that has found out itself that the lease is lost says so by `interruption`, and is not interrupted.
    """

    vector_store_id: str
    file_id: str
    seq: int
    project_id: str
    token: str
    attempt: int
    abandoned: int = 0
    interruption: Interruption | None = field(default=None, compare=False)

    @property
    def told(self) -> dict[str, str]:
        """What a log says of whom it is about."""
        return {"vector_store_id": self.vector_store_id, "file_id": self.file_id, "project_id": self.project_id}

    @property
    def key(self) -> str:
        """Under what the index has the chunks of this attempt."""
        return chunks_key(self.file_id, self.seq, self.attempt)


def chunks_key(file_id: str, seq: int, attempt: int) -> str:
    """Under what the index has the chunks of an attempt on a file. The triggers of the migration make the same."""
    return f"{file_id}.{seq}.{attempt}"


def new_claim(owner: str, abilities: Collection[Ability] = (), per_project: int | None = None) -> Claim:
    """A claim with a token that was never used before."""
    return Claim(owner, secrets.token_hex(16), frozenset(abilities), per_project)


left_s = (runs.c.expires_at - unix_now).label("left_s")
"""The seconds until a run expires."""

waited_s = cast(func.extract("epoch", func.now() - runs.c.claimable_at), Double).label("waited_s")
"""The seconds since a run was last in want of an executor."""

lease_end: ColumnElement[datetime] = func.now() + text(f"interval '{LEASE_S} seconds'")
"""The instant at which a lease that is taken or renewed now runs out."""

FREED = {"lease_owner": null(), "lease_token": null(), "lease_expires_at": null()}
"""Column values of work without a lease."""

_owner = param("owner", Text())

AnyLease = TypeVar("AnyLease", bound=Lease | FileLease)


class Leases(Generic[AnyLease]):
    """The leases on the rows of one table, whose lease columns are those of runs.

    `due` may have the parameters `owner` and, for runs, `abilities`: those of who claims. Files are claimed the oldest
    first, runs as `turns` has it. `per_project` is how many leases on runs a project may have; None: any number.
    """

    per_project: int | None = None

    def __init__(
        self,
        table: Table,
        keys: Sequence[Column[Any]],
        claimable: Sequence[str],
        of: Callable[[Row], AnyLease],
        *,
        due: ColumnElement[bool],
    ) -> None:
        self._of = of
        self._of_runs = table is runs
        unleased = or_(table.c.lease_token.is_(None), table.c.lease_expires_at < func.now())
        oldest = (
            select(*keys)
            .where(table.c.status.in_(claimable), unleased, due)
            .order_by(table.c.created_at, table.c.seq)
            .limit(param("row_limit", BigInteger()))
            .with_for_update(skip_locked=True, of=table)
        )
        free = turns.next_runs(unleased, due) if self._of_runs else oldest
        identity: ColumnElement[str] = reduce(add, [part for key in keys for part in (literal(":"), key)])
        self._claim = (
            update(table)
            .where(tuple_(*keys).in_(free))
            .values(
                lease_owner=_owner,
                lease_token=param("token", Text()) + identity,
                lease_expires_at=lease_end,
                attempt=table.c.attempt + 1,
                abandoned=table.c.abandoned + case((table.c.lease_token.is_not(None), 1), else_=0),
            )
            .returning(table, *((left_s, waited_s) if self._of_runs else ()))
        )
        self._heartbeat = (
            update(table)
            .where(table.c.lease_token == any_(param("tokens", ARRAY(Text))))
            .values(lease_expires_at=lease_end)
            .returning(table.c.lease_token, table.c.status)
        )
        held = table.c.lease_token == param("token", Text())
        abandoned = {**FREED, "abandoned": table.c.abandoned + 1}
        self._release = update(table).where(held).values(FREED).returning(table.c.id)
        self._abandon = update(table).where(held).values(abandoned).returning(table.c.id)
        self._release_all = (
            update(table).where(table.c.lease_token.is_not(None)).values(abandoned).returning(table.c.id)
        )

    def limited(self, per_project: int | None) -> Self:
        """The same, with a limit of leases per project."""
        limited = copy(self)
        limited.per_project = per_project
        return limited

    async def claim(
        self, database: Database, owner: str, limit: int, abilities: Collection[Ability] = ()
    ) -> list[AnyLease]:
        """Up to `limit` pieces of work that nobody does and that `owner` can do, leased to it."""
        wanted: dict[str, object] = {"owner": owner, "token": secrets.token_hex(16), "row_limit": limit}
        if self._of_runs:
            wanted |= {"abilities": sorted(abilities), "per_project": self.per_project}
        if self.per_project is None:
            return [self._of(row) for row in await database.fetch(self._claim, **wanted)]
        async with database.transaction() as tx:  # what is counted has to be counted after the lock
            locked = await turns.lock_waiting(tx)
            return [self._of(row) for row in await tx.fetch(self._claim, **wanted, locked=locked)]

    async def heartbeat(self, connection: Connection, tokens: list[str]) -> dict[str, str]:
        """Renew the leases of `tokens`; the status by token of those that still hold. What is missing is lost."""
        rows = await connection.fetch(self._heartbeat, tokens=tokens)
        return {row["lease_token"]: row["status"] for row in rows}

    async def release_if_held(self, connection: Connection, lease: AnyLease) -> None:
        """Hand work back, its status as it is; nothing happens if the lease is somebody else's by now."""
        await connection.fetch(self._release, token=lease.token)

    async def abandon_if_held(self, connection: Connection, lease: AnyLease) -> None:
        """Hand work back whose executor has failed; it counts as one that died with it, so that this does not go on."""
        await connection.fetch(self._abandon, token=lease.token)

    async def release_all(self, connection: Connection) -> int:
        """Free every lease of executors that are dead. Only for who knows that no other process works on this database.

        Returns how many there were.
        """
        return len(await connection.fetch(self._release_all))


def of_run(row: Row) -> Lease:
    """The lease of a run that is claimed, and told with what is left to it.

    Of a run that has waited for its client the age is known to a second only, as its creation is.
    """
    waited_s: float = row.get("waited_s", 0.0)
    before_s = row["claimable_at"].timestamp() - row["created_at"]
    return Lease(
        row["id"],
        row["thread_id"],
        row["project_id"],
        row["lease_token"],
        row["attempt"],
        row["abandoned"],
        claimed=row,
        waited_s=waited_s,
        age_then_s=waited_s + (before_s if before_s > 1 else 0.0),
    )


def _of_file(row: Row) -> FileLease:
    return FileLease(
        row["vector_store_id"],
        row["id"],
        row["seq"],
        row["project_id"],
        row["lease_token"],
        row["attempt"],
        row["abandoned"],
    )


_waits_for_its_sandbox = and_(
    literal(Ability.SANDBOX.value) == any_(runs.c.needs),
    func.greatest(runs.c.claimable_at, runs.c.lease_expires_at)
    > func.now() - text(f"interval '{PREFERRED_S} seconds'"),
    sandbox_sessions.elsewhere(runs.c.thread_id, _owner),
)

RUNS: Leases[Lease] = Leases(
    runs,
    (runs.c.id,),
    CLAIMABLE,
    of_run,
    due=or_(
        runs.c.status == RunStatus.CANCELLING,  # to end it nothing is needed
        and_(runs.c.needs.bool_op("<@")(param("abilities", ARRAY(Text))), not_(_waits_for_its_sandbox)),
    ),
)
FILES: Leases[FileLease] = Leases(
    vector_store_files,
    (vector_store_files.c.vector_store_id, vector_store_files.c.id),
    (FileStatus.IN_PROGRESS,),
    _of_file,
    due=vector_store_files.c.retry_at <= func.now(),
)

_WAKE = select(func.pg_notify(WAKE_CHANNEL, ""))


async def wake(connection: Connection) -> None:
    """Tell the executors of all processes to look; inside a transaction they hear it at its commit."""
    await connection.fetch(_WAKE)
