"""The statements that an executing run needs. Which moves are legal is not theirs to know: the guard is handed in."""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    case,
    column,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate
from sqlalchemy.sql.elements import Label

from adlatus.errors import not_found
from adlatus.store import history, leases, seen
from adlatus.store.db import Connection, Row, param
from adlatus.store.leases import FREED, lease_end
from adlatus.store.tables import ENDED, assistants, messages, run_steps, runs, threads, unix_now
from adlatus.wire.common import NOTHING_USED
from adlatus.wire.messages import IncompleteReason, MessageStatus
from adlatus.wire.runs import RunStatus
from adlatus.wire.steps import ASKED, StepStatus, tool_calls

_held = and_(runs.c.id == param("the_run", Text()), runs.c.lease_token == param("the_token", Text()))

LOAD = select(runs, leases.left_s).where(_held)
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


_active = (
    select(runs.c.id).where(runs.c.thread_id == threads.c.id, runs.c.status.not_in(ENDED)).limit(1).scalar_subquery()
)


@dataclass(frozen=True)
class Beginning:
    """What a run on a thread begins with: the thread, the assistant with its version, and the run that is active there,
    if one is.
    """

    thread: Row
    assistant: Row
    active_run: str | None


async def beginning(connection: Connection, project_id: str, thread_id: str, assistant_id: str) -> Beginning:
    """Read all of it at once; in a transaction the thread stays locked. Raises `NotFound`."""
    row = await connection.fetch_row(
        _BEGINNING, the_project=project_id, the_thread=thread_id, the_assistant=assistant_id
    )
    thread = part(row, "thread") if row else None
    if row is None or thread is None:
        raise not_found("thread", thread_id)
    assistant = part(row, "assistant")
    if assistant is None:
        raise not_found("assistant", assistant_id)
    return Beginning(thread, assistant, row["active"])


@cache
def insertion(columns: tuple[str, ...], *, of_seen: bool = False) -> ReturningInsert[Any]:
    """A run with these columns, on its thread once nobody has that locked: queued, or with a lease in progress at once.

    Inserts nothing where the thread is gone, or another run is active on it; nor, `of_seen`, where the assistant's
    version is not `seen_version` any more.
    """
    values: dict[str, ColumnElement[Any]] = {column: param(column, runs.c[column].type) for column in columns}
    values |= {
        "status": literal(RunStatus.QUEUED.value),
        "expires_at": unix_now + param("expires_after_s", BigInteger()),
    }
    if "lease_token" in columns:
        values |= {"lease_expires_at": lease_end, "attempt": literal(1)}
        values |= {"status": literal(RunStatus.IN_PROGRESS.value), "started_at": unix_now}
    fit = [threads.c.id == values["thread_id"], threads.c.project_id == values["project_id"]]
    if of_seen:
        assistant = select(literal(1)).select_from(assistants).where(assistants.c.id == values["assistant_id"])
        unchanged = assistant.where(
            assistants.c.project_id == values["project_id"], param("seen_version", Text()) == seen.VERSION
        )
        fit.append(exists(unchanged))
    thread = select(*values.values()).select_from(threads).where(*fit).with_for_update(key_share=True)
    inserted = insert(runs).from_select(list(values), thread)
    return inserted.on_conflict_do_nothing().returning(runs, leases.left_s)


@cache
def insertion_and_thread(columns: tuple[str, ...]) -> Select[Any]:
    """The same of a seen assistant, and the first page of its thread as it was before, in one round trip.

    Columns are `first_page`, null where the thread is empty, and those of the run, which begin with `run.`.
    """
    inserted = insertion(columns, of_seen=True).cte("inserted")
    return select(*labelled("run", inserted), history.FIRST.scalar_subquery().label("first_page"))


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
    guarded = update(runs).where(which, runs.c.status.in_(sorted(sources)))
    return guarded.values(values).returning(runs, leases.left_s)


@cache
def end(
    target: RunStatus,
    sources: frozenset[RunStatus],
    *,
    leased: bool,
    message: IncompleteReason | None,
    step: StepStatus,
    calls: StepStatus,
) -> Select[Any]:
    """End a run with its open message and step, in one round trip; nothing happens if the guard does not hold.

    Columns begin with `run.`, `message.` and `step.`. What was not open is null.
    """
    moved = move(target, sources, leased=leased).cte("moved")
    is_moved = exists(select(literal(1)).select_from(moved))
    message_ended = end_messages(message).where(is_moved).cte("message_ended")
    step_ended = end_steps(step, calls).where(is_moved).cte("step_ended")
    parts = moved.outerjoin(message_ended, literal(True)).outerjoin(step_ended, literal(True))
    return select(
        *labelled("run", moved), *labelled("message", message_ended), *labelled("step", step_ended)
    ).select_from(parts)


def labelled(prefix: str, table: FromClause) -> list[Label[Any]]:
    """The columns of a table, for a row that has those of others too."""
    return [column.label(f"{prefix}.{column.name}") for column in table.c]


def part(row: Row, prefix: str) -> Row | None:
    """What a row has of a table whose columns were `labelled`; None where there was no match."""
    columns = _of_prefix(tuple(row.keys()), f"{prefix}.")
    found = {name: row[label] for name, label in columns}
    return None if found["id"] is None else found


@lru_cache(maxsize=64)
def _of_prefix(labels: tuple[str, ...], prefix: str) -> list[tuple[str, str]]:
    return [(label.removeprefix(prefix), label) for label in labels if label.startswith(prefix)]


@cache
def end_steps(message: StepStatus, calls: StepStatus) -> ReturningUpdate[Any]:
    """End the open step of a run, be it one that writes a message or one that calls tools.

    `step_usage` and `calls_details`, the calls as far as they have come, are null where they are kept already.
    """
    calls_tools = run_steps.c.type == "tool_calls"
    values: dict[str, Any] = {
        "status": case((calls_tools, literal(calls.value)), else_=literal(message.value)),
        "usage": func.coalesce(param("step_usage", JSON()), _kept),
        "last_error": param("step_error", JSON()),
        "step_details": case(
            (calls_tools, func.coalesce(param("calls_details", JSON()), run_steps.c.step_details)),
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


OPEN_MESSAGE = select(*labelled("step", _new_step), *labelled("message", _new_message))
"""An empty message of the run and the step that writes it, inserted if the lease holds, in one round trip."""

_BEGINNING = (
    select(
        *labelled("thread", threads),
        *labelled("assistant", assistants),
        seen.VERSION.label("assistant.version"),
        _active.label("active"),
    )
    .select_from(threads)
    .outerjoin(
        assistants,
        and_(assistants.c.id == param("the_assistant", Text()), assistants.c.project_id == threads.c.project_id),
    )
    .where(threads.c.id == param("the_thread", Text()), threads.c.project_id == param("the_project", Text()))
    .with_for_update(of=threads, key_share=True)
)
