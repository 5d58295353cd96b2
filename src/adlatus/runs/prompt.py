"""From a run and the messages of its thread to the request for the model. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import orjson

from adlatus.backends.routing import Route
from adlatus.runs.budget import Left
from adlatus.runs.tools import toolbox
from adlatus.wire.common import Json
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run
from adlatus.wire.steps import EXTRA

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Calls:
    """The calls of one turn of a run as the model knows them: functions, each with its output.

    `message_id` is of the message that the model has said in the same turn, which then comes just before.
    """

    run_id: str
    calls: tuple[Json, ...]
    message_id: str | None = None


Item = Message | Calls
"""What a conversation is made of."""


class RefusedImage(Exception):  # noqa: N818
    """The model cannot look at images, or links to them are not followed; the message says what to do."""


# --- What is shown of a thread that is too long


def fitting(sizes: Iterable[int], room: int) -> int:
    """How many blocks fit, from the first on, until one does not."""
    count = 0
    for size in sizes:
        room -= size
        if room < 0:
            break
        count += 1
    return count


def ends(oldest: Sequence[int], newest: Sequence[int], room: int, *, newest_stays: bool) -> tuple[int, int]:
    """How many of the oldest and of the newest blocks stay of a thread that does not fit: its middle goes.

    The sizes are of the same blocks from either end, each as far as they are known; what is not known does not fit.
    The newest block has the first claim, and stays even if it does not fit where `newest_stays`; then the oldest have
    a quarter of the room, and the newest the rest. *Source*: the schema says that the middle is dropped.
    """
    first = int(bool(newest) and (newest_stays or newest[0] <= room))
    free = room - sum(newest[:first])
    head = fitting(oldest, min(room // 4, free))
    return head, first + fitting(newest[1:], free - sum(oldest[:head])) if first else 0


def latest(newest: Sequence[int], room: int, *, newest_stays: bool) -> int:
    """How many of the newest blocks stay where none of the oldest are wanted."""
    return max(fitting(newest, room), int(newest_stays and bool(newest)))


# --- The request


def links(items: Sequence[Item], route: Route) -> list[str]:
    """The links to images that have to be fetched for the request."""
    if not route.vision or route.endpoint.image_urls != "inline":
        return []
    urls = [part["image_url"]["url"] for part in _parts_of_users(items) if part["type"] == "image_url"]
    return [url for url in urls if not url.startswith("data:")]


def image_files(items: Sequence[Item], route: Route) -> list[str]:
    """The ids of the image files that the model is to look at."""
    if not route.vision:
        return []
    return [part["image_file"]["file_id"] for part in _parts_of_users(items) if part["type"] == "image_file"]


def _parts_of_users(items: Sequence[Item]) -> list[Json]:
    messages = [item for item in items if isinstance(item, Message) and item.role == "user"]
    return [part for message in messages for part in message.content]


def build(run: Run, items: Sequence[Item], route: Route, left: Left, fetched: Mapping[str, str] = NOTHING) -> Json:
    """The chat request of a run: instructions as the system message, then the conversation, oldest first.

    `left` is what is left of the run's budgets, `fetched` has a `data:` URL for each of the `links`, and for each of
    the `image_files` that is there. A temperature or `top_p` of 1 is what the original fills in, and is left to the
    endpoint: models have better defaults of their own, and some refuse the parameter. Raises `RefusedImage`.
    """
    chat: list[Json] = [{"role": "system", "content": run.instructions}] if run.instructions else []
    chat += _conversation(run.id, items, route, fetched)
    if not chat:  # an empty thread may be run, but no endpoint takes an empty list
        chat = [{"role": "user", "content": ""}]
    request: Json = {"model": run.model, "messages": chat}
    optional = {
        "temperature": None if run.temperature == 1 else run.temperature,
        "top_p": None if run.top_p == 1 else run.top_p,
        "reasoning_effort": run.reasoning_effort,
        "max_completion_tokens": left.completion_tokens,
        "response_format": None if run.response_format == "auto" else run.response_format,
    }
    request |= {name: value for name, value in optional.items() if value is not None}
    return request | _calling(run, items)


def _calling(run: Run, items: Sequence[Item]) -> Json:
    """The tools, and how they may be used: a call is forced in the first turn only, or the run would never end."""
    offered = toolbox(run)
    if not offered.schemas:
        return {}
    request: Json = {"tools": offered.schemas}
    has_called = any(isinstance(item, Calls) and item.run_id == run.id for item in items)
    if not has_called and (choice := offered.choice(run.tool_choice)):
        request["tool_choice"] = choice
    if not run.parallel_tool_calls:
        request["parallel_tool_calls"] = False
    return request


def _conversation(run_id: str, items: Sequence[Item], route: Route, fetched: Mapping[str, str]) -> list[Json]:
    chat: list[Json] = []
    for before, item in pairwise((None, *items)):
        if isinstance(item, Calls):
            said = _said_with(item, before)
            if said:
                chat.pop()
            chat += _called(item, said or None, with_extras=item.run_id == run_id)
        elif item and (content := _content(item, route, fetched)):
            chat.append({"role": item.role, "content": content})
    return chat


def _said_with(calls: Calls, before: Item | None) -> str:
    """What the model said in the turn of its calls, which chat has in one message."""
    return text(before.content) if isinstance(before, Message) and before.id == calls.message_id else ""


def _called(item: Calls, said: str | None, *, with_extras: bool) -> list[Json]:
    """The calls and what came of them. Extras are for the model that wrote them, which other runs may not have."""
    asked: list[Json] = []
    answered: list[Json] = []
    for call in item.calls:
        function = {"name": call["function"]["name"], "arguments": arguments(call["function"]["arguments"])}
        extra = {EXTRA: call[EXTRA]} if with_extras and EXTRA in call else {}
        asked.append({"id": call["id"], "type": "function", "function": function, **extra})
        answered.append({"role": "tool", "tool_call_id": call["id"], "content": call["function"]["output"]})
    return [{"role": "assistant", "content": said, "tool_calls": asked}, *answered]


def arguments(said: str) -> str:
    """A call's arguments as every server takes them: a JSON object, even where the model has said something else.

    Some servers parse the arguments of earlier turns, and refuse the whole request for what is no object.
    """
    if not said.strip():
        return "{}"
    try:
        is_object = isinstance(orjson.loads(said), dict)
    except orjson.JSONDecodeError:
        is_object = False
    return said if is_object else orjson.dumps({"malformed_arguments": said}).decode()


def text(parts: Sequence[Json]) -> str:
    """The words of a message's parts; a refusal is words."""
    return "\n".join(_words(part) for part in parts if part["type"] in ("text", "refusal"))


def _words(part: Json) -> str:
    words: Any = part["text"]["value"] if part["type"] == "text" else part["refusal"]
    return str(words)


def _content(message: Message, route: Route, fetched: Mapping[str, str]) -> str | list[Json]:
    if message.role == "assistant" or all(part["type"] == "text" for part in message.content):
        return text(message.content)
    return [_part(part, route, fetched) for part in message.content]


def _part(part: Json, route: Route, fetched: Mapping[str, str]) -> Json:
    match part["type"]:
        case "text":
            return {"type": "text", "text": part["text"]["value"]}
        case "image_url":
            image = part["image_url"]
            if not route.vision:
                raise RefusedImage(f"The model '{route.model}' does not take images. Leave them out, or name another.")
            if route.endpoint.image_urls == "refuse" and not image["url"].startswith("data:"):
                raise RefusedImage(
                    "The message links to an image, and links are not followed here. Send the image as a data: URL, or "
                    f"set {route.endpoint.set_by['image_urls']}."
                )
            url = fetched.get(image["url"], image["url"])
            return {"type": "image_url", "image_url": {"url": url, "detail": image["detail"]}}
        case _:
            image = part["image_file"]
            if url := fetched.get(image["file_id"]):
                return {"type": "image_url", "image_url": {"url": url, "detail": image["detail"]}}
            # Deleted, of another purpose, or the model has no eyes: it is told rather than left to guess
            return {"type": "text", "text": f"[The image {image['file_id']} is not available.]"}
