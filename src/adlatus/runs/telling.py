"""What readers of a run are told of its objects: rows and pieces of an answer as ready frames. Pure."""

from collections.abc import Collection, Sequence

from adlatus.runs.calls import Argued, Call, Called
from adlatus.runs.citations import Cited
from adlatus.runs.code import Code
from adlatus.runs.tools import Tool, code_interpreter, file_search
from adlatus.runs.tools.code_interpreter import CodeInterpreter
from adlatus.runs.tools.file_search import FileSearch
from adlatus.runs.turn import Refused
from adlatus.store.db import Row
from adlatus.wire import events as wire
from adlatus.wire.common import Json, WireObject
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run
from adlatus.wire.steps import RunStep


class OpenMessage:
    """The message that is being written: the deltas of its parts."""

    def __init__(self, message_id: str, images: Sequence[str] = ()) -> None:
        self._message_id = message_id
        self._images = images
        self._text: wire.TextDeltas | None = None
        self._refusal: wire.RefusalDeltas | None = None

    def images(self) -> list[bytes]:
        """The deltas of the images that the message begins with."""
        return [wire.image_delta(self._message_id, index, file_id) for index, file_id in enumerate(self._images)]

    def frames(self, texts: Sequence[str]) -> list[bytes]:
        """The deltas of more text."""
        return self._of_text().frames(texts)

    def frame(self, piece: str | Cited | Refused) -> bytes:
        """The delta of a piece. Parts are numbered in the order in which they are first heard of."""
        if isinstance(piece, str):
            return self._of_text().frame(piece)
        if isinstance(piece, Cited):
            return self._of_text().annotated(piece.text, piece.index, piece.annotation)
        if self._refusal is None:
            index = len(self._images) + int(self._text is not None)
            self._refusal = wire.RefusalDeltas(self._message_id, index)
        return self._refusal.frame(piece.text)

    def _of_text(self) -> wire.TextDeltas:
        if self._text is None:
            index = len(self._images) + int(self._refusal is not None)
            self._text = wire.TextDeltas(self._message_id, index)
        return self._text


class OpenCalls:
    """The step of calls that are being written, and carried out: their deltas."""

    def __init__(self, step_id: str) -> None:
        self._deltas = wire.CallDeltas(step_id)
        self._codes: dict[int, Code] = {}

    def frames(self, piece: Called | Argued, tool: Tool | None) -> list[bytes]:
        """The deltas of a piece of a call. A search is told at once, without what it looks for."""
        match tool, piece:
            case FileSearch(), Called(index, call_id):
                return [self._deltas.whole(index, file_search.pending(call_id, tool))]
            case FileSearch(), Argued():
                return []
            case CodeInterpreter(), Called(index, call_id):
                self._codes[index] = Code()
                return [self._deltas.whole(index, code_interpreter.pending(call_id, ""))]
            case CodeInterpreter(), Argued(index, arguments):
                return self._code(index, self._codes[index].add(arguments))
            case _, Called(index, call_id, name):
                return [self._deltas.begin(index, call_id, name)]
            case _, Argued(index, arguments):
                return [self._deltas.argue(index, arguments)]

    def rest(self, calls: Sequence[Call]) -> list[bytes]:
        """The deltas of code that could not be told piece by piece, now that the calls are whole."""
        rests = ((index, code.finish(calls[index].arguments)) for index, code in self._codes.items())
        return [frame for index, rest in rests for frame in self._code(index, rest)]

    def output(self, index: int, number: int, output: Json) -> bytes:
        """The delta that begins the output of that number of a call, or adds to it."""
        return self._deltas.output(index, number, output)

    def _code(self, index: int, code: str) -> list[bytes]:
        return [self._deltas.code(index, code)] if code else []


def event(noun: str, shown: Run | Message | RunStep) -> bytes:
    """The event that tells of an object's status."""
    return wire.frame(f"{noun}.{shown.status}", shown.json_bytes())


def opened(noun: str, shown: WireObject) -> list[bytes]:
    """The two events of an object that comes into being in progress."""
    json = shown.json_bytes()
    return [wire.frame(f"{noun}.{stage}", json) for stage in ("created", "in_progress")]


def ended(messages: Sequence[Row], steps: Sequence[Row], include: Collection[str]) -> list[bytes]:
    """The events of messages and steps that have ended, in that order."""
    in_order = sorted(steps, key=lambda step: (step["created_at"], step["seq"]))
    return [event("thread.message", Message.of(message)) for message in messages] + [
        event("thread.run.step", RunStep.of(step, include)) for step in in_order
    ]
