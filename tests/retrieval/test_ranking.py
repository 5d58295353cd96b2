"""What a question finds, and how it is scored: the embedded engine and the local model, files of a page or less."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from adlatus.backends.embeddings import Embedder
from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.refusals import ModelError
from adlatus.backends.rerank import Reranker
from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.filters import Equal, Scalar
from adlatus.backends.vectors.languages import detect
from adlatus.backends.vectors.protocol import Chunk, Space, VectorIndex, Weights
from adlatus.retrieval.chunk import chunks
from adlatus.retrieval.merging import Ranked
from adlatus.retrieval.parse import Piece
from adlatus.retrieval.ranking import Place, Question, SpaceToSearch, find
from tests.conftest import Loop

FOODS = "Anna's favourite food is pizza with mushrooms. Ben likes sushi best, and Clara would eat nothing but noodles."
RETURNS = "Parcels can be sent back within 30 days. The refund arrives on your card a week after we have got them."
WORKSHOP = "The workshop repairs bicycles on Mondays and Thursdays. A new chain costs 25 euros, brakes cost 40."
RUECKGABE = "Pakete können innerhalb von 30 Tagen zurückgeschickt werden. Die Erstattung kommt eine Woche später."
NONSENSE = "quantum chromodynamics lattice gauge"


class Library:
    """Stores of the embedded index, filled with texts."""

    def __init__(self, loop: Loop, index: VectorIndex, model: LocalModel) -> None:
        self.loop = loop
        self.index = index
        self.model = model
        self.space = Space(model.name, model.dimensions)
        self.gone: set[str] = set()
        self.looked: list[Collection[Place]] = []

    def store(self, *texts: str, **attributes: Scalar) -> str:
        """A new store with these texts as the files `file-0`, `file-1` …"""
        name = f"vs_{uuid4().hex}"
        for number, text in enumerate(texts):
            self.add(name, f"file-{number}", text, attributes=attributes)
        return name

    def add(
        self, store: str, file: str, *pages: str, size: int = 800, attributes: Mapping[str, Scalar] | None = None
    ) -> None:
        """Add a file, page by page, as windows that overlap by half."""
        language = detect("".join(pages))
        pieces = [Piece(page, number) for number, page in enumerate(pages, 1)]
        windows = list(chunks(pieces, size, size // 2))
        vectors = self.loop.run(self.model.embed_documents([each.text for each in windows]))
        made = [
            Chunk(
                store, file, each.index, each.text, language, each.char_from, each.char_to,
                each.page_from, each.page_to, attributes or {}, [vector.tolist()],
            )
            for each, vector in zip(windows, vectors, strict=True)
        ]  # fmt: skip
        self.loop.run(self.index.upsert(self.space, made))

    async def live(self, places: Collection[Place]) -> Collection[Place]:
        """All but the files that a test calls gone."""
        self.looked.append(places)
        return {(store, file) for store, file in places if file not in self.gone}

    def find(
        self,
        stores: str | Sequence[str],
        *queries: str,
        by_words: bool = False,
        spaces: Sequence[SpaceToSearch] | None = None,
        reranker: Reranker | None = None,
        **how: Any,
    ) -> list[Ranked]:
        named = [stores] if isinstance(stores, str) else stores
        embedder: Embedder | None = None if by_words else self.model
        searched = spaces or [SpaceToSearch(self.space, embedder)]
        return self.loop.run(find(self.index, searched, Question(queries, named, **how), self.live, reranker))


@pytest.fixture(scope="module")
def opened(loop: Loop, local_model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """One index for all tests of this file; each has stores of its own."""
    with loop.stack() as stack:
        index = loop.run(stack.enter_async_context(open_edge(tmp_path_factory.mktemp("index") / "vectors")))
        yield Library(loop, index, local_model)


@pytest.fixture
def library(opened: Library) -> Library:
    """The index, in which nothing is gone yet."""
    return Library(opened.loop, opened.index, opened.model)


def in_order(found: Sequence[Ranked]) -> bool:
    scores = [each.score for each in found]
    return all(one >= other for one, other in pairwise(scores)) and all(0 <= score <= 1 for score in scores)


# --- Scores


@pytest.mark.parametrize("by_words", [False, True])
def test_the_one_passage_of_a_tiny_store_scores_by_whether_it_answers(library: Library, by_words: bool) -> None:
    for text, question in ((FOODS, "What is Anna's favourite food?"), (RETURNS, "How many days to send parcels back?")):
        store = library.store(text)
        [right] = library.find(store, question, by_words=by_words)
        assert right.score > 0.5
        assert right.text == text
        for other in (NONSENSE, "When does the moon rise over Paris?"):
            assert all(each.score < 0.3 for each in library.find(store, other, by_words=by_words))


def test_a_paraphrase_without_a_common_word_scores_more_than_nonsense(library: Library) -> None:
    store = library.store(RETURNS)
    [meant] = library.find(store, "Can I get my money back for an order?")
    [nonsense] = library.find(store, NONSENSE)
    assert meant.score > 10 * nonsense.score


def test_what_is_below_the_threshold_is_left_out(library: Library) -> None:
    store = library.store(FOODS, RETURNS, WORKSHOP)
    asked = "What does a new bicycle chain cost?"
    assert [each.text for each in library.find(store, asked, score_threshold=0.5)] == [WORKSHOP]
    assert len(library.find(store, asked)) == 3
    assert library.find(store, NONSENSE, score_threshold=0.5) == []


def test_scores_mean_the_same_in_a_small_and_in_a_large_store(library: Library) -> None:
    others = [f"Item {number} of the catalogue is a lamp of {number} watts." for number in range(60)]
    small, large = library.store(FOODS), library.store(FOODS, *others)
    asked = "What is Anna's favourite food?"
    [one], [other, *_] = library.find(small, asked), library.find(large, asked)
    assert one.text == other.text == FOODS
    assert one.score == pytest.approx(other.score, abs=0.1)


@pytest.mark.parametrize("weights", [Weights(1, 1), Weights(0.2, 0.8), Weights(1, 0), Weights(0, 1)])
def test_with_weights_scores_are_in_order_and_between_0_and_1(library: Library, weights: Weights) -> None:
    store = library.store(FOODS, RETURNS, WORKSHOP, "Sushi is sold on Mondays.", "A refund of 40 euros.")
    found = library.find(store, "What does Ben like best?", weights=weights)
    assert found[0].text == FOODS
    assert found[0].score > 0.5
    assert in_order(found)


# --- Queries


def test_several_queries_find_what_each_finds_and_a_passage_counts_by_its_best(library: Library) -> None:
    store = library.store(FOODS, RETURNS, WORKSHOP)
    foods, chain = "What is Anna's favourite food?", "What does a new chain cost?"
    found = library.find(store, foods, chain, foods, score_threshold=0.5)
    assert {each.text for each in found} == {FOODS, WORKSHOP}
    alone = {each.text: each.score for each in [*library.find(store, foods)[:1], *library.find(store, chain)[:1]]}
    assert {each.text: each.score for each in found} == pytest.approx(alone)
    assert in_order(found)


@pytest.mark.parametrize("query", ["", " \n", "\0"])
def test_a_query_without_text_finds_nothing_or_little(library: Library, query: str) -> None:
    store = library.store(FOODS)
    assert library.find(store, query, score_threshold=0.5) == []


@pytest.mark.parametrize("query", ["???", "what is it", "🍕", "\ud800", "x" * 20_000])
def test_any_query_is_answered(library: Library, query: str) -> None:
    store = library.store(FOODS, RETURNS)
    for by_words in (False, True):
        assert in_order(library.find(store, query, by_words=by_words))


def test_no_queries_no_stores_and_empty_stores_find_nothing(library: Library) -> None:
    assert library.find(library.store(FOODS)) == []
    assert library.find([], "food") == []
    assert library.find(library.store(), "food") == []
    assert library.find(library.store(), "food", by_words=True) == []
    assert library.looked == []


@pytest.mark.parametrize("by_words", [False, True])
def test_a_store_of_two_languages_answers_in_both(library: Library, by_words: bool) -> None:
    store = library.store(FOODS, RUECKGABE, WORKSHOP)
    [german, *_] = library.find(store, "Wie kann ich ein Paket zurückschicken?", by_words=by_words)
    assert (german.text, german.score > 0.5) == (RUECKGABE, True)
    [english, *_] = library.find(store, "What does the chain of a bicycle cost?", by_words=by_words)
    assert (english.text, english.score > 0.5) == (WORKSHOP, True)


# --- Where


def test_a_filter_and_the_named_stores_bound_what_is_found(library: Library) -> None:
    cold, warm = library.store(FOODS, year=2023), library.store(FOODS, RETURNS, year=2024)
    asked = "What is Anna's favourite food?"
    assert {each.vector_store_id for each in library.find([cold, warm], asked)} == {cold, warm}
    [only] = library.find([cold, warm], asked, filter=Equal("year", [2023]))
    assert (only.vector_store_id, only.attributes) == (cold, {"year": 2023})
    assert library.find([cold, warm], asked, filter=Equal("year", [1999])) == []


def test_the_same_file_in_two_stores_is_found_twice(library: Library) -> None:
    found = library.find([library.store(FOODS), library.store(FOODS)], "What is Anna's favourite food?")
    assert [each.text for each in found] == [FOODS, FOODS]


def test_spaces_with_and_without_a_model_are_searched_together(library: Library) -> None:
    store, words = library.store(FOODS), Space("", 0)
    chunk = Chunk(store, "file-w", 0, WORKSHOP, "english", 0, len(WORKSHOP))
    library.loop.run(library.index.upsert(words, [chunk]))
    spaces = [SpaceToSearch(library.space, library.model), SpaceToSearch(words, None)]
    found = library.find(
        store, "What does a new bicycle chain cost?", "Who likes sushi?", spaces=spaces, score_threshold=0.5
    )
    assert {each.file_id for each in found} == {"file-0", "file-w"}
    assert in_order(found)


def test_chunks_of_deleted_files_are_left_out_and_others_found_behind_them(library: Library) -> None:
    store = library.store(*[f"Anna's favourite food, version {number}, is pizza." for number in range(70)])
    library.add(store, "file-kept", "Once Anna ordered food.")
    library.gone = {f"file-{number}" for number in range(70)}
    found = library.find(store, "What is Anna's favourite food, pizza?")
    assert [each.file_id for each in found] == ["file-kept"]
    assert [len(places) for places in library.looked] == [40, 71]
    library.gone.add("file-kept")
    assert library.find(store, "What is Anna's favourite food?") == []


def test_a_second_look_is_not_taken_where_there_is_no_more(library: Library) -> None:
    store = library.store(FOODS, RETURNS)
    library.gone = {"file-0"}
    assert [each.text for each in library.find(store, "food")] == [RETURNS]
    assert len(library.looked) == 1


# --- Passages


def test_overlapping_windows_come_as_one_passage_with_its_pages(library: Library) -> None:
    store = library.store()
    pages = [f"{WORKSHOP} Page {number}. {FOODS} " * 2 for number in range(4)]
    library.add(store, "file-0", *pages, size=100)
    found = library.find(store, "What does a new chain cost?", limit=50)
    whole = "".join(pages)
    assert all(each.text == whole[each.char_from : each.char_to] for each in found)
    assert {each.page_from for each in found} | {each.page_to for each in found} == {1, 2, 3, 4}
    windows = library.loop.run(library.index.count(library.space, store))
    assert len(found) <= windows // 2 + 1
    assert in_order(found)


def test_no_more_than_the_limit_is_returned_and_these_are_the_best(library: Library) -> None:
    store = library.store(*[f"The harbour has {number} ships." for number in range(12)], FOODS)
    found = library.find(store, "How many ships has the harbour?", limit=5)
    assert len(found) == 5
    assert all("harbour" in each.text for each in found)


# --- Reranking


class ByLength:
    """A reranker that prefers long texts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self.asked.append((query, len(texts)))
        return [len(text) / 1000 for text in texts]


class Absent:
    """A reranker that does not answer."""

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:  # noqa: ARG002
        raise ModelError("The reranker is not there.", "server_error")


def test_the_scores_of_a_reranker_are_those_of_the_results(library: Library) -> None:
    store, reranker = library.store(FOODS, RETURNS, WORKSHOP), ByLength()
    found = library.find(store, "food", "parcels", reranker=reranker)
    assert [each.score for each in found] == sorted(
        [len(text) / 1000 for text in (FOODS, RETURNS, WORKSHOP)], reverse=True
    )
    assert sorted(reranker.asked) == [("food", 3), ("parcels", 3)]
    assert library.find(store, "food", reranker=reranker, score_threshold=0.5) == []


def test_a_question_may_do_without_reranking(library: Library) -> None:
    reranker = ByLength()
    library.find(library.store(FOODS), "food", reranker=reranker, rerank=False)
    assert library.find(library.store(), "food", reranker=reranker) == []
    assert reranker.asked == []


def test_without_the_rerankers_answer_the_search_goes_on(library: Library) -> None:
    store, asked = library.store(FOODS, RETURNS), "What is Anna's favourite food?"
    with capture_logs() as logged:
        assert library.find(store, asked, reranker=Absent()) == library.find(store, asked)
    assert "search goes on without reranking" in str(logged)


# --- What fails


class Mute:
    """An embedder that does not answer."""

    name, dimensions, max_tokens = "mute", 384, 256

    async def embed_documents(self, texts: Sequence[str]) -> Any:  # noqa: ARG002
        raise ModelError("The embedding model is not there.", "server_error")

    async def embed_query(self, text: str) -> Any:  # noqa: ARG002
        raise ModelError("The embedding model is not there.", "server_error")


def test_an_embedding_model_that_does_not_answer_is_one_error(library: Library) -> None:
    store = library.store(FOODS)
    with pytest.raises(ModelError, match="is not there"):
        library.find(store, "food", "pizza", spaces=[SpaceToSearch(library.space, Mute())])
