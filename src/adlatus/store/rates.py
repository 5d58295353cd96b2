"""How much limited projects have done lately, over all processes: one row each, two buckets that drain.

A bucket holds a minute's limit and drains at that rate all the time, as the original's did: its headers told of 5,000
requests a minute that they were reset 12 ms after one of them. So no minute begins at which twice as much gets through.
By the clock of the database alone.
"""

from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Float, Text, case, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert

from adlatus.store.db import Connection, Row, param
from adlatus.store.projects import Limits
from adlatus.store.tables import project_rates

MINUTE_S = 60.0
MOST_FULL = 2.0
"""How many minutes' tokens a bucket holds at most: what one run uses is known when it was used, and is let off then."""


@dataclass(frozen=True)
class Standing:
    """How full the buckets of a project are; a request that was let in is in it."""

    limits: Limits
    requests: float
    tokens: float

    def after(self, seconds: float) -> "Standing":
        """The same a while later, if nothing was done meanwhile."""
        return replace(
            self,
            requests=_drained(self.requests, self.limits.requests_per_minute, seconds),
            tokens=_drained(self.tokens, self.limits.tokens_per_minute, seconds),
        )

    @property
    def request_in_s(self) -> float:
        """The seconds until one more request is let in."""
        limit = self.limits.requests_per_minute
        return 0.0 if limit is None else max(0.0, (self.requests + 1 - limit) / limit * MINUTE_S)

    @property
    def tokens_in_s(self) -> float:
        """The seconds until models may be asked again."""
        limit = self.limits.tokens_per_minute
        return 0.0 if limit is None or self.tokens < limit else (self.tokens + 1 - limit) / limit * MINUTE_S


def _drained(full: float, limit: int | None, seconds: float) -> float:
    return max(0.0, full - limit * seconds / MINUTE_S) if limit else 0.0


async def take(connection: Connection, project_id: str, limits: Limits) -> Standing | None:
    """Let one request in, and tell how full the buckets are then; None where there is no room for it."""
    row = await connection.fetch_row(_TAKE, **_of(project_id, limits))
    return _standing(row, limits) if row else None


async def look(connection: Connection, project_id: str, limits: Limits) -> Standing:
    """How full the buckets are."""
    row = await connection.fetch_row(_LOOK, **_of(project_id, limits))
    return _standing(row, limits) if row else Standing(limits, 0, 0)


async def spend(connection: Connection, project_id: str, limits: Limits, tokens: int) -> None:
    """Models have used tokens."""
    await connection.fetch(_SPEND, **_of(project_id, limits), used=float(tokens))


def _of(project_id: str, limits: Limits) -> dict[str, object]:
    return {
        "project_id": project_id,
        "requests_limit": limits.requests_per_minute,
        "tokens_limit": limits.tokens_per_minute,
    }


def _standing(row: Row, limits: Limits) -> Standing:
    return Standing(limits, row["requests"], row["tokens"])


_project = param("project_id", Text())
_requests_limit, _tokens_limit = param("requests_limit", Float()), param("tokens_limit", Float())
_used = param("used", Float())
_elapsed_s = func.greatest(func.extract("epoch", func.now() - project_rates.c.at), 0).cast(Float)


def _left(column: ColumnElement[float], limit: ColumnElement[float]) -> ColumnElement[float]:
    """What has not drained yet; nothing where there is no limit to drain at."""
    return func.coalesce(func.greatest(column - limit * _elapsed_s / MINUTE_S, 0), 0)


_requests = _left(project_rates.c.requests, _requests_limit)
_tokens = _left(project_rates.c.tokens, _tokens_limit)
_one = case((_requests_limit.is_(None), literal(0.0)), else_=literal(1.0))
_now = func.greatest(project_rates.c.at, func.now())  # of two that wait for one another the later may have begun first
_TAKE = (
    insert(project_rates)
    .values(project_id=_project, requests=_one, tokens=0)
    .on_conflict_do_update(
        index_elements=["project_id"],
        set_={"requests": _requests + _one, "tokens": _tokens, "at": _now},
        where=or_(_requests_limit.is_(None), _requests + 1 <= _requests_limit),
    )
    .returning(project_rates.c.requests, project_rates.c.tokens)
)
_LOOK = select(_requests.label("requests"), _tokens.label("tokens")).where(project_rates.c.project_id == _project)
_most = _tokens_limit * MOST_FULL
_SPEND = (
    insert(project_rates)
    .values(project_id=_project, requests=0, tokens=func.least(_used, _most))
    .on_conflict_do_update(
        index_elements=["project_id"],
        set_={"requests": _requests, "tokens": func.least(_tokens + _used, _most), "at": _now},
    )
)
