"""Chunks as points of an engine and back: ids, payloads, sizes. Both engines store the same."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from adlatus.backends.vectors.filters import NUMBERS, TERMS, Scalar, check_depth, number_fields, searchable
from adlatus.backends.vectors.protocol import Chunk, Search, Space, Vector
from adlatus.backends.vectors.sparse import Sparse, encodable, encode_document, encode_query, of_store

DENSE = "dense"
BM25 = "bm25"
BM25_OF_STORE = "bm25-of-store"
"""The words once more, by hashes of the store's own: a search in one store reads lists as long as the store alone.

Words of several stores need the others: a word's rarity is that in all of them together. Vectors of two names, because
in one the two kinds of hashes could meet within a store.
"""
HNSW_M = 0  # no graph over all tenants: every search is within a store,
HNSW_PAYLOAD_M = 16  # and each store has its own
MAX_LANGUAGES = 64
MAX_NUMBER_INDEXES = 32
MAX_NEW_INDEXES = 2
"""How many keys of numbers are indexed, at most, in a collection and for one search: clients choose the keys, and each
index takes the engine its time. All other numbers are compared one by one, with the same answer."""


KEYWORD_FIELDS = ("file_id", "language", TERMS)
"""What is indexed from the beginning, beside the tenant's `vector_store_id`."""

_NAMESPACE = UUID("9d0f1a4e-6f0c-4f0e-8f53-3c2f6f1f8a55")
_BATCH_BYTES = 2_000_000  # the client makes its JSON in the event loop; a server takes up to 32 MB
_FLOAT_BYTES = 20  # as JSON


def point_id(vector_store_id: str, file_id: str, index: int) -> str:
    """The id of a chunk's point: the same whoever writes it, so that writing it again replaces it."""
    return str(uuid5(_NAMESPACE, f"{vector_store_id} {file_id} {index}"))


def id_of(chunk: Chunk) -> str:
    """The id of this chunk's point."""
    return point_id(chunk.vector_store_id, chunk.file_id, chunk.index)


def payload_of(chunk: Chunk) -> dict[str, Any]:
    """Everything but the vectors."""
    return {
        "vector_store_id": chunk.vector_store_id,
        "file_id": chunk.file_id,
        "chunk_index": chunk.index,
        "language": chunk.language,
        "char_from": chunk.char_from,
        "char_to": chunk.char_to,
        "page_from": chunk.page_from,
        "page_to": chunk.page_to,
        "text": encodable(chunk.text),
        **attributes_payload(chunk.attributes),
    }


def attributes_payload(attributes: Mapping[str, Scalar]) -> dict[str, Any]:
    """The attributes as they were given, in JSON because engines hold fewer numbers, and what filters look at."""
    return {"attributes": json.dumps(dict(attributes)), **searchable(attributes)}


def chunk_of(payload: Mapping[str, Any] | None) -> Chunk:
    """The chunk of a stored payload, without its vectors."""
    assert payload is not None, "asked for with it"
    return Chunk(
        vector_store_id=payload["vector_store_id"],
        file_id=payload["file_id"],
        index=payload["chunk_index"],
        text=payload["text"],
        language=payload["language"],
        char_from=payload["char_from"],
        char_to=payload["char_to"],
        page_from=payload["page_from"],
        page_to=payload["page_to"],
        attributes=json.loads(payload["attributes"]),
    )


def sparse_of(chunk: Chunk) -> dict[str, Sparse]:
    """The words of a chunk by the names of its sparse vectors; none where it has no word that tells anything."""
    words = encode_document(chunk.text, chunk.language)
    return {BM25: words, BM25_OF_STORE: of_store(words, chunk.vector_store_id)} if words.indices else {}


def check(space: Space, chunks: Sequence[Chunk]) -> None:
    """Raise `ValueError` where vectors do not fit the space: engines find it out in the middle of a batch, or not."""
    for chunk in chunks:
        if len(chunk.vectors) > 1 and not space.late_interaction:
            raise ValueError(f"{len(chunk.vectors)} vectors for one chunk, but no late interaction")
        for vector in chunk.vectors:
            _check(space, vector)


def check_search(space: Space, search: Search) -> None:
    """Raise `ValueError` where the vector does not fit the space, or the filter is nested too deeply."""
    if search.vector is not None:
        _check(space, search.vector)
    if search.filter is not None:
        check_depth(search.filter)


def _check(space: Space, vector: Vector) -> None:
    if len(vector) != space.dimensions or not space.dimensions:
        raise ValueError(f"a vector of {len(vector)} dimensions where {space.dimensions} are expected")
    if not math.isfinite(sum(vector)):
        raise ValueError("a vector with a number that is not finite")


def batches(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """The chunks in portions that an engine takes at once."""
    batch: list[Chunk] = []
    size_bytes = 0
    for chunk in chunks:
        size = sum(map(len, chunk.vectors)) * _FLOAT_BYTES + 4 * len(chunk.text)
        if batch and size_bytes + size > _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(chunk)
        size_bytes += size
    if batch:
        yield batch


def halves(space: Space, search: Search) -> tuple[list[float] | list[list[float]] | None, Sparse | None]:
    """What to look for by vector and by words, as far as it is given, tells anything and has a weight."""
    weights = search.weights
    vector = None
    if search.vector is not None and (weights is None or weights.embedding > 0):
        vector = vector_of(space, [search.vector])
    words = encode_query(search.text, search.languages) if weights is None or weights.text > 0 else None
    return vector, words if words and words.indices else None


def words_in(search: Search, words: Sparse) -> tuple[str, Sparse]:
    """The sparse vector that a search asks, and what for."""
    stores = set(search.vector_store_ids)
    return (BM25_OF_STORE, of_store(words, *stores)) if len(stores) == 1 else (BM25, words)


def vector_of(space: Space, vectors: Sequence[Vector]) -> list[float] | list[list[float]]:
    """The vectors of a chunk or of a query in the shape that the space wants."""
    rows = [list(vector) for vector in vectors]
    return rows if space.late_interaction else rows[0]


def to_index(search: Search, there: Iterable[str]) -> list[str]:
    """The fields of numbers that should be indexed for a search, where those of `there` are."""
    indexed = {field for field in there if field.startswith(f"{NUMBERS}.")}
    wanted = set(number_fields(search.filter)) if search.filter is not None else set()
    free = MAX_NUMBER_INDEXES - len(indexed)
    return sorted(wanted - indexed)[: max(0, min(free, MAX_NEW_INDEXES))]


def to_find(search: Search, halves: int) -> int:
    """How many chunks to ask each half for: those to be fused, or those to be returned where there is only one."""
    return max(search.candidates, search.limit) if halves > 1 else search.limit
