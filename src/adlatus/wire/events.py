"""Server-sent events: names, and the bytes of one event. A frame is complete but for its `id:` line."""

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from adlatus.wire.common import Json

DONE: Final = b"event: done\ndata: [DONE]\n\n"
"""The end of every stream."""


def frame(event: str, json: bytes) -> bytes:
    """One event with a JSON object as its data."""
    return b"event: " + event.encode() + b"\ndata: " + json + b"\n\n"


def compact(value: object) -> bytes:
    """Compact JSON of plain values."""
    return orjson.dumps(value)


def numbered(first: int, frames: Iterable[bytes]) -> list[bytes]:
    """The frames with the `id:` lines by which a reader can come back, from a number on."""
    return [b"id: %d\n" % number + frame for number, frame in enumerate(frames, first)]


_END: Final = b"}}]}}\n\n"


class TextDeltas:
    """Builds the `thread.message.delta` frames of one text part: one prepared prefix, no pydantic per delta.

    The first delta of a part carries `annotations: []`, later ones do not. *Source*: recorded streams.
    """

    def __init__(self, message_id: str, index: int = 0) -> None:
        self._prefix = (
            b'event: thread.message.delta\ndata: {"id":"%b","object":"thread.message.delta",'
            b'"delta":{"content":[{"index":%d,"type":"text","text":{"value":' % (message_id.encode(), index)
        )
        self._begun = False

    def frame(self, text: str) -> bytes:
        """The frame that adds `text`."""
        if self._begun:
            return self._prefix + orjson.dumps(text) + _END
        self._begun = True
        return self._prefix + orjson.dumps(text) + b',"annotations":[]' + _END

    def frames(self, texts: Sequence[str]) -> list[bytes]:
        """The frames that add texts, one after the other."""
        if not self._begun:
            return [self.frame(texts[0]), *self.frames(texts[1:])] if texts else []
        prefix, json, end = self._prefix, orjson.dumps, _END
        return [prefix + json(text) + end for text in texts]

    def annotated(self, text: str, index: int, annotation: Json) -> bytes:
        """The frame that adds `text` with the annotation of that index, which is never sent again."""
        self._begun = True
        told = orjson.dumps([{"index": index, **annotation}])
        return self._prefix + orjson.dumps(text) + b',"annotations":' + told + _END


class RefusalDeltas:
    """Builds the `thread.message.delta` frames of one refusal. *Source* of their shape: the schema."""

    def __init__(self, message_id: str, index: int) -> None:
        self._message_id = message_id
        self._index = index

    def frame(self, text: str) -> bytes:
        """The frame that adds `text`."""
        part = {"index": self._index, "type": "refusal", "refusal": text}
        delta = {"id": self._message_id, "object": "thread.message.delta", "delta": {"content": [part]}}
        return frame("thread.message.delta", compact(delta))


def image_delta(message_id: str, index: int, file_id: str) -> bytes:
    """The frame of a part that is an image. *Source* of its shape: the schema."""
    part = {"index": index, "type": "image_file", "image_file": {"file_id": file_id, "detail": "auto"}}
    delta = {"id": message_id, "object": "thread.message.delta", "delta": {"content": [part]}}
    return frame("thread.message.delta", compact(delta))


class CallDeltas:
    """Builds the `thread.run.step.delta` frames of a step that calls tools.

    Id and name come once, in the delta that begins a call: accumulators join strings. *Source*: recorded streams.
    """

    def __init__(self, step_id: str) -> None:
        self._prefix = (
            b'event: thread.run.step.delta\ndata: {"id":"%b","object":"thread.run.step.delta",'
            b'"delta":{"step_details":{"type":"tool_calls","tool_calls":[' % step_id.encode()
        )
        self._suffix = b"]}}}\n\n"

    def begin(self, index: int, call_id: str, name: str) -> bytes:
        """The frame that begins a call."""
        function = {"name": name, "arguments": "", "output": None}
        return self._frame({"index": index, "id": call_id, "type": "function", "function": function})

    def argue(self, index: int, arguments: str) -> bytes:
        """The frame that adds to the arguments of a call."""
        return self._frame({"index": index, "type": "function", "function": {"arguments": arguments}})

    def whole(self, index: int, call: Json) -> bytes:
        """The frame of a call that is told at once."""
        return self._frame({"index": index, **call})

    def code(self, index: int, code: str) -> bytes:
        """The frame that adds to the code of a call. *Source*: a recorded delta."""
        return self._frame({"index": index, "type": "code_interpreter", "code_interpreter": {"input": code}})

    def output(self, index: int, number: int, output: Json) -> bytes:
        """The frame that begins the output of that number of a call, or adds to its logs."""
        outputs = [{"index": number, **output}]
        return self._frame({"index": index, "type": "code_interpreter", "code_interpreter": {"outputs": outputs}})

    def _frame(self, call: object) -> bytes:
        return self._prefix + compact(call) + self._suffix
