"""Answers that go on until they end or the client leaves, whichever comes first."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from starlette.types import Receive


async def until_client_leaves(receive: Receive, sending: Coroutine[Any, Any, None]) -> None:
    """Await `sending`; a client that leaves, or a server that gives up, cancels it and waits until it has ended."""
    task = asyncio.create_task(sending)
    leaving = asyncio.create_task(_client_left(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
