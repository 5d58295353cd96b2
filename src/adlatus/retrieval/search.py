"""Finds passages in vector stores: the one path of the search endpoint and of the tool of runs."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from adlatus.backends.vectors.filters import AllOf, AnyOf, Equal, Filter, Order, Ordered, Scalar
from adlatus.backends.vectors.protocol import Hit, Search, Space, Weights
from adlatus.resources import Resources
from adlatus.store import vector_store_files, vector_stores
from adlatus.store.db import Row
from adlatus.wire.vector_stores import ComparisonFilter, CompoundFilter

SETTLING_S = 60.0
"""How long a run waits for the files of its thread. *Source*: the guides."""
POLL_S = 0.2


@dataclass(frozen=True)
class Question:
    """What is looked for, and where. Several queries are several ways to say it: a passage counts by its best one.

    `limit` is the number of results at most; `score_threshold` is the least score, from 0 to 1. Without `weights` the
    two halves of the hybrid search are fused as measures best.
    """

    queries: Sequence[str]
    vector_store_ids: Sequence[str]
    limit: int = 10
    filter: Filter | None = None
    score_threshold: float = 0.0
    weights: Weights | None = None
    rerank: bool = True


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
    database, store_ids = resources.database, list(question.vector_store_ids)
    await vector_stores.usable(database, project_id, store_ids)
    await vector_stores.use(database, store_ids)
    found: list[Hit] = []
    for model, dimensions, late in await vector_store_files.spaces(database, store_ids):
        space = Space(model, dimensions, late)
        embedder = resources.embedder
        for query in question.queries:
            vector = None
            if embedder and embedder.name == model:
                vector = (await embedder.embed_query(query)).tolist()
            languages = await resources.index.languages(space, store_ids)
            found += await resources.index.search(
                space, Search(store_ids, query, vector, languages, question.filter, question.weights, question.limit)
            )
    best = _best_first(found)
    live = await vector_store_files.searchable(
        database, {(hit.chunk.vector_store_id, hit.chunk.file_id) for hit in best}
    )
    results = [_result(hit, row) for hit in best if (row := live.get((hit.chunk.vector_store_id, hit.chunk.file_id)))]
    return [result for result in results if result.score >= question.score_threshold][: question.limit]


def _best_first(found: Sequence[Hit]) -> list[Hit]:
    """Every passage once, by the query that found it best."""
    best: dict[tuple[str, str, int], Hit] = {}
    for hit in found:
        place = (hit.chunk.vector_store_id, hit.chunk.file_id, hit.chunk.index)
        if place not in best or hit.score > best[place].score:
            best[place] = hit
    return sorted(best.values(), key=lambda hit: -hit.score)


def _result(hit: Hit, row: Row) -> Result:
    return Result(
        row["vector_store_id"],
        row["id"],
        row["filename"],
        max(0.0, min(1.0, hit.score)),
        row["attributes"],
        hit.chunk.text,
        hit.chunk.page_from,
        hit.chunk.page_to,
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
