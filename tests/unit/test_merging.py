"""Windows of files as passages, for any windows and any scores."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from adlatus.backends.vectors.protocol import Chunk
from adlatus.retrieval.merging import MOST_WINDOWS, Ranked, merged, passage

TEXT = "".join(chr(ord("a") + place % 26) for place in range(2000))
PAGE = 100


def window(index: int, size: int = 80, stride: int = 40, *, file: str = "f", store: str = "s") -> Chunk:
    """A window of the text, whose pages have 100 characters each."""
    begin = index * stride
    pages = begin // PAGE + 1, (begin + size - 1) // PAGE + 1
    return Chunk(store, file, index, TEXT[begin : begin + size], "english", begin, begin + size, *pages)


def scored(*pairs: tuple[int, float]) -> list[Ranked]:
    return [passage(window(index), score) for index, score in pairs]


def ranges(passages: Sequence[Ranked]) -> list[tuple[int, int]]:
    return [(each.char_from, each.char_to) for each in passages]


def test_two_neighbours_become_one_with_the_better_score() -> None:
    [only] = merged(scored((3, 0.9), (2, 0.4)))
    assert (only.text, only.score) == (TEXT[80:200], 0.9)
    assert (only.char_from, only.char_to, only.page_from, only.page_to) == (80, 200, 1, 2)


def test_a_window_between_two_joins_them_to_two_windows() -> None:
    [only] = merged(scored((2, 0.9), (4, 0.8), (3, 0.1)))
    assert (only.text, only.score) == (TEXT[80:240], 0.9)


def test_four_in_a_row_do_not_become_one() -> None:
    passages = merged(scored((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)))
    assert ranges(passages) == [(0, 160), (120, 200)]


def test_windows_of_other_files_and_stores_and_those_that_only_touch_stay_apart() -> None:
    of_files = [passage(window(0, file=file, store=store), 0.5) for store in "st" for file in "fg"]
    assert merged(of_files) == of_files
    touching = [passage(window(index, 80, 80), 0.5) for index in (0, 1)]
    assert merged(touching) == touching


def test_files_without_pages_stay_without() -> None:
    chunks = [Chunk("s", "f", n, TEXT[40 * n : 40 * n + 80], "english", 40 * n, 40 * n + 80) for n in (0, 1)]
    [only] = merged([passage(chunk, 0.5) for chunk in chunks])
    assert (only.page_from, only.page_to) == (None, None)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["f", "g"]), st.floats(0, 1)), unique_by=lambda each: each[:2]
    ),
    st.sampled_from([(80, 40), (80, 60), (80, 80), (40, 39)]),
)
def test_any_windows_are_covered_by_passages_that_are_true_to_the_text(
    found: list[tuple[int, str, float]], shape: tuple[int, int]
) -> None:
    best_first = sorted(found, key=lambda each: -each[2])
    windows = [passage(window(index, *shape, file=file), score) for index, file, score in best_first]
    passages = merged(windows)
    assert [each.score for each in passages] == sorted((each.score for each in passages), reverse=True)
    for each in passages:
        assert each.text == TEXT[each.char_from : each.char_to]
        assert each.char_to - each.char_from <= MOST_WINDOWS * shape[0]
        assert (each.page_from, each.page_to) == (each.char_from // PAGE + 1, (each.char_to - 1) // PAGE + 1)
    for each in windows:
        assert any(
            one.file_id == each.file_id
            and one.char_from <= each.char_from
            and each.char_to <= one.char_to
            and one.score >= each.score
            for one in passages
        )
    if windows:
        assert passages[0].score == windows[0].score
