"""Finds passages in vector stores: the one path of the search endpoint and of the tool of runs."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from time import monotonic

from adlatus.backends.refusals import ModelError
from adlatus.backends.vectors.filters import AllOf, AnyOf, Equal, Filter, Order, Ordered, Scalar
from adlatus.backends.vectors.protocol import Space
from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.retrieval.merging import Ranked
from adlatus.retrieval.ranking import Place, Question, SpaceToSearch, find
from adlatus.store import vector_store_files, vector_stores
from adlatus.store.db import Row
from adlatus.telemetry.tracing import NO_SPAN, Attributes
from adlatus.wire.vector_stores import ComparisonFilter, CompoundFilter

SETTLING_S = 60.0
"""How long a run waits for the files of its thread. *Source*: the guides."""
POLL_S = 0.2


@dataclass(frozen=True)
class Result:
    """A passage that was found. Pages count from 1, both ends included; None where the file has none."""

    vector_store_id: str
    file_id: str
    filename: str
    score: float
    attributes: Mapping[str, Scalar]
    text: str
    page_from: int | None
    page_to: int | None


async def search(resources: Resources, project_id: str, question: Question) -> list[Result]:
    """The best passages, best first. The stores count as used now.

    Raises `NotFound` and `InvalidRequest` for stores that are not there or have expired, `Unavailable` where the index
    does not answer, `ModelError` where the embedding model does not.
    """
    begun, took = monotonic(), resources.metrics.search_seconds
    with resources.tracing.span("search", _described(question)) if resources.tracing else NO_SPAN as span:
        try:
            found = await _search(resources, project_id, question)
        except (Unavailable, ModelError):
            took.labels("failed").observe(monotonic() - begun)
            raise
        span.set({"adlatus.results": len(found)})
    took.labels("done").observe(monotonic() - begun)
    return found


def _described(question: Question) -> Attributes:
    return {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": ",".join(question.vector_store_ids),
        "adlatus.queries": len(question.queries),
    }


async def _search(resources: Resources, project_id: str, question: Question) -> list[Result]:
    database, store_ids = resources.database, list(question.vector_store_ids)
    await vector_stores.usable(database, project_id, store_ids)
    await vector_stores.use(database, store_ids)
    rows: dict[Place, Row] = {}

    async def live(places: Collection[Place]) -> Collection[Place]:
        found = await vector_store_files.searchable(database, places)
        rows.update(found)
        return found.keys()

    spaces = [_to_search(resources, Space(*space)) for space in await vector_store_files.spaces(database, store_ids)]
    found = await find(resources.index, spaces, question, live, resources.reranker)
    return [_result(each, rows[each.vector_store_id, each.file_id]) for each in found]


def _to_search(resources: Resources, space: Space) -> SpaceToSearch:
    """A space with the model that it is of, if this process has that one."""
    embedder = resources.embedder
    return SpaceToSearch(space, embedder if embedder and embedder.name == space.model else None)


def _result(found: Ranked, row: Row) -> Result:
    return Result(
        found.vector_store_id,
        row["id"],
        row["filename"],
        found.score,
        row["attributes"],
        found.text,
        found.page_from,
        found.page_to,
    )


async def thread_files_settled(resources: Resources, project_id: str, vector_store_ids: Collection[str]) -> bool:
    """Wait until no file of some stores is in progress, for a minute at most; whether that is so."""
    await vector_stores.usable(resources.database, project_id, list(vector_store_ids))
    give_up_at = monotonic() + SETTLING_S
    while not await vector_store_files.settled(resources.database, list(vector_store_ids)):
        if monotonic() >= give_up_at:
            return False
        await asyncio.sleep(POLL_S)
    return True


def filter_of(wanted: ComparisonFilter | CompoundFilter) -> Filter:
    """A filter of a request as the index takes it."""
    if isinstance(wanted, CompoundFilter):
        inner = [filter_of(each) for each in wanted.filters]
        return AllOf(inner) if wanted.type == "and" else AnyOf(inner)
    match wanted.type:
        case "gt" | "gte" | "lt" | "lte":
            assert not isinstance(wanted.value, list), "checked where it came in"
            return Ordered(wanted.key, Order(wanted.type), wanted.value)
        case _:
            values = wanted.value if isinstance(wanted.value, list) else [wanted.value]
            return Equal(wanted.key, values, negated=wanted.type in ("ne", "nin"))
