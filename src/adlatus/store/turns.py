"""Whose run is next: each project in turn, and none beyond its limit. Knows which runs are free, not how they are kept.

A run takes a place of its project as long as it has a lease, even one that has run out: whoever takes it over takes its
place, too.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    any_,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)

from adlatus.errors import RateLimited
from adlatus.store.db import Connection, param
from adlatus.store.tables import ENDED, projects, runs

SPARE = 100
"""Runs of each project that are looked at beyond those wanted, because others may be claiming the first of them."""

ACTIVE_RETRY_S = 1.0
"""When to try again where too many runs are active: nobody knows when one ends."""

# Literals, so that every plan may use the partial indexes
_unfinished = runs.c.status.in_([literal_column(f"'{status}'") for status in ("queued", "in_progress", "cancelling")])
_is_queued = runs.c.status == literal_column("'queued'")
_wants_place = and_(runs.c.lease_token.is_(None), runs.c.status != literal_column("'cancelling'"))
_limit = param("per_project", BigInteger())


def _waiting() -> Select[tuple[str]]:
    """The projects that have unfinished runs, found by as many steps in the index."""
    first = select(runs.c.project_id).where(_unfinished).order_by(runs.c.project_id).limit(1).subquery()
    found = select(first.c.project_id).cte("waiting", recursive=True)
    above = runs.c.project_id > found.c.project_id
    following = select(runs.c.project_id).where(_unfinished, above).order_by(runs.c.project_id).limit(1)
    found = found.union_all(select(following.scalar_subquery()).where(found.c.project_id.is_not(None)))
    return select(found.c.project_id).where(found.c.project_id.is_not(None))


_taken = (
    select(runs.c.project_id, func.count().label("places"))
    .where(runs.c.lease_token.is_not(None))
    .group_by(runs.c.project_id)
    .cte("taken")
)


def next_runs(free: ColumnElement[bool], due: ColumnElement[bool]) -> Select[tuple[str]]:
    """Ids of up to `row_limit` runs to claim, locked: of the projects that execute least; begun ones, old ones first.

    With `per_project`, runs that take a place are only those of the projects `locked`, up to that many places.
    """
    waiting = _waiting().subquery("each")
    candidate = (
        select(runs.c.id, runs.c.created_at, runs.c.seq, _is_queued.label("is_queued"), _wants_place.label("wants"))
        .where(runs.c.project_id == waiting.c.project_id, _unfinished, free, due)
        .order_by(_is_queued, runs.c.created_at, runs.c.seq)
        .limit(param("row_limit", BigInteger()) + SPARE)
        .lateral("candidate")
    )
    order = (candidate.c.is_queued, candidate.c.created_at, candidate.c.seq)
    places = func.coalesce(_taken.c.places, 0)
    wanted = func.count(case((candidate.c.wants, 1))).over(partition_by=waiting.c.project_id, order_by=order)
    turn = func.row_number().over(partition_by=waiting.c.project_id, order_by=order)
    ranked = (
        select(
            candidate,
            waiting.c.project_id,
            (places + wanted).label("place"),
            (places + turn).label("turn"),
        )
        .select_from(waiting.join(candidate, true()).outerjoin(_taken, _taken.c.project_id == waiting.c.project_id))
        .cte("ranked")
    )
    may_take = and_(ranked.c.place <= _limit, ranked.c.project_id == any_(param("locked", ARRAY(Text))))
    return (
        select(runs.c.id)
        .join(ranked, ranked.c.id == runs.c.id)
        .where(_unfinished, free, or_(ranked.c.wants.is_(False), _limit == null(), may_take))
        .order_by(ranked.c.turn, ranked.c.created_at, ranked.c.seq)
        .limit(param("row_limit", BigInteger()))
        .with_for_update(skip_locked=True, of=runs)
    )


_LOCK_WAITING = (
    select(projects.c.id).where(projects.c.id.in_(_waiting())).with_for_update(key_share=True, skip_locked=True)
)
_LOCK = (
    select(projects.c.id)
    .where(projects.c.id == param("project_id", Text()))
    .with_for_update(key_share=True, skip_locked=True)
)
_LOCK_PROJECT = (
    select(projects.c.id).where(projects.c.id == param("project_id", Text())).with_for_update(key_share=True)
)
_ACTIVE = (
    select(func.count().label("active"))
    .select_from(runs)
    .where(runs.c.project_id == param("project_id", Text()), runs.c.status.not_in(ENDED))
)
_PLACES = (
    select(func.count().label("places"))
    .select_from(runs)
    .where(runs.c.project_id == param("project_id", Text()), runs.c.lease_token.is_not(None))
)


async def lock_waiting(tx: Connection) -> list[str]:
    """Keep others from giving away places of projects that have unfinished runs. Those for which nobody does by now."""
    return [row["id"] for row in await tx.fetch(_LOCK_WAITING)]


async def has_place(tx: Connection, project_id: str, per_project: int) -> bool:
    """Whether a run of a project may be given a place, which nobody else does before the transaction ends.

    No, where somebody else is giving one away at this moment: the run is left queued rather than made to wait.
    """
    if await tx.fetch_row(_LOCK, project_id=project_id) is None:
        return False
    row = await tx.fetch_row(_PLACES, project_id=project_id)
    return row is not None and row["places"] < per_project


async def check_active(tx: Connection, project_id: str, most: int) -> None:
    """Refuse a run where as many of its project are active, be they executed, queued, or waiting for their clients.

    In a transaction, at whose end another one may be added. Raises `RateLimited`.
    """
    await tx.fetch_row(_LOCK_PROJECT, project_id=project_id)
    row = await tx.fetch_row(_ACTIVE, project_id=project_id)
    if row and row["active"] >= most:
        raise RateLimited(
            f"Rate limit reached for project {project_id} in organization adlatus on active runs: Limit {most}, Used "
            f"{row['active']}, Requested 1. Please try again when a run has ended. Your operator sets the limit.",
            kind="requests",
            retry_s=ACTIVE_RETRY_S,
        )
