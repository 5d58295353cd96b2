"""The fold of a model's chunks: its text, its refusal, its reasoning, and how it ends."""

from typing import Any

import pytest

from adlatus.runs.calls import Argued, Called
from adlatus.runs.endings import COMPLETED, FILTERED, OUT_OF_TOKENS
from adlatus.runs.loop import Finish, Stop, decide
from adlatus.runs.turn import Refused, Turn

Json = dict[str, Any]


def _chunk(content: object = None, finish_reason: object = None, **rest: object) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}], **rest}


def _delta(**delta: object) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _call(name: str) -> Json:
    return _delta(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": name, "arguments": "{}"}}])


ANSWER = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    _chunk("Hel"),
    _chunk("lo"),
    _chunk(None, "stop"),
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    },
]


@pytest.mark.parametrize("cut", range(len(ANSWER) + 1))
def test_any_batching_gives_the_same_turn(cut: int) -> None:
    turn = Turn()
    pieces = turn.fold(ANSWER[:cut]) + turn.fold(ANSWER[cut:])
    assert pieces == ["Hel", "lo"]
    assert turn.finish() == []
    assert turn.text == "Hello"
    assert turn.content == [{"type": "text", "text": {"value": "Hello", "annotations": []}}]
    assert turn.finish_reason == "stop"


def test_a_refusal_is_a_part_of_its_own() -> None:
    turn = Turn()
    said = (_delta(content="", refusal="No, "), _delta(refusal="Jane."))
    assert turn.fold(said) == [Refused("No, "), Refused("Jane.")]
    assert (turn.text, turn.refusal) == ("", "No, Jane.")
    assert turn.content == [{"type": "refusal", "refusal": "No, Jane."}]


@pytest.mark.parametrize("first", ["content", "refusal"])
def test_parts_are_numbered_by_their_first_appearance(first: str) -> None:
    turn = Turn()
    second = "refusal" if first == "content" else "content"
    turn.fold([_delta(**{first: "A"}), _delta(**{second: "B"}), _delta(**{first: "C"})])
    text, refusal = ("AC", "B") if first == "content" else ("B", "AC")
    assert (turn.text, turn.refusal) == (text, refusal)
    assert (turn.part_index("text"), turn.part_index("refusal")) == ((0, 1) if first == "content" else (1, 0))
    assert [part["type"] for part in turn.content] == [
        "text" if turn.part_index("text") == 0 else "refusal",
        "refusal" if turn.part_index("text") == 0 else "text",
    ]


def test_a_whole_message_in_the_place_of_deltas_is_the_answer() -> None:
    turn = Turn()
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert turn.fold([{"choices": [{"index": 0, "message": message, "finish_reason": "length"}]}]) == ["Hello"]
    assert turn.finish_reason == "length"


def test_the_texts_of_content_in_parts_are_the_answer() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"text": "lo"}, {"type": "thinking", "text": "Hm."}, {"type": "text"}, 5]
    turn = Turn()
    assert turn.fold([_chunk(parts), _chunk([{"type": "text", "text": "!"}])]) == ["Hello", "!"]


def test_only_the_first_choice_is_the_answer() -> None:
    first, second = {"delta": {"content": "A"}}, {"delta": {"content": "B"}, "finish_reason": "length"}
    turn = Turn()
    chunks: list[Json] = [
        {"choices": [first, second]},
        {"choices": [{"index": 1, **second}]},
        {"choices": [{"index": 1, **second}, {"index": 0, **first}]},
        {"choices": [{"index": None, **first}]},
    ]
    assert turn.fold(chunks) == ["A", "A", "A"]
    assert turn.finish_reason is None


def test_what_the_database_cannot_keep_is_replaced() -> None:
    turn = Turn()
    named = {"name": "f\0", "arguments": "\0"}
    turn.fold([_delta(content="a\0b", refusal="\0", tool_calls=[{"index": 0, "id": "\0", "function": named}])])
    assert (turn.text, turn.refusal) == ("a\ufffdb", "\ufffd")
    assert [(call.name, call.arguments) for call in turn.calls] == [("f\ufffd", "\ufffd")]
    assert turn.calls[0].id.startswith("call_")


# --- Whitespace before the answer


def test_whitespace_before_the_answer_comes_with_it() -> None:
    turn = Turn()
    assert turn.fold([_chunk("\n"), _chunk(" "), _chunk("A"), _chunk(" "), _chunk("B")]) == ["\n A", " ", "B"]


def test_whitespace_before_calls_is_not_said() -> None:
    turn = Turn()
    assert turn.fold([_chunk("\n\n"), _call("f")])[0] == Called(0, "call_1", "f")
    assert turn.finish() == []
    assert turn.content == []


def test_what_is_said_behind_calls_is_not_shown() -> None:
    """The message before them is completed by then."""
    turn = Turn()
    pieces = turn.fold([_chunk("\n"), _call("f"), _chunk("A"), _delta(refusal="No"), _delta(content=[{"text": "B"}])])
    assert [piece for piece in pieces if isinstance(piece, str | Refused)] == []
    assert turn.finish() == []
    assert (turn.text, turn.refusal, turn.hidden) == ("", "", "ANoB\n")


def test_text_and_a_call_in_one_chunk_are_both_heard() -> None:
    turn = Turn()
    call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    pieces = turn.fold([_delta(content="A", tool_calls=[call])])
    assert pieces == ["A", Called(0, "call_1", "f"), Argued(0, "{}")]


def test_an_answer_that_is_nothing_but_whitespace_is_an_answer() -> None:
    turn = Turn()
    assert turn.fold([_chunk("\n"), _chunk("\n")]) == []
    assert turn.finish() == ["\n\n"]
    assert turn.finish() == []
    assert turn.text == "\n\n"


# --- Reasoning


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_beside_the_answer_is_hidden(name: str) -> None:
    turn = Turn()
    assert turn.fold([_delta(**{name: "Hm"}), _delta(**{name: "."}), _chunk("A")]) == ["A"]
    assert turn.hidden == "Hm."


def test_reasoning_under_both_names_counts_once() -> None:
    turn = Turn()
    turn.fold([_delta(reasoning="Hm.", reasoning_content="Hm.")])
    assert turn.hidden == "Hm."


THOUGHTS = {
    "thought and answer": ("<think>Hm.</think>\n\nYes.", "Hm.", "Yes."),
    "whitespace first": ("\n <think>\nHm.</think>Yes.", "\nHm.", "Yes."),
    "no thought": ("<think>\n\n</think>\n\nYes. ", "\n\n", "Yes. "),
    "no end": ("<think>Hm. Yes", "Hm. Yes", ""),
    "a cut end": ("<think>Hm.</thin", "Hm.</thin", ""),
    "ends in the ending": ("<think>a<</</think</think>b", "a<</</think", "b"),
    "no answer": ("<think>Hm.</think>\n", "Hm.", ""),
    "a cut beginning": (" <thi", "", " <thi"),
    "a smaller sign": ("<", "", "<"),
    "a cut beginning and text": ("<think Hm.", "", "<think Hm."),
    "another tag": ("<thinking>Hm.</thinking>", "", "<thinking>Hm.</thinking>"),
    "twice a beginning": ("<<think>Hm.</think>", "", "<<think>Hm.</think>"),
    "later": ("Yes <think>Hm.</think>", "", "Yes <think>Hm.</think>"),
    "once more": ("<think>Hm.</think><think>Hm.</think>", "Hm.", "<think>Hm.</think>"),
    "an end alone": ("</think>Yes.", "", "</think>Yes."),
}


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("case", THOUGHTS)
def test_a_thought_at_the_beginning_is_hidden_wherever_it_is_cut(case: str, step: int) -> None:
    said, hidden, shown = THOUGHTS[case]
    turn = Turn()
    pieces = turn.fold(_chunk(said[i : i + step]) for i in range(0, len(said), step)) + turn.finish()
    assert "".join(str(piece) for piece in pieces) == shown
    assert "" not in pieces
    assert (turn.hidden, turn.text) == (hidden, shown)


def test_only_what_may_become_a_tag_is_held_back() -> None:
    turn = Turn()
    assert turn.fold([_chunk("<th")]) == []
    assert turn.fold([_chunk("e")]) == ["<the"]
    assert turn.fold([_chunk("<think>")]) == ["<think>"]


def test_text_behind_a_thought_comes_at_once() -> None:
    turn = Turn()
    assert turn.fold([_chunk("<think>Hm.</think>A")]) == ["A"]
    assert turn.fold([_chunk("\n")]) == ["\n"]


def test_a_cut_tag_before_calls_is_nothing() -> None:
    turn = Turn()
    turn.fold([_chunk("\n<thi"), _call("f")])
    assert turn.finish() == []
    assert turn.hidden == "\n<thi"


# --- The end


def test_usage_is_spelled_as_the_original_did() -> None:
    turn = Turn()
    turn.fold(ANSWER)
    assert turn.usage is not None
    assert turn.usage.model_dump() == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "prompt_token_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"choices": None},
        {"choices": "text"},
        {"choices": [None, 3, "x"]},
        {"choices": [{}]},
        {"choices": [{"index": "0", "delta": {"content": "text"}}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"content": None}, "finish_reason": ""}]},
        {"choices": [{"content_filter_results": {}, "finish_reason": None}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"delta": {"content": ["a"]}, "finish_reason": 4}]},
        {"choices": [{"delta": {"refusal": ["a"], "reasoning": {}, "reasoning_content": 3}}]},
        {"choices": [{"delta": {"tool_calls": {"index": 0}, "function_call": "f"}}]},
        {"choices": [{"delta": {"tool_calls": [None, "f", {"function": "f"}, {"function": {"name": ["f"]}}]}}]},
        {"usage": 7},
        {"usage": {"prompt_tokens": "many"}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": None}},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 2}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2**64 - 1}},
        {"usage": {"prompt_tokens": True, "completion_tokens": 2}},
        {"usage": {}, "choices": []},
    ],
)
def test_odd_chunks_are_passed_over(odd: Json) -> None:
    turn = Turn()
    assert turn.fold([odd]) == []
    assert turn.finish() == []
    assert (turn.content, turn.calls, turn.hidden, turn.finish_reason, turn.usage) == ([], [], "", None, None)


def test_an_odd_end_does_not_undo_a_known_one() -> None:
    turn = Turn()
    turn.fold([_chunk(None, "length"), *ANSWER[-1:], _chunk(None, ["stop"], usage={"prompt_tokens": "many"})])
    assert turn.finish_reason == "length"
    assert turn.usage is not None


def test_details_that_are_not_numbers_count_as_none() -> None:
    turn = Turn()
    turn.fold([{"usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None}}])
    assert turn.usage is not None
    assert turn.usage.prompt_token_details.cached_tokens == 0


@pytest.mark.parametrize(
    ("reason", "decision"),
    [
        ("stop", Finish()),
        ("tool_calls", Finish()),
        ("function_call", Finish()),
        ("something new", Finish()),
        (None, Finish()),
        ("length", Stop(OUT_OF_TOKENS)),
        ("content_filter", Stop(FILTERED)),
    ],
)
def test_the_finish_reason_decides_how_the_run_ends(reason: str | None, decision: object) -> None:
    turn = Turn()
    turn.fold([_chunk("text"), _chunk(None, reason)])
    assert decide(turn) == decision
    assert COMPLETED.message is None
