"""The code in the arguments of a call, however they are cut."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.runs.code import Code, code_in, shown

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def told(arguments: str, cuts: list[int]) -> list[str]:
    """What is told of arguments that come in pieces, the last one after their end."""
    ends = sorted({min(cut, len(arguments)) for cut in cuts} | {len(arguments)})
    code = Code()
    pieces = [code.add(arguments[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return [*pieces, code.finish(arguments)]


@given(TEXTS, st.booleans(), st.lists(st.integers(0, 300)))
def test_pieces_are_the_code_wherever_arguments_are_cut(code: str, ascii_only: bool, cuts: list[int]) -> None:
    arguments = json.dumps({"code": code}, ensure_ascii=ascii_only)
    pieces = told(arguments, cuts)
    assert "".join(pieces) == code == code_in(arguments) == shown(arguments)
    assert pieces[-1] == ""  # nothing waits for the end


@given(st.text(), st.lists(st.integers(0, 300)))
def test_anything_is_told_the_same_however_it_is_cut(arguments: str, cuts: list[int]) -> None:
    pieces = "".join(told(arguments, cuts))
    assert pieces == shown(arguments)
    if (code := code_in(arguments)) is not None:
        assert code == pieces
    pieces.encode()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ('{"code": "1 + 1"}', "1 + 1"),
        ('{"code": "a\nb"}', "a\nb"),
        ('{"input": "x"}', "x"),
        ('{"language": "python", "code": "x"}', "x"),
        ('"x = 1"', "x = 1"),
        ("print(1)", "print(1)"),
        ("```", "```"),
        (r'{"code": "\ud83d\ude00\ud83d"}', "😀?"),
        (r'{"code": "\u0000"}', "\ufffd"),
        ("", None),
        ("  ", None),
        ("{}", None),
        ("{", None),
        ('{"code": 5}', None),
        ('{"code": "x', None),
        ('{"code": "a" b"}', None),
        ('{"code": "\\x"}', None),
        ("{" * 100_000, None),
    ],
)
def test_what_models_write_as_arguments(arguments: str, code: str | None) -> None:
    assert code_in(arguments) == code
    if code is not None:
        assert shown(arguments) == code


def test_code_that_is_cut_off_is_shown_but_not_executed() -> None:
    assert (shown('{"code": "import o'), code_in('{"code": "import o')) == ("import o", None)


def test_long_code_in_many_pieces_takes_no_longer_than_its_length() -> None:
    code, taken = Code(), time.process_time()
    code.add('{"code": "')
    for _ in range(200_000):
        code.add("abc\\n")
    assert time.process_time() - taken < 20
