"""The hosted tool `code_interpreter`: its offer to the model, its calls in steps, and the execution itself.

What a step keeps is enough to tell the model again exactly what it was told: `ASKED` has it.
"""

import time
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from adlatus.backends import tokens
from adlatus.backends.sandbox.engine import SandboxLostError, SandboxUnavailableError
from adlatus.backends.sandbox.events import Done, Error, Event, Image, Notice, Result, SandboxFile, Stderr, Stdout
from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.backends.sandbox.session import Sandbox
from adlatus.runs import code
from adlatus.runs.calls import Call
from adlatus.runs.tools import asked, workspace
from adlatus.runs.tools.work import ToolFailed, Work
from adlatus.store import sandbox_sessions
from adlatus.wire import steps
from adlatus.wire.common import Json, LastError
from adlatus.wire.steps import ASKED, code_interpreter_call

log = structlog.get_logger(__name__)

NAME = "code_interpreter"
MOST_TOLD = 8_000
"""Tokens of the output of one call that the model is told."""

_MALFORMED = 'Nothing was executed: the arguments are not JSON. Give an object such as {"code": "print(1 + 1)"}.'
_NO_OUTPUT = "The code was executed. It has printed nothing and shows nothing."
_NEW_SESSION = (
    "This is a new Python session: variables and imports of earlier calls are gone. The files that the user has given "
    "and those that were kept are in /mnt/data again.\n"
)

_DESCRIPTION = """\
Execute Python code in a sandbox and get what it prints. Use it for calculations, for data and files, for charts, and \
whenever running code gives a surer answer than reasoning. If an error comes back, correct the code and call again.

It is one lasting IPython session for this conversation: variables, imports and files stay for the next call. Print \
what you want to see; the value of the last expression is shown too. Calls that take minutes are interrupted. There is \
no internet and nothing can be installed; numpy, pandas, scipy, matplotlib, seaborn, scikit-learn, sympy, networkx, \
Pillow, openpyxl, python-docx, python-pptx, pypdf and reportlab are there.

Files are in /mnt/data. Figures that you show with matplotlib's plt.show() the user sees at once: do not repeat them. \
To give the user a file, write it to /mnt/data and link to it exactly so: [report.csv](sandbox:/mnt/data/report.csv). \
The user sees neither the code's folder nor what it prints: say what matters in your answer."""


@dataclass(frozen=True)
class CodeInterpreter:
    """The tool as this server has it set."""


def schema(name: str) -> Json:
    """The function that a model is offered."""
    written = {"type": "string", "description": "The Python code to execute."}
    parameters = {"type": "object", "properties": {code.NAMES[0]: written}, "required": [code.NAMES[0]]}
    return {"type": "function", "function": {"name": name, "description": _DESCRIPTION, "parameters": parameters}}


# --- Calls in steps


def pending(call_id: str, arguments: str) -> Json:
    """A call that nothing has come back for yet."""
    return code_interpreter_call(call_id, code.shown(arguments), [])


def as_function(call: Json) -> Json | None:
    """A kept call as the model knows it; None as long as nothing has come back."""
    return asked.as_function(call, call[ASKED]["told"]) if ASKED in call else None


def images(call: Json) -> list[str]:
    """The files of the images that a call has shown."""
    outputs = call["code_interpreter"]["outputs"]
    return [output["image"]["file_id"] for output in outputs if output["type"] == "image"]


# --- The execution


async def carry_out(work: Work, place: int, call: Call) -> None:
    """Execute the code of a call in the sandbox of the thread; the work keeps what comes of it, as it comes.

    What is wrong with the code, or happens to the sandbox meanwhile, is told to the model. Raises `ToolFailed`.
    """
    outcome = _Outcome(work, place, call)
    written = code.code_in(call.arguments)
    if written is None:
        outcome.say(_MALFORMED)
        outcome.end()
        return
    sandboxes = work.resources.sandboxes
    if sandboxes is None:
        raise _failed(work.resources.sandbox_problem)
    try:
        await _execute(sandboxes, written, outcome)
    except SandboxUnavailableError as error:
        work.resources.metrics.sandbox_failures.labels("unavailable").inc()
        raise _failed(str(error)) from error
    outcome.end()


async def _execute(sandboxes: Sandboxes, written: str, outcome: "_Outcome") -> None:
    """Execute it; a sandbox that is lost before it has begun is replaced once."""
    work, metrics = outcome.work, outcome.work.resources.metrics
    has_begun = False
    for is_last in (False, True):
        asked_at = time.monotonic()
        try:
            async with sandboxes.use(work.thread_id) as sandbox:
                metrics.sandbox_seconds.observe(time.monotonic() - asked_at)
                await sandbox_sessions.record(
                    work.resources.database, work.thread_id, work.resources.executor_id, sandboxes.engine, sandbox.box
                )
                resources = work.resources
                given = await workspace.given(resources, work.project_id, work.thread_id, work.code_file_ids)
                earlier = await workspace.earlier(resources.database, work.thread_id)
                if sandbox.is_fresh and earlier.has_executed:
                    outcome.log(_NEW_SESSION)
                for problem in await workspace.bring(work, sandbox, given, earlier):
                    outcome.log(problem)
                has_begun = True
                await _listen(sandbox, written, outcome)
                return
        except SandboxLostError as error:
            metrics.sandbox_failures.labels("lost").inc()
            log.warning("a sandbox was lost", reason=str(error), thread_id=work.thread_id)
            if has_begun:
                outcome.log(f"The sandbox was lost ({error}): variables are gone, and files that were not kept.\n")
                return
            if is_last:
                raise SandboxUnavailableError(f"Sandboxes do not last: {error}") from None


async def _listen(sandbox: Sandbox, written: str, outcome: "_Outcome") -> None:
    work = outcome.work
    left: tuple[SandboxFile, ...] = ()
    async with aclosing(sandbox.execute(written, timeout_s=work.resources.settings.code_timeout_s)) as events:
        async for event in events:
            match event:
                case Image():
                    await outcome.show(event)
                case Done():
                    left = event.files
                case _:
                    outcome.log(_as_text(event))
    for file in left:
        try:
            outcome.made[file.path] = await workspace.take(work, sandbox, file)
        except workspace.NotTaken as error:
            outcome.log(f"The file {file.path} could not be kept: {error}\n")


def _as_text(event: Event) -> str:
    match event:
        case Stdout(text) | Stderr(text):
            return text
        case Result(text):
            return f"{text}\n"
        case Error(name, value, traceback):
            return f"{traceback.rstrip() or f'{name}: {value}'}\n"
        case Notice(text=text):
            return f"{text}\n"
        case _:
            raise AssertionError(event)


def _failed(reason: str) -> ToolFailed:
    return ToolFailed(LastError(code="server_error", message=f"The code interpreter cannot be used: {reason}"))


@dataclass
class _Outcome:
    """What comes of a call: kept with the work after every change, and streamed."""

    work: Work
    place: int
    call: Call
    outputs: list[Json] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    """The ids of files that it has written, by their paths."""
    _told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        kept = code_interpreter_call(self.call.id, code.shown(self.call.arguments), self.outputs)
        self.work.carried_out[self.call.id] = kept

    def log(self, text: str) -> None:
        """It has said something more."""
        if not text:
            return
        if self.outputs and self.outputs[-1]["type"] == "logs":
            self.outputs[-1]["logs"] += text
        else:
            self.outputs.append(steps.logs(text))
        self.work.say_output(self.place, len(self.outputs) - 1, steps.logs(text))
        self.say(text)

    async def show(self, image: Image) -> None:
        """It has shown an image."""
        try:
            file_id = await workspace.keep_image(self.work, image)
        except workspace.NotTaken as error:
            self.log(f"An image could not be kept: {error}\n")
            return
        self.outputs.append(steps.image(file_id))
        self.work.say_output(self.place, len(self.outputs) - 1, self.outputs[-1])
        self.say("[An image was shown to the user here.]\n")

    def say(self, text: str) -> None:
        """Tell the model, not the client."""
        self._told.append(text)

    def end(self) -> None:
        """Nothing more comes of it: what the model is told is certain."""
        told = "".join(self._told).rstrip("\n") or _NO_OUTPUT
        told = _cut(told, min(self.work.room_tokens, MOST_TOLD), self.work.model)
        if self.made:
            told += f"\nFiles written: {', '.join(f'/mnt/data/{path}' for path in self.made)}"
        self.work.carried_out[self.call.id] |= asked.asked(self.call, told=told, made=self.made)


def _cut(text: str, most_tokens: int, model: str) -> str:
    """A text of about so many tokens at most: its middle goes, since errors stand at the end."""
    counter = tokens.counter(model)
    most = min(len(text), 8 * most_tokens)
    while True:
        kept = text if most == len(text) else f"{text[: most // 2]}\n… output left out here …\n{text[-(most // 2) :]}"
        if most < 64 or counter(kept) <= most_tokens:
            return kept
        most = most * 3 // 4
