"""From a run and the messages of its thread to the request for the model. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from adlatus.backends.routing import Route
from adlatus.wire.common import Json
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run

NOTHING: Mapping[str, str] = MappingProxyType({})


class RefusedImage(Exception):  # noqa: N818
    """The model cannot look at images, or links to them are not followed; the message says what to do."""


def links(messages: Sequence[Message], route: Route) -> list[str]:
    """The links to images that have to be fetched for the request."""
    if not route.vision or route.endpoint.image_urls != "inline":
        return []
    parts = [part for message in messages if message.role == "user" for part in message.content]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [url for url in urls if not url.startswith("data:")]


def build(run: Run, messages: Sequence[Message], route: Route, fetched: Mapping[str, str] = NOTHING) -> Json:
    """The chat request of a run: instructions as the system message, then the thread, oldest first.

    `fetched` has a `data:` URL for each of the `links`. A temperature or `top_p` of 1 is what the original fills in,
    and is left to the endpoint: models have better defaults of their own, and some refuse the parameter. Raises
    `RefusedImage`.
    """
    chat: list[Json] = [{"role": "system", "content": run.instructions}] if run.instructions else []
    said = ((message.role, _content(message, route, fetched)) for message in messages)
    chat += [{"role": role, "content": content} for role, content in said if content]
    if not chat:  # an empty thread may be run, but no endpoint takes an empty list
        chat = [{"role": "user", "content": ""}]
    request: Json = {"model": run.model, "messages": chat}
    optional = {
        "temperature": None if run.temperature == 1 else run.temperature,
        "top_p": None if run.top_p == 1 else run.top_p,
        "reasoning_effort": run.reasoning_effort,
        "max_completion_tokens": run.max_completion_tokens,
        "response_format": None if run.response_format == "auto" else run.response_format,
    }
    return request | {name: value for name, value in optional.items() if value is not None}


def _content(message: Message, route: Route, fetched: Mapping[str, str]) -> str | list[Json]:
    if message.role == "assistant" or all(part["type"] == "text" for part in message.content):
        return "\n".join(part["text"]["value"] for part in message.content if part["type"] == "text")
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
            # Files are not offered yet, so there are no bytes to show; the model is told rather than left to guess.
            return {"type": "text", "text": f"[The image {part['image_file']['file_id']} is not available.]"}
