"""The one loop that executes runs, always streaming. Reads top-down: load, ask the model, decide, act."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import assert_never

import structlog

from adlatus.backends.images import ImageError
from adlatus.backends.refusals import ModelError
from adlatus.errors import InvalidRequest, Unavailable
from adlatus.resources import Resources
from adlatus.runs import budget, history, prompt
from adlatus.runs.journal import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FILTERED,
    NOTHING_USED,
    OUT_OF_TOKENS,
    Ending,
    Journal,
    LeaseLost,
    failed,
)
from adlatus.runs.lifecycle import IllegalMove
from adlatus.runs.turn import Turn
from adlatus.store.leases import Interruption, Lease
from adlatus.wire.common import LastError
from adlatus.wire.runs import Run, RunStatus

log = structlog.get_logger(__name__)

MAX_ABANDONED = 3
"""Executors that died with a run, after which it fails rather than take a fourth one down."""

SORRY = "Sorry, something went wrong."
"""What the original says of its own faults. *Source*: field reports."""


@dataclass(frozen=True)
class Finish:
    """The answer is whole: the run is completed."""


@dataclass(frozen=True)
class Stop:
    """The model had to stop: the run is incomplete, the partial text stays."""

    ending: Ending


Decision = Finish | Stop


def decide(turn: Turn) -> Decision:
    """What a turn that has ended means for the run. Pure."""
    match turn.finish_reason:
        case "length":
            return Stop(OUT_OF_TOKENS)
        case "content_filter":
            return Stop(FILTERED)
        case "stop" | None:
            return Finish()
        case _:
            assert_never(turn.finish_reason)


async def execute(lease: Lease, resources: Resources) -> None:
    """Execute a claimed run to its end, from whatever state the database has it in.

    1. Load the run and the messages of its thread; end at once what is due to end.
    2. Take back the message that an executor before this one left half-written.
    3. Ask the model, and stream its text as it comes.
    4. Decide what the answer means, and act on it.

    Whatever goes wrong becomes the run's ending, except that a lost lease ends silently, that a run is handed back
    when this process stops, and that the lease is left to run out when the database does not answer.
    """
    journal = Journal(lease, resources.database, resources.events)
    turn = Turn()
    resources.events.execute(lease.run_id, lease.attempt)
    try:
        ending = await _to_an_ending(lease, resources, journal, turn)
        ending = await _end(journal, ending, turn)
        resources.metrics.runs_ended.labels(status=ending.status).inc()
        log.info("run ended", status=str(ending.status), error=ending.error and ending.error.message)
    except LeaseLost:
        log.warning("run was taken over or deleted, nothing more is written")
    except IllegalMove as error:
        log.info("run had ended already", status=str(error.current))
    except Unavailable:
        log.error("the database does not answer; the run will be claimed again when its lease has run out")
    finally:
        resources.events.leave(lease.run_id)


async def _end(journal: Journal, ending: Ending, turn: Turn) -> Ending:
    """End the run: as cancelled where a cancel has come first that `ending` may not follow."""
    try:
        await journal.end(ending, turn)
    except IllegalMove as error:
        if error.current is not RunStatus.CANCELLING:
            raise
        ending = CANCELLED
        await journal.end(ending, turn)
    return ending


async def _to_an_ending(lease: Lease, resources: Resources, journal: Journal, turn: Turn) -> Ending:
    """The ending that the run has earned."""
    try:
        return await _attempt(lease, resources, journal, turn)
    except ModelError as error:
        return failed(LastError(code=error.code, message=error.message))
    except (prompt.RefusedImage, ImageError, InvalidRequest) as error:  # such as a model that is routed no longer
        return failed(LastError(code="invalid_prompt", message=str(error)))
    except IllegalMove as error:
        if error.current is RunStatus.CANCELLING:
            return CANCELLED
        raise
    except asyncio.CancelledError:
        if lease.interruption is Interruption.CANCEL:
            return CANCELLED
        if lease.interruption is Interruption.LOST:
            raise LeaseLost from None
        raise
    except (LeaseLost, Unavailable):
        raise
    except Exception:
        log.exception("run failed")
        return failed(LastError(code="server_error", message=SORRY))


async def _attempt(lease: Lease, resources: Resources, journal: Journal, turn: Turn) -> Ending:
    run, left_s = await journal.load()
    if lease.attempt > 1:
        await journal.take_back()
    if run.status is RunStatus.CANCELLING:
        return CANCELLED
    if left_s <= 0:
        return EXPIRED
    if lease.abandoned >= MAX_ABANDONED:
        log.error("run took too many executors down", abandoned=lease.abandoned)
        return failed(LastError(code="server_error", message=SORRY))
    try:
        async with asyncio.timeout(left_s) as deadline:
            if run.status is RunStatus.QUEUED:
                await journal.begin()
            await _ask(run, resources, journal, turn)
    except TimeoutError:
        if not deadline.expired():
            raise
        return EXPIRED
    match decide(turn):
        case Finish():
            return COMPLETED
        case Stop(ending):
            return ending


async def _ask(run: Run, resources: Resources, journal: Journal, turn: Turn) -> None:
    """Stream one answer of the model into the turn and to the readers."""
    route = resources.llm.routing.for_assistants(run.model)
    left = budget.left(run, NOTHING_USED)
    items = await history.read(resources.database, run, route, left, began=run.started_at is not None)
    fetched = await resources.images.fetch(prompt.links(items, route))
    request = prompt.build(run, items, route, left, fetched)
    if run.tools:
        log.warning("tools are stored but not offered to the model yet", tools=[tool["type"] for tool in run.tools])
    asked_at = time.monotonic()
    async with aclosing(resources.llm.stream(route, request)) as answer:
        async for chunks in answer:
            if new := turn.fold(chunks):
                if len(turn.pieces) == len(new):
                    resources.metrics.first_token_seconds.observe(time.monotonic() - asked_at)
                await journal.say(new)
    if turn.usage:
        resources.metrics.tokens.labels(kind="prompt").inc(turn.usage.prompt_tokens)
        resources.metrics.tokens.labels(kind="completion").inc(turn.usage.completion_tokens)
