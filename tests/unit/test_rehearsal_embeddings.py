"""The rehearsal model's embeddings, without a server."""

import base64
import math
import struct
from itertools import combinations
from typing import Any

import pytest

from adlatus.rehearsal.chat import BadRequestError
from adlatus.rehearsal.embeddings import DIMENSIONS, answer, embed, read


def embedded(given: object, **body: Any) -> list[Any]:
    return [one["embedding"] for one in answer(read({"model": "m", "input": given, **body}))["data"]]


def likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_an_embedding_has_length_one_and_is_the_same_everywhere() -> None:
    [vector] = embedded("The cat sat on the mat")
    assert len(vector) == DIMENSIONS
    assert math.isclose(likeness(vector, vector), 1, abs_tol=1e-6)
    assert embedded("Cat", dimensions=4) == [pytest.approx([-1 / 6**0.5, 2 / 6**0.5, 1 / 6**0.5, 0])]


def test_texts_that_share_words_lie_close_together() -> None:
    cat, cats_mat, engine = embedded(["the cat sat on the mat", "On THE mat, a cat!", "engines need fuel"])
    assert likeness(cat, cats_mat) > 0.7 > 0.2 > likeness(cat, engine)


@pytest.mark.parametrize("text", ["...", " ", "🙂", "one two three four five six seven"])
@pytest.mark.parametrize("dimensions", [1, 2, 4096])
def test_every_text_has_a_direction(text: str, dimensions: int) -> None:
    [vector] = embedded(text, dimensions=dimensions)
    assert len(vector) == dimensions
    assert math.isclose(likeness(vector, vector), 1, abs_tol=1e-6)


def test_words_that_cancel_each_other_leave_a_direction() -> None:
    assert all(abs(embed(pair, 1)[0]) == 1 for pair in combinations("abcdefghijklmnop", 2))


def test_tokens_are_accepted_in_place_of_texts() -> None:
    [one] = embedded([1, 2, 3])
    assert embedded([[1, 2, 3], [4]])[0] == one
    assert embedded(["1 2 3"])[0] == one


def test_base64_says_the_same_in_little_endian() -> None:
    [floats], [packed] = embedded("some words"), embedded("some words", encoding_format="base64")
    assert struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(packed)) == tuple(floats)


def test_words_are_counted() -> None:
    assert answer(read({"model": "m", "input": ["one two", "three"]}))["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 3,
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": 1, "input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["a", ""]}, "input"),
        ({"model": "m", "input": ["a", 1]}, "input"),
        ({"model": "m", "input": [[]]}, "input"),
        ({"model": "m", "input": [-1]}, "input"),
        ({"model": "m", "input": [True]}, "input"),
        ({"model": "m", "input": {"a": 1}}, "input"),
        ({"model": "m", "input": 7}, "input"),
        ({"model": "m", "input": ["a"] * 2049}, "input"),
        ({"model": "m", "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": "m", "input": "a", "dimensions": 4097}, "dimensions"),
        ({"model": "m", "input": "a", "dimensions": "4"}, "dimensions"),
        ({"model": "m", "input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_a_wrong_request_is_refused_with_the_culprit(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(body)
    assert refused.value.param == param
