"""Leases on runs: who executes a run, fenced by a token, by the clock of the database alone.

A lease is renewed by heartbeats and free to be claimed by anyone once it has run out. Status is none of its business.
"""

import enum
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    any_,
    case,
    func,
    null,
    or_,
    select,
    text,
    update,
)

from adlatus.store.db import Connection, param
from adlatus.store.tables import runs
from adlatus.wire.runs import RunStatus

LEASE_S = 15.0
"""Seconds a lease lasts without a heartbeat."""

CLAIMABLE = (RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.CANCELLING)
"""Statuses in which somebody has to work on a run."""

WAKE_CHANNEL = "adlatus_wakeup"
"""NOTIFY channel that tells executors to look at the database; it carries no data."""


class Interruption(enum.Enum):
    """Why a worker cancels the task that executes a run."""

    CANCEL = "the run is to be cancelled"
    LOST = "the lease ran out or the run is gone: write nothing more"
    STOP = "this process stops: hand the run back"


@dataclass(frozen=True)
class Claim:
    """What an executor brings to a run that it wants: its name and a fresh fencing token."""

    owner: str
    token: str


@dataclass
class Lease:
    """A claimed run. `abandoned` counts the executors that died with it.

    `interruption` is set by the worker before it cancels the executing task.
    """

    run_id: str
    thread_id: str
    project_id: str
    token: str
    attempt: int
    abandoned: int = 0
    interruption: Interruption | None = field(default=None, compare=False)


def new_claim(owner: str) -> Claim:
    """A claim with a token that was never used before."""
    return Claim(owner, secrets.token_hex(16))


lease_end: ColumnElement[datetime] = func.now() + text(f"interval '{LEASE_S} seconds'")
"""The instant at which a lease that is taken or renewed now runs out."""

FREED = {"lease_owner": null(), "lease_token": null(), "lease_expires_at": null()}
"""Column values of a run without a lease."""

_columns = (runs.c.id, runs.c.thread_id, runs.c.project_id, runs.c.lease_token, runs.c.attempt, runs.c.abandoned)
_free: Select[tuple[str]] = (
    select(runs.c.id)
    .where(
        runs.c.status.in_(CLAIMABLE),
        or_(runs.c.lease_token.is_(None), runs.c.lease_expires_at < func.now()),
    )
    .order_by(runs.c.created_at, runs.c.seq)
    .limit(param("row_limit", BigInteger()))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(runs)
    .where(runs.c.id.in_(_free))
    .values(
        lease_owner=param("owner", Text()),
        lease_token=param("token", Text()) + ":" + runs.c.id,
        lease_expires_at=lease_end,
        attempt=runs.c.attempt + 1,
        abandoned=runs.c.abandoned + case((runs.c.lease_token.is_not(None), 1), else_=0),
    )
    .returning(*_columns)
)
_HEARTBEAT = (
    update(runs)
    .where(runs.c.lease_token == any_(param("tokens", ARRAY(Text))))
    .values(lease_expires_at=lease_end)
    .returning(runs.c.lease_token, runs.c.status)
)
_RELEASE = update(runs).where(runs.c.lease_token == param("token", Text())).values(**FREED).returning(runs.c.id)
_ABANDON = (
    update(runs)
    .where(runs.c.lease_token == param("token", Text()))
    .values(**FREED, abandoned=runs.c.abandoned + 1)
    .returning(runs.c.id)
)
_RELEASE_ALL = (
    update(runs)
    .where(runs.c.lease_token.is_not(None))
    .values(**FREED, abandoned=runs.c.abandoned + 1)
    .returning(runs.c.id)
)
_WAKE = select(func.pg_notify(WAKE_CHANNEL, ""))


async def claim(connection: Connection, owner: str, limit: int) -> list[Lease]:
    """Up to `limit` runs that nobody executes, the oldest first, leased to `owner`."""
    rows = await connection.fetch(_CLAIM, owner=owner, token=secrets.token_hex(16), row_limit=limit)
    return [
        Lease(r["id"], r["thread_id"], r["project_id"], r["lease_token"], r["attempt"], r["abandoned"]) for r in rows
    ]


async def heartbeat(connection: Connection, tokens: list[str]) -> dict[str, RunStatus]:
    """Renew the leases of `tokens`; the status by token of those that still hold. What is missing is lost."""
    rows = await connection.fetch(_HEARTBEAT, tokens=tokens)
    return {row["lease_token"]: RunStatus(row["status"]) for row in rows}


async def release_if_held(connection: Connection, lease: Lease) -> None:
    """Hand a run back, its status as it is; nothing happens if the lease is somebody else's by now."""
    await connection.fetch(_RELEASE, token=lease.token)


async def abandon_if_held(connection: Connection, lease: Lease) -> None:
    """Hand a run back whose executor has failed; it counts as one that died with it, so that this does not go on."""
    await connection.fetch(_ABANDON, token=lease.token)


async def release_all(connection: Connection) -> int:
    """Free every lease of executors that are dead. Only for who knows that no other process works on this database.

    Returns how many there were.
    """
    return len(await connection.fetch(_RELEASE_ALL))


async def wake(connection: Connection) -> None:
    """Tell the executors of all processes to look; inside a transaction they hear it at its commit."""
    await connection.fetch(_WAKE)
