"""The curves behind the scores: fitted on the even questions, and judged by what the odd ones score.

Kinds of pairs: a store of one passage with a question about it (`own`) and about something else (`foreign`), and in
the store of a whole set the chunks that answer (`right`) and the first ones of articles about something else (`wrong`).
All kinds weigh the same.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from adlatus.backends.vectors.protocol import Search
from adlatus.retrieval.calibration import Curve, measures, scale_of
from adlatus.retrieval.ranking import CANDIDATES, OF_EACH_HALF
from bench.labelled import Asked, Key, Labelled

if TYPE_CHECKING:
    from bench.retrieval import Site

GOOD = ("own", "right")
ASKED_ELSEWHERE = 200
"""Questions that are put to three passages that have nothing to do with them."""
SAME_ARTICLE = 5
WRONG = 3
STEPS = 50
RIDGE = 1e-4
MODEL_SPEAKS = ("cranfield", "xquad-en", "xquad-de")
"""The local model knows no Chinese: by meaning alone nothing can be said there, and nothing is learnt from it."""

Array = npt.NDArray[np.float64]
Kind = tuple[str, str]
"""A set, and a kind of pairs in it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """How many pairs of a kind score high and low."""

    set: str
    kind: str
    pairs: int
    above_half: float
    below_three_tenths: float


def line(share: Share) -> str:
    """A share in Markdown."""
    return f"| {share.set} | {share.kind} | {share.pairs} | {share.above_half:.2f} | {share.below_three_tenths:.2f} |"


async def fitted(site: "Site", sets: Sequence[Labelled]) -> list[str]:
    """The three curves of `retrieval.calibration`."""
    pairs: dict[Kind, list[tuple[float, float]]] = {}
    for of in sets:
        for kind, store, asked in _searches(of, of.part(odd=False)):
            for each, measured in _of_kinds(kind, asked, await _measured(site, store, asked)):
                pairs.setdefault((of.name, each), []).append(measured)
    known = {key: found for key, found in pairs.items() if key[0] in MODEL_SPEAKS}
    return [
        f"BOTH = {_fit(pairs, (0, 1))}",
        f"MEANING_ONLY = {_fit(known, (0,))}",
        f"WORDS_ONLY = {_fit(pairs, (1,))}",
    ]


async def shares(site: "Site", sets: Sequence[Labelled]) -> list[Share]:
    """What the odd questions score."""
    scores: dict[Kind, list[float]] = {}
    for of in sets:
        for kind, store, asked in _searches(of, of.part(odd=True)):
            ranked = await site.ranked(store, asked.text)
            found = [((each.chunk.file_id, each.chunk.index), each.score) for each in ranked]
            for each, score in _of_kinds(kind, asked, found):
                scores.setdefault((of.name, each), []).append(score)
    return [_share(*key, np.array(found)) for key, found in scores.items()]


def _share(name: str, kind: str, scores: Array) -> Share:
    return Share(name, kind, len(scores), float((scores > 0.5).mean()), float((scores < 0.3).mean()))


def _searches(of: Labelled, asked: Sequence[Asked]) -> Iterator[tuple[str, str, Asked]]:
    """Kind, store, question."""
    chance = random.Random(of.name)
    for each in asked:
        yield "own", of.passages[each.passage].vector_store_id, each
        yield "right", of.name, each
    for each in chance.sample(list(asked), min(len(asked), ASKED_ELSEWHERE)):
        for other in chance.sample(range(len(of.passages)), 3):
            if abs(other - each.passage) > SAME_ARTICLE:
                yield "foreign", of.passages[other].vector_store_id, each


def _of_kinds(kind: str, asked: Asked, found: Iterable[tuple[Key, T]]) -> Iterator[tuple[str, T]]:
    """What was found, by the kind of pair that it makes with the question."""
    wrong = 0
    for key, measured in found:
        if kind != "right" or key in asked.relevant:
            yield kind, measured
        elif asked.file_id not in (None, key[0]) and wrong < WRONG:
            wrong += 1
            yield "wrong", measured


async def _measured(site: "Site", store: str, asked: Asked) -> list[tuple[Key, tuple[float, float]]]:
    scale = await scale_of(site.model)
    vector = (await site.model.embed_query(asked.text)).tolist()
    languages = await site.index.languages(site.space, [store])
    search = Search([store], asked.text, vector, languages, limit=CANDIDATES, candidates=OF_EACH_HALF)
    hits = await site.index.search(site.space, search)
    found = measures(asked.text, hits, scale)
    return [((hit.chunk.file_id, hit.chunk.index), each) for hit, each in zip(hits, found, strict=True)]


def _fit(pairs: Mapping[Kind, Sequence[tuple[float, float]]], columns: tuple[int, ...]) -> Curve:
    """Logistic regression by Newton's method, on some of the measures."""
    sides = {good: [key for key in pairs if (key[1] in GOOD) is good] for good in (True, False)}
    features, labels, weights = [], [], []
    for good, keys in sides.items():
        for key in keys:
            measured = np.array(pairs[key])[:, columns]
            features.append(np.hstack([measured, np.ones((len(measured), 1))]))
            labels.append(np.full(len(measured), float(good)))
            weights.append(np.full(len(measured), 1 / len(measured) / len(keys)))
    x, y, w = np.concatenate(features), np.concatenate(labels), np.concatenate(weights)
    ridge = RIDGE * np.diag([1.0] * len(columns) + [0.0])
    solution: Array = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-x @ solution))
        gradient = x.T @ (w * (p - y)) + ridge @ solution
        curvature = (x * (w * p * (1 - p))[:, None]).T @ x + ridge
        solution = solution - np.linalg.solve(curvature, gradient)
    found = dict(zip(columns, (round(float(each), 2) for each in solution), strict=False))
    return Curve(found.get(0, 0.0), found.get(1, 0.0), round(float(solution[-1]), 2))
