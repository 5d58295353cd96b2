"""One turn of a model as a fold over its chunks. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from adlatus.wire.common import CachedTokens, Json, ReasoningTokens, Usage

FinishReason = Literal["stop", "length", "content_filter"]


@dataclass
class Turn:
    """What the model has said so far: its text in pieces, why it stopped, what it used."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    def fold(self, chunks: Iterable[Json]) -> list[str]:
        """Add chunks; returns the text pieces that they brought. However chunks are batched, the turn is the same."""
        new: list[str] = []
        for chunk in chunks:
            for choice in _objects(chunk.get("choices")):
                new += _said(choice)
                self.finish_reason = _finish_reason(choice.get("finish_reason")) or self.finish_reason
            if isinstance(reported := chunk.get("usage"), dict):
                self.usage = _usage(reported) or self.usage
        self.pieces += new
        return new


def _said(choice: Json) -> list[str]:
    """The text of a choice. A refusal is text; reasoning is not part of the answer.

    Where an endpoint overlooks that a stream was asked for, the whole `message` stands in the place of `delta`.
    """
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        return []
    texts = (delta.get("content"), delta.get("refusal"))
    return [text for text in texts if isinstance(text, str) and text]


def _objects(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


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
