"""What the scores of an index say: how likely a passage answers a query, from 0 to 1.

A weighted sum of two measures through a logistic curve. The curve was fitted on labelled questions, of which another
half was kept for judging it (docs/retrieval.md). Knows neither engines nor databases.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import structlog

from adlatus.backends.embeddings import Embedder
from adlatus.backends.vectors.protocol import Hit, Weights
from adlatus.backends.vectors.sparse import coverage, encode_query

log = structlog.get_logger(__name__)

PAIRS = (
    (
        "How do I reset my password?",
        "To set a new password, open the account page, choose Security and follow the link that comes by mail.",
    ),
    (
        "When was the bridge over the river built?",
        "The stone bridge across the river was completed in 1884, after eleven years of construction.",
    ),
    (
        "What should I feed a young cat?",
        "Kittens need food rich in protein, four small meals a day, and always fresh water.",
    ),
    (
        "Which metals conduct electricity best?",
        "Silver has the highest electrical conductivity of all metals, followed by copper and gold.",
    ),
    (
        "How many days of vacation do employees get?",
        "Every member of staff is entitled to thirty days of paid leave in a calendar year.",
    ),
    (
        "Why do leaves change their colour in autumn?",
        "As days get shorter, trees break down the green chlorophyll, and yellow and red pigments become visible.",
    ),
    (
        "Who pays for damage during shipping?",
        "If goods arrive broken, the carrier's insurance covers the loss, provided that it is reported within a week.",
    ),
    (
        "What is the boiling point of water at high altitude?",
        "On a mountain of 3,000 metres water already boils at about ninety degrees, because the air pressure is lower.",
    ),
)
"""Questions and their answers, none of which has to do with another."""

_LEAST_GAP = 0.05
"""A model that hardly tells the pairs apart must not have its noise blown up."""


@dataclass(frozen=True)
class Scale:
    """The cosines of a model that mean nothing and all: models differ widely in where the unrelated lie."""

    unrelated: float
    related: float

    def meaning(self, cosine: float) -> float:
        """A cosine on the scale from unrelated, 0, to related, 1; beyond them where it is."""
        return (cosine - self.unrelated) / max(self.related - self.unrelated, _LEAST_GAP)


@dataclass(frozen=True)
class Curve:
    """Measures to a logit: `meaning` and `words` times their weights, and the bias."""

    meaning: float
    words: float
    bias: float

    def logit(self, meaning: float, words: float) -> float:
        """The logit of the probability."""
        return self.meaning * meaning + self.words * words + self.bias


BOTH = Curve(meaning=5.25, words=6.64, bias=-5.47)
MEANING_ONLY = Curve(meaning=9.25, words=0.0, bias=-5.24)
WORDS_ONLY = Curve(meaning=0.0, words=10.89, bias=-3.8)
"""After `python -m bench.retrieval --fit`. For `BOTH` that gives words twice the weight of meaning, because its
questions repeat the words of their answers; here meaning weighs more, for those that do not, and finds as much.
"""

_scales: "WeakKeyDictionary[Embedder, Scale]" = WeakKeyDictionary()


async def scale_of(embedder: Embedder) -> Scale:
    """The scale of a model, measured with `PAIRS` when it is first asked for. Raises `ModelError`."""
    if embedder not in _scales:
        questions = [await embedder.embed_query(question) for question, _ in PAIRS]
        answers = await embedder.embed_documents([answer for _, answer in PAIRS])
        cosines = np.stack(questions) @ answers.T
        own = float(np.diag(cosines).mean())
        others = float(cosines[~np.eye(len(PAIRS), dtype=bool)].mean())
        _scales[embedder] = Scale(others, own)  # several tasks may measure it at once, with the same result
        log.debug("embedding model calibrated", model=embedder.name, related=round(own, 3), unrelated=round(others, 3))
    return _scales[embedder]


def scores(query: str, hits: Sequence[Hit], scale: Scale | None, weights: Weights | None) -> list[float]:
    """The score of each hit of one search, from 0 to 1. Takes some milliseconds of CPU.

    `scale` is None where words alone were searched. With weights the order of the hits is that of their weighted ranks,
    and stays: where scores would contradict it, those that do are averaged.
    """
    if not hits:
        return []
    curve = _curve(query, hits[0].chunk.language, scale, weights)
    found = [_logistic(curve.logit(meaning, words)) for meaning, words in measures(query, hits, scale)]
    return descending(found) if weights else found


def measures(query: str, hits: Sequence[Hit], scale: Scale | None) -> list[tuple[float, float]]:
    """Of each hit of one search how near it is in meaning, on the scale, and in words, from 0 to 1."""
    return list(zip(_meanings(hits, scale), _word_shares(query, hits), strict=True)) if hits else []


def _logistic(logit: float) -> float:
    return 0.5 * (1 + math.tanh(logit / 2))  # does not overflow


def _curve(query: str, language: str, scale: Scale | None, weights: Weights | None) -> Curve:
    """The curve of what was looked at, whether it was found or not."""
    if scale is None or (weights and weights.embedding == 0):
        return WORDS_ONLY
    if (weights and weights.text == 0) or not encode_query(query, [language]).indices:
        return MEANING_ONLY
    return BOTH


def _word_shares(query: str, hits: Sequence[Hit]) -> list[float]:
    """The share of the query's words that the hit with the best words has, and of that the others' part by BM25.

    BM25 alone says who is better, not whether anyone is good: in a store of one chunk the only hit is the best.
    """
    best = max(hits, key=lambda hit: hit.bm25 or 0.0)
    if not best.bm25:
        return [0.0] * len(hits)
    covered = coverage(query, best.chunk.text, best.chunk.language)
    return [covered * (hit.bm25 or 0.0) / best.bm25 for hit in hits]


def _meanings(hits: Sequence[Hit], scale: Scale | None) -> list[float]:
    """Who is not among the nearest has at most the cosine of the last of them."""
    known = [hit.cosine for hit in hits if hit.cosine is not None]
    if scale is None or not known:
        return [0.0] * len(hits)
    least = min(known)
    return [scale.meaning(least if hit.cosine is None else hit.cosine) for hit in hits]


def descending(numbers: Sequence[float]) -> list[float]:
    """The nearest numbers that do not rise: neighbours that do are replaced by their mean."""
    blocks: list[tuple[float, int]] = []
    for number in numbers:
        mean, count = number, 1
        while blocks and blocks[-1][0] < mean:
            other, others = blocks.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]
