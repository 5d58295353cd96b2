"""Windows of tokens cover the text exactly, overlap exactly, and know where they stand."""

import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adlatus.backends import tokens
from adlatus.retrieval.chunk import MODEL, Chunk, TooManyTokensError, chunks
from adlatus.retrieval.parse import Piece
from tests.conftest import missing

PROSE = (
    "The quick brown fox jumps over the lazy dog; it's 12,345.67 metres, isn't it? Übergrößenträger fahren. "
    "模型的上下文窗口是有限的。Great job! 🎉👩‍👩‍👧‍👦 for index, name in enumerate(names):\n    totals[index] += 1\n\n"
)
ODD = st.text(st.sampled_from("ab Z\n\t.9éß漢字🎉👩\u200d"), max_size=400)
TEXTS = st.lists(st.one_of(ODD, st.text(max_size=200), st.integers(0, 9).map(lambda n: PROSE * n)), max_size=12)
SIZES = st.integers(100, 400).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


@pytest.fixture(scope="module", autouse=True)
def _ranks() -> None:
    if not tokens.is_exact(MODEL):
        missing("ranks", "bpe-openai is not installed: pip install 'adlatus[local]'")


MODELS = pytest.mark.parametrize("model", [MODEL, "unknown"], ids=["exact", "estimated"])
"""By whose tokens is cut: a model that is known, and one for which there are no ranks."""


def paged(texts: list[str]) -> list[Piece]:
    return [Piece(text, number) for number, text in enumerate(texts, 1)]


def check(made: list[Chunk], text: str, size: int, overlap: int) -> None:
    """That windows are as they should be, by their characters and numbers of tokens alone."""
    assert [chunk.index for chunk in made] == list(range(len(made)))
    assert all(chunk.text == text[chunk.char_from : chunk.char_to] for chunk in made)
    assert (made[0].char_from if made else 0, made[-1].char_to if made else 0) == (0, len(text))
    assert all(chunk.token_count == size for chunk in made[:-1])
    assert all(overlap < chunk.token_count <= size or len(made) == 1 for chunk in made[-1:])
    for former, latter in pairwise(made):
        assert former.char_from <= latter.char_from <= former.char_to <= latter.char_to
        assert overlap > 0 or former.char_to == latter.char_from


@settings(max_examples=60, deadline=None)
@given(TEXTS, SIZES)
@MODELS
def test_windows_cover_the_text_and_begin_every_stride(model: str, texts: list[str], sizes: tuple[int, int]) -> None:
    size, overlap = sizes
    made = list(chunks(paged(texts), size, overlap, model=model))
    text = "".join(texts)
    check(made, text, size, overlap)
    total = sum(chunk.token_count for chunk in made) - overlap * (len(made) - 1 if made else 0)
    assert total == tokens.counter(model)(text)


@settings(max_examples=60, deadline=None)
@given(TEXTS, SIZES)
def test_bounds_are_those_of_the_tokens_rounded_down_to_whole_characters(
    texts: list[str], sizes: tuple[int, int]
) -> None:
    size, overlap = sizes
    text = "".join(texts)
    ends = [0]
    for width in tokens.sizes(MODEL, text):
        ends.append(ends[-1] + width)
    content = text.encode()
    for chunk in chunks(paged(texts), size, overlap):
        first = chunk.index * (size - overlap)
        begin, end = content[: ends[first]], content[: ends[first + chunk.token_count]]
        assert chunk.char_from == len(begin.decode(errors="ignore"))
        assert chunk.char_to == len(end.decode(errors="ignore"))


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_pages_are_those_of_the_first_and_the_last_character(texts: list[str]) -> None:
    page_of = [number for number, text in enumerate(texts, 1) for _ in text]
    for chunk in chunks(paged(texts), 100, 50):
        assert (chunk.page_from, chunk.page_to) == (page_of[chunk.char_from], page_of[chunk.char_to - 1])


def test_a_page_may_come_in_many_pieces_and_a_text_without_pages_has_none() -> None:
    pieces = [Piece(PROSE * 20, 1), Piece(PROSE * 20, 1), Piece("", 2), Piece(PROSE, 3)]
    found = [(chunk.page_from, chunk.page_to) for chunk in chunks(pieces)]
    assert found[0] == (1, 1)
    assert found[-1] == (1, 3)
    assert [(chunk.page_from, chunk.page_to) for chunk in chunks([Piece(PROSE, None)])] == [(None, None)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [1]), (800, [800]), (801, [800, 401]), (1200, [800, 800]), (1201, [800, 800, 401])],
)
def test_the_last_window_is_the_first_that_reaches_the_end(count: int, expected: list[int]) -> None:
    made = list(chunks([Piece(" a" * count, None)]))
    assert [chunk.token_count for chunk in made] == expected
    assert [chunk.char_from for chunk in made] == [800 * index for index in range(len(expected))]


@pytest.mark.parametrize("overlap", [-1, 401])
def test_an_overlap_of_more_than_half_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        next(chunks([Piece("a", None)], 800, overlap))


def test_more_tokens_than_a_file_may_have_are_an_error() -> None:
    assert sum(1 for _ in chunks([Piece(" a" * 5000, None)], most_tokens=5000))
    with pytest.raises(TooManyTokensError):
        list(chunks([Piece(" a" * 5001, None)], most_tokens=5000))


@pytest.mark.parametrize("unit", ["a", " ", "\n", "漢", "👍", "a9", "=", "é "])
@MODELS
def test_a_million_of_the_same_are_cut_in_linear_time(unit: str, model: str) -> None:
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    made = list(chunks([Piece(text, None)], model=model))
    assert time.process_time() - started < 5
    check(made, text, 800, 400)


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    def pages() -> Iterator[Piece]:
        for number in range(1, 3001):
            yield Piece(PROSE * 10, number)

    tokens.sizes(MODEL, "x")
    tracemalloc.start()
    try:
        last = 0
        for chunk in chunks(pages()):
            last = chunk.char_to
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last == len(PROSE) * 30_000
    assert peak < 2**23
