"""What a step keeps of a hosted tool's call for the model alone: what was asked, and how it is told again."""

from adlatus.runs.calls import Call
from adlatus.wire.common import Json
from adlatus.wire.steps import ASKED, EXTRA


def asked(call: Call, **more: object) -> Json:
    """The entries that are kept with a call: its name and arguments with `more`, and the model's own notes on it."""
    entry = {ASKED: {"name": call.name, "arguments": call.arguments, **more}}
    return entry | ({EXTRA: call.extra} if call.extra else {})


def as_function(kept: Json, output: str) -> Json:
    """A kept call with its output as the model knows it."""
    function = {"name": kept[ASKED]["name"], "arguments": kept[ASKED]["arguments"], "output": output}
    return {"id": kept["id"], "type": "function", "function": function} | (
        {EXTRA: kept[EXTRA]} if EXTRA in kept else {}
    )
