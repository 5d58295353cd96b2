"""What both vector indexes must do, in the same way."""

import math
from dataclasses import replace

import pytest

from adlatus.backends.vectors.filters import MAX_DEPTH, AllOf, AnyOf, Equal, Filter, Order, Ordered, Scalar
from adlatus.backends.vectors.protocol import Chunk, Weights
from tests.retrieval.asking import SEVERAL, SPACE, WORDS, Asking, chunk

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

EAST, NORTH, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
NORTH_EAST = (1.0, 1.0, 0.0)


# --- What is kept


def test_a_chunk_comes_back_as_it_was_but_for_its_vectors(index: Asking) -> None:
    store = index.store()
    attributes: dict[str, Scalar] = {"a.b[0]": "ü", "n": 2**70, "whole": 1, "half": 0.5, "yes": True, "": "empty"}
    kept = Chunk(store, "file-a", 7, "line\none\0 \u2028", "german", 10, 20, 3, 4, attributes)
    index.upsert(replace(kept, vectors=[EAST]))
    [found] = index.chunks(store)
    assert found == kept
    assert found.attributes["yes"] is True
    assert isinstance(found.attributes["whole"], int)


def test_lone_surrogates_in_a_text_do_no_harm(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "broken \ud800 glass", EAST, attributes={"k\udfff": "\ud800"}))
    assert index.found(store, "broken \udfff") == [0]
    assert index.chunks(store)[0].text == "broken ? glass"
    assert index.found(store, "glass", filter=Equal("k\udfff", ["\ud800"])) == [0]


def test_writing_a_chunk_again_replaces_it(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "old", EAST))
    index.upsert(chunk(store, 0, "new", NORTH))
    assert index.count(store) == 1
    assert index.found(store, "old") == []
    assert index.search(store, "", NORTH)[0].cosine == pytest.approx(1)


def test_the_chunks_of_a_file_come_in_order_and_in_pages(index: Asking) -> None:
    store = index.store()
    index.upsert(*(chunk(store, n, f"text {n}", EAST) for n in (4, 2, 0, 5, 1)))
    assert [c.index for c in index.chunks(store)] == [0, 1, 2, 4, 5]
    assert [c.index for c in index.chunks(store, start=1, limit=3)] == [1, 2]
    assert index.chunks(store, start=6) == []
    assert index.chunks(store, file="file-b") == []


def test_more_than_one_portion_is_written_whole(index: Asking) -> None:
    store = index.store()
    index.upsert(*(chunk(store, n, "many words " * 40_000, EAST) for n in range(5)))
    assert index.count(store) == 5


def test_deleting_a_file_leaves_the_others_and_the_other_stores(index: Asking) -> None:
    one, other = index.store(), index.store()
    for store in (one, other):
        index.upsert(chunk(store, 0, "text", EAST), chunk(store, 1, "text", EAST), chunk(store, 0, file="file-b"))
    index.delete(one, "file-a")
    assert (index.count(one), index.count(one, "file-a"), index.count(other, "file-a")) == (1, 0, 2)
    index.delete(one, "file-a")
    index.delete(one)
    assert (index.count(one), index.count(other)) == (0, 3)


def test_a_store_is_deleted_from_all_spaces(index: Asking) -> None:
    store = index.store()
    for space in (SPACE, SEVERAL, WORDS):
        index.upsert(chunk(store), space=space)
    index.delete(store)
    assert [index.count(store, space=space) for space in (SPACE, SEVERAL, WORDS)] == [0, 0, 0]


def test_new_attributes_of_a_file_replace_the_old_ones(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "text", EAST, attributes={"old": 1, "both": 1}))
    index.upsert(chunk(store, 0, "text", EAST, file="file-b", attributes={"old": 1}))
    index.set_attributes(store, "file-a", {"both": 2, "new": True})

    def files(wanted: Filter) -> set[str]:
        return {hit.chunk.file_id for hit in index.search(store, "text", EAST, filter=wanted)}

    assert files(Equal("old", [1])) == files(Ordered("old", Order.GTE, 1)) == {"file-b"}
    assert files(Equal("new", [True])) == files(Ordered("both", Order.GT, 1)) == {"file-a"}
    assert index.chunks(store)[0].attributes == {"both": 2, "new": True}
    index.set_attributes(store, "file-a", {})
    assert files(Equal("new", [True])) == set()


@pytest.mark.parametrize(
    ("vectors", "wrong"),
    [
        ([(1.0, 0.0)], "2 dimensions"),
        ([()], "0 dimensions"),
        ([(1.0, math.nan, 0.0)], "not finite"),
        ([(math.inf, 0.0, 0.0)], "not finite"),
        ([EAST, NORTH], "late interaction"),
    ],
)
def test_vectors_that_do_not_fit_are_refused_before_anything_is_written(
    index: Asking, vectors: list[tuple[float, ...]], wrong: str
) -> None:
    store = index.store()
    with pytest.raises(ValueError, match=wrong):
        index.upsert(chunk(store, 0, "fits", EAST), chunk(store, 1, "does not", *vectors))
    assert index.count(store) == 0


# --- What is found


def test_a_search_sees_the_stores_that_it_names_only(index: Asking) -> None:
    one, two, other = index.store(), index.store(), index.store()
    for number, store in enumerate((one, two, other)):
        index.upsert(chunk(store, number, "text", EAST))
    assert index.found(one, "text", EAST) == [0]
    assert sorted(index.found([one, two], "text", EAST)) == [0, 1]
    assert index.found(index.store(), "text", EAST) == []


def test_a_hybrid_search_finds_by_meaning_and_by_words_and_tells_both_scores(index: Asking) -> None:
    store = index.store()
    index.upsert(
        chunk(store, 0, "nothing alike", NORTH_EAST), chunk(store, 1, "a harbour", UP), chunk(store, 2, "neither", UP)
    )
    by_index = {hit.chunk.index: hit for hit in index.search(store, "harbours", EAST, candidates=2, limit=2)}
    assert by_index.keys() == {0, 1}
    assert by_index[0].cosine == pytest.approx(math.sqrt(0.5), abs=1e-4)
    assert by_index[0].bm25 is None
    assert by_index[1].bm25 is not None
    assert by_index[1].bm25 > 0


def test_weights_decide_which_half_wins(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "far from it", EAST), chunk(store, 1, "harbour", NORTH))
    assert index.found(store, "harbour", EAST, weights=Weights(0.9, 0.1), limit=1, candidates=1) == [0]
    assert index.found(store, "harbour", EAST, weights=Weights(0.1, 0.9), limit=1, candidates=1) == [1]


def test_a_half_of_weight_0_does_not_count_at_all(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "far from it", EAST), chunk(store, 1, "harbour", NORTH))
    [best, second] = index.search(store, "harbour", EAST, weights=Weights(1, 0))
    assert (best.chunk.index, best.bm25) == (0, None)
    assert best.score == pytest.approx(1)
    assert second.score == pytest.approx(0, abs=1e-6)
    [only] = index.search(store, "harbour", EAST, weights=Weights(0, 1))
    assert (only.chunk.index, only.cosine, only.score) == (1, None, only.bm25)


def test_without_a_vector_words_are_searched(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "ships in a harbour", EAST), chunk(store, 1, "ships at sea"), space=SPACE)
    assert index.found(store, "harbours") == [0]
    assert sorted(index.found(store, "ship")) == [0, 1]
    assert index.found(store, "mountain") == index.found(store, "the and of") == index.found(store, "") == []


def test_a_space_without_dimensions_is_searched_by_words(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "ships in a harbour"), space=WORDS)
    assert index.found(store, "harbour", space=WORDS) == [0]
    with pytest.raises(ValueError, match="dimensions"):
        index.found(store, "harbour", EAST, space=WORDS)


def test_the_rarity_of_a_word_is_that_of_its_store(index: Asking) -> None:
    one, other = index.store(), index.store()
    index.upsert(chunk(one, 0, "harbour"), chunk(one, 1, "mountain"))
    [before] = index.search(one, "harbour")
    index.upsert(*(chunk(other, n, "harbour") for n in range(20)))
    [after] = index.search(one, "harbour")
    assert after.score == pytest.approx(before.score)


def test_a_chunk_with_several_vectors_counts_by_the_nearest(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "", UP, EAST), chunk(store, 1, "", NORTH_EAST), space=SEVERAL)
    [first, second] = index.search(store, "", EAST, space=SEVERAL)
    assert first.chunk.index == 0
    assert first.cosine == pytest.approx(1)
    assert second.cosine == pytest.approx(math.sqrt(0.5), abs=1e-4)


def test_chunks_without_a_vector_are_found_beside_those_with_one(index: Asking) -> None:
    store = index.store()
    index.upsert(chunk(store, 0, "while embeddings were away: harbour"), chunk(store, 1, "later", EAST))
    assert sorted(index.found(store, "harbour", EAST)) == [0, 1]


def test_no_more_than_the_limit_comes_back_and_no_less(index: Asking) -> None:
    store = index.store()
    index.upsert(*(chunk(store, n, "harbour", (1.0, n / 100, 0.0)) for n in range(60)))
    assert index.found(store, "", EAST, limit=3) == [0, 1, 2]
    assert len(index.found(store, "harbour", EAST, limit=55, candidates=10)) == 55


def test_a_filter_holds_for_both_halves(index: Asking) -> None:
    store = index.store()
    index.upsert(*(chunk(store, n, "harbour", EAST, attributes={"n": n}) for n in range(4)))
    wanted = AllOf([Ordered("n", Order.GT, 0), AnyOf([Equal("n", [1, 3]), Equal("m", [True])])])
    for how in ({"vector": EAST}, {}):
        assert sorted(index.found(store, "harbour", filter=wanted, **how)) == [1, 3]


def test_a_filter_that_is_nested_too_deeply_is_refused(index: Asking) -> None:
    wanted: Filter = Equal("a", [1])
    for _ in range(MAX_DEPTH - 1):
        wanted = AllOf([wanted])
    assert index.found(index.store(), "text", filter=wanted) == []
    with pytest.raises(ValueError, match=f"{MAX_DEPTH} levels"):
        index.found(index.store(), "text", filter=AllOf([wanted]))


# --- Languages


def test_the_languages_of_stores_are_told(index: Asking) -> None:
    one, two = index.store(), index.store()
    index.upsert(chunk(one, 0, language="german"), chunk(one, 1, language="german"), chunk(two, language="unspaced"))
    assert index.languages(one, two) == {"german", "unspaced"}
    assert index.languages(index.store()) == frozenset()


def test_the_languages_of_a_store_follow_what_is_written_to_it(index: Asking) -> None:
    store, other = index.store(), index.store()
    index.upsert(chunk(store, language="german"), chunk(other, language="french"))
    assert index.languages(store, other) == {"german", "french"}
    index.upsert(chunk(store, file="file-b", language="english"))
    assert index.languages(store) == {"german", "english"}
    index.upsert(chunk(store, language="dutch"))
    assert index.languages(store) == {"dutch", "english"}
    index.delete(store, "file-b")
    assert index.languages(store) == {"dutch"}
    index.delete(store)
    assert index.languages(store, other) == {"french"}


def test_a_query_finds_words_in_the_languages_of_the_store(index: Asking) -> None:
    store = index.store()
    index.upsert(
        chunk(store, 0, "Die Häuser am Hafen sind alt", language="german"),
        chunk(store, 1, "港口旁边的房子很旧", language="unspaced"),
        chunk(store, 2, "the houses at the harbour"),
    )
    spoken = index.languages(store)
    assert index.found(store, "Häusern") == []
    assert index.found(store, "Häusern", languages=spoken) == [0]
    assert index.found(store, "港口", languages=spoken) == [1]
    assert index.found(store, "house", languages=spoken)[0] == 2


def test_ping_and_optimize_answer(index: Asking) -> None:
    index.loop.run(index.index.ping())
    index.loop.run(index.index.optimize())
