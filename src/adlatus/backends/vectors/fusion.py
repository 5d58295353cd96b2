"""Makes one order of the halves of a hybrid search, and hits of it.

Here and not in the engines: they search each half once to fuse it, and once more to tell its scores.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import hypot, sqrt
from statistics import fmean
from typing import Any, Protocol

from adlatus.backends.vectors.points import BM25, DENSE, chunk_of
from adlatus.backends.vectors.protocol import Hit, Search, Weights

RRF_K = 60

Scores = Mapping[Hashable, float]
"""Of points by their ids, as the engine has them; best first."""


class ScoredPoint(Protocol):
    """A point that a half has found, as both engines return it."""

    @property
    def id(self) -> Hashable: ...
    @property
    def score(self) -> float: ...


class Record(Protocol):
    """A point with its payload, as both engines return it."""

    @property
    def id(self) -> Hashable: ...
    @property
    def payload(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Ranking:
    """What the halves of a search have found. The texts are fetched for those only that are returned."""

    halves: Mapping[str, Scores]
    best: Scores

    @classmethod
    def of(cls, search: Search, found: Mapping[str, Sequence[ScoredPoint]]) -> "Ranking":
        """The best of the halves, which are one or two."""
        halves = {name: {each.id: each.score for each in half} for name, half in found.items()}
        ordered = fused(halves[DENSE], halves[BM25], search.weights) if len(halves) > 1 else next(iter(halves.values()))
        return cls(halves, dict(islice(ordered.items(), search.limit)))

    @property
    def ids(self) -> list[str]:
        """Of the best."""
        return [str(point) for point in self.best]

    def hits(self, records: Iterable[Record]) -> list[Hit]:
        """The best, best first. Those without a record have been removed meanwhile."""
        chunks = {record.id: chunk_of(record.payload) for record in records}
        cosines, bm25s = self.halves.get(DENSE, {}), self.halves.get(BM25, {})
        return [
            Hit(chunks[point], score, cosines.get(point), bm25s.get(point))
            for point, score in self.best.items()
            if point in chunks
        ]


def fused(meaning: Scores, words: Scores, weights: Weights | None) -> Scores:
    """What either half has found: by its scores without weights, by its ranks with them."""
    if weights is None:
        parts = [_by_distribution(meaning), _by_distribution(words)]
    else:
        parts = [_by_rank(meaning, weights.embedding), _by_rank(words, weights.text)]
    both = {point: sum(part.get(point, 0.0) for part in parts) for point in {**meaning, **words}}
    return dict(sorted(both.items(), key=lambda scored: -scored[1]))


def _by_distribution(scores: Scores) -> Scores:
    """Distribution-based score fusion: from 0, three standard deviations below the mean, to 1, as many above it.

    *Source*: what the engines do themselves (`Fusion.Dbsf`), also with a single score or where all are the same.
    """
    values = [*scores.values()]
    if not values or values[0] == values[-1]:
        return dict.fromkeys(scores, 0.5)
    mean = fmean(values)
    spread = 3 * hypot(*(value - mean for value in values)) / sqrt(len(values) - 1)  # `stdev` takes ten times as long
    least = mean - spread
    return {point: (score - least) / (2 * spread) for point, score in scores.items()}


def _by_rank(scores: Scores, weight: float) -> Scores:
    """Weighted reciprocal rank fusion: with three times the weight, the third counts as much as the other half's first.

    *Source*: what the engines do themselves (`Fusion.Rrf`).
    """
    return {point: 1 / (RRF_K - 1 + rank / weight) for rank, point in enumerate(scores, 1)}
