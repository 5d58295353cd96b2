"""Tokens: what is left of a run's budgets, how much room that leaves for the prompt, and what things take. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from adlatus.backends import tokens
from adlatus.wire.common import Json, ReasoningTokens, Usage
from adlatus.wire.runs import Run

DEFAULT_WINDOW = 128_000
"""The context window of a model whose route states none."""

PER_MESSAGE = 4
"""What chat templates put around a message."""

_DEFAULT_RESERVE = 4096
_LOW_DETAIL, _HIGH_DETAIL = 85, 1105


@dataclass(frozen=True)
class Left:
    """What is left of the budgets of a run; None where there is no budget."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def left(run: Run, used: Usage) -> Left:
    """What a run may still use after its earlier turns have used `used`.

    *Source*: OpenAI's guide: of 500 and 1,000, a first completion of 200 and 300 leaves 300 and 700.
    """
    return Left(
        _less(run.max_prompt_tokens, used.prompt_tokens), _less(run.max_completion_tokens, used.completion_tokens)
    )


def _less(budget: int | None, used: int) -> int | None:
    return None if budget is None else max(budget - used, 0)


def room(context_window: int | None, left: Left) -> int:
    """How many tokens a prompt may take: what the window leaves beside the answer, or less if less is left."""
    window = context_window or DEFAULT_WINDOW
    if left.completion_tokens is None:
        reserve = min(_DEFAULT_RESERVE, window // 4)
    else:
        reserve = min(left.completion_tokens, window // 2)
    return window - reserve if left.prompt_tokens is None else min(window - reserve, left.prompt_tokens)


@dataclass(slots=True)
class Weight:
    """What takes tokens: texts, and what counts as so many whatever the encoding."""

    texts: list[str] = field(default_factory=list)
    flat: int = 0

    def most(self) -> int:
        """An upper bound that costs next to nothing."""
        return self.flat + sum(map(tokens.most, self.texts))

    def count(self, counter: Callable[[str], int], enough: float = float("inf")) -> int:
        """The tokens; where they are more than `enough`, some number above it."""
        counted = self.flat
        for text in self.texts:
            if counted > enough:
                break
            counted += counter(text)
        return counted


def total(weights: Sequence[Weight], model: str) -> int:
    """The tokens of all of them together. Blocks: an encoding may have to be built."""
    counter = tokens.counter(model)
    return sum(weight.count(counter) for weight in weights)


def of_image(detail: object) -> int:
    """An estimate for an image whatever its size: one tile of 512 pixels, or the six of a large one.

    *Source*: OpenAI's guide to vision: 85 tokens for detail low, else 85 and 170 for each tile.
    """
    return _LOW_DETAIL if detail == "low" else _HIGH_DETAIL


def of_schemas(schemas: object) -> Weight:
    """What descriptions take, such as those of tools: their JSON, if there are any."""
    return Weight([orjson.dumps(schemas).decode()]) if schemas else Weight()


def of_format(response_format: object) -> Weight:
    """What the schema of an answer takes, if there is one."""
    return of_schemas(response_format.get("json_schema")) if isinstance(response_format, dict) else Weight()


def counted(model: str, request: Json, said: Sequence[str], hidden: Sequence[str] = ()) -> Usage:
    """The usage of a turn as this server counts it, for endpoints that report none.

    `said` are the turn's text and the names and arguments of its calls, `hidden` is its reasoning. Blocks, perhaps for
    long: an encoding may have to be built, and all is counted.
    """
    counter = tokens.counter(model)
    prompt = sum(_of_chat(message).count(counter) for message in request["messages"])
    prompt += of_schemas(request.get("tools")).count(counter) + of_format(request.get("response_format")).count(counter)
    reasoning = Weight([*hidden]).count(counter)
    completion = Weight([*said]).count(counter) + reasoning
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        completion_tokens_details=ReasoningTokens(reasoning_tokens=reasoning),
    )


def _of_chat(message: Json) -> Weight:
    """What a message of a chat request takes."""
    content: Any = message["content"]
    weight = Weight([content] if isinstance(content, str) else [], PER_MESSAGE)
    for part in content if isinstance(content, list) else ():
        if part["type"] == "text":
            weight.texts.append(part["text"])
        else:
            weight.flat += of_image(part["image_url"]["detail"])
    for call in message.get("tool_calls", ()):
        weight.texts += [call["function"]["name"], call["function"]["arguments"]]
    return weight
