"""Awaitables that mostly have nothing to wait for, run without a task of their own."""

from collections.abc import Awaitable, Generator
from typing import Any


def begun(work: Awaitable[None]) -> Awaitable[None] | None:
    """Run as much of it as goes without waiting. What is left, to be awaited; None if that was all."""
    steps = work.__await__()
    try:
        waits_for = next(steps)
    except StopIteration:
        return None
    return _Rest(steps, waits_for)


class _Rest:
    """Work that has begun, and waits. Whoever awaits this waits in its place."""

    def __init__(self, steps: Generator[Any, Any, None], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    answer = yield waits_for
                except BaseException as error:  # noqa: BLE001 - a cancellation is the work's to hear of
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = self._steps.send(answer)
        except StopIteration:
            return
