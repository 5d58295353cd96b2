"""A vector index as synchronous tests ask it, and chunks to ask about."""

from collections.abc import Mapping, Sequence
from uuid import uuid4

from adlatus.backends.vectors.filters import Filter, Scalar
from adlatus.backends.vectors.protocol import Chunk, Hit, Search, Space, Vector, VectorIndex, Weights
from tests.conftest import Loop

SPACE = Space("tests/model", 3)
SEVERAL = Space("tests/model", 3, late_interaction=True)
WORDS = Space("", 0)


def chunk(
    store: str,
    index: int = 0,
    text: str = "text",
    *vectors: Vector,
    file: str = "file-a",
    language: str = "english",
    attributes: Mapping[str, Scalar] | None = None,
) -> Chunk:
    """A chunk of a file; what is not said does not matter."""
    return Chunk(store, file, index, text, language, 0, len(text), attributes=attributes or {}, vectors=vectors)


class Asking:
    """The methods of an index, each waited for."""

    def __init__(self, loop: Loop, index: VectorIndex) -> None:
        self.loop = loop
        self.index = index
        self._stores: list[str] = []

    def store(self) -> str:
        """The id of a store that nobody has used."""
        self._stores.append(f"vs_{uuid4().hex}")
        return self._stores[-1]

    def forget(self) -> None:
        """Remove all stores."""
        while self._stores:
            self.delete(self._stores.pop())

    def upsert(self, *chunks: Chunk, space: Space = SPACE) -> None:
        self.loop.run(self.index.upsert(space, chunks))

    def delete(self, store: str, file: str | None = None) -> None:
        self.loop.run(self.index.delete(store, file))

    def set_attributes(self, store: str, file: str, attributes: Mapping[str, Scalar]) -> None:
        self.loop.run(self.index.set_attributes(store, file, attributes))

    def count(self, store: str, file: str | None = None, space: Space = SPACE) -> int:
        return self.loop.run(self.index.count(space, store, file))

    def chunks(self, store: str, file: str = "file-a", start: int = 0, limit: int = 10) -> list[Chunk]:
        return self.loop.run(self.index.chunks(SPACE, store, file, start, limit))

    def languages(self, *stores: str) -> frozenset[str]:
        return self.loop.run(self.index.languages(SPACE, stores))

    def search(
        self,
        stores: str | Sequence[str],
        text: str = "",
        vector: Vector | None = None,
        *,
        filter: Filter | None = None,
        weights: Weights | None = None,
        languages: frozenset[str] = frozenset(),
        limit: int = 20,
        candidates: int = 50,
        space: Space = SPACE,
    ) -> list[Hit]:
        named = [stores] if isinstance(stores, str) else stores
        search = Search(named, text, vector, languages, filter, weights, limit, candidates)
        return self.loop.run(self.index.search(space, search))

    def found(
        self, stores: str | Sequence[str], text: str = "", vector: Vector | None = None, **how: object
    ) -> list[int]:
        """The indexes of the chunks found, best first."""
        return [hit.chunk.index for hit in self.search(stores, text, vector, **how)]  # type: ignore[arg-type]
