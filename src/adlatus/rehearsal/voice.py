"""How an answer looks on the wire: a stream of chunks, one whole object, or an error. Bytes only; it sends nothing."""

import time
import uuid
from typing import Any, Protocol, TypeAlias, assert_never

import orjson

from adlatus.rehearsal.chat import ChatRequest
from adlatus.rehearsal.plan import Argue, Begin, Call, Fault, Finish, Garble, Say, Usage

Written: TypeAlias = Begin | Say | Call | Argue | Garble | Fault | Finish


class Voice(Protocol):
    """Writes one answer. `live`: what is written goes out as it comes; otherwise only at the end of the answer."""

    live: bool
    media_type: str

    def write(self, event: Written) -> bytes: ...


class StreamVoice:
    """Server-sent events with one chat.completion.chunk each."""

    live = True
    media_type = "text/event-stream"

    def __init__(self, chat: ChatRequest) -> None:
        self._include_usage = chat.include_usage
        self._head = b"data: " + orjson.dumps(_envelope(chat, "chat.completion.chunk"))[:-1]
        self._choice = self._head + b',"choices":[{"index":0,"delta":'
        self._end = b"}]" + (b',"usage":null' if chat.include_usage else b"") + b"}\n\n"

    def write(self, event: Written) -> bytes:
        going_on = b',"logprobs":null,"finish_reason":null' + self._end
        match event:
            case Begin(calls_only):
                content = b"null" if calls_only else b'""'
                return self._choice + b'{"role":"assistant","content":' + content + b"}" + going_on
            case Say(tokens):
                before, after = self._choice + b'{"content":', b"}" + going_on
                return b"".join([before + orjson.dumps(token) + after for token in tokens])
            case Call(index, call_id, name):
                call = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
                return self._choice + b'{"tool_calls":[' + orjson.dumps(call) + b"]}" + going_on
            case Argue(index, pieces):
                before = self._choice + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
                return b"".join([before + orjson.dumps(piece) + b"}}]}" + going_on for piece in pieces])
            case Garble():
                return b"data: {this is not JSON\n\n"
            case Fault(message):
                return b"data: " + error_body(500, message) + b"\n\n"
            case Finish(reason, usage):
                last = self._choice + b'{},"logprobs":null,"finish_reason":' + orjson.dumps(reason) + self._end
                if usage and self._include_usage:
                    last += self._head + b',"choices":[],"usage":' + _usage(usage) + b"}\n\n"
                return last + b"data: [DONE]\n\n"
            case _:
                assert_never(event)


class WholeVoice:
    """One chat.completion object, written from left to right so that it can break off anywhere. `_close` is what would
    end the string that is being written, and what lies around it."""

    live = False
    media_type = "application/json"

    def __init__(self, chat: ChatRequest) -> None:
        self._head = orjson.dumps(_envelope(chat, "chat.completion"))[:-1]
        self._calls = False
        self._close = b""

    def write(self, event: Written) -> bytes:
        match event:
            case Begin(calls_only):
                self._close = b"" if calls_only else b'"'
                content = b"null" if calls_only else b'"'
                before = b',"choices":[{"index":0,"message":{"role":"assistant","refusal":null,"content":'
                return self._head + before + content
            case Say(texts) | Argue(_, texts):
                return b"".join([orjson.dumps(text)[1:-1] for text in texts])
            case Call(_, call_id, name):
                before = self._close + (b"," if self._calls else b',"tool_calls":[')
                self._calls, self._close = True, b'"}}'
                call = orjson.dumps({"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}})
                return before + call.removesuffix(self._close)
            case Garble():
                return b'"{this is not JSON'
            case Fault(message):
                return error_body(500, message)
            case Finish(reason, usage):
                close = self._close + (b"]" if self._calls else b"")
                last = close + b'},"logprobs":null,"finish_reason":' + orjson.dumps(reason) + b"}]"
                return last + (b',"usage":' + _usage(usage) if usage else b"") + b"}"
            case _:
                assert_never(event)


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
    """OpenAI's error object."""
    kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    code = code or ("rate_limit_exceeded" if status == 429 else None)
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _envelope(chat: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": chat.model,
        "system_fingerprint": "fp_rehearsal",
    }


def _usage(usage: Usage) -> bytes:
    return orjson.dumps(
        {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
    )
