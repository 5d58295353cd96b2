"""What happened to a run: committed first, told second. After the insert only this file writes `runs.status`.

Every write of an executing run is fenced by its lease and guarded by the table in `lifecycle`. Knows no model.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from adlatus.ids import new_id
from adlatus.runs import telling, tools
from adlatus.runs.calls import Argued, Called
from adlatus.runs.endings import CANCELLED, COMPLETED, Ending
from adlatus.runs.lifecycle import IllegalMove, check, sources
from adlatus.runs.loaded import Loaded, used_in
from adlatus.runs.shield import through_outages, to_the_end
from adlatus.runs.turn import Piece, Turn, only_texts
from adlatus.store import runs as statements
from adlatus.store import tool_resources
from adlatus.store.db import Connection, Database, Row, Transaction
from adlatus.store.events import EventLog
from adlatus.store.leases import Claim, Lease
from adlatus.wire import events as wire
from adlatus.wire.common import NOTHING_USED, Json, Usage
from adlatus.wire.messages import Message, MessageStatus, text_content
from adlatus.wire.runs import Run, RunStatus, submit_tool_outputs
from adlatus.wire.steps import (
    RunStep,
    StepStatus,
    message_creation,
    of_step,
    outputs_in,
    tool_calls,
)


class LeaseLost(Exception):  # noqa: N818
    """Another executor has the run, or it is gone: nothing was written, and nothing more may be."""


@dataclass(frozen=True)
class Asked:
    """A question to a model, by the upstream's name of it, whose usage is not known yet."""

    model: str
    request: Json


_OF_CALLS = (Called, Argued)


class Journal:
    """The writes of one executor on one run. Methods raise `LeaseLost` and `IllegalMove`, having changed nothing.

    `turn` is the turn of the model that is being written, `asked` what it answers, `carried_out` what its step keeps
    of calls that are carried out here, by their ids, as far as it has come. A write that has begun is finished even if
    the task is cancelled meanwhile. What ends a turn is written once the database answers, however long that takes.
    """

    def __init__(self, lease: Lease, database: Database, events: EventLog) -> None:
        self.turn = Turn()
        self.asked: Asked | None = None
        self.carried_out: dict[str, Json] = {}
        self.project_id = lease.project_id
        self.thread_id = lease.thread_id
        self.lease = lease
        self._database = database
        self._events = events
        self._held = {"the_run": lease.run_id, "the_token": lease.token}
        self._used = NOTHING_USED
        self._include: Collection[str] = ()
        self._message: telling.OpenMessage | None = None
        self._calls: telling.OpenCalls | None = None

    async def load(self, claimed: Row | None = None) -> Loaded:
        """The run, what it has done so far, and how much time it has left. `claimed` is the run if it was just read."""
        row = claimed or await self._database.fetch_row(statements.LOAD, **self._held)
        if row is None:
            raise LeaseLost
        is_new = claimed is not None and claimed["attempt"] == 1
        begun = row["started_at"] is not None and not is_new
        steps = await self._database.fetch(statements.STEPS, the_run=self.lease.run_id) if begun else []
        ended = [step for step in steps if step["status"] != StepStatus.IN_PROGRESS]
        stores = tuple(tool_resources.store_ids(row["tool_resources"]))
        of_code = tuple(tool_resources.code_file_ids(row["tool_resources"]))
        loaded = Loaded(Run.of(row), ended, row["left_s"], begun, stores, of_code)
        self._used, self._include = loaded.used, row["include"]
        return loaded

    async def make_up(self) -> None:
        """Tell what an executor that died had committed and could not tell any more."""
        self._tell(await self._events.untold(self.lease.run_id))

    async def begin(self) -> None:
        """A queued run is in progress."""
        await to_the_end(self._begin())

    async def take_back(self) -> None:
        """Remove the message and the calls that an executor before this one left half-written, and their steps."""
        await to_the_end(self._take_back())

    async def say(self, pieces: Sequence[Piece]) -> None:
        """The model said more: a first piece opens a message or a step, each is streamed. Deltas are not committed."""
        if self._message and (texts := only_texts(pieces)):
            self._tell(self._message.frames(texts))
            return
        frames: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, _OF_CALLS):
                if self._calls is None:
                    frames = self._tell(frames)
                    await to_the_end(self._turn_to_calls())
                assert self._calls
                frames += self._calls.frames(piece, self.turn.tool(piece.index))
            else:
                if self._message is None:
                    frames = self._tell(frames)
                    await to_the_end(self._open_message())
                assert self._message
                frames.append(self._message.frame(piece))
        self._tell(frames)

    def hear_out(self) -> None:
        """The model has ended: code that could not be told while it was written is told."""
        if self._calls:
            self._tell(self._calls.rest(self.turn.calls))

    def say_output(self, place: int, number: int, output: Json) -> None:
        """The code of the call at a place has more output: it is streamed, not committed."""
        assert self._calls, "code is executed in a step of calls"
        self._tell([self._calls.output(place, number, output)])

    async def complete_calls(self) -> None:
        """All calls of the turn were carried out here: their step is completed, and another turn may begin."""
        await through_outages(self._complete_calls)

    async def ask_client(self) -> None:
        """The run waits for its client, who has to carry out the calls of the turn. The lease is given back."""
        await through_outages(self._ask_client)

    async def end(self, ending: Ending) -> None:
        """The run ends, and with it what is open."""
        await through_outages(partial(self._end, ending))

    async def _begin(self) -> None:
        row = await self._database.fetch_row(
            statements.move(RunStatus.IN_PROGRESS, sources(RunStatus.IN_PROGRESS)), **self._held
        )
        if row is None:
            await self._refuse(self._database, RunStatus.IN_PROGRESS)
        else:
            self._tell([telling.event("thread.run", Run.of(row))])

    async def _take_back(self) -> None:
        run_id = self.lease.run_id
        async with self._database.transaction() as tx:
            await self._hold(tx)
            half_written = await tx.fetch(statements.REMOVE_OPEN_MESSAGES, the_run=run_id)
            steps = await tx.fetch(statements.REMOVE_OPEN_STEPS, the_run=run_id)
        # Readers may have seen text: their accumulators want a part at its index, however empty
        changes = {
            "status": MessageStatus.INCOMPLETE,
            "content": [text_content("")],
            "incomplete_details": {"reason": "run_failed"},
        }
        cancelled = {"status": StepStatus.CANCELLED, "cancelled_at": int(time.time())}
        self._tell(
            [telling.event("thread.message", Message.of({**message, **changes})) for message in half_written]
            + [telling.event("thread.run.step", RunStep.of({**step, **cancelled})) for step in steps]
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
        step, message = RunStep.of(_there(row, "step")), Message.of(_there(row, "message"))
        self._message = telling.OpenMessage(message_id, self.turn.images)
        self._tell(
            [
                *telling.opened("thread.run.step", step),
                *telling.opened("thread.message", message),
                *self._message.images(),
            ]
        )

    async def _turn_to_calls(self) -> None:
        """Open the step of the turn's calls. One step at a time: the message that came before is completed.

        *Source*: recorded runs, and openai-node, which refuses a second open step.
        """
        step_id, frames = new_id("step"), []
        async with self._database.transaction() as tx:
            await self._hold(tx)
            if self._message:
                frames = await self._complete_message(tx)
            row = await tx.fetch_row(statements.OPEN_CALLS, **self._held, step_id=step_id)
        assert row is not None, "the lease is held"
        self._tell([*frames, *telling.opened("thread.run.step", RunStep.of(row))])
        self._message, self._calls = None, telling.OpenCalls(step_id)

    async def _complete_calls(self) -> None:
        async with self._database.transaction() as tx:
            await self._hold(tx)
            steps = await tx.fetch(
                statements.end_steps(StepStatus.COMPLETED, StepStatus.COMPLETED),
                the_run=self.lease.run_id,
                step_usage=self._turn_used.model_dump(),
                calls_details=self._details(),
                step_error=None,
            )
        self._tell(telling.ended([], steps, self._include))
        self._used += self._turn_used
        self.turn, self.carried_out, self._calls = Turn(), {}, None

    async def _ask_client(self) -> None:
        details = self._details()
        async with self._database.transaction() as tx:
            run = await tx.fetch_row(
                statements.move(RunStatus.REQUIRES_ACTION, sources(RunStatus.REQUIRES_ACTION)),
                **self._held,
                new_action=submit_tool_outputs(details["tool_calls"]),
            )
            if run is None:
                await self._refuse(tx, RunStatus.REQUIRES_ACTION)
                return
            await tx.fetch(
                statements.KEEP_CALLS,
                the_run=self.lease.run_id,
                new_details=details,
                new_usage=self._turn_used.model_dump(),
            )
        self._tell([telling.event("thread.run", Run.of(run)), wire.DONE])

    def _details(self) -> Json:
        """The calls of the turn as far as they have come, with what has come back of those that were carried out."""
        calls = ((call, self.turn.tool(place)) for place, call in enumerate(self.turn.calls))
        return tool_calls([self.carried_out.get(call.id) or tools.pending(call, tool) for call, tool in calls])

    async def _complete_message(self, tx: Transaction) -> list[bytes]:
        """Complete the message that the model wrote before its calls; what the turn used is told with those."""
        run_id = self.lease.run_id
        messages = await tx.fetch(statements.end_messages(None), the_run=run_id, new_content=self.turn.content)
        steps = await tx.fetch(statements.COMPLETE_MESSAGE_STEP, the_run=run_id, new_usage=NOTHING_USED.model_dump())
        return telling.ended(messages, steps, self._include)

    async def _end(self, ending: Ending) -> None:
        if ending is COMPLETED and self._message is None:
            await self._open_message()  # an empty answer is an answer
        parts: Json = {
            "new_content": self.turn.content or [text_content("")],
            "calls_details": self._details() if self._calls else None,
            "step_usage": self._turn_used.model_dump(),
        }
        used = self._used + self._turn_used
        if ending is CANCELLED:
            async with self._database.transaction() as tx:
                cancelling = telling.event("thread.run", Run.of(await self._hold(tx)))
                ended = await _ended(tx, ending, used, **self._held, **parts)
            frames = [cancelling]
        else:
            ended, frames = await _ended(self._database, ending, used, **self._held, **parts), []
        if ended is None:
            await self._refuse(self._database, ending.status)
        else:
            self._tell([*frames, *ended.frames])

    @property
    def _turn_used(self) -> Usage:
        return self.turn.usage or NOTHING_USED

    async def _refuse(self, connection: Connection, target: RunStatus) -> None:
        """Say why a guarded update changed nothing."""
        state = await connection.fetch_row(statements.STATE, the_run=self.lease.run_id)
        if state is None or state["lease_token"] != self.lease.token:
            raise LeaseLost
        raise IllegalMove(RunStatus(state["status"]), target)

    async def _hold(self, tx: Transaction) -> Row:
        """Lock the run without moving it."""
        row = await tx.fetch_row(statements.HOLD, **self._held)
        if row is None:
            raise LeaseLost
        return row

    def _tell(self, frames: Sequence[bytes]) -> list[bytes]:
        """Tell of what has happened; nothing is left to tell then."""
        if frames:
            self._events.append(self.lease.run_id, self.lease.attempt, frames)
        return []


# --- What happens to runs that nobody executes


async def submit(
    tx: Transaction, run_id: str, outputs: Mapping[str, str], claim: Claim | None
) -> tuple[Row, list[bytes]]:
    """A locked run in `requires_action` has its outputs, by the ids of its calls: it is queued again.

    With a claim it is leased at once. Returns the run's row, and the frames of the events to tell once this is
    committed.
    """
    step = await tx.fetch_row(statements.WAITING_CALLS, the_run=run_id)
    assert step is not None, "a run that waits for outputs has an open step"
    completed = await tx.fetch_row(
        statements.COMPLETE_CALLS, the_run=run_id, new_details=outputs_in(step["step_details"], outputs)
    )
    assert completed is not None
    lease = {"owner": claim.owner, "token": claim.token} if claim else {}
    queued = await _moved(tx, run_id, RunStatus.QUEUED, claimed=claim is not None, **lease)
    return queued, [
        telling.event("thread.run.step", RunStep.of(completed, queued["include"])),
        telling.event("thread.run", Run.of(queued)),
    ]


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
    cancelled, frames = await end_unexecuted(tx, run_id, CANCELLED)
    return cancelling, cancelled["attempt"], [telling.event("thread.run", Run.of(cancelling)), *frames]


async def end_unexecuted(tx: Transaction, run_id: str, ending: Ending) -> tuple[Row, list[bytes]]:
    """End a locked run that nobody executes. Its row, and the frames to tell once this is committed."""
    used = used_in(await tx.fetch(statements.STEPS, the_run=run_id))
    ended = await _ended(tx, ending, used, the_run=run_id, new_content=[text_content("")])
    assert ended is not None, _LOCKED
    return ended.run, ended.frames


_LOCKED = "the caller has locked the run and checked the move"


async def _moved(tx: Transaction, run_id: str, target: RunStatus, *, claimed: bool = False, **values: object) -> Row:
    statement = statements.move(target, sources(target), leased=False, claimed=claimed)
    row = await tx.fetch_row(statement, the_run=run_id, **values)
    assert row is not None, _LOCKED
    return row


def _last_words(ending: Ending, used: Usage) -> Json:
    """What a run that ends is given to say."""
    return {
        "new_usage": used.model_dump(),
        "new_last_error": ending.error.model_dump() if ending.error else None,
        "new_details": {"reason": ending.details} if ending.details else None,
    }


@dataclass(frozen=True)
class _Ended:
    """A run that has ended, and what is to be told: of its message and its step first, the end of the stream last."""

    run: Row
    frames: list[bytes]


async def _ended(connection: Connection, ending: Ending, used: Usage, **values: object) -> _Ended | None:
    """End a run with what is open of it; None where it may not end so. With a token in `values` the lease must hold."""
    statement = statements.end(
        ending.status,
        sources(ending.status),
        leased="the_token" in values,
        message=ending.message,
        step=ending.step,
        calls=ending.calls,
    )
    error = of_step(ending.error).model_dump() if ending.error else None
    row = await connection.fetch_row(statement, step_error=error, **_last_words(ending, used), **values)
    if row is None:
        return None
    run, message, step = _there(row, "run"), statements.part(row, "message"), statements.part(row, "step")
    frames = telling.ended([message] if message else [], [step] if step else [], run["include"])
    return _Ended(run, [*frames, telling.event("thread.run", Run.of(run)), wire.DONE])


def _there(row: Row, table: str) -> Row:
    found = statements.part(row, table)
    assert found is not None
    return found
