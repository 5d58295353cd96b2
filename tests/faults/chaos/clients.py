"""Clients that ask servers which die: whoever gets no answer looks whether it was done, and else asks again.

They keep what was acknowledged to them. A request without an answer may still be carried out, later too, when a stopped
process wakes up: so each has a mark of its own in its metadata.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.conftest import BETA
from tests.faults.chaos.questions import MARK, Question, outputs
from tests.runs.transcripts import DELTAS, FINAL, Event, parse

Json = dict[str, Any]
ANSWER_WITHIN_S = 5.0
GIVE_UP_AFTER_S = 150.0
"""How long a client keeps asking for one thing: longer than a run takes whose executors die three times."""
NOT_NOW = "is not available here"
"""Of a refusal while no process with sandboxes is known."""


class Lost(Exception):  # noqa: N818
    """No answer has come, or one that says so: what was asked may have been done or not, or be done later."""


class Refused(Exception):  # noqa: N818
    """The server has said no."""


@dataclass
class Followed:
    """A run as the stream of a client that followed it over deaths. `holes` counts what stood in for lost events."""

    events: list[Event] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    """The texts of messages by deltas, and as they were when the messages were completed."""
    holes: int = 0
    comebacks: int = 0

    @property
    def last(self) -> int:
        return max((event.number for event in self.events), default=0)

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.holes += not event.number
        if event.name == "thread.message.delta":
            key = event.payload["id"]
            self.said[key] = self.said.get(key, "") + "".join(DELTAS[event.name](event.payload["delta"]))
        elif event.name == "thread.message.completed":
            self.whole[event.payload["id"]] = "".join(part["text"]["value"] for part in event.payload["content"])


@dataclass
class Turn:
    """A question in a thread and its run: every attempt to ask and to start, and what was acknowledged."""

    question: Question
    asked: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    message_id: str = ""
    run_id: str = ""
    cancelled: bool = False
    followed: Followed | None = None


@dataclass
class Talk:
    """What a client knows of its thread. `outputs` are those that were acknowledged, by run and call."""

    thread_id: str
    turns: list[Turn] = field(default_factory=list)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class Client:
    """Asks some front or other. All that it decides by chance comes from `chance`."""

    http: httpx.AsyncClient
    front: Callable[[], str]
    chance: random.Random
    assistants: dict[str, str]
    talks: list[Talk] = field(default_factory=list)
    lost: int = 0
    marks: int = 0
    answered: int = 0

    async def once(self, method: str, path: str, **sent: Any) -> Json:
        """The answer of one front. Raises `Lost` and `Refused`."""
        try:
            response = await self.http.request(method, f"{self.front()}/v1{path}", **sent)
        except httpx.TransportError as error:
            self.lost += 1
            raise Lost(repr(error)) from error
        return _answer(response)

    async def ask(self, method: str, path: str, **sent: Any) -> Json:
        """The answer to what may be asked as often as it takes."""
        give_up_at = time.monotonic() + GIVE_UP_AFTER_S
        while True:
            try:
                return await self.once(method, path, **sent)
            except Lost as error:
                if time.monotonic() > give_up_at:
                    raise AssertionError(f"{method} {path} was never answered") from error
            await asyncio.sleep(0.1 + 0.2 * self.chance.random())

    def mark(self) -> Json:
        """Metadata that no other request has."""
        self.marks += 1
        return {MARK: f"{id(self):x}-{self.marks}"}

    # --- A conversation

    async def converse(self, questions: list[Question]) -> None:
        """Ask these questions in a new thread, one after the other."""
        talk = Talk((await self.ask("POST", "/threads", json={}))["id"])
        self.talks.append(talk)
        for question in questions:
            turn = Turn(question)
            talk.turns.append(turn)
            await self._say(talk, turn)
            async with asyncio.TaskGroup() as group:
                first = await self._start(talk, turn)
                if question.cancels:
                    group.create_task(self._cancel(talk, turn))
                if turn.followed is None:
                    await self._settle(talk, turn.run_id)
                else:
                    await self._follow(talk, turn, first)
            self.answered += 1
            await asyncio.sleep(0.3 * self.chance.random())

    async def _say(self, talk: Talk, turn: Turn) -> None:
        async for mark in self._attempts():
            turn.asked.append(mark[MARK])
            sent = {"role": "user", "content": turn.question.text, "metadata": mark}
            try:
                turn.message_id = (await self.once("POST", f"/threads/{talk.thread_id}/messages", json=sent))["id"]
            except Lost:
                turn.message_id = await self._found(talk, "messages", turn.asked)
            except Refused as error:
                if "while a run" not in str(error):
                    raise
                await self._settle_all(talk)
            if turn.message_id:
                return

    async def _start(self, talk: Talk, turn: Turn) -> bool:
        """Start a run of the turn; whether its stream has been heard to an end."""
        path = f"/threads/{talk.thread_id}/runs"
        async for mark in self._attempts():
            turn.started.append(mark[MARK])
            sent = {"assistant_id": self.assistants[turn.question.kind], "metadata": mark}
            try:
                if turn.question.streams:
                    turn.followed = Followed()
                    done = await self._hear(turn, "POST", path, json=sent | {"stream": True})
                    turn.run_id = turn.run_id or await self._found(talk, "runs", turn.started)
                    if turn.run_id:
                        return done
                    continue
                turn.run_id = (await self.once("POST", path, json=sent))["id"]
            except Lost:
                turn.run_id = turn.run_id or await self._found(talk, "runs", turn.started)
            except Refused as error:
                if "already has an active run" in str(error):
                    turn.run_id = await self._found(talk, "runs", turn.started)
                    if not turn.run_id:
                        await self._settle_all(talk)
                elif NOT_NOW not in str(error):
                    raise
            if turn.run_id:
                return False
        raise AssertionError

    async def _settle(self, talk: Talk, run_id: str) -> Json:
        """The run once it has ended, with the outputs that it wanted."""
        give_up_at = time.monotonic() + GIVE_UP_AFTER_S
        path = f"/threads/{talk.thread_id}/runs/{run_id}"
        while (run := await self.ask("GET", path))["status"] not in FINAL:
            assert time.monotonic() < give_up_at, run
            if run["status"] == "requires_action":
                with suppress(Lost, Refused):
                    await self.once("POST", f"{path}/submit_tool_outputs", json={"tool_outputs": outputs(run)})
                    self._acknowledged(talk, run)
            await asyncio.sleep(0.4 + 0.6 * self.chance.random())
        return run

    async def _settle_all(self, talk: Talk) -> None:
        """Bring to an end what was started by requests that were given up."""
        for run in (await self.ask("GET", f"/threads/{talk.thread_id}/runs"))["data"]:
            await self._settle(talk, run["id"])

    async def _follow(self, talk: Talk, turn: Turn, done: bool) -> None:
        """Hear the run to its end, coming back wherever the stream breaks off."""
        assert turn.followed is not None
        give_up_at = time.monotonic() + GIVE_UP_AFTER_S
        path = f"/threads/{talk.thread_id}/runs/{turn.run_id}"
        while (run := await self.ask("GET", path))["status"] not in FINAL or not done:
            assert time.monotonic() < give_up_at, run
            turn.followed.comebacks += 1
            try:
                if done and run["status"] == "requires_action":
                    submission = {"tool_outputs": outputs(run), "stream": True}
                    done = await self._hear(turn, "POST", f"{path}/submit_tool_outputs", json=submission)
                    self._acknowledged(talk, run)
                else:
                    after = {"Last-Event-ID": str(turn.followed.last)}
                    done = await self._hear(turn, "GET", f"{path}/events", headers=after)
            except (Lost, Refused):
                done = False
                await asyncio.sleep(0.1 + 0.2 * self.chance.random())

    async def _hear(self, turn: Turn, method: str, path: str, **sent: Any) -> bool:
        """Hear one stream; whether it came to its end. Raises `Lost` if not even its head has come, and `Refused`."""
        assert turn.followed is not None
        begun = failed = False
        try:
            async with self._stream(method, path, **sent) as events:
                async for event in events:
                    begun = True
                    failed = failed or event.name == "error"
                    if event.name in ("thread.run.created", "thread.run.queued"):
                        turn.run_id = event.payload["id"]
                    if not failed:
                        turn.followed.hear(event)
                    if event.name == "done":
                        return not failed
        except Lost:
            if not begun:
                raise
        return False

    @asynccontextmanager
    async def _stream(self, method: str, path: str, **sent: Any) -> AsyncIterator[AsyncIterator[Event]]:
        try:
            async with self.http.stream(method, f"{self.front()}/v1{path}", **sent) as response:
                if response.status_code != 200:
                    await response.aread()
                    _answer(response)
                yield _events(response)
        except httpx.TransportError as error:
            self.lost += 1
            raise Lost(repr(error)) from error

    async def _cancel(self, talk: Talk, turn: Turn) -> None:
        await asyncio.sleep(turn.question.cancel_after_s)
        with suppress(Refused):  # it had ended
            await self.ask("POST", f"/threads/{talk.thread_id}/runs/{turn.run_id}/cancel")
            turn.cancelled = True

    def _acknowledged(self, talk: Talk, run: Json) -> None:
        given = {output["tool_call_id"]: output["output"] for output in outputs(run)}
        talk.outputs.setdefault(run["id"], {}).update(given)

    async def _found(self, talk: Talk, what: str, marks: list[str]) -> str:
        """The id of the object that one of these attempts has made after all."""
        listed = await self.ask("GET", f"/threads/{talk.thread_id}/{what}", params={"limit": 100})
        return next((one["id"] for one in listed["data"] if one["metadata"].get(MARK) in marks), "")

    async def _attempts(self) -> AsyncIterator[Json]:
        """Marks, one for each attempt at the same thing."""
        give_up_at = time.monotonic() + GIVE_UP_AFTER_S
        while time.monotonic() < give_up_at:
            yield self.mark()
            await asyncio.sleep(0.1 + 0.2 * self.chance.random())
        raise AssertionError(f"nothing was acknowledged within {GIVE_UP_AFTER_S} s")


def _answer(response: httpx.Response) -> Json:
    if response.status_code == 503:
        raise Lost(response.text)
    if response.status_code == 400:
        raise Refused(response.json()["error"]["message"])
    assert response.status_code == 200, f"{response.request.url} {response.status_code} {response.text}"
    answer: Json = json.loads(response.content)
    return answer


async def _events(response: httpx.Response) -> AsyncIterator[Event]:
    block: list[str] = []
    async for line in response.aiter_lines():
        if line:
            block.append(line)
        else:
            for event in parse([*block, ""]):
                yield event
            block = []


@asynccontextmanager
async def connections() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(headers=BETA, timeout=ANSWER_WITHIN_S, limits=limits) as http:
        yield http
