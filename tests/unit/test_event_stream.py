"""What a stream sends to its server: frames as they come, and the end of the body with the end of the stream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from adlatus.api.sse import EventStream
from adlatus.store.channel import Push
from adlatus.wire.events import DONE

FRAME = b"event: thread.run.created\ndata: {}\n\n"


def sent(*frames: bytes) -> list[dict[str, Any]]:
    """The messages of a stream of these frames, the first of which is pushed."""
    messages: list[dict[str, Any]] = []

    async def follow(push: Push) -> AsyncGenerator[bytes]:
        push(frames[0])
        for frame in frames[1:]:
            yield frame

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(EventStream(follow)({"type": "http"}, receive, send))
    return messages


def test_the_body_ends_with_the_last_event() -> None:
    head, *bodies = sent(FRAME, FRAME, FRAME + DONE)
    assert head["type"] == "http.response.start"
    assert [body["body"] for body in bodies] == [FRAME, FRAME, FRAME + DONE]
    assert [body["more_body"] for body in bodies] == [True, True, False]


@pytest.mark.parametrize("frames", [(FRAME,), (FRAME, FRAME)])
def test_the_body_ends_where_no_last_event_comes(frames: tuple[bytes, ...]) -> None:
    *_, last = sent(*frames)
    assert last == {"type": "http.response.body", "body": b""}
