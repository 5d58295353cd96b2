"""The tools that the server carries out itself: how a model is offered them, and what becomes of their calls.

A closed union: a tool that is added has to be matched in every function here.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import assert_never

from adlatus.runs.calls import Call
from adlatus.runs.citations import Passage
from adlatus.runs.tools import code_interpreter, file_search
from adlatus.runs.tools.code_interpreter import CodeInterpreter
from adlatus.runs.tools.file_search import FileSearch
from adlatus.runs.tools.work import ToolFailed as ToolFailed
from adlatus.runs.tools.work import Work as Work
from adlatus.telemetry.tracing import NO_SPAN, Attributes
from adlatus.wire.common import Json
from adlatus.wire.runs import Run
from adlatus.wire.steps import ASKED, function_call

MOST_ROUNDS = 16
"""Turns of a run in which hosted tools are carried out. After them no tools are offered, so that it comes to an end."""


@dataclass(frozen=True)
class NotOffered:
    """What a call leads to whose name nobody knows, in a run whose client has no functions: the model is told."""

    offered: tuple[str, ...]


Hosted = FileSearch | CodeInterpreter
Tool = Hosted | NotOffered
"""What carries out a call here."""


@dataclass(frozen=True)
class Toolbox:
    """What a model is offered: the client's functions, and hosted tools by the names under which it knows them."""

    functions: Sequence[Json] = ()
    hosted: Mapping[str, Hosted] = field(default_factory=dict)

    def tool(self, name: str) -> Tool | None:
        """What carries out a call of that name; None where the client does."""
        if self.hosted and not self.functions:
            return self.hosted.get(name) or NotOffered(tuple(self.hosted))
        return self.hosted.get(name)

    @property
    def schemas(self) -> list[Json]:
        """The tools as a chat request has them."""
        return [*map(_schema, self.functions), *(_offer(name, tool) for name, tool in self.hosted.items())]

    @property
    def searches(self) -> bool:
        """Whether the file search is among the tools."""
        return _has(self.hosted, FileSearch)

    @property
    def executes_code(self) -> bool:
        """Whether the code interpreter is among the tools."""
        return _has(self.hosted, CodeInterpreter)

    def choice(self, choice: str | Json) -> str | Json | None:
        """A run's `tool_choice` as a chat request has it; None where it forces nothing."""
        if isinstance(choice, str):
            return choice if choice == "required" else None
        if choice["type"] == "function":
            return choice
        name = next((name for name, tool in self.hosted.items() if _type(tool) == choice["type"]), None)
        return {"type": "function", "function": {"name": name}} if name else None


NOTHING = Toolbox()


def toolbox(run: Run) -> Toolbox:
    """What the model of a run is offered: nothing where the choice is `none`, which several servers overlook."""
    if run.tool_choice == "none":
        return NOTHING
    functions = [tool["function"] for tool in run.tools if tool["type"] == "function"]
    taken = {function["name"] for function in functions}
    hosted: dict[str, Hosted] = {}
    for tool in run.tools:  # of two entries of a type the first counts
        match tool["type"]:
            case "file_search" if not _has(hosted, FileSearch):
                hosted[_free(file_search.NAME, taken)] = FileSearch.of(tool)
            case "code_interpreter" if not _has(hosted, CodeInterpreter):
                hosted[_free(code_interpreter.NAME, taken)] = CodeInterpreter()
    return Toolbox(functions, hosted)


def _has(hosted: Mapping[str, Hosted], kind: type[Hosted]) -> bool:
    return any(isinstance(tool, kind) for tool in hosted.values())


def _free(name: str, taken: set[str]) -> str:
    return name if name not in taken else next(free for n in count(2) if (free := f"{name}_{n}") not in taken)


def _type(tool: Hosted) -> str:
    match tool:
        case FileSearch():
            return "file_search"
        case CodeInterpreter():
            return "code_interpreter"
        case _:
            assert_never(tool)


def _offer(name: str, tool: Hosted) -> Json:
    match tool:
        case FileSearch():
            return file_search.schema(name)
        case CodeInterpreter():
            return code_interpreter.schema(name)
        case _:
            assert_never(tool)


def _schema(function: Json) -> Json:
    """A function as it was sent, without what is understood anyway: servers that know no `strict` may refuse it."""
    return {
        "type": "function",
        "function": {name: value for name, value in function.items() if name != "strict" or value is True},
    }


def pending(call: Call, tool: Tool | None) -> Json:
    """A call in a step's details as long as nothing has come back."""
    match tool:
        case FileSearch():
            return file_search.pending(call.id, tool)
        case CodeInterpreter():
            return code_interpreter.pending(call.id, call.arguments)
        case NotOffered() | None:
            return function_call(call.id, call.name, call.arguments, call.extra)
        case _:
            assert_never(tool)


def as_function(call: Json) -> Json | None:
    """A call of a step's details as the model knows it, a function with its output; None as long as it has none."""
    match call["type"]:
        case "file_search":
            return file_search.as_function(call)
        case "code_interpreter":
            return code_interpreter.as_function(call)
    return call if call["function"]["output"] is not None else None


def passages(calls: Iterable[Json]) -> dict[tuple[int, int], Passage] | None:
    """What can be cited of the calls of a run, perhaps nothing; None where it has not searched."""
    searched = [file_search.passages(call) for call in calls if call["type"] == "file_search"]
    return {numbers: passage for found in searched for numbers, passage in found.items()} if searched else None


def images(calls: Iterable[Json]) -> list[str]:
    """The images that calls have shown, as files."""
    shown = [code_interpreter.images(call) for call in calls if call["type"] == "code_interpreter"]
    return [file_id for found in shown for file_id in found]


def position(chat_messages: int, earlier: Iterable[Json]) -> int:
    """The position of the first call of a turn that answers so many messages; the others have the numbers after it.

    2 more than the messages before the one that answers the call: in a new thread the first search is the 4th.
    *Source*: recorded runs; the rule is inferred. A position is never used again in a run, even if of the thread less
    is shown than before.
    """
    taken: list[int] = [call[ASKED]["position"] for call in earlier if "position" in call.get(ASKED, ())]
    return max(chat_messages + 3, max(taken, default=0) + 1)


def rounds(run: Run, steps: Iterable[Json]) -> int:
    """In how many of a run's steps, by their details, calls were carried out here."""
    clients = bool(toolbox(run).functions)  # without any, whatever was called was carried out here
    called = (details.get("tool_calls", ()) for details in steps)
    return sum(any(call["type"] != "function" or not clients for call in calls) for calls in called)


async def carry_out(work: Work, calls: Sequence[tuple[int, Call, Tool]]) -> None:
    """Carry out calls of one turn, all at once; their places among its calls come with them.

    The work keeps what comes of each. Raises `ToolFailed`, and `InvalidRequest` where what is searched cannot be
    searched any more; the others are cancelled then.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for place, call, tool in calls:
                group.create_task(_carry_out(work, place, call, tool))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


async def _carry_out(work: Work, place: int, call: Call, tool: Tool) -> None:
    with work.resources.tracing.span(*_told_of(call, tool)) if work.resources.tracing else NO_SPAN:
        await _carried_out(work, place, call, tool)


def _told_of(call: Call, tool: Tool) -> tuple[str, Attributes]:
    """The name of the span of a call, and what is said of it. A name that nobody knows is the model's invention."""
    name = "unknown" if isinstance(tool, NotOffered) else _type(tool)
    return f"execute_tool {name}", {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call.id,
        "gen_ai.tool.type": "datastore" if isinstance(tool, FileSearch) else "extension",
    }


async def _carried_out(work: Work, place: int, call: Call, tool: Tool) -> None:
    match tool:
        case FileSearch():
            work.carried_out[call.id] = await file_search.carry_out(work, place, call, tool)
        case CodeInterpreter():
            await code_interpreter.carry_out(work, place, call)
        case NotOffered(names):
            told = f"There is no function {call.name}. You may call: {', '.join(names)}."
            kept = pending(call, tool)
            work.carried_out[call.id] = {**kept, "function": {**kept["function"], "output": told}}
        case _:
            assert_never(tool)
