"""The statements that an executing run needs. Which moves are legal is not theirs to know: the guard is handed in."""

from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Text,
    and_,
    case,
    column,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from adlatus.store.db import param
from adlatus.store.leases import FREED, lease_end
from adlatus.store.tables import ENDED, messages, run_steps, runs, unix_now
from adlatus.wire.common import NOTHING_USED
from adlatus.wire.messages import IncompleteReason, MessageStatus
from adlatus.wire.runs import RunStatus
from adlatus.wire.steps import ASKED, StepStatus, tool_calls

_held = and_(runs.c.id == param("the_run", Text()), runs.c.lease_token == param("the_token", Text()))

LOAD = select(runs, (runs.c.expires_at - unix_now).label("left_s")).where(_held)
"""The run as its executor sees it, with the seconds until it expires."""

HOLD = select(runs).where(_held).with_for_update(key_share=True)
"""The run, locked, if the lease holds."""

STATE = select(
    runs.c.status,
    runs.c.lease_token,
    (runs.c.lease_expires_at > func.now()).label("executing"),
    (runs.c.expires_at <= unix_now).label("overdue"),
).where(runs.c.id == param("the_run", Text()))
"""Status and lease of a run, and whether it should have expired."""

STEPS = (
    select(run_steps)
    .where(run_steps.c.run_id == param("the_run", Text()))
    .order_by(run_steps.c.created_at, run_steps.c.seq)
)
"""The steps of a run, in their order."""

_call = func.json_array_elements(run_steps.c.step_details["tool_calls"]).table_valued(column("value", JSON))
_made = _call.c.value[ASKED]["made"]
MADE = (
    select(_made.label("made"))
    .select_from(run_steps.join(_call, literal(True)))
    .where(
        run_steps.c.thread_id == param("the_thread", Text()),
        run_steps.c.type == "tool_calls",
        _made.as_string().is_not(None),
    )
    .order_by(run_steps.c.created_at, run_steps.c.seq)
)
"""What code has written in a thread, a row for each call that was executed, oldest first: file ids by paths."""

OVERDUE = (
    select(runs)
    .where(
        runs.c.status.not_in(ENDED),
        runs.c.expires_at <= unix_now,
        or_(runs.c.lease_token.is_(None), runs.c.lease_expires_at < func.now()),
    )
    .order_by(runs.c.expires_at)
    .limit(param("row_limit", BigInteger()))
    .with_for_update(skip_locked=True, key_share=True)
)
"""Runs that should have expired and that nobody executes, locked."""

_owner = (
    select(runs.c.project_id, runs.c.thread_id, runs.c.id.label("run_id"), runs.c.assistant_id, runs.c.expires_at)
    .where(_held)
    .with_for_update(key_share=True)
    .cte("owner")
)


def _step(kind: str, details: ColumnElement[Any]) -> ReturningInsert[Any]:
    """An open step of the run, inserted if the lease holds."""
    columns = [*_owner.c.keys(), "id", "type", "status", "step_details", "metadata"]
    values = (param("step_id", Text()), literal(kind), literal(StepStatus.IN_PROGRESS.value), details)
    return insert(run_steps).from_select(columns, select(*_owner.c, *values, literal({}, JSON))).returning(run_steps)


OPEN_CALLS = _step("tool_calls", literal(tool_calls([]), JSON))
"""A step of the run that calls tools, without any call yet, inserted if the lease holds."""

_new_step = _step("message_creation", param("step_details", JSON())).cte("new_step")
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
_open_steps = and_(run_steps.c.run_id == param("the_run", Text()), run_steps.c.status == StepStatus.IN_PROGRESS)
_open_calls = and_(_open_steps, run_steps.c.type == "tool_calls")

_kept = func.coalesce(run_steps.c.usage, literal(NOTHING_USED.model_dump(), JSON))

REMOVE_OPEN_STEPS = delete(run_steps).where(_open_steps).returning(run_steps)

WAITING_CALLS = select(run_steps).where(_open_calls)
"""The step whose calls wait for the client."""

KEEP_CALLS = (
    update(run_steps)
    .where(_open_calls)
    .values(step_details=param("new_details", JSON()), usage=param("new_usage", JSON()))
    .returning(run_steps)
)
"""What the open step calls, and what it has used, which is told when it ends."""

COMPLETE_MESSAGE_STEP = (
    update(run_steps)
    .where(_open_steps, run_steps.c.type == "message_creation")
    .values(status=literal(StepStatus.COMPLETED.value), completed_at=unix_now, usage=param("new_usage", JSON()))
    .returning(run_steps)
)
"""The step of a message that was written before the calls of the same turn."""

COMPLETE_CALLS = (
    update(run_steps)
    .where(_open_calls)
    .values(
        status=literal(StepStatus.COMPLETED.value),
        completed_at=unix_now,
        step_details=param("new_details", JSON()),
        usage=_kept,
    )
    .returning(run_steps)
)
"""The open step has its outputs."""


@cache
def move(
    target: RunStatus, sources: frozenset[RunStatus], *, leased: bool = True, claimed: bool = False
) -> ReturningUpdate[Any]:
    """The guarded update that takes a run to `target`: of its executor by the lease, else by the id alone.

    `claimed`: with a new lease on it.
    """
    values: dict[str, Any] = {"status": literal(target.value)}
    if target is RunStatus.IN_PROGRESS:
        values["started_at"] = unix_now
    if target is RunStatus.QUEUED:
        values["claimable_at"] = func.now()
    if target is RunStatus.REQUIRES_ACTION:
        values |= FREED | {"required_action": param("new_action", JSON())}
    else:
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
    if not leased:  # a number of its own, so that this process numbers no event that another has numbered
        values["attempt"] = runs.c.attempt + (2 if claimed else 1)
    if claimed:
        values |= {"lease_owner": param("owner", Text()), "lease_token": param("token", Text())}
        values["lease_expires_at"] = lease_end
    which: ColumnElement[bool] = _held if leased else runs.c.id == param("the_run", Text())
    return update(runs).where(which, runs.c.status.in_(sorted(sources))).values(values).returning(runs)


@cache
def end_steps(message: StepStatus, calls: StepStatus) -> ReturningUpdate[Any]:
    """End the open step of a run, be it one that writes a message or one that calls tools.

    `new_usage` and `new_details`, the calls as far as they have come, are null where they are kept already.
    """
    calls_tools = run_steps.c.type == "tool_calls"
    values: dict[str, Any] = {
        "status": case((calls_tools, literal(calls.value)), else_=literal(message.value)),
        "usage": func.coalesce(param("new_usage", JSON()), _kept),
        "last_error": param("new_last_error", JSON()),
        "step_details": case(
            (calls_tools, func.coalesce(param("new_details", JSON()), run_steps.c.step_details)),
            else_=run_steps.c.step_details,
        ),
    }
    if message is calls:
        values[f"{message}_at"] = unix_now
    else:
        values |= {f"{message}_at": case((calls_tools, null()), else_=unix_now)}
        values |= {f"{calls}_at": case((calls_tools, unix_now), else_=null())}
    return update(run_steps).where(_open_steps).values(values).returning(run_steps)


@cache
def end_messages(reason: IncompleteReason | None) -> ReturningUpdate[Any]:
    """End the messages of a run that are in progress: as completed, or as incomplete for a reason."""
    status = MessageStatus.INCOMPLETE if reason else MessageStatus.COMPLETED
    return (
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
        .returning(messages)
    )
