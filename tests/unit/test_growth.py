"""Parsers of what comes from outside take time in proportion to its size: counted in steps, not by the clock."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from adlatus.api.forms import _parameters
from adlatus.api.width import MAX_VALUES, refuse_wide
from adlatus.backends import faults, relay
from adlatus.errors import ContentTooLarge
from adlatus.retrieval.rewriting import _THOUGHTS
from adlatus.runs import quotes
from adlatus.runs.calls import _FIT_ID
from adlatus.runs.citations import _POINTER
from adlatus.runs.code import _BEGUN, _WHOLE
from adlatus.validation import from_validation
from adlatus.wire.threads import CreateThreadRequest

SMALL, FACTOR = 2_000, 8


def _relayed(text: str) -> object:
    return relay._TOKEN.findall(text.encode())


TEXTS: dict[str, tuple[Callable[[str], object], Callable[[int], str]]] = {
    "parameters: names": (_parameters, lambda n: "form-data" + ";a" * n),
    "parameters: spaces": (_parameters, lambda n: "form-data; a" + " " * n),
    "parameters: many spaces": (_parameters, lambda n: "; " * n),
    "parameters: open quotes": (_parameters, lambda n: ';a="\\' * n),
    "parameters: escapes": (_parameters, lambda n: ';a="' + "\\" * n),
    "parameters: long name": (_parameters, lambda n: ";" + "a" * n),
    "sentences: spaces": (lambda text: quotes.fitting("b", text), lambda n: "a" + " " * n + "b"),
    "sentences: closing signs": (lambda text: quotes.fitting("b", text), lambda n: "a." + "”" * n + "b"),
    "sentences: dots": (lambda text: quotes.fitting("b", text), lambda n: "." * n),
    "sentences: lines": (lambda text: quotes.fitting("b", text), lambda n: "\n \n" * n),
    "markup: open tags": (lambda text: faults.read(text.encode()), lambda n: "<script " * n),
    "markup: scripts": (lambda text: faults.read(text.encode()), lambda n: "<script>" * n),
    "markup: less": (lambda text: faults.read(text.encode()), lambda n: "<" * n),
    "thoughts": (_THOUGHTS.match, lambda n: "<think>" * n),
    "thoughts: spaces": (_THOUGHTS.match, lambda n: " " * n + "x"),
    "call ids": (_FIT_ID.fullmatch, lambda n: "a" * n + "!"),
    "pointers": (_POINTER.findall, lambda n: ",1:" * n),
    "code: begin": (_BEGUN.match, lambda n: " " * n + "{"),
    "code: escapes": (_WHOLE.match, lambda n: "\\u12" * n),
    "code: text": (_WHOLE.match, lambda n: "a" * n + "\\"),
    "relayed tokens: quotes": (_relayed, lambda n: '{"a":"' + '\\"' * n + '"}'),
    "relayed tokens: brackets": (_relayed, lambda n: '{"a":[' + "{}," * n + "1]}"),
}


def seconds(work: Callable[[str], object], text: str) -> float:
    """The least processor time of three."""

    def once() -> float:
        begun = time.thread_time()
        work(text)
        return time.thread_time() - begun

    return min(once() for _ in range(3))


@pytest.mark.parametrize("name", TEXTS)
def test_eight_times_the_text_takes_nowhere_near_sixty_four_times_the_work(name: str) -> None:
    """Processor time of this thread, so that load does not count; what takes no time at all needs no ratio."""
    work, text = TEXTS[name]
    small = max(seconds(work, text(SMALL)), 1e-4)
    assert seconds(work, text(SMALL * FACTOR)) < small * FACTOR * 4


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [1] * 50_000},
        {"metadata": {f"k{number}": 1 for number in range(50_000)}},
        {"messages": [{"role": "user", "content": "x", "metadata": {f"k{n}": 1 for n in range(900)}}] * 20},
        {f"x{number}": 1 for number in range(20_000)},
    ],
    ids=["messages", "metadata", "many metadata", "unknown"],
)
def test_what_is_wrong_everywhere_is_told_in_few_steps(body: dict[str, object]) -> None:
    """Each of these would be compared with all others otherwise: a small body would keep the server busy for hours."""
    steps = 0

    def count(*_: object) -> Any:
        nonlocal steps
        steps += 1
        assert steps < 400_000
        return count

    with pytest.raises(ValidationError) as refused:
        CreateThreadRequest.model_validate(body)
    errors = refused.value.errors()
    before = sys.gettrace()
    sys.settrace(count)
    try:
        told = from_validation(errors, body)
    finally:
        sys.settrace(before)
    assert told.param


def test_a_body_of_too_many_values_is_refused_before_it_is_parsed() -> None:
    refuse_wide(b"[" + b"{}," * (MAX_VALUES // 2 - 1) + b"{}]")
    refuse_wide(b'{"a":"' + b",[{\\\\" * MAX_VALUES + b'"}')
    with pytest.raises(ContentTooLarge):
        refuse_wide(b"[" + b"{}," * (MAX_VALUES // 2 + 1) + b"{}]")
    with pytest.raises(ContentTooLarge):
        refuse_wide(b'["\\",' + b'",' * 9 + b'"x",' * (MAX_VALUES + 9) + b"1]")
