"""One turn of a model as a fold over its chunks. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeGuard, cast

from adlatus.runs.calls import Argued, Call, Called, Calls, text_of
from adlatus.runs.citations import Citations, Cited, Passages
from adlatus.runs.links import Links
from adlatus.runs.thinking import Thinking
from adlatus.runs.tools import NOTHING, Tool, Toolbox
from adlatus.wire.common import CachedTokens, Json, ReasoningTokens, Usage
from adlatus.wire.messages import image_content, text_content

NO_FILES: Mapping[str, str] = MappingProxyType({})

FinishReason = Literal["stop", "length", "content_filter"]
Part = Literal["text", "refusal"]


@dataclass(frozen=True, slots=True)
class Refused:
    """More of a refusal."""

    text: str


Piece = str | Cited | Refused | Called | Argued
"""What a chunk brought; a string is more of the answer's text, which mostly is all that there is."""


def only_texts(pieces: Sequence[Piece]) -> Sequence[str]:
    """The pieces if all are text, as most are; else none."""
    return cast(Sequence[str], pieces) if set(map(type, pieces)) == {str} else ()


class Turn:
    """What the model has said so far, whom it called, why it stopped, what it used.

    However an answer is cut into chunks, and chunks into batches, the turn is the same. Pieces, put together, are the
    turn's own text, refusal and calls: what is held back is in neither. Where there are `passages`, be they none,
    markers are found in the text; else every bracket is text. Links to `files` are found, which are ids by paths of
    the sandbox. A message begins with `images`, which are ids of files.
    """

    def __init__(
        self,
        *,
        most_calls: int | None = None,
        taken_ids: Collection[str] = (),
        toolbox: Toolbox = NOTHING,
        passages: Passages | None = None,
        files: Mapping[str, str] = NO_FILES,
        images: Sequence[str] = (),
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.images = tuple(images)
        self._toolbox = toolbox
        self._calls = Calls(most_calls, taken_ids)
        self._citations = None if passages is None else Citations(passages)
        self._links = Links(files) if files else None
        self._annotations: list[Json] = []
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
    def hosted(self) -> Mapping[int, Tool]:
        """The tools that carry out calls here, by the places of their calls."""
        tools = ((place, self._toolbox.tool(call.name)) for place, call in enumerate(self.calls))
        return {place: tool for place, tool in tools if tool}

    def tool(self, place: int) -> Tool | None:
        """What carries out the call at a place; None where the client does."""
        return self._toolbox.tool(self.calls[place].name)

    @property
    def content(self) -> list[Json]:
        """The parts of the message, none if nothing was said."""
        images = [image_content(file_id) for file_id in self.images]
        return images + [
            text_content(self.text, self._annotations)
            if part == "text"
            else {"type": "refusal", "refusal": self.refusal}
            for part in self._parts
        ]

    def part_index(self, part: Part) -> int:
        """The place of a part in the content, which does not change once a piece of it was given."""
        return len(self.images) + list(self._parts).index(part)

    def fold(self, chunks: Iterable[Json | list[str]]) -> list[Piece]:
        """Add chunks, or the texts of those that have nothing else; returns the pieces that they brought, in order."""
        new: list[Piece] = []
        for chunk in chunks:
            if isinstance(chunk, list):
                self._add_texts(chunk, new)
            else:
                self._add_chunk(chunk, new)
        return new

    def finish(self) -> list[Piece]:
        """The answer has ended; returns what was held back, which is nothing that was said where calls came after."""
        text = self._thinking.finish()
        if self.calls:
            self._thinking.hidden.append(text)
            return []
        return [*self._spoken(text), *self._end_of_text()]

    def _add_texts(self, texts: list[str], new: list[Piece]) -> None:
        if self._thinking.over and not self.calls and self._citations is None and self._links is None:
            if said := list(filter(None, texts)):
                self._parts.setdefault("text", []).extend(said)
                new += said
            return
        for text in filter(None, texts):
            self._add_text(text, new)

    def _add_chunk(self, chunk: Json, new: list[Piece]) -> None:
        if choice := _first(chunk.get("choices")):
            # Where an endpoint overlooks that a stream was asked for, `message` has it all
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                self._add(delta, new, whole=not choice.get("delta"))
            if reason := choice.get("finish_reason"):
                self.finish_reason = _finish_reason(reason) or self.finish_reason
        if isinstance(reported := chunk.get("usage"), dict):
            self.usage = _usage(reported) or self.usage

    def _add(self, delta: Json, new: list[Piece], *, whole: bool) -> None:
        if self.calls:
            delta = self._without_afterthought(delta)
        if content := delta.get("content"):
            self._add_text(text_of(content) or _joined(content), new)
            if len(delta) == 1:
                return
        if refusal := text_of(delta.get("refusal")):
            new.append(Refused(self._say("refusal", refusal)))
        # Some versions of vLLM send the same under both names
        if reasoning := text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning")):
            self._thinking.hidden.append(reasoning)
        if delta.get("tool_calls") or delta.get("function_call"):
            had_called = bool(self.calls)
            called = self._calls.fold(delta, whole=whole)
            if self.calls and not had_called:
                new += self._end_of_text()
            new += called

    def _add_text(self, text: str, new: list[Piece]) -> None:
        if self.calls:
            self._thinking.hidden.append(text)
            return
        if not self._thinking.over:
            text = self._thinking.filter(text)
        if text:
            new += self._spoken(text)

    def _without_afterthought(self, delta: Json) -> Json:
        """The delta without words: a turn ends with its calls, and what models mumble after them is not shown."""
        content = delta.get("content")
        self._thinking.hidden += [text_of(content) or _joined(content), text_of(delta.get("refusal"))]
        return {name: value for name, value in delta.items() if name not in ("content", "refusal")}

    def _spoken(self, text: str) -> list[str | Cited]:
        """More of the text, as far as it need not be held back."""
        if not text:
            return []
        if self._citations is None and self._links is None:
            return [self._say("text", text)]
        cited: list[str | Cited] = self._citations.filter(text) if self._citations else [text]
        return self._kept(self._links.filter(cited) if self._links else cited)

    def _end_of_text(self) -> list[str | Cited]:
        """What was held back of the text, which goes on no more."""
        cited = self._citations.finish() if self._citations else []
        return self._kept([*self._links.filter(cited), *self._links.finish()] if self._links else cited)

    def _kept(self, pieces: list[str | Cited]) -> list[str | Cited]:
        return [self._say("text", piece) if isinstance(piece, str) else self._annotated(piece) for piece in pieces]

    def _annotated(self, piece: Cited) -> Cited:
        """A marker or a link, with the number that its annotation has in the text."""
        self._say("text", piece.text)
        self._annotations.append(piece.annotation)
        return replace(piece, index=len(self._annotations) - 1)

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
