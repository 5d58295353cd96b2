"""A run as it is now, for readers of its events who missed some: whether more will come, and its objects as events."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Text, func, literal, select, true

from adlatus.store.db import Connection, param
from adlatus.store.runs import STEPS
from adlatus.store.tables import ENDED, messages, run_events, runs
from adlatus.wire import events as wire
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run, RunStatus
from adlatus.wire.steps import RunStep

STOPPED = (*ENDED, RunStatus.REQUIRES_ACTION)
"""Statuses in which a run's stream has ended: the run has, too, or it waits for its client."""

_tail = func.substr(run_events.c.frames, func.length(run_events.c.frames) - len(wire.DONE) + 1)
_last = (
    select(run_events.c.last_number, (_tail == literal(wire.DONE)).label("ends"))
    .where(run_events.c.run_id == runs.c.id)
    .order_by(run_events.c.first_number.desc())
    .limit(1)
    .lateral("last_row")
)
_STATE = (
    select(runs, _last.c.last_number, _last.c.ends)
    .select_from(runs.outerjoin(_last, true()))
    .where(runs.c.id == param("run_id", Text()))
)
_MESSAGES = (
    select(messages).where(messages.c.run_id == param("run_id", Text())).order_by(messages.c.created_at, messages.c.seq)
)


@dataclass(frozen=True)
class State:
    """A run, the attempt that it is at, and the number of the `done` that ends its stream.

    `end` is None while the run goes on, and where the table has not (yet) been given that `done` or has lost it. It is
    the last number of the run's last row, if that row ends with `done` and is of the run's attempt: whoever moves a run
    to where its stream ends tells it under the attempt that the run has from then on.
    """

    run: Run
    include: Collection[str]
    attempt: int
    end: int | None

    @property
    def stopped(self) -> bool:
        return self.run.status in STOPPED

    def ending(self) -> bytes:
        """The run's own event, and `done` if it has stopped. They have no numbers: nobody comes back to them."""
        shown = wire.frame(f"thread.run.{self.run.status}", self.run.json_bytes())
        return shown + wire.DONE if self.stopped else shown


async def state(connection: Connection, run_id: str) -> State | None:
    """The state of a run; None if it is gone."""
    row = await connection.fetch_row(_STATE, run_id=run_id)
    if row is None:
        return None
    run = Run.of(row)
    ended = run.status in STOPPED and row["ends"] and row["last_number"] >> 32 == row["attempt"]
    return State(run, row["include"], row["attempt"], row["last_number"] if ended else None)


async def parts(connection: Connection, state: State) -> bytes:
    """The events of the current steps and messages of a run in order, a message before the step that wrote it."""
    run_id = state.run.id
    steps = [RunStep.of(row, state.include) for row in await connection.fetch(STEPS, the_run=run_id)]
    written = {row["id"]: Message.of(row) for row in await connection.fetch(_MESSAGES, run_id=run_id)}
    frames = []
    for step in steps:
        message = written.get(step.step_details.get("message_creation", {}).get("message_id"))
        if message:  # else its client has deleted it
            frames.append(wire.frame(f"thread.message.{message.status}", message.json_bytes()))
        frames.append(wire.frame(f"thread.run.step.{step.status}", step.json_bytes()))
    return b"".join(frames)
