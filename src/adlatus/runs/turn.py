"""One turn of a model as a fold over its chunks. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from adlatus.runs.calls import Argued, Call, Called, Calls, text_of
from adlatus.runs.thinking import Thinking
from adlatus.wire.common import CachedTokens, Json, ReasoningTokens, Usage
from adlatus.wire.messages import text_content

FinishReason = Literal["stop", "length", "content_filter"]
Part = Literal["text", "refusal"]


@dataclass(frozen=True, slots=True)
class Refused:
    """More of a refusal."""

    text: str


Piece = str | Refused | Called | Argued
"""What a chunk brought; a string is more of the answer's text, which mostly is all that there is."""


class Turn:
    """What the model has said so far, whom it called, why it stopped, what it used.

    However an answer is cut into chunks, and chunks into batches, the turn is the same. Pieces, put together, are the
    turn's own text, refusal and calls: what is held back is in neither.
    """

    def __init__(self, *, most_calls: int | None = None, taken_ids: Collection[str] = ()) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self._calls = Calls(most_calls, taken_ids)
        self._thinking = Thinking()
        self._parts: dict[Part, list[str]] = {}

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._parts.get("text", ()))

    @property
    def refusal(self) -> str:
        """The whole refusal."""
        return "".join(self._parts.get("refusal", ()))

    @property
    def hidden(self) -> str:
        """The reasoning, which is not shown."""
        return "".join(self._thinking.hidden)

    @property
    def calls(self) -> list[Call]:
        """The calls whose names are known, in the order of their pieces' indexes."""
        return self._calls.known

    @property
    def content(self) -> list[Json]:
        """The parts of the message, none if nothing was said."""
        return [
            text_content(self.text) if part == "text" else {"type": "refusal", "refusal": self.refusal}
            for part in self._parts
        ]

    def part_index(self, part: Part) -> int:
        """The place of a part in the content, which does not change once a piece of it was given."""
        return list(self._parts).index(part)

    def fold(self, chunks: Iterable[Json]) -> list[Piece]:
        """Add chunks; returns the pieces that they brought, in order."""
        new: list[Piece] = []
        for chunk in chunks:
            if choice := _first(chunk.get("choices")):
                # Where an endpoint overlooks that a stream was asked for, `message` has it all
                delta = choice.get("delta") or choice.get("message")
                if isinstance(delta, dict):
                    self._add(delta, new, whole=not choice.get("delta"))
                if reason := choice.get("finish_reason"):
                    self.finish_reason = _finish_reason(reason) or self.finish_reason
            if isinstance(reported := chunk.get("usage"), dict):
                self.usage = _usage(reported) or self.usage
        return new

    def finish(self) -> list[Piece]:
        """The answer has ended; returns what was held back, which is nothing that was said where calls came after."""
        text = self._thinking.finish()
        if self.calls:
            self._thinking.hidden.append(text)
            return []
        return [self._say("text", text)] if text else []

    def _add(self, delta: Json, new: list[Piece], *, whole: bool) -> None:
        if self.calls:
            delta = self._without_afterthought(delta)
        if content := delta.get("content"):
            text = text_of(content) or _joined(content)
            if not self._thinking.over:
                text = self._thinking.filter(text)
            if text:
                new.append(self._say("text", text))
            if len(delta) == 1:
                return
        if refusal := text_of(delta.get("refusal")):
            new.append(Refused(self._say("refusal", refusal)))
        # Some versions of vLLM send the same under both names
        if reasoning := text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning")):
            self._thinking.hidden.append(reasoning)
        if delta.get("tool_calls") or delta.get("function_call"):
            new += self._calls.fold(delta, whole=whole)

    def _without_afterthought(self, delta: Json) -> Json:
        """The delta without words: a turn ends with its calls, and what models mumble after them is not shown."""
        content = delta.get("content")
        self._thinking.hidden += [text_of(content) or _joined(content), text_of(delta.get("refusal"))]
        return {name: value for name, value in delta.items() if name not in ("content", "refusal")}

    def _say(self, part: Part, text: str) -> str:
        self._parts.setdefault(part, []).append(text)
        return text


def _first(choices: Any) -> Json | None:
    """The first of an answer's choices, of which no more was asked for. Some servers do not number it."""
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            index = choice.get("index")
            if (place if index is None else index) == 0:
                return choice
    return None


def _joined(content: Any) -> str:
    """The text of a content that came in parts, as some gateways send it."""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "".join(text_of(part.get("text")) for part in parts if part.get("type", "text") == "text")


def _finish_reason(reason: Any) -> FinishReason | None:
    match reason:
        case "length":
            return "length"
        case "content_filter":
            return "content_filter"
        case str() if reason:  # early Ollama says "" in every chunk
            return "stop"
        case _:
            return None


def _usage(reported: Json) -> Usage | None:
    """Usage in the original's spelling; None where the upstream's is not made of numbers."""
    prompt, completion = reported.get("prompt_tokens"), reported.get("completion_tokens")
    if not _is_count(prompt) or not _is_count(completion):
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_token_details=CachedTokens(cached_tokens=_detail(reported, "prompt_tokens_details", "cached_tokens")),
        completion_tokens_details=ReasoningTokens(
            reasoning_tokens=_detail(reported, "completion_tokens_details", "reasoning_tokens")
        ),
    )


def _detail(reported: Json, group: str, name: str) -> int:
    details = reported.get(group)
    value = details.get(name) if isinstance(details, dict) else None
    return value if _is_count(value) else 0


def _is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a number of tokens: one that metrics can add, and JSON and the database can keep."""
    return type(value) is int and 0 <= value < 2**53
