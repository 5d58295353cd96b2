"""Answers that go on until they end or the client leaves, whichever comes first."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


async def until_client_leaves(receive: Receive, sending: Coroutine[Any, Any, None]) -> None:
    """Await `sending`; a client that leaves, or a server that gives up, cancels it and waits until it has ended."""
    sender = asyncio.current_task()
    assert sender
    left = False

    async def watch() -> None:
        nonlocal left
        await _client_left(receive)
        left = True
        sender.cancel()

    watching = asyncio.create_task(watch())
    try:
        await sending
    except asyncio.CancelledError:
        if not left or sender.cancelling() > 1:
            raise
    finally:
        watching.cancel()
        if left:
            sender.uncancel()


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
