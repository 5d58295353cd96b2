"""Streams: ready bytes from the event log to the client. Closing the client stops the reading, not the run."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from adlatus.api.leaving import until_client_leaves
from adlatus.api.stepping import begun
from adlatus.store.channel import Push
from adlatus.wire.events import DONE

_EVENTS: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
STREAMED: dict[int | str, dict[str, Any]] = {200: {**_EVENTS, "description": "The run, or its events"}}
"""What the documentation says of routes that may stream."""

FOLLOWED: dict[int | str, dict[str, Any]] = {200: {**_EVENTS, "description": "The run's events"}}
"""What the documentation says of a route that always streams."""

Follow = Callable[[Push], AsyncGenerator[bytes]]
"""The frames of a stream; as many as may be are pushed instead."""

BODY_SEND = "adlatus.body_send"
"""Key of the request's scope: how the body of an answer whose head is sent may go on, past all that wanted the head."""

PING_S = 15.0
_PING = b": keep-alive\n\n"


class EventStream(StreamingResponse):
    """Sends complete frames as they come, and every 15 seconds a comment, so that no proxy takes silence for the end.

    `follow` is given what sends frames at once, and yields those that have to wait. A library's response costs several
    tasks, locks and timeouts a stream, and a fifth of what a short run takes.
    """

    def __init__(self, follow: Follow, status_code: int = 200) -> None:  # FastAPI reads the default of the status
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__((), status_code, headers, media_type="text/event-stream")
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await until_client_leaves(receive, self._send(scope.get(BODY_SEND, send)))

    async def _send(self, send: Send) -> None:
        def push(ready: bytes) -> Awaitable[None] | None:
            return begun(send({"type": "http.response.body", "body": ready, "more_body": True}))

        pinging, ended = asyncio.create_task(_ping_forever(send)), False
        try:
            async with aclosing(self._follow(push)) as frames:
                async for ready in frames:
                    if ended := ready.endswith(DONE):  # with it goes the end of the body, which else costs as much
                        pinging.cancel()
                    await send({"type": "http.response.body", "body": ready, "more_body": not ended})
        finally:
            pinging.cancel()
        if not ended:
            await send({"type": "http.response.body", "body": b""})


async def _ping_forever(send: Send) -> None:
    while True:
        await asyncio.sleep(PING_S)
        await send({"type": "http.response.body", "body": _PING, "more_body": True})
