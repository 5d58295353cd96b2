"""The fold of a model's chunks."""

from typing import Any

import pytest

from adlatus.runs.journal import COMPLETED, FILTERED, OUT_OF_TOKENS
from adlatus.runs.loop import Finish, Stop, decide
from adlatus.runs.turn import Turn

Json = dict[str, Any]


def _chunk(content: object = None, finish_reason: object = None, **rest: object) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}], **rest}


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
    assert turn.text == "Hello"
    assert turn.finish_reason == "stop"


def test_a_refusal_is_text_and_reasoning_is_none() -> None:
    turn = Turn()
    said = (
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"content": "", "refusal": "No, "},
        {"refusal": "Jane."},
    )
    assert turn.fold({"choices": [{"index": 0, "delta": delta}]} for delta in said) == ["No, ", "Jane."]


def test_a_whole_message_in_the_place_of_deltas_is_the_answer() -> None:
    turn = Turn()
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert turn.fold([{"choices": [{"index": 0, "message": message, "finish_reason": "length"}]}]) == ["Hello"]
    assert turn.finish_reason == "length"


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
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"content": None}, "finish_reason": ""}]},
        {"choices": [{"content_filter_results": {}, "finish_reason": None}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"delta": {"content": ["a"]}, "finish_reason": 4}]},
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
    assert turn == Turn()


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
