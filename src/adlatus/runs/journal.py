"""What happened to a run: committed first, told second. After the insert only this file writes `runs.status`.

Every write of an executing run is fenced by its lease and guarded by the table in `lifecycle`. Knows no model.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from adlatus.ids import new_id
from adlatus.runs.lifecycle import IllegalMove, check, sources
from adlatus.runs.turn import Turn
from adlatus.store import runs as statements
from adlatus.store.db import Database, Row, Transaction
from adlatus.store.events import EventLog
from adlatus.store.leases import Lease
from adlatus.wire import events as wire
from adlatus.wire.common import LastError, Usage, WireObject
from adlatus.wire.messages import IncompleteReason, Message, MessageStatus, text_content
from adlatus.wire.runs import Run, RunStatus
from adlatus.wire.steps import RunStep, StepStatus, message_creation, of_step

Result = TypeVar("Result")
NOTHING_USED = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
"""The usage of a run whose model reported none: never null once a run has ended. *Source*: field reports."""


class LeaseLost(Exception):  # noqa: N818
    """Another executor has the run, or it is gone: nothing was written, and nothing more may be."""


@dataclass(frozen=True)
class Ending:
    """How a run ends, and what becomes of the message and the step that are open then."""

    status: RunStatus
    step: StepStatus
    message: IncompleteReason | None = None
    error: LastError | None = None
    details: str | None = None


COMPLETED = Ending(RunStatus.COMPLETED, StepStatus.COMPLETED)
CANCELLED = Ending(RunStatus.CANCELLED, StepStatus.CANCELLED, IncompleteReason.RUN_CANCELLED)
EXPIRED = Ending(RunStatus.EXPIRED, StepStatus.EXPIRED, IncompleteReason.RUN_EXPIRED)
OUT_OF_TOKENS = Ending(
    RunStatus.INCOMPLETE, StepStatus.COMPLETED, IncompleteReason.MAX_TOKENS, details="max_completion_tokens"
)
FILTERED = Ending(RunStatus.INCOMPLETE, StepStatus.COMPLETED, IncompleteReason.CONTENT_FILTER, details="content_filter")


def failed(error: LastError) -> Ending:
    """The ending of a run that failed with `error`."""
    return Ending(RunStatus.FAILED, StepStatus.FAILED, IncompleteReason.RUN_FAILED, error)


class Journal:
    """The writes of one executor on one run. Methods raise `LeaseLost` and `IllegalMove`, having changed nothing.

    A write that has begun is finished even if the task is cancelled meanwhile.
    """

    def __init__(self, lease: Lease, database: Database, events: EventLog) -> None:
        self._lease = lease
        self._database = database
        self._events = events
        self._held = {"the_run": lease.run_id, "the_token": lease.token}
        self._deltas: wire.TextDeltas | None = None

    async def load(self) -> tuple[Run, int]:
        """The run, and the seconds until it expires."""
        row = await self._database.fetch_row(statements.LOAD, **self._held)
        if row is None:
            raise LeaseLost
        return Run.of(row), row["left_s"]

    async def begin(self) -> None:
        """A queued run is in progress."""
        await _to_the_end(self._begin())

    async def take_back(self) -> None:
        """Remove the message that an executor before this one left half-written, and the step that wrote it."""
        await _to_the_end(self._take_back())

    async def say(self, pieces: Sequence[str]) -> None:
        """The model said more: the first piece opens a message, every piece is streamed. Deltas are not committed."""
        if self._deltas is None:
            await _to_the_end(self._open_message())
        assert self._deltas
        self._tell([self._deltas.frame(piece) for piece in pieces])

    async def end(self, ending: Ending, turn: Turn) -> None:
        """The run ends, and with it what is open."""
        await _to_the_end(self._end(ending, turn))

    async def _begin(self) -> None:
        row = await self._database.fetch_row(
            statements.move(RunStatus.IN_PROGRESS, sources(RunStatus.IN_PROGRESS)), **self._held
        )
        if row is None:
            await self._refuse(self._database, RunStatus.IN_PROGRESS)
        else:
            self._tell([_event("thread.run", Run.of(row))])

    async def _take_back(self) -> None:
        run_id = self._lease.run_id
        async with self._database.transaction() as tx:
            await self._hold(tx)
            half_written = await tx.fetch(statements.REMOVE_OPEN_MESSAGES, the_run=run_id)
            steps = await tx.fetch(statements.REMOVE_OPEN_MESSAGE_STEPS, the_run=run_id)
        # Readers may have seen text: their accumulators want a part at its index, however empty
        changes = {
            "status": MessageStatus.INCOMPLETE,
            "content": [text_content("")],
            "incomplete_details": {"reason": IncompleteReason.RUN_FAILED},
        }
        cancelled = {"status": StepStatus.CANCELLED, "cancelled_at": int(time.time())}
        self._tell(
            [_event("thread.message", Message.of({**message, **changes})) for message in half_written]
            + [_event("thread.run.step", RunStep.of({**step, **cancelled})) for step in steps]
        )

    async def _open_message(self) -> None:
        message_id = new_id("msg")
        row = await self._database.fetch_row(
            statements.OPEN_MESSAGE,
            **self._held,
            step_id=new_id("step"),
            message_id=message_id,
            step_details=message_creation(message_id),
        )
        if row is None:
            raise LeaseLost
        opening: list[tuple[str, WireObject]] = [
            ("thread.run.step", RunStep.of(_part(row, "step."))),
            ("thread.message", Message.of(_part(row, "message."))),
        ]
        self._tell(
            [
                wire.frame(f"{noun}.{stage}", opened.json_bytes())
                for noun, opened in opening
                for stage in ("created", "in_progress")
            ]
        )
        self._deltas = wire.TextDeltas(message_id)

    async def _end(self, ending: Ending, turn: Turn) -> None:
        if ending is COMPLETED and self._deltas is None:
            await self._open_message()  # an empty answer is an answer
        frames: list[bytes] = []
        error = ending.error.model_dump() if ending.error else None
        async with self._database.transaction() as tx:
            if ending is CANCELLED:
                frames.append(_event("thread.run", Run.of(await self._hold(tx))))
            run = await tx.fetch_row(
                statements.move(ending.status, sources(ending.status)),
                **self._held,
                new_usage=(turn.usage or NOTHING_USED).model_dump(),
                new_last_error=error,
                new_details={"reason": ending.details} if ending.details else None,
            )
            if run is None:
                await self._refuse(tx, ending.status)
                return
            frames += await _end_open_parts(tx, self._lease.run_id, ending, turn)
        self._tell([*frames, _event("thread.run", Run.of(run)), wire.DONE])

    async def _refuse(self, connection: Database | Transaction, target: RunStatus) -> None:
        """Say why a guarded update changed nothing."""
        state = await connection.fetch_row(statements.STATE, the_run=self._lease.run_id)
        if state is None or state["lease_token"] != self._lease.token:
            raise LeaseLost
        raise IllegalMove(RunStatus(state["status"]), target)

    async def _hold(self, tx: Transaction) -> Row:
        """Lock the run without moving it."""
        row = await tx.fetch_row(statements.HOLD, **self._held)
        if row is None:
            raise LeaseLost
        return row

    def _tell(self, frames: Sequence[bytes]) -> None:
        if frames:
            self._events.append(self._lease.run_id, self._lease.attempt, frames)


async def cancel(tx: Transaction, run: Row) -> tuple[Row, int, list[bytes]]:
    """Move a locked run to `cancelling`, and on to `cancelled` where nobody executes it.

    Returns the row as `cancelling`, and the attempt and frames of the events to tell once this is committed: none
    where an executor lives, which tells them itself. Raises `IllegalMove`.
    """
    run_id = run["id"]
    check(RunStatus(run["status"]), RunStatus.CANCELLING)
    state = await tx.fetch_row(statements.STATE, the_run=run_id)
    executing = state is not None and state["executing"]
    cancelling = await _moved(tx, run_id, RunStatus.CANCELLING)
    if executing:
        return cancelling, 0, []
    cancelled = await _moved(
        tx,
        run_id,
        RunStatus.CANCELLED,
        new_usage=NOTHING_USED.model_dump(),
        new_last_error=None,
        new_details=None,
    )
    ended = await _end_open_parts(tx, run_id, CANCELLED, Turn())
    frames = [_event("thread.run", Run.of(cancelling)), *ended, _event("thread.run", Run.of(cancelled)), wire.DONE]
    return cancelling, cancelled["attempt"], frames


async def _moved(tx: Transaction, run_id: str, target: RunStatus, **values: object) -> Row:
    row = await tx.fetch_row(statements.move(target, sources(target), leased=False), the_run=run_id, **values)
    assert row is not None, "the caller has locked the run and checked the move"
    return row


async def _end_open_parts(tx: Transaction, run_id: str, ending: Ending, turn: Turn) -> list[bytes]:
    """End the message and the steps that are in progress; their events, the message's first."""
    ended = await tx.fetch(
        statements.end_messages(ending.message), the_run=run_id, new_content=[text_content(turn.text)]
    )
    steps = await tx.fetch(
        statements.end_steps(ending.step),
        the_run=run_id,
        new_usage=turn.usage.model_dump() if turn.usage else None,
        new_last_error=of_step(ending.error).model_dump() if ending.error else None,
    )
    return [_event("thread.message", Message.of(message)) for message in ended] + [
        _event("thread.run.step", RunStep.of(step)) for step in steps
    ]


def _part(row: Row, prefix: str) -> Row:
    """The columns of a joined row that begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}


def _event(noun: str, shown: Run | Message | RunStep) -> bytes:
    """The event that tells of an object's status."""
    return wire.frame(f"{noun}.{shown.status}", shown.json_bytes())


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` to its end even if this task is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # a second one: the first is raised below
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error from None
        raise
