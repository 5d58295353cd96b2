"""Projects and what each of them may do."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

from sqlalchemy import ARRAY, ClauseElement, Text, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from adlatus.store.db import Connection, Row, param
from adlatus.store.tables import api_keys, projects


@dataclass(frozen=True)
class Limits:
    """How much a project may do; None: as much as it likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    active_runs: int | None = None
    storage_bytes: int | None = None

    @property
    def has_rates(self) -> bool:
        """Whether anything is limited per minute."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None


NO_LIMITS = Limits()
NAMES = ("requests_per_minute", "tokens_per_minute", "active_runs", "storage_bytes")
"""The limits, as columns of `projects`."""


async def ensure(connection: Connection, project_ids: Collection[str]) -> list[str]:
    """Make projects that are not there yet; gives those that were not."""
    return [row["id"] for row in await connection.fetch(_ENSURE, ids=sorted(set(project_ids)))]


async def listed(connection: Connection) -> list[Row]:
    """All projects with their limits and the number of keys of the database that open them, by name."""
    return await connection.fetch(_LISTED)


async def limit(connection: Connection, project_id: str, changes: Mapping[str, int | None]) -> Row | None:
    """Change some of a project's `NAMES`d limits; the project then, or None where there is none."""
    values = {f"new_{name}": value for name, value in changes.items()}
    return await connection.fetch_row(_limiting(tuple(changes)), id=project_id, **values)


async def limited(connection: Connection) -> dict[str, Limits]:
    """The limits of the projects that have any."""
    return {row["id"]: Limits(*(row[name] for name in NAMES)) for row in await connection.fetch(_LIMITED)}


@cache
def _limiting(names: tuple[str, ...]) -> ClauseElement:
    values = {name: param(f"new_{name}", projects.c[name].type) for name in names}
    return update(projects).where(projects.c.id == param("id", Text())).values(values).returning(projects)


_limits = [projects.c[name] for name in NAMES]
_ENSURE = (
    insert(projects)
    .from_select(["id"], select(func.unnest(param("ids", ARRAY(Text)))))
    .on_conflict_do_nothing()
    .returning(projects.c.id)
)
_keys = (
    select(func.count())
    .select_from(api_keys)
    .where(api_keys.c.project_id == projects.c.id, api_keys.c.revoked_at.is_(None))
    .scalar_subquery()
)
_LISTED = select(projects, _keys.label("keys")).order_by(projects.c.id)
_LIMITED = select(projects.c.id, *_limits).where(or_(*(column.is_not(None) for column in _limits)))
