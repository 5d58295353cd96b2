"""The relay floor: model to client with nothing between that a relay could do without. No framework, no database.

One read of the model's stream becomes one write to the client; an event is a prepared prefix and one JSON string.
Serve it with uvicorn on uvloop and httptools; `BENCH_MODEL_PORT` says where the model is.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from bench.client import Connection, connect, request

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MODEL_PORT = int(os.environ.get("BENCH_MODEL_PORT", "0"))
PREFIX = (
    b'event: thread.message.delta\ndata: {"id":"msg_floor","object":"thread.message.delta",'
    b'"delta":{"content":[{"index":0,"type":"text","text":{"value":'
)
SUFFIX = b"}}]}}\n\n"
DONE = b"event: done\ndata: [DONE]\n\n"
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]

_idle: list[Connection] = []


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer any request with the model's answer to its body, which is a chat request, as delta events."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    while _idle and not _idle[-1].idle:  # closed by the model meanwhile
        _idle.pop()
    model = _idle.pop() if _idle else await connect(MODEL_PORT)
    model.send(request(MODEL_PORT, "POST", "/v1/chat/completions", body))
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    rest = b""
    while piece := await model.read():
        *lines, rest = (rest + piece).split(b"\n\n")
        if frames := b"".join([frame for line in lines if (frame := _frame(line))]):
            await send({"type": "http.response.body", "body": frames, "more_body": True})
    _idle.append(model)
    await send({"type": "http.response.body", "body": DONE})


def _frame(line: bytes) -> bytes:
    """The event of one `data:` line; nothing where it brings no text."""
    if line == b"data: [DONE]":
        return b""
    choices = orjson.loads(line[6:])["choices"]
    text = choices[0]["delta"].get("content") if choices else None
    return PREFIX + orjson.dumps(text) + SUFFIX if text else b""
