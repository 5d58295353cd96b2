"""Chunks that are alike but for their text are read as their text; everything else is parsed as ever."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.backends.alike import MOST_LESSONS, WINDOW_BYTES, Alike
from adlatus.backends.chunks import Reading
from adlatus.runs.turn import Turn
from adlatus.wire.common import Json

TEXTS = st.text(max_size=12) | st.sampled_from(['"', "\\", '","', '"content":"', "}]}", "\n\n", "<think>", "😀", "\0"])
EXTRAS: list[Json] = [
    {},
    {"reasoning_content": None},
    {"reasoning_content": "hm"},
    {"role": "assistant"},
    {"refusal": "no"},
    {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]},
]


def chunk(text: str | None, *, extra: Json | None = None, **around: Any) -> Json:
    delta = {"content": text, **(extra or {})}
    choice = {"index": 0, "delta": delta, "finish_reason": around.pop("finish_reason", None)}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], **around}


def line(payload: Json) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def parsed(stream: bytes, cuts: Iterator[int]) -> Turn:
    """The turn of a stream that arrives in pieces."""
    reading, turn = Reading(), Turn()
    while stream and not reading.over:
        size = next(cuts)
        turn.fold(reading.feed(stream[:size]))
        stream = stream[size:]
    turn.finish()
    return turn


@given(
    st.lists(st.tuples(TEXTS, st.sampled_from(EXTRAS), st.sampled_from([1, 2])), max_size=20),
    st.lists(st.integers(1, 400), min_size=1, max_size=30),
)
def test_a_stream_means_the_same_in_pieces_that_are_read_at_once_as_chunk_by_chunk(
    said: list[tuple[str, Json, int]], sizes: list[int]
) -> None:
    said_last = [
        chunk(None, finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]
    chunks = [chunk(text, extra=extra, created=created) for text, extra, created in said] + said_last
    one_by_one = Turn()
    for each in chunks:
        one_by_one.fold([each])
    one_by_one.finish()
    stream = b"".join(map(line, chunks)) + b"data: [DONE]\n\n"
    for cut in (len(stream), *sizes):
        turn = parsed(stream, iter([cut] * (len(stream) // cut + 1)))
        assert (turn.text, turn.refusal, turn.hidden) == (one_by_one.text, one_by_one.refusal, one_by_one.hidden)
        assert (turn.calls, turn.usage, turn.finish_reason) == (one_by_one.calls, one_by_one.usage, "stop")


def learned(payload: Json) -> Alike:
    alike = Alike()
    read = orjson.dumps(payload)
    alike.learn(b"data: " + read, read, payload)
    return alike


def texts(alike: Alike, *lines: bytes) -> list[str]:
    """The texts at the beginning of a stream of lines; that they end where the rest begins."""
    stream, found = b"".join(lines), list[str]()
    more, end = alike.texts(stream, 0)
    while more:
        found += more
        assert stream[:end] == b"".join(lines[: len(found)])
        more, end = alike.texts(stream, end)
    return found


def test_the_texts_of_chunks_that_are_alike_are_read_at_once() -> None:
    said = ["two", 'th"ree', "\\", ""]
    assert texts(learned(chunk("One")), *(line(chunk(text)) for text in said)) == said


def test_far_more_than_is_looked_ahead_at_once_is_read_whole() -> None:
    said = [f"text {number}" for number in range(4 * WINDOW_BYTES // 100)]
    reading = Reading()
    [first, *rest] = reading.feed(b"".join(map(line, map(chunk, said))))
    assert first == chunk(said[0])
    assert [text for texts in rest for text in texts] == said[1:]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", [b"data:", b"data: ", b"data:  "])
def test_streams_are_read_at_once_however_their_lines_are_written(name: bytes, line_end: bytes) -> None:
    stream = b"".join(name + orjson.dumps(chunk(text)) + 2 * line_end for text in ("one", "two", "three"))
    assert Reading().feed(stream) == [chunk("one"), ["two", "three"]]


def test_a_key_that_only_looks_like_the_text_is_not_taken_for_it() -> None:
    alike = learned(chunk("One", note={"content": "Not me"}))
    assert texts(alike, line(chunk("two", note={"content": "Not me"}))) == ["two"]
    assert texts(alike, line(chunk("two", note={"content": "Nor me"}))) == []


@pytest.mark.parametrize(
    "payload",
    [
        chunk("One", finish_reason="stop"),
        chunk("One", extra={"reasoning": "hm"}),
        chunk("One", extra={"tool_calls": [{}]}),
        chunk("One", usage={"prompt_tokens": 1}),
        chunk(None),
        {"choices": [{"index": 1, "delta": {"content": "One"}}]},
        {"choices": [{"delta": {"content": "One"}}, {"delta": {"content": "Two"}}]},
        {"choices": [{"message": {"content": "One"}}]},
        {"content": "One"},
    ],
    ids=orjson.dumps,
)
def test_from_a_chunk_that_says_more_than_text_nothing_is_learned(payload: Json) -> None:
    assert texts(learned(payload), line(payload)) == []


@pytest.mark.parametrize(
    "text",
    [b'"two","three"', b'"two', b'two"', b'"', b"2", b"null", b'{"a":"b"}', b'"two":"three"', b'"\xff"', b'"\\"', b""],
)
def test_what_is_no_text_between_the_same_bytes_is_left_to_the_parser(text: bytes) -> None:
    before, after = line(chunk("One")).split(b'"One"')
    assert texts(learned(chunk("One")), before + text + after) == []


def test_texts_are_not_told_from_others_that_come_to_as_many() -> None:
    before, after = line(chunk("One")).split(b'"One"')
    assert texts(learned(chunk("One")), *(before + text + after for text in (b'"two","three"', b'"four" "five"'))) == []


def test_what_two_lines_have_between_them_is_no_text() -> None:
    before, after = line(chunk("One")).split(b'"One"')
    assert texts(learned(chunk("One")), *(before + text + after for text in (b'"two', b'three","four"'))) == []


def test_a_text_is_read_although_what_follows_it_is_none() -> None:
    before, after = line(chunk("One")).split(b'"One"')
    assert texts(learned(chunk("One")), *(before + text + after for text in (b'"two"', b"2", b'"three"'))) == ["two"]


def test_as_many_are_read_as_are_alike_from_there_on() -> None:
    lines = [line(chunk(text, created=created)) for text, created in zip("abcd", (2, 1, 1, 2), strict=True)]
    alike = learned(chunk("One", created=1))
    assert [texts(alike, *lines[start:]) for start in range(5)] == [[], ["b", "c"], ["c"], [], []]


def test_a_chunk_that_has_not_come_whole_is_waited_for() -> None:
    alike, whole = learned(chunk("One")), line(chunk("two"))
    for size in range(len(whole)):
        assert texts(alike, whole[:size]) == []
        assert texts(alike, line(chunk("Then")), whole[:size]) == ["Then"]
    assert texts(alike, whole) == ["two"]


def test_a_server_that_never_repeats_itself_is_learned_from_no_more_after_a_while() -> None:
    alike = Alike()
    for number in range(MOST_LESSONS + 1):
        each = chunk("One", system_fingerprint=str(number))
        alike.learn(line(each)[:-2], line(each)[6:-2], each)
    assert texts(alike, line(chunk("two", system_fingerprint=str(MOST_LESSONS)))) == []
