"""An answer goes on until it has ended, its client has left, or the server gives up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from adlatus.api.leaving import until_client_leaves

Sending = Callable[[], Coroutine[Any, Any, None]]


class Client:
    """A client that leaves when it is told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


class Answer:
    """An answer without an end, and what has become of it."""

    def __init__(self) -> None:
        self.begun, self.cancelled, self.cleared = asyncio.Event(), False, False

    async def send(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            await asyncio.sleep(0)
            self.cleared = True
            raise


async def answering() -> tuple[Client, Answer, asyncio.Task[None]]:
    client, answer = Client(), Answer()
    task = asyncio.create_task(until_client_leaves(client.receive, answer.send()))
    await answer.begun.wait()
    return client, answer, task


def test_a_client_that_leaves_ends_its_answer_once_that_has_cleared_up() -> None:
    async def scenario() -> None:
        client, answer, task = await answering()
        client.left.set()
        await task
        assert answer.cancelled
        assert answer.cleared
        assert task.cancelling() == 0

    asyncio.run(scenario())


def test_who_gives_up_an_answer_hears_of_it_whether_its_client_leaves_or_not() -> None:
    async def scenario(*, leaves: bool) -> None:
        client, answer, task = await answering()
        if leaves:
            client.left.set()
            await asyncio.sleep(0)  # it is noticed, and has not been acted upon
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert answer.cleared
        assert task.cancelled()

    for leaves in (False, True):
        asyncio.run(scenario(leaves=leaves))


def test_an_answer_that_ends_is_not_waited_for_and_its_error_is_raised() -> None:
    async def scenario() -> None:
        async def ends() -> None:
            await asyncio.sleep(0)

        async def fails() -> None:
            await asyncio.sleep(0)
            raise ValueError("its own")

        await until_client_leaves(Client().receive, ends())
        with pytest.raises(ValueError, match="its own"):
            await until_client_leaves(Client().receive, fails())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
