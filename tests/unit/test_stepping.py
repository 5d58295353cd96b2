"""Work that is begun without a task, and awaited only if it waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from adlatus.api.stepping import begun


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_work_that_waits_for_nothing_is_done_at_once() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    async def scenario() -> None:
        assert begun(work()) is None
        assert done == [1]

    run(scenario())


def test_work_that_waits_goes_on_where_its_rest_is_awaited() -> None:
    async def scenario() -> None:
        opened, steps = asyncio.Event(), []

        async def work() -> None:
            steps.append("begun")
            await opened.wait()
            steps.append("opened")
            await asyncio.sleep(0)
            steps.append("done")

        rest = begun(work())
        assert rest is not None
        assert steps == ["begun"]
        asyncio.get_running_loop().call_soon(opened.set)
        await rest
        assert steps == ["begun", "opened", "done"]

    run(scenario())


@pytest.mark.parametrize("waits", [False, True])
def test_what_work_raises_is_raised_where_it_is_run(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError("broken")

    async def scenario() -> None:
        with pytest.raises(ValueError, match="broken"):
            await (begun(work()) or asyncio.sleep(0))

    run(scenario())


def test_who_is_cancelled_while_awaiting_the_rest_cancels_the_work() -> None:
    async def scenario() -> None:
        heard = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("cancelled")
                raise

        async def wait_for(rest: Any) -> None:
            await rest

        rest = begun(work())
        task = asyncio.create_task(wait_for(rest))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == ["cancelled"]

    run(scenario())
