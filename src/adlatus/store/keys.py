"""API keys: their hashes, whose they are, when they were used and whether they still open anything.

A key itself is never stored; `administration` shows it once.
"""

from collections.abc import Collection, Sequence
from hashlib import sha256

from sqlalchemy import ARRAY, LargeBinary, Text, any_, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from adlatus.ids import new_id
from adlatus.store.db import Connection, Row, param
from adlatus.store.tables import api_keys, unix_now

USED_WITHIN_S = 60
"""How old the instant of a key's last use may be that another use does not change."""


def digest(secret: str) -> bytes:
    """What is kept of a key."""
    return sha256(secret.encode()).digest()


async def add(connection: Connection, project_id: str, secret: str, name: str | None) -> Row:
    """Let a key open a project, which must be there."""
    row = await connection.fetch_row(
        _ADD,
        id=new_id("key"),
        project_id=project_id,
        name=name,
        sha256=digest(secret),
        shown=f"{secret[:3]}…{secret[-4:]}",
    )
    assert row is not None
    return row


async def listed(connection: Connection, project_id: str | None) -> list[Row]:
    """The keys of a project or of all, the oldest first, without their hashes."""
    return await connection.fetch(_LISTED, project_id=project_id)


async def revoke(connection: Connection, key_id: str) -> Row | None:
    """Let a key open nothing any more; None where there is no such key. Once revoked it stays so."""
    return await connection.fetch_row(_REVOKE, id=key_id)


async def state(connection: Connection) -> tuple[object, ...]:
    """Something that is another after each change of the keys that open anything."""
    row = await connection.fetch_row(_STATE)
    assert row is not None
    return tuple(row.values())


async def unrevoked(connection: Connection) -> dict[bytes, str]:
    """The projects that keys open, by the digests of the keys."""
    return {bytes(row["sha256"]): row["project_id"] for row in await connection.fetch(_UNREVOKED)}


async def note_uses(connection: Connection, digests: Collection[bytes]) -> None:
    """Keys were used just now."""
    await connection.fetch(_NOTE_USES, digests=list(digests))


_SHOWN: Sequence[str] = ("id", "project_id", "name", "shown", "created_at", "last_used_at", "revoked_at")
_shown = [api_keys.c[name] for name in _SHOWN]
_ADD = (
    insert(api_keys)
    .values({name: param(name, api_keys.c[name].type) for name in ("id", "project_id", "name", "sha256", "shown")})
    .returning(*_shown)
)
_project = param("project_id", Text())
_LISTED = select(*_shown).where(or_(_project == null(), api_keys.c.project_id == _project)).order_by(api_keys.c.seq)
_REVOKE = (
    update(api_keys)
    .where(api_keys.c.id == param("id", Text()))
    .values(revoked_at=func.coalesce(api_keys.c.revoked_at, unix_now))
    .returning(*_shown)
)
_STATE = select(
    func.count(literal(1)).filter(api_keys.c.revoked_at.is_(None)).label("open"),
    func.max(api_keys.c.seq).label("newest"),
)
_UNREVOKED = select(api_keys.c.sha256, api_keys.c.project_id).where(api_keys.c.revoked_at.is_(None))
_NOTE_USES = (
    update(api_keys)
    .where(
        api_keys.c.sha256 == any_(param("digests", ARRAY(LargeBinary))),
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= unix_now - USED_WITHIN_S),
    )
    .values(last_used_at=unix_now)
)
