"""What clients do to runs: create, cancel. Each is one visible transaction; events are told after its commit."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Insert, insert, literal

from adlatus.backends.routing import Routing
from adlatus.errors import InvalidRequest
from adlatus.ids import new_id
from adlatus.runs import journal
from adlatus.runs.lifecycle import IllegalMove
from adlatus.store import leases, rows, threads
from adlatus.store.db import Database, Row, Transaction, param
from adlatus.store.events import EventLog
from adlatus.store.leases import Claim, Lease
from adlatus.store.tables import assistants, runs, unix_now
from adlatus.wire import events as wire
from adlatus.wire.common import Json
from adlatus.wire.runs import CreateRunRequest, CreateThreadAndRunRequest, Run, RunSettings, RunStatus
from adlatus.wire.threads import CreateThreadRequest, Thread


@dataclass(frozen=True)
class Created:
    """A run that is committed, and the lease on it if the claim that came with the command was used."""

    run: Run
    lease: Lease | None


async def create(
    database: Database,
    events: EventLog,
    routing: Routing,
    project_id: str,
    thread_id: str,
    request: CreateRunRequest,
    *,
    expires_after_s: int,
    claim: Claim | None,
) -> Created:
    """Create a run on a thread. With a claim it is leased at once, else any executor may take it.

    Raises `NotFound` for the thread or the assistant, `InvalidRequest` where a run is active on the thread or where
    the model is unknown or cannot do what is asked.
    """
    async with database.transaction() as tx:
        await threads.lock(tx, project_id, thread_id)
        if active := await threads.active_run(tx, thread_id):
            raise InvalidRequest(f"Thread {thread_id} already has an active run {active}.")
        assistant = await rows.get(tx, assistants, "assistant", request.assistant_id, project_id=project_id)
        await threads.add_messages(tx, project_id, thread_id, request.additional_messages or ())
        settings = _settings(request, assistant, routing, additional=request.additional_instructions)
        row = await _insert(tx, project_id, thread_id, settings, expires_after_s, claim)
    return await _told(events, row, [])


async def create_thread_and_run(
    database: Database,
    events: EventLog,
    routing: Routing,
    project_id: str,
    request: CreateThreadAndRunRequest,
    *,
    expires_after_s: int,
    claim: Claim | None,
) -> Created:
    """Create a thread and a run on it, both or neither. Raises as `create` does."""
    async with database.transaction() as tx:
        assistant = await rows.get(tx, assistants, "assistant", request.assistant_id, project_id=project_id)
        thread = await threads.add(tx, project_id, request.thread or CreateThreadRequest())
        settings = _settings(request, assistant, routing)
        if request.tool_resources:
            settings["tool_resources"] = request.tool_resources.model_dump()
        row = await _insert(tx, project_id, thread["id"], settings, expires_after_s, claim)
    return await _told(events, row, [wire.frame("thread.created", Thread.of(thread).filled().json_bytes())])


async def cancel(database: Database, events: EventLog, project_id: str, thread_id: str, run_id: str) -> Run:
    """Cancel a run; the answer says `cancelling`. Raises `NotFound`, and `InvalidRequest` where it is too late."""
    scope = {"project_id": project_id, "thread_id": thread_id}
    async with database.transaction() as tx:
        row = await rows.get_locked(tx, runs, "run", run_id, **scope)
        try:
            cancelling, attempt, frames = await journal.cancel(tx, row)
        except IllegalMove as error:
            raise InvalidRequest(f"Cannot cancel run with status '{error.current}'.") from error
        await leases.wake(tx)
    if frames:
        await events.tell(run_id, attempt, frames)
    return Run.of(cancelling)


def _settings(request: RunSettings, assistant: Row, routing: Routing, *, additional: str | None = None) -> Json:
    """The run's own copy of the assistant's settings, with what the request overrides. Raises `InvalidRequest`."""
    overrides = request.model_dump(include={"model", "tools", "temperature", "top_p", "reasoning_effort"})
    settings: dict[str, Any] = {name: assistant[name] if value is None else value for name, value in overrides.items()}
    formats = request.model_dump(include={"response_format", "tool_choice", "truncation_strategy"})
    instructions = assistant["instructions"] if request.instructions is None else request.instructions
    response_format = formats["response_format"] or assistant["response_format"]
    routing.for_assistants(settings["model"], tools=settings["tools"], response_format=response_format)
    return settings | {
        "assistant_id": assistant["id"],
        "instructions": "\n".join(part for part in (instructions, additional) if part) or None,
        "tool_resources": assistant["tool_resources"],
        "metadata": request.metadata or {},
        "max_completion_tokens": request.max_completion_tokens,
        "max_prompt_tokens": request.max_prompt_tokens,
        "truncation_strategy": formats["truncation_strategy"] or {"type": "auto", "last_messages": None},
        "response_format": response_format,
        "tool_choice": formats["tool_choice"] or "auto",
        "parallel_tool_calls": request.parallel_tool_calls is not False,
    }


async def _insert(
    tx: Transaction, project_id: str, thread_id: str, settings: Json, expires_after_s: int, claim: Claim | None
) -> Row:
    values = settings | {"id": new_id("run"), "project_id": project_id, "thread_id": thread_id}
    if claim:
        values |= {"lease_owner": claim.owner, "lease_token": claim.token}
    else:
        await leases.wake(tx)
    row = await tx.fetch_row(_insertion(tuple(values)), expires_after_s=expires_after_s, **values)
    assert row is not None
    return row


@cache
def _insertion(columns: tuple[str, ...]) -> Insert:
    values: dict[str, Any] = {column: param(column, runs.c[column].type) for column in columns}
    values |= {
        "status": literal(RunStatus.QUEUED.value),
        "expires_at": unix_now + param("expires_after_s", BigInteger()),
    }
    if "lease_token" in columns:
        values |= {"lease_expires_at": leases.lease_end, "attempt": literal(1)}
    return insert(runs).values(values).returning(runs)


async def _told(events: EventLog, row: Row, first: list[bytes]) -> Created:
    """Tell of the new run: created and queued show the same object. *Source*: recorded streams."""
    run = Run.of(row)
    json = run.json_bytes()
    frames = [*first, wire.frame("thread.run.created", json), wire.frame("thread.run.queued", json)]
    if row["lease_token"] is None:
        await events.tell(run.id, 0, frames)
        return Created(run, None)
    events.execute(run.id, 0)  # from here on, so that readers need not look at the table in between
    events.append(run.id, 0, frames)
    return Created(run, Lease(run.id, run.thread_id, row["project_id"], row["lease_token"], row["attempt"]))
