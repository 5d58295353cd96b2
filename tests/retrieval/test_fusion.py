"""The halves of a hybrid search are fused as the engines would do it themselves."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge

from adlatus.backends.vectors import edge_queries
from adlatus.backends.vectors.fusion import RRF_K, ScoredPoint, Scores, fused
from adlatus.backends.vectors.points import BM25, DENSE
from adlatus.backends.vectors.protocol import Space, Weights
from adlatus.backends.vectors.sparse import encode_query
from tests.retrieval.asking import chunk

SPACE = Space("tests/fusion", 8)
WORDS = [f"word{number}" for number in range(40)]


def _vector(chance: random.Random) -> list[float]:
    return [chance.gauss(0, 1) for _ in range(SPACE.dimensions)]


def _scores(half: Sequence[ScoredPoint]) -> Scores:
    return {each.id: each.score for each in half}


@pytest.mark.parametrize("weights", [None, Weights(1, 1), Weights(0.9, 0.1), Weights(2, 5)])
def test_the_engine_itself_would_fuse_so(tmp_path: Path, weights: Weights | None) -> None:
    chance = random.Random(3)
    shard = edge.EdgeShard.create(str(tmp_path), edge_queries.config(SPACE))
    chunks = [chunk("vs", n, " ".join(chance.choices(WORDS, k=12)), _vector(chance)) for n in range(300)]
    shard.update(edge.UpdateOperation.upsert_points([edge_queries.point(SPACE, each) for each in chunks]))
    asked = encode_query("word1 word5 word7", ["english"])
    halves = {
        DENSE: edge.Query.Nearest(_vector(chance), using=DENSE),
        BM25: edge.Query.Nearest(edge.SparseVector(asked.indices, asked.values), using=BM25),
    }
    fusion: Any = edge.Fusion.Dbsf()
    if weights:
        fusion = edge.Fusion.Rrf(k=RRF_K, weights=[weights.embedding, weights.text])
    prefetches = [edge.Prefetch(limit=50, query=half) for half in halves.values()]
    theirs = shard.query(edge.QueryRequest(limit=100, prefetches=prefetches, query=fusion))

    found = [shard.query(edge.QueryRequest(limit=50, query=half)) for half in halves.values()]
    meaning, words = map(_scores, found)
    ours = fused(meaning, words, weights)

    assert len(ours) == len(theirs) > 50
    assert dict(ours) == pytest.approx({each.id: each.score for each in theirs}, abs=1e-5)
    assert list(ours.values()) == sorted(ours.values(), reverse=True)
    shard.close()


@pytest.mark.parametrize(
    ("meaning", "words", "expected"),
    [
        ({}, {}, {}),
        ({"a": 0.3}, {}, {"a": 0.5}),
        ({"a": 0.3}, {"b": 7.0}, {"a": 0.5, "b": 0.5}),
        ({"a": 0.1}, {"b": 7.1, "a": 7.1, "c": 7.1}, {"a": 1.0, "b": 0.5, "c": 0.5}),
    ],
)
def test_scores_without_any_deviation_are_in_the_middle(meaning: Scores, words: Scores, expected: Scores) -> None:
    assert fused(meaning, words, None) == expected
    assert list(fused(meaning, words, None)) == list(expected)
