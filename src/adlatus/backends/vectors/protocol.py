"""What a vector index does, and the values that go in and out. Knows no engine, no database and no wire object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from re import sub
from typing import Protocol

from adlatus.backends.vectors.filters import Filter, Scalar

Vector = Sequence[float]

PREFIX = "adlatus-"
"""How the names of all collections begin: a Qdrant server may hold those of others too."""

FORMAT = 2
"""What is kept of a chunk; another format has other collections, and files are indexed again for it."""


@dataclass(frozen=True)
class Space:
    """The vectors that can be compared with one another: those of one model in one number of dimensions.

    No dimensions: chunks without vectors, found by their words only. With late interaction a chunk has several
    vectors, and the one nearest to the query's counts.
    """

    model: str
    dimensions: int
    late_interaction: bool = False

    @property
    def collection(self) -> str:
        """The name of its collection, the same in every process."""
        told = f"{self.model} {self.dimensions} {self.late_interaction} {FORMAT}"
        slug = sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")[:40] or "keywords"
        return f"{PREFIX}{slug}-{self.dimensions}-{sha256(told.encode(errors='replace')).hexdigest()[:8]}"


@dataclass(frozen=True)
class Chunk:
    """One window of a file in a vector store. Ranges end exclusively; pages count from 1, both ends included.

    `language` is that of the whole file: a window that is told wrongly answers to words that all others leave out.
    """

    vector_store_id: str
    file_id: str
    index: int
    text: str
    language: str
    char_from: int
    char_to: int
    page_from: int | None = None
    page_to: int | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    vectors: Sequence[
        Vector
    ] = ()  # one, several with late interaction, none while embeddings are absent; not read back


@dataclass(frozen=True)
class Weights:
    """How much the two halves of a hybrid search count; not negative, and not both 0."""

    embedding: float
    text: float


@dataclass(frozen=True)
class Search:
    """One query. Without a vector it goes by the words of `text` only.

    `languages` are those of the files searched (`VectorIndex.languages`): a query is too short to tell its own.
    Without weights the halves are fused by their scores (DBSF), with weights by their ranks (weighted RRF).
    """

    vector_store_ids: Sequence[str]
    text: str
    vector: Vector | None = None
    languages: frozenset[str] = frozenset()
    filter: Filter | None = None
    weights: Weights | None = None
    limit: int = 20
    candidates: int = 50  # of each half, before they are fused


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, with raw scores.

    `score` is the one that orders the hits; its scale depends on the fusion. `cosine` and `bm25` are those of the two
    halves, `None` where the chunk is not among the candidates of that half.
    """

    chunk: Chunk
    score: float
    cosine: float | None
    bm25: float | None


class VectorIndex(Protocol):
    """Chunks by vector store and file. All writes are idempotent, and durable once they return.

    Every method raises `Unavailable` where the engine does not answer; nothing is ever taken for an empty answer.
    """

    async def ping(self) -> None:
        """Return if the engine answers."""

    async def ensure(self, space: Space) -> None:
        """Make the collection of a space unless it is there. All methods that take a space do so by themselves."""

    async def upsert(self, space: Space, chunks: Sequence[Chunk]) -> None:
        """Add chunks, or replace those of the same store, file and index.

        Raises `ValueError`, with nothing written, where vectors do not fit the space.
        """

    async def delete(self, vector_store_id: str, file_id: str | None = None) -> None:
        """Remove what a store holds of a file, or all that it holds, from all spaces."""

    async def set_attributes(self, vector_store_id: str, file_id: str, attributes: Mapping[str, Scalar]) -> None:
        """Replace the attributes of a file in a store, in all spaces."""

    async def count(self, space: Space, vector_store_id: str, file_id: str | None = None) -> int:
        """How many chunks a store holds, of one file or of all."""

    async def chunks(self, space: Space, vector_store_id: str, file_id: str, start: int, limit: int) -> list[Chunk]:
        """The chunks of a file from index `start` to before `start + limit`, in order; those missing are left out."""

    async def languages(self, space: Space, vector_store_ids: Sequence[str]) -> frozenset[str]:
        """The languages of the chunks of some stores."""

    async def search(self, space: Space, search: Search) -> list[Hit]:
        """The best hits, best first."""

    async def optimize(self) -> None:
        """Let the engine build what it searches faster by. Can take minutes of CPU: for idle times."""
