"""A search in one store asks for hashes of the store's own, and finds what the hashes of all stores would find."""

import random
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from adlatus.backends.vectors.edge import identity
from adlatus.backends.vectors.protocol import Hit
from adlatus.backends.vectors.sparse import encode_document, of_store
from tests.retrieval.asking import Asking, chunk

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

VOCABULARY = [f"word{number}" for number in range(40)]


def _filled(index: Asking, *, stores: int) -> list[str]:
    """Stores with the same words in other texts, and one word that is rare in the first and common elsewhere."""
    chance = random.Random(5)
    names = [index.store() for _ in range(stores)]
    for place, store in enumerate(names):
        texts = [" ".join(chance.choices(VOCABULARY, k=chance.randint(5, 30))) for _ in range(60)]
        texts = [f"{text} rare" if place or n == 0 else text for n, text in enumerate(texts)]
        index.upsert(*(chunk(store, n, text, [chance.gauss(0, 1) for _ in range(3)]) for n, text in enumerate(texts)))
    return names


def _told(hits: list[Hit]) -> dict[tuple[str, int], Any]:
    found = {}
    for hit in hits:
        scores = astuple(hit)[1:]
        found[hit.chunk.vector_store_id, hit.chunk.index] = [-1 if score is None else score for score in scores]
    return found


@pytest.mark.parametrize("vector", [None, [1.0, 0.5, 0.0]])
def test_one_store_finds_with_its_own_words_what_it_finds_with_those_of_all(index: Asking, vector: Any) -> None:
    store, *_ = _filled(index, stores=3)
    empty = index.store()  # a search in two stores, the words of which are those of one
    for asked in ("rare", "rare word1 word7", "word3 word3 word20 missing"):
        own = _told(index.search(store, asked, vector, limit=60, candidates=60))
        plain = _told(index.search([store, empty], asked, vector, limit=60, candidates=60))
        assert own.keys() == plain.keys()
        assert own
        for found, scores in own.items():
            assert scores == pytest.approx(plain[found], abs=1e-5)


def test_a_store_that_is_named_twice_is_one(index: Asking) -> None:
    store, _ = _filled(index, stores=2)
    assert _told(index.search([store, store], "rare word1")) == _told(index.search(store, "rare word1"))


def test_several_stores_rank_by_how_rare_a_word_is_in_all_of_them(index: Asking) -> None:
    first, second = _filled(index, stores=2)
    alone = index.search(first, "rare")
    both = [hit for hit in index.search([first, second], "rare", limit=200) if hit.chunk.vector_store_id == first]
    assert [hit.chunk.index for hit in alone] == [hit.chunk.index for hit in both] == [0]
    assert alone[0].bm25 is not None
    assert both[0].bm25 is not None
    assert alone[0].bm25 > 3 * both[0].bm25


def test_stores_have_other_hashes_with_the_same_weights() -> None:
    words = encode_document(" ".join(VOCABULARY), "english")
    first, second = of_store(words, "vs_1"), of_store(words, "vs_2")
    assert first.values == second.values == words.values
    assert len({*words.indices, *first.indices, *second.indices}) == 3 * len(words.indices) == 3 * len(VOCABULARY)
    assert max(first.indices + second.indices) < 2**32


def test_the_index_of_an_earlier_version_is_known_as_another_one(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("0" * 32, "ascii")
    known = identity(tmp_path)
    assert known != "0" * 32
    assert identity(tmp_path) == known
