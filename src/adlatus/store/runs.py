"""The statements that an executing run needs. Which moves are legal is not theirs to know: the guard is handed in."""

from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Text,
    Update,
    and_,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    update,
)

from adlatus.store.db import param
from adlatus.store.leases import FREED
from adlatus.store.tables import ENDED, messages, run_steps, runs, unix_now
from adlatus.wire.messages import IncompleteReason, MessageStatus
from adlatus.wire.runs import RunStatus
from adlatus.wire.steps import StepStatus

_held = and_(runs.c.id == param("the_run", Text()), runs.c.lease_token == param("the_token", Text()))

LOAD = select(runs, (runs.c.expires_at - unix_now).label("left_s")).where(_held)
"""The run as its executor sees it, with the seconds until it expires."""

HOLD = select(runs).where(_held).with_for_update(key_share=True)
"""The run, locked, if the lease holds."""

STATE = select(
    runs.c.status,
    runs.c.lease_token,
    (runs.c.lease_expires_at > func.now()).label("executing"),
).where(runs.c.id == param("the_run", Text()))
"""Status and lease of a run."""

_owner = (
    select(runs.c.project_id, runs.c.thread_id, runs.c.id.label("run_id"), runs.c.assistant_id, runs.c.expires_at)
    .where(_held)
    .with_for_update(key_share=True)
    .cte("owner")
)
_new_step = (
    insert(run_steps)
    .from_select(
        [*_owner.c.keys(), "id", "type", "status", "step_details", "metadata"],
        select(
            *_owner.c,
            param("step_id", Text()),
            literal("message_creation"),
            literal(StepStatus.IN_PROGRESS.value),
            param("step_details", JSON()),
            literal({}, JSON),
        ),
    )
    .returning(run_steps)
    .cte("new_step")
)
_new_message = (
    insert(messages)
    .from_select(
        [*_owner.c.keys()[:-1], "id", "role", "status", "content", "attachments", "metadata"],
        select(
            *list(_owner.c)[:-1],
            param("message_id", Text()),
            literal("assistant"),
            literal(MessageStatus.IN_PROGRESS.value),
            literal([], JSON),
            literal([], JSON),
            literal({}, JSON),
        ),
    )
    .returning(messages)
    .cte("new_message")
)
OPEN_MESSAGE = select(
    *(column.label(f"step.{column.name}") for column in _new_step.c),
    *(column.label(f"message.{column.name}") for column in _new_message.c),
)
"""An empty message of the run and the step that writes it, inserted if the lease holds, in one round trip."""

REMOVE_OPEN_MESSAGES = (
    delete(messages)
    .where(messages.c.run_id == param("the_run", Text()), messages.c.status == MessageStatus.IN_PROGRESS)
    .returning(messages)
)
REMOVE_OPEN_MESSAGE_STEPS = (
    delete(run_steps)
    .where(
        run_steps.c.run_id == param("the_run", Text()),
        run_steps.c.status == StepStatus.IN_PROGRESS,
        run_steps.c.type == "message_creation",
    )
    .returning(run_steps)
)


@cache
def move(target: RunStatus, sources: frozenset[RunStatus], *, leased: bool = True) -> Update:
    """The guarded update that takes a run to `target`: of its executor by the lease, else by the id alone."""
    values: dict[str, Any] = {"status": literal(target.value)}
    if target is RunStatus.IN_PROGRESS:
        values["started_at"] = unix_now
    if target is not RunStatus.REQUIRES_ACTION:
        values["required_action"] = null()
    if target in ENDED:
        values |= FREED | {
            "expires_at": null(),
            "usage": param("new_usage", JSON()),
            "last_error": param("new_last_error", JSON()),
            "incomplete_details": param("new_details", JSON()),
        }
    if target in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
        values[f"{target}_at"] = unix_now
    if not leased:
        values["attempt"] = runs.c.attempt + 1  # so that this process numbers no event that another has numbered
    which: ColumnElement[bool] = _held if leased else runs.c.id == param("the_run", Text())
    statement = update(runs).where(which, runs.c.status.in_(sorted(sources))).values(values)
    return statement.returning(runs)


@cache
def end_steps(status: StepStatus) -> Update:
    """End the steps of a run that are in progress."""
    statement = (
        update(run_steps)
        .where(run_steps.c.run_id == param("the_run", Text()), run_steps.c.status == StepStatus.IN_PROGRESS)
        .values(
            {
                "status": literal(status.value),
                f"{status}_at": unix_now,
                "usage": param("new_usage", JSON()),
                "last_error": param("new_last_error", JSON()),
            }
        )
    )
    return statement.returning(run_steps)


@cache
def end_messages(reason: IncompleteReason | None) -> Update:
    """End the messages of a run that are in progress: as completed, or as incomplete for a reason."""
    status = MessageStatus.INCOMPLETE if reason else MessageStatus.COMPLETED
    statement = (
        update(messages)
        .where(messages.c.run_id == param("the_run", Text()), messages.c.status == MessageStatus.IN_PROGRESS)
        .values(
            {
                "status": literal(status.value),
                f"{status}_at": unix_now,
                "content": param("new_content", JSON()),
                "incomplete_details": literal({"reason": reason.value}, JSON) if reason else null(),
            }
        )
    )
    return statement.returning(messages)
