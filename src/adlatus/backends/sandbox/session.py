"""One sandbox in use: execute code, put and get files. One caller at a time, which `pool` sees to.

Whatever goes wrong with it closes it for good. While code runs nothing raises: the last event tells how it ended.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import suppress

import structlog

from adlatus.backends.sandbox import messages
from adlatus.backends.sandbox.engine import Engine, SandboxFileError, SandboxLostError, SandboxUnavailableError
from adlatus.backends.sandbox.events import (
    Done,
    Error,
    Event,
    Image,
    Kind,
    Notice,
    Result,
    SandboxFile,
    Status,
    Stderr,
    Stdout,
)
from adlatus.backends.sandbox.messages import Json, NonsenseError

log = structlog.get_logger(__name__)

START_S = 60
ANSWER_S = 30
PING_S = 10
GRACE_S = 2.0
PATIENCE_S = 8
"""How long the host waits after the supervisor should have killed the code: then it is the sandbox that hangs."""
_KEPT = "Files in /mnt/data are kept, variables and imports are lost."


class Sandbox:
    """A running sandbox. `names` are those of the files that were put into it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers = 0
        self._is_executing = False
        self.is_lost = False
        self.names: set[str] = set()
        self.is_fresh = True
        """Whether nobody has put files into it yet; its user says so."""
        self.replaces_lost = False
        """Whether the thread had another one before, which is gone with its variables and files."""

    async def start(self) -> "Sandbox":
        """Open the box and wait until it can execute. Raises `SandboxUnavailableError`."""
        self._channel = await self._engine.open()
        self._lines = messages.Lines(self._channel)
        try:
            hello = await self._next("hello", START_S)
            if hello.get("protocol") != messages.PROTOCOL:
                raise SandboxUnavailableError("The sandbox is of another version: run `adlatus sandbox prepare`.")
            ready = await self._next("ready", START_S)
            if ready.get("filter") is not True and self._engine.name == "bubblewrap":
                raise SandboxUnavailableError("This kernel or processor has no filter of system calls (seccomp).")
        except SandboxLostError as error:
            raise SandboxUnavailableError(f"A sandbox does not start: {error}") from None
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def box(self) -> str:
        """What an operator finds it by."""
        return self._channel.name

    async def close(self) -> None:
        """Destroy the sandbox, whatever it is doing."""
        self.is_lost = True
        await self._channel.close()

    async def is_alive(self) -> bool:
        """Whether it answers."""
        if self.is_lost:
            return False
        try:
            await self._ask("ping", "pong", PING_S)
        except SandboxLostError:
            return False
        return True

    # --- Code

    async def execute(self, code: str, *, timeout_s: float) -> AsyncGenerator[Event]:
        """Execute code and tell what happens; `Done` is the last event, also where the sandbox is lost meanwhile.

        Use it within `contextlib.aclosing`: leaving it early, or cancelling, interrupts the code and waits for its end.
        """
        execution_id = self._new_id()
        self._is_executing = True
        deadline = asyncio.get_running_loop().time() + timeout_s + GRACE_S + PATIENCE_S
        telling = _Telling(timeout_s)
        try:
            await self._send("exec", id=execution_id, code=code, timeout=timeout_s, grace=GRACE_S)
            while self._is_executing:
                message = await self._receive(deadline)
                if message.get("id") != execution_id:
                    continue
                self._is_executing = message["event"] not in ("done", "op_error")
                for event in telling.of(message):
                    yield event
        except (SandboxLostError, NonsenseError) as error:
            reason = await self._give_up(error)
            self._is_executing = False
            yield Notice(Kind.LOST, f"The sandbox was lost ({reason}), with all variables and files. Start over.")
            yield Done(Status.LOST, 0.0)
        finally:
            if self._is_executing:
                await self._abandon(execution_id)

    async def _abandon(self, execution_id: str) -> None:
        """Stop what nobody listens to any more; what cannot be stopped is destroyed."""
        deadline = asyncio.get_running_loop().time() + GRACE_S + PATIENCE_S
        try:
            await self._send("cancel", id=execution_id)
            while self._is_executing:
                message = await self._receive(deadline)
                if message.get("id") == execution_id and message["event"] in ("done", "op_error"):
                    self._is_executing = False
        except (SandboxLostError, NonsenseError) as error:
            await self._give_up(error)
        finally:
            if self._is_executing:  # cancelled again
                self._is_executing = False
                await self.close()

    async def restart(self) -> None:
        """Forget all variables; files stay. Raises `SandboxLostError`."""
        await self._ask("restart", "restart_ok", START_S)

    # --- Files

    async def put(self, content: AsyncIterable[bytes] | bytes, names: Sequence[str]) -> None:
        """Put a file into `/mnt/data` under each of the names, in place of what has them.

        It is one file: writing to it under one name changes it under all. Among new and changed files it goes by the
        last name. Names have no folders. Raises `SandboxFileError` (ENOSPC, EINVAL, EISDIR), `SandboxLostError`.
        """
        put_id = self._new_id()
        first = True
        try:
            async for block in _blocks(content):
                await self._send("put", id=put_id, first=first, data=base64.b64encode(block).decode())
                first = False
        except BaseException:
            if not first and not self.is_lost:
                with suppress(SandboxLostError, SandboxFileError):
                    await self._answer(put_id, "put_ok", "put", names=[], data="")
            raise
        await self._answer(put_id, "put_ok", "put", first=first, data="", names=list(names))
        self.names.update(names)

    async def get(self, path: str, *, max_bytes: int) -> AsyncGenerator[bytes]:
        """The content of a file. Raises `SandboxFileError` (ENOENT, ELOOP, EINVAL, EFBIG, EACCES), `SandboxLostError`.

        Leaving it early destroys the sandbox, which is still sending: read to the end.
        """
        get_id = self._new_id()
        left = max_bytes
        is_complete = False
        try:
            await self._send("get", id=get_id, path=path, max=max_bytes)
            while not is_complete:
                message = await self._receive_for(get_id)
                match message["event"]:
                    case "data":
                        block = messages.content(message, "data", messages.BLOCK_BYTES)
                        left -= len(block)
                        if left < 0:
                            raise NonsenseError("more than was asked for")
                        yield block
                    case "get_ok":
                        is_complete = True
                    case "op_error":
                        is_complete = True
                        raise SandboxFileError(messages.text(message, "code"))
        except (SandboxLostError, NonsenseError) as error:
            is_complete = True
            raise SandboxLostError(await self._give_up(error)) from None
        finally:
            if not is_complete:
                await self.close()

    async def files(self) -> tuple[SandboxFile, ...]:
        """What lies in `/mnt/data`, but nothing hidden; at most 1,000. Raises `SandboxLostError`."""
        message = await self._ask("list", "files")
        return messages.files(message, messages.MAX_LISTED)

    # --- Requests and answers

    def _new_id(self) -> str:
        self._numbers += 1
        return str(self._numbers)

    async def _ask(self, op: str, answer: str, within_s: float = ANSWER_S) -> Json:
        return await self._answer(self._new_id(), answer, op, within_s)

    async def _answer(self, ask_id: str, answer: str, op: str, within_s: float = ANSWER_S, **fields: object) -> Json:
        """The answer to a request. Raises `SandboxFileError` where the answer is an error."""
        try:
            await self._send(op, id=ask_id, **fields)
            while True:
                message = await self._receive_for(ask_id, within_s)
                if message["event"] == "op_error":
                    raise SandboxFileError(messages.text(message, "code"))
                if message["event"] == answer:
                    return message
        except (SandboxLostError, NonsenseError) as error:
            raise SandboxLostError(await self._give_up(error)) from None

    async def _send(self, op: str, **fields: object) -> None:
        if self.is_lost:
            raise SandboxLostError("it was closed")
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._channel.write(messages.request(op, **fields))
        except TimeoutError:
            raise SandboxLostError("it does not listen") from None

    async def _receive_for(self, ask_id: str, within_s: float = ANSWER_S) -> Json:
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            message = await self._receive(deadline)
            if message.get("id") == ask_id:
                return message

    async def _next(self, event: str, within_s: float) -> Json:
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            try:
                message = await self._receive(deadline)
            except (SandboxLostError, NonsenseError) as error:
                raise SandboxLostError(await self._give_up(error)) from None
            if message["event"] == event:
                return message

    async def _receive(self, deadline: float) -> Json:
        """The next message. Raises `SandboxLostError` where none comes in time or ever again."""
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._lines.next()
        except TimeoutError:
            raise SandboxLostError("it did not answer") from None
        if message is None:
            raise SandboxLostError("it ended")
        if message["event"] == "failed":
            raise SandboxLostError(messages.text(message, "reason")[:300])
        return message

    async def _give_up(self, error: SandboxLostError | NonsenseError) -> str:
        """Destroy the sandbox, and say why in words for the model."""
        reason = "it spoke nonsense" if isinstance(error, NonsenseError) else str(error)
        self.is_lost = True
        complaint = await self._channel.close()
        log.warning("a sandbox is lost", box=self.box, reason=str(error), complaint=complaint[-500:])
        return str(messages.lost(complaint, reason)) if self._numbers == 0 else reason


class _Telling:
    """Turns the messages of one execution into events, within the limits that hold on this side."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._text_left = 2 * messages.MAX_TEXT
        self._images_left = messages.MAX_IMAGES

    def of(self, message: Json) -> list[Event]:
        event = message["event"]
        match event:
            case "stream":
                text = self._kept(messages.text(message, "text"))
                return [Stderr(text) if message.get("name") == "stderr" else Stdout(text)]
            case "display" | "result":
                return [Result(self._kept(messages.text(message, "text")))]
            case "image":
                return self._image(message)
            case "left_out":
                return [Notice(Kind.LEFT_OUT, messages.text(message, "text")[:500])]
            case "error":
                texts = [self._kept(messages.text(message, field)) for field in ("name", "value", "traceback")]
                return [Error(*texts)]
            case "timeout":
                took = f"{self._timeout_s:g} seconds"
                return [Notice(Kind.TIMED_OUT, f"The code was still running after {took} and was interrupted.")]
            case "done":
                return self._done(message)
            case "op_error":
                raise NonsenseError(f"it does not execute: {messages.text(message, 'code')[:50]}")
        raise NonsenseError("an unknown event")

    def _kept(self, text: str) -> str:
        kept = text[: self._text_left]
        self._text_left -= len(kept)
        return kept

    def _image(self, message: Json) -> list[Event]:
        self._images_left -= 1
        if self._images_left < 0:
            return []
        image = messages.image(message)
        return [Image(*image)] if image else []

    def _done(self, message: Json) -> list[Event]:
        try:
            status = Status(messages.text(message, "status"))
        except ValueError:
            raise NonsenseError("an unknown status") from None
        told: list[Event] = []
        if left_out := int(messages.number(message, "left_out")):
            told.append(Notice(Kind.LEFT_OUT, f"{left_out} more characters of output were left out."))
        if status is Status.KILLED:
            told.append(Notice(Kind.RESTARTED, f"The code did not stop and Python was restarted. {_KEPT}"))
        if status is Status.DIED:
            code = message.get("exit_code")
            why = " (killed, probably because it took too much memory)" if code == -9 else ""
            told.append(Notice(Kind.RESTARTED, f"Python ended unexpectedly{why} and was restarted. {_KEPT}"))
        files = messages.files(message, messages.MAX_FILES)
        missed = len(message["files"]) - len(files) + int(messages.number(message, "more_files"))
        if missed:
            told.append(Notice(Kind.LEFT_OUT, f"{missed} more new files were too many or too large to be taken out."))
        return [*told, Done(status, messages.number(message, "seconds"), files)]


async def _blocks(content: AsyncIterable[bytes] | bytes) -> AsyncIterator[bytes]:
    """Content in blocks that fit a line."""
    if isinstance(content, bytes):
        for start in range(0, len(content), messages.BLOCK_BYTES):
            yield content[start : start + messages.BLOCK_BYTES]
        return
    async for block in content:
        for start in range(0, len(block), messages.BLOCK_BYTES):
            yield block[start : start + messages.BLOCK_BYTES]
