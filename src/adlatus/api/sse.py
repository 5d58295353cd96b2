"""Streams: ready bytes from the event log to the client. Closing the client stops the reading, not the run."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

_EVENTS: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
STREAMED: dict[int | str, dict[str, Any]] = {200: {**_EVENTS, "description": "The run, or its events"}}
"""What the documentation says of routes that may stream."""

FOLLOWED: dict[int | str, dict[str, Any]] = {200: {**_EVENTS, "description": "The run's events"}}
"""What the documentation says of a route that always streams."""

PING_S = 15


def stream(frames: AsyncIterator[bytes]) -> Response:
    """A response that sends complete frames as they come, and a comment when there is nothing to say for long."""
    return EventSourceResponse(
        frames,
        ping=PING_S,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
        sep="\n",
        headers={"cache-control": "no-store"},
    )
