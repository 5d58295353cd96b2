"""What readers of a run are told of its objects: rows and pieces of an answer as ready frames. Pure."""

from collections.abc import Collection, Sequence

from adlatus.runs.calls import Argued, Called
from adlatus.runs.citations import Cited
from adlatus.runs.tools import Tool, file_search
from adlatus.runs.tools.file_search import FileSearch
from adlatus.runs.turn import Refused
from adlatus.store.db import Row
from adlatus.wire import events as wire
from adlatus.wire.common import WireObject
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run
from adlatus.wire.steps import RunStep


class OpenMessage:
    """The message that is being written: the deltas of its parts."""

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._text: wire.TextDeltas | None = None
        self._refusal: wire.RefusalDeltas | None = None

    def frame(self, piece: str | Cited | Refused) -> bytes:
        """The delta of a piece. Parts are numbered in the order in which they are first heard of."""
        if isinstance(piece, str | Cited):
            self._text = self._text or wire.TextDeltas(self._message_id, index=int(self._refusal is not None))
            if isinstance(piece, str):
                return self._text.frame(piece)
            return self._text.annotated(piece.text, piece.index, piece.annotation)
        self._refusal = self._refusal or wire.RefusalDeltas(self._message_id, index=int(self._text is not None))
        return self._refusal.frame(piece.text)


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


def of_call(deltas: wire.CallDeltas, piece: Called | Argued, tool: Tool | None) -> list[bytes]:
    """The delta of a piece of a call, if it has one: a search is told at once, without what it looks for."""
    if isinstance(tool, FileSearch):
        if isinstance(piece, Argued):
            return []
        return [deltas.whole(piece.index, file_search.pending(piece.id, tool))]
    if isinstance(piece, Called):
        return [deltas.begin(piece.index, piece.id, piece.name)]
    return [deltas.argue(piece.index, piece.arguments)]
