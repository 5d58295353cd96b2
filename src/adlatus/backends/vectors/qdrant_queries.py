"""What is asked of a Qdrant server, in its client's classes: the schema of a collection, points, filters, queries."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from adlatus.backends.vectors import points
from adlatus.backends.vectors.filters import Order, compiled
from adlatus.backends.vectors.fusion import Ranking
from adlatus.backends.vectors.points import BM25, BM25_OF_STORE, DENSE
from adlatus.backends.vectors.protocol import Chunk, Hit, Search, Space

Condition = models.FieldCondition | models.Filter
_Part = tuple[str, models.NearestQuery, models.SearchParams | None]


class QdrantDialect:
    """Filters in the client's classes."""

    def all_of(self, conditions: list[Condition]) -> Condition:
        """`must`."""
        return models.Filter(must=[*conditions])

    def any_of(self, conditions: list[Condition]) -> Condition:
        """`should`."""
        return models.Filter(should=[*conditions])

    def not_(self, condition: Condition) -> Condition:
        """`must_not`, which unlike `MatchExcept` keeps points without the field."""
        return models.Filter(must_not=[condition])

    def one_of(self, field: str, values: list[str]) -> Condition:
        """Strings only, as in the other engine."""
        return models.FieldCondition(key=field, match=models.MatchAny(any=values))

    def ordered(self, field: str, order: Order, bound: float) -> Condition:
        """A range that is open on one side."""
        return models.FieldCondition(key=field, range=models.Range(**{order.value: bound}))


DIALECT = QdrantDialect()


def of_stores(vector_store_ids: Sequence[str]) -> models.Filter:
    """All chunks of some stores."""
    return models.Filter(must=[DIALECT.one_of("vector_store_id", list(vector_store_ids))])


def belonging(vector_store_id: str, file_id: str | None) -> models.Filter:
    """All chunks of a store, or of a file in it."""
    of_file = [] if file_id is None else [DIALECT.one_of("file_id", [file_id])]
    return models.Filter(must=[DIALECT.one_of("vector_store_id", [vector_store_id]), *of_file])


def vectors(space: Space) -> tuple[dict[str, models.VectorParams], dict[str, models.SparseVectorParams]]:
    """The dense and the sparse vectors of a collection."""
    multi = (
        models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM) if space.late_interaction else None
    )
    dense = models.VectorParams(size=space.dimensions or 1, distance=models.Distance.COSINE, multivector_config=multi)
    words = {name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in (BM25, BM25_OF_STORE)}
    return {DENSE: dense} if space.dimensions else {}, words


def schema() -> dict[str, Any]:
    """The indexed fields of a collection."""
    tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    return {"vector_store_id": tenant, **dict.fromkeys(points.KEYWORD_FIELDS, models.PayloadSchemaType.KEYWORD)}


def point(space: Space, chunk: Chunk) -> models.PointStruct:
    """A chunk as a point."""
    named: dict[str, Any] = {}
    if chunk.vectors:
        named[DENSE] = points.vector_of(space, chunk.vectors)
    for name, words in points.sparse_of(chunk).items():
        named[name] = models.SparseVector(indices=words.indices, values=words.values)
    return models.PointStruct(id=points.id_of(chunk), vector=named, payload=points.payload_of(chunk))


async def hybrid(client: AsyncQdrantClient, space: Space, search: Search) -> list[Hit]:
    """The hits of a search: both halves in one request, then the texts of the best."""
    vector, words = points.halves(space, search)
    stores = of_stores(search.vector_store_ids)
    parts: dict[str, _Part] = {}
    if vector is not None:
        parts[DENSE] = DENSE, models.NearestQuery(nearest=vector), None
    if words is not None:
        using, asked = points.words_in(search, words)
        sparse = models.SparseVector(indices=asked.indices, values=asked.values)
        of_tenant = models.SearchParams(idf=models.IdfCorpusParams(corpus=stores))
        parts[BM25] = using, models.NearestQuery(nearest=sparse), of_tenant
    if not parts:
        return []
    wanted = stores if search.filter is None else models.Filter(must=[stores, compiled(search.filter, DIALECT)])
    limit = points.to_find(search, len(parts))
    requests = [
        models.QueryRequest(query=query, using=using, filter=wanted, params=params, limit=limit, with_payload=False)
        for using, query, params in parts.values()
    ]
    answers = await client.query_batch_points(space.collection, requests)
    ranking = Ranking.of(search, dict(zip(parts, (answer.points for answer in answers), strict=True)))
    return ranking.hits(await client.retrieve(space.collection, ranking.ids, with_payload=True))
