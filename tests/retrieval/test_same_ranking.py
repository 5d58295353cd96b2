"""Both engines rank alike, so that what is measured and calibrated on one holds for the other."""

import random
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.filters import Order, Ordered
from adlatus.backends.vectors.protocol import Search, Space, Weights
from adlatus.backends.vectors.qdrant import QdrantIndex
from tests.conftest import Loop
from tests.retrieval.asking import chunk

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

SPACE = Space("tests/ranking", 8)
WORDS = [f"word{number}" for number in range(15)]


def _vector(chance: random.Random) -> list[float]:
    return [chance.gauss(0, 1) for _ in range(SPACE.dimensions)]


def test_hits_and_scores_are_the_same_on_both_engines(loop: Loop, tmp_path: Path) -> None:
    chance = random.Random(7)
    chunks = [
        chunk(f"vs_{n % 2}", n, " ".join(chance.choices(WORDS, k=12)), _vector(chance), attributes={"n": n})
        for n in range(200)
    ]
    searches = [  # with all as candidates: who of equals is the last of them is for each engine to say
        Search(stores, " ".join(chance.sample(WORDS, 3)), vector, filter=wanted, candidates=200, limit=5)
        for stores in (["vs_0"], ["vs_0", "vs_1"])
        for vector in (None, _vector(chance), _vector(chance))
        for wanted in (None, Ordered("n", Order.LT, 120))
    ]

    async def compare() -> None:
        client = AsyncQdrantClient(":memory:")
        async with open_edge(tmp_path) as embedded:
            server = QdrantIndex(client, "memory")
            for index in (embedded, server):
                await index.upsert(SPACE, chunks)
            for search in searches:
                ours, theirs = await embedded.search(SPACE, search), await server.search(SPACE, search)
                assert len(ours) == len(theirs) == 5
                for field in ("score", "cosine", "bm25"):
                    assert [getattr(hit, field) for hit in ours] == pytest.approx(
                        [getattr(hit, field) for hit in theirs], abs=1e-3
                    )
                assert {hit.chunk.index for hit in ours} == {hit.chunk.index for hit in theirs}
        await client.close()

    loop.run(compare())


def test_weights_rank_alike(loop: Loop, tmp_path: Path) -> None:
    """By the best only: of equals in one half it is for each engine to say who has the better rank."""
    chance = random.Random(11)
    chunks = [chunk("vs_0", n, " ".join(chance.choices(WORDS, k=12)), _vector(chance)) for n in range(60)]
    search = Search(["vs_0"], "word1 word5 word7", _vector(chance), weights=Weights(0.9, 0.1), limit=1)

    async def first() -> set[int]:
        client = AsyncQdrantClient(":memory:")
        best = set()
        async with open_edge(tmp_path) as embedded:
            for index in (embedded, QdrantIndex(client, "memory")):
                await index.upsert(SPACE, chunks)
                best |= {hit.chunk.index for hit in await index.search(SPACE, search)}
        await client.close()
        return best

    assert len(loop.run(first())) == 1
