"""Scores of made-up hits: between 0 and 1, in order, and the same whatever scale a model's cosines have."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.backends.vectors.protocol import Chunk, Hit, Weights
from adlatus.retrieval.calibration import Scale, descending, scores

SCALE = Scale(0.0, 0.6)
QUESTION = "Which harbours of the north freeze in winter?"
FITTING = "Three harbours of the north freeze over in winter."

hits = st.lists(
    st.tuples(st.none() | st.floats(-1, 1), st.none() | st.floats(0, 40)).filter(lambda each: each != (None, None)),
    max_size=30,
)


def made(*measures: tuple[float | None, float | None], text: str = FITTING) -> list[Hit]:
    return [
        Hit(Chunk("s", "f", index, text, "english", 0, len(text)), 0.0, cosine, bm25)
        for index, (cosine, bm25) in enumerate(measures)
    ]


@given(hits, st.sampled_from([SCALE, None]), st.sampled_from([None, Weights(1, 1), Weights(1, 0), Weights(0, 1)]))
def test_scores_are_between_0_and_1_and_keep_the_order_that_weights_made(
    measures: Sequence[tuple[float | None, float | None]], scale: Scale | None, weights: Weights | None
) -> None:
    found = scores(QUESTION, made(*measures), scale, weights)
    assert len(found) == len(measures)
    assert all(0 <= score <= 1 for score in found)
    if weights:
        assert found == sorted(found, reverse=True)


@given(hits, st.floats(0.2, 1), st.floats(0, 0.8))
def test_a_model_whose_cosines_lie_elsewhere_gets_the_same_scores(
    measures: Sequence[tuple[float | None, float | None]], spread: float, offset: float
) -> None:
    moved = [(None if cosine is None else offset + spread * cosine, bm25) for cosine, bm25 in measures]
    scale = Scale(offset, offset + spread * SCALE.related)
    expected = scores(QUESTION, made(*measures), SCALE, None)
    assert scores(QUESTION, made(*moved), scale, None) == pytest.approx(expected, abs=1e-6)


def test_who_is_nearer_or_has_more_of_the_words_scores_higher() -> None:
    far, near = scores(QUESTION, made((0.1, 2.0), (0.5, 2.0)), SCALE, None)
    assert far < near
    few, many = scores(QUESTION, made((0.3, 2.0), (0.3, 4.0)), SCALE, None)
    assert few < many


def test_the_best_words_of_a_store_are_worth_what_they_cover() -> None:
    [fitting] = scores(QUESTION, made((0.3, 1.0)), None, None)
    [one_word] = scores(QUESTION, made((0.3, 1.0), text="Winter sale: shoes and coats."), None, None)
    assert fitting > 0.5 > 0.3 > one_word


def test_a_question_without_words_goes_by_meaning() -> None:
    unrelated, related = scores("What is it about?", made((0.0, None), (0.6, None)), SCALE, None)
    assert unrelated < 0.3 < 0.5 < related


def test_a_model_that_tells_nothing_apart_does_not_decide() -> None:
    low, high = scores(QUESTION, made((0.700, 1.0), (0.701, 1.0)), Scale(0.7, 0.7), None)
    assert high - low < 0.05


@given(st.lists(st.floats(0, 1)))
def test_numbers_are_made_not_to_rise_without_changing_their_mean(numbers: list[float]) -> None:
    found = descending(numbers)
    assert all(one >= other - 1e-12 for one, other in pairwise(found))
    assert sum(found) == pytest.approx(sum(numbers))
    assert descending(sorted(numbers, reverse=True)) == sorted(numbers, reverse=True)
