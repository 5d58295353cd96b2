"""The best passages for a question: the searches of all its queries in all spaces, made one list of scored passages.

1. Each query is embedded once per model, and searched once per space, all at the same time.
2. What the caller says is gone is left out; if that leaves too few, more is asked for, once.
3. Hits get scores from 0 to 1 (`calibration`), or those of a reranker.
4. A chunk counts by its best query. What is below the threshold is left out.
5. Hits that overlap become one passage (`merging`), and the best are returned.

Knows no database: who calls it says what still exists.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from adlatus.backends.embeddings import Embedder
from adlatus.backends.refusals import ModelError
from adlatus.backends.rerank import Reranker
from adlatus.backends.vectors.filters import Filter
from adlatus.backends.vectors.protocol import Chunk, Hit, Search, Space, VectorIndex, Weights
from adlatus.retrieval.calibration import Scale, scale_of, scores
from adlatus.retrieval.merging import Ranked, merged, passage

log = structlog.get_logger(__name__)

CANDIDATES = 40
"""Chunks that are scored per query, at least: more take longer and find nothing more."""

OF_EACH_HALF = 60
"""Candidates of each half of the search. 150 find hardly more, and cost the engine a third more time."""

WINDOWS_PER_PASSAGE = 2
"""So many chunks become one passage, in a file that is found throughout."""

MORE = 4
"""How many times as many are asked for when too few still exist."""

RERANKED = 30
"""Chunks per query that a reranker reads, at least: it is slow."""

Place = tuple[str, str]
"""The ids of a vector store and of a file in it."""

Live = Callable[[Collection[Place]], Awaitable[Collection[Place]]]
"""Which of these files still are in these stores: the index may hold more, until they are swept."""


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
class SpaceToSearch:
    """A space, and the model whose vectors it holds; None where that model is not there: then by words only."""

    space: Space
    embedder: Embedder | None


@dataclass(frozen=True)
class Scored:
    """A chunk with its score for one query, from 0 to 1."""

    chunk: Chunk
    score: float


async def find(
    index: VectorIndex, spaces: Sequence[SpaceToSearch], question: Question, live: Live, reranker: Reranker | None
) -> list[Ranked]:
    """The best passages, best first, their scores in the same order.

    A query without any text finds nothing. Raises `Unavailable` where the index does not answer, `ModelError` where an
    embedding model does not; a reranker that does not is done without.
    """
    scored = await rank(index, spaces, question, live, reranker)
    passages = [passage(each.chunk, each.score) for each in scored if each.score >= question.score_threshold]
    return merged(passages)[: question.limit]


async def rank(
    index: VectorIndex, spaces: Sequence[SpaceToSearch], question: Question, live: Live, reranker: Reranker | None
) -> list[Scored]:
    """The chunks that `find` makes passages of, best first: each one once, whatever its score."""
    try:
        asked = await _asked(index, spaces, question)
        asked = await _searched_alive(index, asked, question, live)
        answers: list[Scored] | None = None
        if reranker is not None and question.rerank:
            answers = await _reranked(reranker, asked, question)
        return _best(answers if answers is not None else await asyncio.to_thread(_calibrated, asked))
    except ExceptionGroup as failed:  # not `except*`, out of which Python 3.11.2 lets groups only
        raise _first(failed) from None


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    first = failed.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


# --- Searching


@dataclass(frozen=True)
class _Asked:
    """A query in a space, and what was found, in the order of the index. No scale: it goes by words only."""

    space: Space
    search: Search
    scale: Scale | None
    hits: Sequence[Hit] = ()


async def _asked(index: VectorIndex, spaces: Sequence[SpaceToSearch], question: Question) -> list[_Asked]:
    queries = list(dict.fromkeys(query for query in question.queries if query.strip()))
    if not queries or not question.vector_store_ids or question.limit < 1:
        return []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_asked_of(index, each, queries, question)) for each in spaces]
    return [asked for task in tasks for asked in task.result()]


async def _asked_of(
    index: VectorIndex, to_search: SpaceToSearch, queries: Sequence[str], question: Question
) -> list[_Asked]:
    space, weights = to_search.space, question.weights
    by_words_only = not space.dimensions or (weights is not None and weights.embedding == 0)
    embedder = None if by_words_only else to_search.embedder
    async with asyncio.TaskGroup() as group:
        languages = group.create_task(index.languages(space, question.vector_store_ids))
        scale = group.create_task(scale_of(embedder)) if embedder else None
        vectors = [group.create_task(embedder.embed_query(query)) for query in queries] if embedder else []
    plain = Search(question.vector_store_ids, "", languages=languages.result(), filter=question.filter, weights=weights)
    if embedder is None or scale is None:
        return [_Asked(space, replace(plain, text=query, weights=None), None) for query in queries]
    return [
        _Asked(space, replace(plain, text=query, vector=vector.result().tolist()), scale.result())
        for query, vector in zip(queries, vectors, strict=True)
    ]


async def _searched_alive(index: VectorIndex, asked: Sequence[_Asked], question: Question, live: Live) -> list[_Asked]:
    """The hits of files that still exist."""
    wanted = question.limit * WINDOWS_PER_PASSAGE
    limit = max(CANDIDATES, wanted)
    found = await _searched(index, asked, limit)
    alive = await _alive(found, live)
    too_few = any(len(kept.hits) < min(wanted, len(all_.hits)) for kept, all_ in zip(alive, found, strict=True))
    if too_few and any(len(each.hits) >= limit for each in found):
        log.info("much of what was found is of deleted files, asking for more", limit=limit * MORE)
        alive = await _alive(await _searched(index, asked, limit * MORE), live)
    return alive


async def _searched(index: VectorIndex, asked: Sequence[_Asked], limit: int) -> list[_Asked]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(index.search(each.space, replace(each.search, limit=limit, candidates=OF_EACH_HALF)))
            for each in asked
        ]
    return [replace(each, hits=task.result()) for each, task in zip(asked, tasks, strict=True)]


async def _alive(found: Sequence[_Asked], live: Live) -> list[_Asked]:
    places = {_place(hit.chunk) for each in found for hit in each.hits}
    alive = set(await live(places)) if places else set()
    return [replace(each, hits=[hit for hit in each.hits if _place(hit.chunk) in alive]) for each in found]


def _place(chunk: Chunk) -> Place:
    return chunk.vector_store_id, chunk.file_id


# --- Scores


def _calibrated(asked: Sequence[_Asked]) -> list[Scored]:
    return [scored for each in asked for scored in _calibrated_one(each)]


def _calibrated_one(asked: _Asked) -> list[Scored]:
    found = scores(asked.search.text, asked.hits, asked.scale, asked.search.weights)
    return [Scored(hit.chunk, score) for hit, score in zip(asked.hits, found, strict=True)]


async def _reranked(reranker: Reranker, asked: Sequence[_Asked], question: Question) -> list[Scored] | None:
    """What the reranker says of the best of each query, None where it does not answer."""
    count = max(RERANKED, question.limit)
    by_query: dict[str, list[Scored]] = {}
    for each in asked:
        by_query.setdefault(each.search.text, []).extend(await asyncio.to_thread(_calibrated_one, each))
    chosen = {query: [scored.chunk for scored in _best(found)[:count]] for query, found in by_query.items()}
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                (chunks, group.create_task(reranker.scores(query, [chunk.text for chunk in chunks])))
                for query, chunks in chosen.items()
                if chunks
            ]
    except ExceptionGroup as failed:
        error = _first(failed)
        if not isinstance(error, ModelError):
            raise
        log.warning("search goes on without reranking", error=str(error))
        return None
    return [Scored(chunk, score) for chunks, task in tasks for chunk, score in zip(chunks, task.result(), strict=True)]


def _best(scored: Iterable[Scored]) -> list[Scored]:
    """Each chunk once, by its best score; best first, and of equals whoever came first."""
    best: dict[tuple[str, str, int], Scored] = {}
    for each in scored:
        key = (*_place(each.chunk), each.chunk.index)
        if key not in best or best[key].score < each.score:
            best[key] = each
    return sorted(best.values(), key=lambda each: -each.score)
