"""Streams: ready bytes from the event log to the client. Closing the client stops the reading, not the run."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The run, or its events"}
}
"""What the documentation says of routes that may stream."""

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
