"""The calls of functions in a model's answer, in the manners of servers."""

import re
from typing import Any

import pytest

from adlatus.runs.calls import Argued, Called
from adlatus.runs.turn import Piece, Turn

Json = dict[str, Any]

BERLIN, PARIS = '{"city":"Berlin"}', '{"city":"Paris"}'


def _entry(
    index: int | None = None, id: object = None, name: object = None, arguments: object = None, **rest: object
) -> Json:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    entry = {"index": index, "id": id, "function": function or None}
    return {key: value for key, value in entry.items() if value is not None} | rest


def _chunk(*entries: Json, finish_reason: str | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": {"tool_calls": list(entries)}, "finish_reason": finish_reason}]}


def _each(*entries: Json) -> list[Json]:
    """A chunk for each entry."""
    return [_chunk(entry) for entry in entries]


def _message(**message: object) -> Json:
    return {"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "tool_calls"}]}


def _folded(chunks: list[Json]) -> tuple[list[Piece], Turn]:
    turn = Turn()
    return turn.fold(chunks) + turn.finish(), turn


def _calls(chunks: list[Json]) -> list[tuple[str, str]]:
    """Names and arguments."""
    _, turn = _folded(chunks)
    assert len({call.id for call in turn.calls}) == len(turn.calls)
    return [(call.name, call.arguments) for call in turn.calls]


# --- Manners of servers


def test_openai_names_a_call_first_and_then_sends_arguments_by_index() -> None:
    pieces, turn = _folded(
        [
            _chunk(_entry(0, "call_a", "weather", "", type="function")),
            _chunk(_entry(0, arguments='{"city":')),
            _chunk(_entry(0, arguments='"Berlin"}')),
            _chunk(_entry(1, "call_b", "time", "", type="function")),
            _chunk(_entry(1, arguments="{}")),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        ]
    )
    assert pieces == [
        Called(0, "call_a", "weather"),
        Argued(0, '{"city":'),
        Argued(0, '"Berlin"}'),
        Called(1, "call_b", "time"),
        Argued(1, "{}"),
    ]
    assert [(call.id, call.name, call.arguments) for call in turn.calls] == [
        ("call_a", "weather", BERLIN),
        ("call_b", "time", "{}"),
    ]
    assert turn.finish_reason == "stop"


def test_parallel_calls_may_take_turns() -> None:
    entries = (
        _entry(0, "call_a", "weather", ""),
        _entry(1, "call_b", "time", ""),
        _entry(1, arguments="{"),
        _entry(0, arguments='{"city":'),
        _entry(1, arguments="}"),
        _entry(0, arguments='"Berlin"}'),
    )
    assert _calls(_each(*entries)) == _calls([_chunk(*entries)]) == [("weather", BERLIN), ("time", "{}")]


def test_ollama_sends_whole_calls() -> None:
    entries = _entry(0, "call_1", "weather", BERLIN), _entry(1, "call_2", "weather", PARIS)
    for chunks in ([_chunk(*entries, finish_reason="stop")], _each(*entries)):
        pieces, _ = _folded(chunks)
        assert pieces == [
            Called(0, "call_1", "weather"),
            Argued(0, BERLIN),
            Called(1, "call_2", "weather"),
            Argued(1, PARIS),
        ]


def test_old_ollama_gives_every_call_the_index_0() -> None:
    entries = _entry(0, "call_1", "weather", BERLIN), _entry(0, "call_2", "weather", PARIS)
    for chunks in ([_chunk(*entries)], _each(*entries)):
        assert _calls(chunks) == [("weather", BERLIN), ("weather", PARIS)]


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("call_id", ["", None])
def test_gemini_sends_whole_calls_without_ids(index: int | None, call_id: str | None) -> None:
    entries = _entry(index, call_id, "weather", BERLIN), _entry(index, call_id, "weather", PARIS)
    for chunks in ([_chunk(*entries)], _each(*entries)):
        assert _calls(chunks) == [("weather", BERLIN), ("weather", PARIS)]


def test_another_name_is_another_call_even_without_arguments() -> None:
    assert _calls(_each(_entry(0, "", "now", ""), _entry(0, "", "here", ""))) == [("now", ""), ("here", "")]


@pytest.mark.parametrize("call_id", ["", "same"])
def test_llama_cpp_repeats_ids_over_calls(call_id: str) -> None:
    entries = (
        _entry(0, call_id, "weather", '{"city":'),
        _entry(0, arguments='"Berlin"}'),
        _entry(1, call_id, "weather", '{"city":'),
        _entry(1, arguments='"Paris"}'),
    )
    assert _calls(_each(*entries)) == [("weather", BERLIN), ("weather", PARIS)]


@pytest.mark.parametrize("index", [0, None])
def test_whole_calls_of_one_id_are_several(index: int | None) -> None:
    """Some proxies give the function's name as the id."""
    entries = _entry(index, "weather", "weather", BERLIN), _entry(index, "weather", "weather", PARIS)
    assert _calls(_each(*entries)) == [("weather", BERLIN), ("weather", PARIS)]


@pytest.mark.parametrize("repeated", [{}, {"id": "a"}, {"name": "run"}, {"id": "a", "name": "run"}])
def test_vllm_may_repeat_id_and_name_with_every_piece(repeated: dict[str, str]) -> None:
    pieces, _ = _folded(
        _each(
            _entry(0, "a", "run", type="function"),
            _entry(0, arguments='{"code":"', **repeated),
            _entry(0, arguments="{}", **repeated),
            _entry(0, arguments="{}", **repeated),
            _entry(0, arguments='"}', **repeated),
            _entry(0, arguments="", **repeated),
        )
    )
    assert pieces == [
        Called(0, "a", "run"),
        Argued(0, '{"code":"'),
        Argued(0, "{}"),
        Argued(0, "{}"),
        Argued(0, '"}'),
    ]


@pytest.mark.parametrize("name", [None, "weather"])
def test_old_vllm_gives_every_piece_an_id_of_its_own(name: str | None) -> None:
    entries = (
        _entry(0, "a1", "weather", '{"city":' if name else None),
        *([] if name else [_entry(0, "a2", None, '{"city":')]),
        _entry(0, "a3", name, '"Berlin"'),
        _entry(0, "a4", name, "}"),
        _entry(1, "b1", "weather", '{"city":"Paris'),
        _entry(1, "b2", name, '"}'),
    )
    pieces, turn = _folded(_each(*entries))
    assert [(call.id, call.arguments) for call in turn.calls] == [("a1", BERLIN), ("b1", PARIS)]
    assert pieces[0] == Called(0, "a1", "weather")


def test_calls_may_share_an_index_and_still_come_in_pieces() -> None:
    """Each begins with its id and its name and nothing else."""
    entries = (
        _entry(0, "a", "weather", ""),
        _entry(0, "", None, '{"city":'),
        _entry(0, "", None, '"Berlin"}'),
        _entry(0, "b", "weather", ""),
        _entry(0, "", None, PARIS),
        _entry(0, "c", "time", "{}"),
    )
    assert _calls(_each(*entries)) == [("weather", BERLIN), ("weather", PARIS), ("time", "{}")]


def test_without_an_index_the_id_tells_the_call() -> None:
    entries = (
        _entry(id="a", name="weather"),
        _entry(id="b", name="weather"),
        _entry(id="a", arguments=BERLIN),
        _entry(id="b", arguments='{"city":'),
        _entry(arguments='"Paris"}'),
    )
    assert _calls(_each(*entries)) == [("weather", BERLIN), ("weather", PARIS)]


def test_without_index_and_id_a_name_begins_a_call() -> None:
    entries = (
        _entry(name="weather"),
        _entry(arguments='{"city":'),
        _entry(arguments='"Berlin"}'),
        _entry(name="weather", arguments='{"city":'),
        _entry(arguments='"Paris"}'),
    )
    assert _calls(_each(*entries)) == [("weather", BERLIN), ("weather", PARIS)]


@pytest.mark.parametrize("call_id", ["same", "", None])
def test_each_call_of_a_whole_message_is_one(call_id: str | None) -> None:
    entries = [_entry(None, call_id, "weather", BERLIN), _entry(None, call_id, "weather", BERLIN)]
    assert _calls([_message(content=None, tool_calls=entries)]) == [("weather", BERLIN), ("weather", BERLIN)]


def test_the_old_function_call_is_one_call() -> None:
    said: list[Json] = [{"name": "weather", "arguments": ""}, {"arguments": '{"city":'}, {"arguments": '"Berlin"}'}]
    chunks = [{"choices": [{"delta": {"content": None, "function_call": part}}]} for part in said]
    assert _calls(chunks) == [("weather", BERLIN)]
    assert _calls([_message(function_call={"name": "weather", "arguments": BERLIN})]) == [("weather", BERLIN)]


def test_a_function_call_beside_tool_calls_is_the_same_call() -> None:
    function = {"name": "weather", "arguments": BERLIN}
    assert _calls([_message(tool_calls=[_entry(0, "a", **function)], function_call=function)]) == [("weather", BERLIN)]


def test_a_call_goes_on_where_indexes_come_but_once() -> None:
    entries = (
        _entry(0, "a", "weather", '{"city":'),
        _entry(1, "b", "time", "{"),
        _entry(id="a", arguments='"Berlin"}'),
        _entry(id="b", arguments="}"),
    )
    assert _calls(_each(*entries)) == [("weather", BERLIN), ("time", "{}")]


@pytest.mark.parametrize("piece", ["[1]", "1", "{"])
def test_a_named_piece_that_is_no_object_goes_on_with_the_call(piece: str) -> None:
    assert _calls(_each(_entry(0, "", "f", "{}"), _entry(0, "", "f", piece))) == [("f", "{}" + piece)]


def test_a_piece_that_is_an_object_is_the_first_of_a_call_without_arguments() -> None:
    assert _calls(_each(_entry(0, "", "f", ""), _entry(0, "", "f", "{}"))) == [("f", "{}")]


@pytest.mark.parametrize("odd", [[0], {}, "0", 0.0, True])
def test_an_odd_index_is_none(odd: object) -> None:
    entries = [{"index": odd, "function": {"name": "f", "arguments": "{"}}, {"index": odd, "function": {"name": "f"}}]
    assert _calls(_each(*entries)) == [("f", "{"), ("f", "")]


# --- Ids


@pytest.mark.parametrize("fit", ["call_1", "a", "x" * 64, "A-b.c:d_0"])
def test_ids_that_can_serve_are_kept(fit: str) -> None:
    _, turn = _folded([_chunk(_entry(0, fit, "f"))])
    assert turn.calls[0].id == fit


@pytest.mark.parametrize("unfit", ["", None, 5, [], "x" * 65, "a b", "a\n", "ä", "a/b", "taken"])
def test_other_ids_are_replaced(unfit: object) -> None:
    turn = Turn(taken_ids=["taken"])
    pieces = turn.fold(_each(_entry(0, unfit, "f"), _entry(0, unfit, arguments="{}")))
    [call] = turn.calls
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", call.id)
    assert pieces == [Called(0, call.id, "f"), Argued(0, "{}")]


def test_an_id_that_comes_after_the_name_comes_too_late() -> None:
    pieces, turn = _folded(_each(_entry(0, None, "f"), _entry(0, "late", arguments="{}"), _entry(0, "other", "g")))
    assert [call.id for call in turn.calls] == [turn.calls[0].id, "other"]
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", turn.calls[0].id)
    assert len(pieces) == 3


# --- Names and arguments


def test_arguments_wait_for_the_name() -> None:
    turn = Turn()
    assert turn.fold(_each(_entry(0, "a", arguments='{"city":'), _entry(1, "b", "time", "{}"))) == [
        Called(0, "b", "time"),
        Argued(0, "{}"),
    ]
    assert turn.fold(_each(_entry(0, arguments='"Berlin"'), _entry(0, name="weather"), _entry(0, arguments="}"))) == [
        Called(1, "a", "weather"),
        Argued(1, '{"city":"Berlin"'),
        Argued(1, "}"),
    ]


def test_a_call_without_a_name_is_none() -> None:
    pieces, turn = _folded(_each(_entry(0, "a", None, "{}"), _entry(1, "b", "", "{}"), _entry(2, "c", 5, "{}")))
    assert (pieces, turn.calls) == ([], [])


def test_long_names_are_cut() -> None:
    assert _calls(_each(_entry(0, "a", "f" * 300), _entry(0, "a", "f" * 300, "{}"))) == [("f" * 256, "{}")]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (None, ""),
        ("", ""),
        ('{"city": ', '{"city": '),
        ("rubbish\n", "rubbish\n"),
        ({}, "{}"),
        ({"city": "Köln", "days": [1, 2.5]}, '{"city":"Köln","days":[1,2.5]}'),
        ([1, "a"], '[1,"a"]'),
        (False, "false"),
        (0, "0"),
    ],
)
def test_arguments_are_handed_on_as_text(sent: object, text: str) -> None:
    entry = {"index": 0, "id": "a", "function": {"name": "f", "arguments": sent}}
    pieces, turn = _folded([_chunk(entry)])
    assert pieces == [Called(0, "a", "f"), *([Argued(0, text)] if text else [])]
    assert turn.calls[0].arguments == text


def test_arguments_too_deep_to_be_written_are_none() -> None:
    deep: Json = {}
    for _ in range(1000):
        deep = {"a": deep}
    assert _calls([_chunk(_entry(0, "a", "f", deep))]) == [("f", "")]


# --- No more than so many calls


@pytest.mark.parametrize("most", [0, 1, 2])
def test_calls_too_many_are_ignored_whole(most: int) -> None:
    turn = Turn(most_calls=most)
    entries = [_entry(i, f"call_{i}", "f", "{") for i in range(3)] + [_entry(i, arguments="}") for i in range(3)]
    pieces = turn.fold(_each(*entries))
    assert [(call.id, call.arguments) for call in turn.calls] == [(f"call_{i}", "{}") for i in range(most)]
    assert all(isinstance(piece, Called | Argued) and piece.index < most for piece in pieces)
    assert len(pieces) == 3 * most


def test_a_call_without_a_name_leaves_room_for_another() -> None:
    turn = Turn(most_calls=1)
    turn.fold(_each(_entry(0, "a", None, "{}"), _entry(1, "b", "f"), _entry(0, "a", "g")))
    assert [call.name for call in turn.calls] == ["f"]


@pytest.mark.parametrize(("depth", "is_kept"), [(100, True), (101, False), (250, False), (900, False)])
def test_notes_on_a_call_are_kept_only_as_deep_as_they_can_be_written_within_a_step(depth: int, is_kept: bool) -> None:
    notes: Json = {}
    for _ in range(depth - 1):
        notes = {"deeper": notes}
    _, turn = _folded([_chunk(_entry(0, "call_1", "look", "{}", extra_content=notes))])
    assert [call.extra for call in turn.calls] == [notes if is_kept else None]
