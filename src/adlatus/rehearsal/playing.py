"""Responses of the rehearsal server: a plan that is played to one client, JSON, and errors in the shape of OpenAI."""

import asyncio
from collections.abc import Callable
from typing import Any, assert_never

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adlatus.rehearsal.memory import Entry
from adlatus.rehearsal.plan import (
    Argue,
    Begin,
    Call,
    Fault,
    Finish,
    Garble,
    HangUp,
    Plan,
    Refuse,
    Say,
    Stall,
    Wait,
)
from adlatus.rehearsal.voice import Voice, error_body

WRITE_BYTES = 65_536
HANG_UP = "adlatus.rehearsal.hang_up"


class Noted(Response):
    """A response whose status is noted in the log before it is sent."""

    def __init__(self, response: ASGIApp, entry: Entry) -> None:
        super().__init__()
        self._response = response
        self._entry = entry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._entry.status = message["status"]
            await send(message)

        await self._response(scope, receive, noting)


class Played(Response):
    """One plan, played to one client. The head of the answer is sent with its first bytes, not before."""

    def __init__(self, events: Plan, voice: Voice, strikes: Callable[[int, int | None], bool]) -> None:
        super().__init__()
        self._events = events
        self._voice = voice
        self._strikes = strikes
        self._unsent = bytearray()
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for position, event in enumerate(self._events):
            match event:
                case Refuse(times=times) | HangUp(times=times) if not self._strikes(position, times):
                    continue
                case Wait(seconds):
                    await self._flush(send)
                    if await _gone(receive, seconds):
                        return
                case Refuse():
                    await _refusal(event)(scope, receive, send)
                    return
                case Fault(message) if not self._voice.live:
                    await error(500, message)(scope, receive, send)
                    return
                case HangUp():
                    await self._flush(send, early=True)
                    scope["extensions"][HANG_UP]()
                    await _stay(receive)
                    return
                case Stall():
                    await self._flush(send)
                    await _stay(receive)
                    return
                case Begin() | Say() | Call() | Argue() | Garble():
                    self._unsent += self._voice.write(event)
                    if len(self._unsent) > WRITE_BYTES:
                        await self._flush(send)
                case Fault() | Finish():
                    self._unsent += self._voice.write(event)
                    await self._flush(send, last=True)
                    return
                case _:
                    assert_never(event)

    async def _flush(self, send: Send, *, early: bool = False, last: bool = False) -> None:
        """Send what is there; a voice that is not live speaks only at the end, or `early` if there will be no end."""
        if not self._unsent or not (self._voice.live or early or last):
            return
        if not self._begun:
            headers = [(b"content-type", self._voice.media_type.encode()), (b"cache-control", b"no-cache")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._begun = True
        await send({"type": "http.response.body", "body": bytes(self._unsent), "more_body": not last})
        self._unsent.clear()


async def _gone(receive: Receive, within_s: float) -> bool:
    """Wait so long, unless the client goes first: then at once True."""
    try:
        async with asyncio.timeout(within_s):
            await _stay(receive)
    except TimeoutError:
        return False
    return True


async def _stay(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _refusal(refuse: Refuse) -> Response:
    message = refuse.message or f"The rehearsal model was told to fail with HTTP status {refuse.status}."
    headers = {"retry-after": refuse.retry_after} if refuse.retry_after else None
    return error(refuse.status, message, code=refuse.code, headers=headers)


def error(status: int, message: str, **rest: Any) -> Response:
    headers = rest.pop("headers", None)
    return Response(error_body(status, message, **rest), status, headers, "application/json")


def json(content: object) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
