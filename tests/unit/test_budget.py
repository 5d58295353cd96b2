"""What is left of a run's token budgets, and what things take."""

from typing import Any

import pytest

from adlatus.backends import tokens
from adlatus.runs import budget
from adlatus.runs.budget import Left
from adlatus.wire.common import NOTHING_USED, CachedTokens, ReasoningTokens, Usage
from tests.unit.test_prompt import run_of

Json = dict[str, Any]
MODEL = "unknown"


def usage(prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_token_details=CachedTokens(cached_tokens=cached),
        completion_tokens_details=ReasoningTokens(reasoning_tokens=reasoning),
    )


def size(*texts: str) -> int:
    return sum(map(tokens.estimate, texts))


def test_budgets_are_over_the_whole_run() -> None:
    run = run_of(max_prompt_tokens=500, max_completion_tokens=1000)
    assert budget.left(run, usage(0, 0)) == Left(500, 1000)
    assert budget.left(run, usage(200, 300)) == Left(300, 700)
    assert budget.left(run, usage(600, 1000)) == Left(0, 0)


def test_without_budgets_nothing_is_limited() -> None:
    assert budget.left(run_of(), usage(200, 300)) == Left(None, None)
    assert budget.left(run_of(max_prompt_tokens=500), usage(200, 300)) == Left(300, None)
    assert budget.left(run_of(max_completion_tokens=500), usage(200, 300)) == Left(None, 200)


def test_the_usage_of_turns_is_added_up() -> None:
    turns = [usage(200, 300, cached=100, reasoning=20), usage(1, 2, cached=3, reasoning=4)]
    assert sum(turns, NOTHING_USED) == usage(201, 302, cached=103, reasoning=24)
    assert sum([], NOTHING_USED) == usage(0, 0)


@pytest.mark.parametrize(
    ("window", "left", "room"),
    [
        (None, Left(), 128_000 - 4096),
        (32_768, Left(), 32_768 - 4096),
        (8_192, Left(), 8_192 - 2_048),
        (8_192, Left(completion_tokens=300), 8_192 - 300),
        (8_192, Left(completion_tokens=0), 8_192),
        (8_192, Left(completion_tokens=100_000), 4_096),
        (8_192, Left(prompt_tokens=256), 256),
        (8_192, Left(prompt_tokens=100_000), 8_192 - 2_048),
        (8_192, Left(prompt_tokens=5_000, completion_tokens=4_000), 4_192),
    ],
)
def test_the_answer_is_left_room_in_the_window(window: int | None, left: Left, room: int) -> None:
    assert budget.room(window, left) == room


def test_every_message_takes_its_text_and_what_templates_put_around_it() -> None:
    request: Json = {
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there!"}]
    }
    counted = budget.counted(MODEL, request, ["Hello", " you!"])
    assert counted == usage(8 + size("Be kind.", "Hello there!"), size("Hello", " you!"))


def test_calls_and_their_outputs_and_schemas_are_counted() -> None:
    function = {"name": "weather", "arguments": '{"in": "Bonn"}'}
    request: Json = {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": function}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "warm"},
        ],
        "tools": [{"type": "function"}],
    }
    prompt = 8 + size("weather", '{"in": "Bonn"}', "warm", '[{"type":"function"}]')
    assert budget.counted(MODEL, request, []) == usage(prompt, 0)


def test_hidden_reasoning_is_part_of_the_completion() -> None:
    counted = budget.counted(MODEL, {"messages": []}, ["42"], ["Let me think."])
    assert counted == usage(0, size("42", "Let me think."), reasoning=size("Let me think."))


@pytest.mark.parametrize(("detail", "taken"), [("low", 85), ("high", 1105), ("auto", 1105)])
def test_images_are_estimated(detail: str, taken: int) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9999, "detail": detail}}
    request: Json = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look!"}, image]}]}
    assert budget.counted(MODEL, request, []) == usage(4 + size("Look!") + taken, 0)


def test_a_weight_stops_to_count_where_it_is_enough() -> None:
    asked: list[str] = []

    def counter(text: str) -> int:
        asked.append(text)
        return 10

    assert budget.Weight(["a", "b", "c"], 4).count(counter) == 34
    asked.clear()
    assert budget.Weight(["a", "b", "c"], 4).count(counter, 13) == 14
    assert asked == ["a"]


def test_the_upper_bound_is_one() -> None:
    weight = budget.Weight(["Hello there!", "Grüße"], 4)
    assert weight.most() >= weight.count(tokens.counter(MODEL))
    assert weight.most() == 4 + 12 + 7
