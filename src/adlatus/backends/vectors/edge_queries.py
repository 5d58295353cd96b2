"""What is asked of Qdrant Edge, in its own classes: the schema of a shard, points, filters, the hybrid query."""

from collections.abc import Sequence
from typing import Any

import qdrant_edge as edge

from adlatus.backends.vectors import points
from adlatus.backends.vectors.filters import Order, compiled
from adlatus.backends.vectors.fusion import Ranking
from adlatus.backends.vectors.points import BM25, BM25_OF_STORE, DENSE
from adlatus.backends.vectors.protocol import Chunk, Hit, Search, Space

Condition = edge.FieldCondition | edge.Filter
_Part = tuple[edge.Query, edge.SearchParams | None]


class EdgeDialect:
    """Filters in the classes of Qdrant Edge."""

    def all_of(self, conditions: list[Condition]) -> Condition:
        """`must`."""
        return edge.Filter(must=[*conditions])

    def any_of(self, conditions: list[Condition]) -> Condition:
        """`should`."""
        return edge.Filter(should=[*conditions])

    def not_(self, condition: Condition) -> Condition:
        """`must_not`, which unlike `MatchExcept` keeps points without the field."""
        return edge.Filter(must_not=[condition])

    def one_of(self, field: str, values: list[str]) -> Condition:
        """Strings only: the engine would take a boolean for a number. A single one is checked faster than a list."""
        return edge.FieldCondition(field, match=edge.MatchValue(*values) if len(values) == 1 else edge.MatchAny(values))

    def ordered(self, field: str, order: Order, bound: float) -> Condition:
        """A range that is open on one side."""
        return edge.FieldCondition(field, range=edge.RangeFloat(**{order.value: bound}))


DIALECT = EdgeDialect()


def of_stores(vector_store_ids: Sequence[str]) -> edge.Filter:
    """All chunks of some stores."""
    return edge.Filter(must=[DIALECT.one_of("vector_store_id", list(vector_store_ids))])


def belonging(vector_store_id: str, file_id: str | None) -> edge.Filter:
    """All chunks of a store, or of a file in it."""
    of_file = [] if file_id is None else [DIALECT.one_of("file_id", [file_id])]
    return edge.Filter(must=[DIALECT.one_of("vector_store_id", [vector_store_id]), *of_file])


def config(space: Space) -> edge.EdgeConfig:
    """The vectors of a shard."""
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if space.late_interaction else None
    dense = edge.EdgeVectorParams(space.dimensions, edge.Distance.Cosine, multivector_config=multi)
    return edge.EdgeConfig(
        vectors={DENSE: dense} if space.dimensions else None,
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf) for name in (BM25, BM25_OF_STORE)
        },
        hnsw_config=edge.HnswIndexConfig(
            m=points.HNSW_M, ef_construct=100, full_scan_threshold=10_000, payload_m=points.HNSW_PAYLOAD_M
        ),
    )


def schema() -> dict[str, Any]:
    """The indexed fields of a shard."""
    keywords = dict.fromkeys(points.KEYWORD_FIELDS, edge.PayloadSchemaType.Keyword)
    return {"vector_store_id": edge.KeywordIndexParams(is_tenant=True), **keywords}


def point(space: Space, chunk: Chunk) -> edge.Point:
    """A chunk as a point."""
    vectors: dict[str, Any] = {}
    if chunk.vectors:
        vectors[DENSE] = points.vector_of(space, chunk.vectors)
    for name, words in points.sparse_of(chunk).items():
        vectors[name] = edge.SparseVector(words.indices, words.values)
    return edge.Point(points.id_of(chunk), vectors, points.payload_of(chunk))


def hybrid(shard: edge.EdgeShard, space: Space, search: Search) -> list[Hit]:
    """The hits of a search: both halves in one batch, which the engine plans as one, then the texts of the best."""
    vector, words = points.halves(space, search)
    stores = of_stores(search.vector_store_ids)
    parts: dict[str, _Part] = {}
    if vector is not None:
        parts[DENSE] = edge.Query.Nearest(vector, using=DENSE), None
    if words is not None:
        of_tenant = edge.SearchParams(idf=edge.IdfParams(corpus=stores))
        using, asked = points.words_in(search, words)
        parts[BM25] = edge.Query.Nearest(edge.SparseVector(asked.indices, asked.values), using=using), of_tenant
    if not parts:
        return []
    wanted = stores if search.filter is None else edge.Filter(must=[stores, compiled(search.filter, DIALECT)])
    limit = points.to_find(search, len(parts))
    requests = [
        edge.QueryRequest(limit=limit, query=query, filter=wanted, params=params, with_payload=False)
        for query, params in parts.values()
    ]
    found = shard.query_batch(edge.QueryBatchRequest(requests))
    ranking = Ranking.of(search, dict(zip(parts, found, strict=True)))
    return ranking.hits(shard.retrieve([*ranking.ids], with_payload=True, with_vector=False))
