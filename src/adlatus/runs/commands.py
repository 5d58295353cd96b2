"""What clients do to runs: create, cancel, submit outputs. Each is one visible transaction; events are told after its
commit.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adlatus.backends.routing import Routing
from adlatus.errors import InvalidRequest, NotFound, shortened, shortened_list
from adlatus.ids import new_id
from adlatus.runs import journal, needs, telling
from adlatus.runs.endings import EXPIRED
from adlatus.runs.lifecycle import FINAL, IllegalMove
from adlatus.store import history, leases, rows, threads, tool_resources, turns, vector_stores
from adlatus.store import runs as statements
from adlatus.store.db import Connection, Database, Row, Transaction
from adlatus.store.events import EventLog
from adlatus.store.leases import Claim, Lease
from adlatus.store.seen import SeenAssistants
from adlatus.store.tables import assistants, runs
from adlatus.store.tables import threads as threads_table
from adlatus.telemetry import Metrics
from adlatus.wire import events as wire
from adlatus.wire.common import Json
from adlatus.wire.runs import (
    CreateRunRequest,
    CreateThreadAndRunRequest,
    Run,
    RunSettings,
    RunStatus,
    ToolOutput,
    waiting_calls,
)
from adlatus.wire.steps import Included
from adlatus.wire.threads import CreateThreadRequest, Thread

CLEAR_WITHIN_S = leases.LEASE_S + 5
CLEAR_POLL_S = 0.02


@dataclass(frozen=True)
class Queued:
    """A run that is committed and wants to be executed, and the lease on it if the claim of the command was used.

    `run` is as it was queued. `after` is the number of the event after which the stream of the command begins.
    """

    run: Run
    lease: Lease | None
    after: int


class ActiveRun(InvalidRequest):
    """A run is active on the thread. *Source* of the text, which clients match: field reports."""

    def __init__(self, thread_id: str, run_id: str) -> None:
        super().__init__(f"Thread {thread_id} already has an active run {run_id}.")
        self.run_id = run_id


async def create(
    database: Database,
    events: EventLog,
    routing: Routing,
    project_id: str,
    thread_id: str,
    request: CreateRunRequest,
    *,
    include: Sequence[Included] = (),
    expires_after_s: int,
    claim: Claim | None,
    seen: SeenAssistants | None = None,
    most_active: int | None = None,
) -> Queued:
    """Create a run on a thread. With a claim it is leased at once, else any executor may take it.

    `include` is what its stream tells beyond the objects themselves, whoever listens. An assistant that this process
    has `seen` need not be read again. `most_active` is how many runs of the project may be active. Raises `NotFound`
    for the thread or the assistant, `ActiveRun` where one is active on the thread, `RateLimited` where too many are in
    the project, `InvalidRequest` where the model is unknown or cannot do what is asked, or where no executor can.
    """
    if seen and claim and claim.per_project is None and most_active is None and not request.additional_messages:
        assistant = seen.get(project_id, request.assistant_id)
        at_once = _create_at_once(database, routing, thread_id, request, assistant, include, expires_after_s, claim)
        if created := await at_once:
            row, first_page = created
            queued = _told(events, row, *_opening(row))
            assert queued.lease, "it was inserted with the claim"
            queued.lease.first_page = first_page
            return queued
    async with database.transaction() as tx:
        beginning = await statements.beginning(tx, project_id, thread_id, request.assistant_id)
        if seen:
            seen.keep(beginning.assistant)
        settings = _settings(request, beginning.assistant, routing, request.additional_instructions, include)
        await needs.check(tx, settings["needs"], claim)
        if beginning.active_run:  # last: only what is right in itself may replace it
            raise ActiveRun(thread_id, beginning.active_run)
        thread, _ = await threads.add_messages(tx, beginning.thread, request.additional_messages or ())
        await _check_stores(tx, thread, settings)
        if most_active is not None:
            await turns.check_active(tx, project_id, most_active)
        row = await _insert(tx, project_id, thread_id, settings, expires_after_s, claim)
        run, frames = _opening(row)
        await _stored(tx, events, row, frames)
    return _told(events, row, run, frames)


async def clear(database: Database, events: EventLog, project_id: str, refused: ActiveRun, thread_id: str) -> None:
    """Cancel the run that is in the way, and wait until it has ended; what it has said stays in the thread.

    Raises `ActiveRun` where that takes longer than a dead executor's lease.
    """
    with suppress(InvalidRequest, NotFound):  # it may be ending already, or gone
        await cancel(database, events, project_id, thread_id, refused.run_id)
    give_up_at = time.monotonic() + CLEAR_WITHIN_S
    while time.monotonic() < give_up_at:
        state = await database.fetch_row(statements.STATE, the_run=refused.run_id)
        if state is None or state["status"] in FINAL:
            return
        await asyncio.sleep(CLEAR_POLL_S)
    raise refused


async def create_thread_and_run(
    database: Database,
    events: EventLog,
    routing: Routing,
    project_id: str,
    request: CreateThreadAndRunRequest,
    *,
    expires_after_s: int,
    claim: Claim | None,
    most_active: int | None = None,
) -> Queued:
    """Create a thread and a run on it, both or neither. Raises as `create` does."""
    async with database.transaction() as tx:
        assistant = await rows.get(tx, assistants, "assistant", request.assistant_id, project_id=project_id)
        settings = _settings(request, assistant, routing)
        await needs.check(tx, settings["needs"], claim)
        thread = await threads.add(tx, project_id, request.thread or CreateThreadRequest())
        if request.tool_resources:
            settings["tool_resources"] = await tool_resources.kept(tx, project_id, request.tool_resources)
        await _check_stores(tx, thread, settings)
        if most_active is not None:
            await turns.check_active(tx, project_id, most_active)
        row = await _insert(tx, project_id, thread["id"], settings, expires_after_s, claim)
        run, frames = _opening(row)
        frames.insert(0, wire.frame("thread.created", Thread.of(thread).filled().json_bytes()))
        await _stored(tx, events, row, frames)
    return _told(events, row, run, frames)


async def submit_tool_outputs(
    database: Database,
    events: EventLog,
    project_id: str,
    thread_id: str,
    run_id: str,
    outputs: Sequence[ToolOutput],
    *,
    claim: Claim | None,
) -> Queued:
    """Give a run the outputs that it waits for, all of them at once. With a claim it is leased at once.

    Raises `NotFound`, and `InvalidRequest` where the run does not wait for outputs or waits for others.
    *Source* of both texts: field reports.
    """
    async with database.transaction() as tx:
        row = await rows.get_locked(tx, runs, "run", run_id, project_id=project_id, thread_id=thread_id)
        expired = await _expired(tx, row)
        if expired is None:
            _check_outputs(row, outputs)
            claim = await needs.fitting(tx, claim, project_id, thread_id, row["needs"])
            submitted = {output.tool_call_id: output.output or "" for output in outputs}
            queued, frames = await journal.submit(tx, run_id, submitted, claim)
            await _stored(tx, events, queued, frames)
    if expired:
        events.append(run_id, *expired)
        raise _refused_outputs(RunStatus.EXPIRED)
    return _told(events, queued, Run.of(queued), frames)


async def _expired(tx: Transaction, run: Row) -> tuple[int, list[bytes]] | None:
    """Expire a locked run that waits for outputs and should have expired: attempt and frames to tell, else None."""
    state = await tx.fetch_row(statements.STATE, the_run=run["id"])
    if run["status"] != RunStatus.REQUIRES_ACTION or state is None or not state["overdue"]:
        return None
    ended, frames = await journal.end_unexecuted(tx, run["id"], EXPIRED)
    return ended["attempt"], frames


def _check_outputs(run: Row, outputs: Sequence[ToolOutput]) -> None:
    if run["status"] != RunStatus.REQUIRES_ACTION:
        raise _refused_outputs(run["status"])
    wanted, got = waiting_calls(run["required_action"]), [output.tool_call_id for output in outputs]
    if sorted(wanted) != sorted(got):
        raise InvalidRequest(f"Expected tool outputs for call_ids {wanted}, got {shortened_list(got)}")


def _refused_outputs(status: str) -> InvalidRequest:
    return InvalidRequest(f'Runs in status "{status}" do not accept tool outputs.')


async def cancel(
    database: Database,
    events: EventLog,
    project_id: str,
    thread_id: str,
    run_id: str,
    *,
    metrics: Metrics | None = None,
) -> Run:
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
        if metrics:
            metrics.runs_ended.labels(RunStatus.CANCELLED).inc()
    return Run.of(cancelling)


async def _check_stores(connection: Connection, thread: Row, settings: Json) -> None:
    """Refuse a run whose file search has a store that is gone or has expired. Raises `NotFound`, `InvalidRequest`."""
    if any(tool["type"] == "file_search" for tool in settings["tools"]):
        owners = (settings["tool_resources"], thread["tool_resources"])
        ids = [store_id for owned in owners for store_id in tool_resources.store_ids(owned)]
        await vector_stores.usable(connection, thread["project_id"], ids)


def _settings(
    request: RunSettings,
    assistant: Row,
    routing: Routing,
    additional: str | None = None,
    include: Sequence[Included] = (),
) -> Json:
    """The run's own copy of the assistant's settings, with what the request overrides. Raises `InvalidRequest`."""
    overrides = request.model_dump(include={"model", "tools", "temperature", "top_p", "reasoning_effort"})
    settings: dict[str, Any] = {name: assistant[name] if value is None else value for name, value in overrides.items()}
    formats = request.model_dump(include={"response_format", "tool_choice", "truncation_strategy"})
    instructions = assistant["instructions"] if request.instructions is None else request.instructions
    response_format = formats["response_format"] or assistant["response_format"]
    routing.for_assistants(settings["model"], tools=settings["tools"], response_format=response_format)
    tool_choice = formats["tool_choice"] or "auto"
    _check_choice(tool_choice, settings["tools"])
    return settings | {
        "assistant_id": assistant["id"],
        "instructions": "\n".join(part for part in (instructions, additional) if part) or None,
        "include": list(include),
        "tool_resources": assistant["tool_resources"],
        "metadata": request.metadata or {},
        "max_completion_tokens": request.max_completion_tokens,
        "max_prompt_tokens": request.max_prompt_tokens,
        "truncation_strategy": formats["truncation_strategy"] or {"type": "auto", "last_messages": None},
        "response_format": response_format,
        "tool_choice": tool_choice,
        "needs": needs.of(settings["tools"], tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls is not False,
    }


def _check_choice(tool_choice: str | Json, tools: list[Json]) -> None:
    """Refuse a choice that no answer could keep to. Raises `InvalidRequest`. *Source* of both texts: inference."""
    if tool_choice == "required" and not tools:
        raise InvalidRequest(
            "Invalid value for 'tool_choice': 'required' is only allowed when 'tools' are specified.",
            param="tool_choice",
            code="invalid_value",
        )
    if isinstance(tool_choice, dict) and not any(_is_chosen(tool, tool_choice) for tool in tools):
        name = tool_choice["function"]["name"] if tool_choice["type"] == "function" else tool_choice["type"]
        raise InvalidRequest(
            f"Invalid value for 'tool_choice': '{shortened(name)}' is not among the tools of this run.",
            param="tool_choice",
            code="invalid_value",
        )


def _is_chosen(tool: Json, choice: Json) -> bool:
    if tool["type"] != choice["type"]:
        return False
    return tool["type"] != "function" or bool(tool["function"]["name"] == choice["function"]["name"])


async def _create_at_once(
    database: Database,
    routing: Routing,
    thread_id: str,
    request: CreateRunRequest,
    assistant: Row | None,
    include: Sequence[Included],
    expires_after_s: int,
    claim: Claim,
) -> tuple[Row, list[Row]] | None:
    """The row of a new run of an assistant as it was seen, and the newest messages of its thread, in one round trip.

    None where the assistant has changed, where hosted tools want more to be looked at, or where anything is amiss: the
    long way finds out what.
    """
    if assistant is None:
        return None
    try:
        settings = _settings(request, assistant, routing, request.additional_instructions, include)
    except InvalidRequest:
        return None
    if settings["needs"] or any(tool["type"] == "file_search" for tool in settings["tools"]):
        return None
    values = _values(assistant["project_id"], thread_id, settings, claim)
    found = await database.fetch_row(
        statements.insertion_and_thread(tuple(values)),
        **values,
        **history.scope("newest first", thread_id, values["id"]),
        expires_after_s=expires_after_s,
        seen_version=assistant["version"],
    )
    row = statements.part(found, "run") if found else None
    return (row, found["first_page"] or []) if found and row else None


async def _insert(
    tx: Transaction, project_id: str, thread_id: str, settings: Json, expires_after_s: int, claim: Claim | None
) -> Row:
    """The row of a new run. Raises `NotFound` and `ActiveRun` where the thread has become unfit for it meanwhile."""
    claim = await needs.fitting(tx, claim, project_id, thread_id, settings["needs"])
    values = _values(project_id, thread_id, settings, claim)
    statement = statements.insertion(tuple(values))
    while (row := await tx.fetch_row(statement, expires_after_s=expires_after_s, **values)) is None:
        await rows.get(tx, threads_table, "thread", thread_id, project_id=project_id)
        if active := await threads.active_run(tx, thread_id):
            raise ActiveRun(thread_id, active)
    return row


def _values(project_id: str, thread_id: str, settings: Json, claim: Claim | None) -> Json:
    """The columns of a new run."""
    values = settings | {"id": new_id("run"), "project_id": project_id, "thread_id": thread_id}
    return values | {"lease_owner": claim.owner, "lease_token": claim.token} if claim else values


def _opening(row: Row) -> tuple[Run, list[bytes]]:
    """A new run as it was queued, and what its stream begins with: created and queued show the same object.

    One that is in progress already has been queued for as long as its transaction took. *Source*: recorded streams.
    """
    shown = Run.of(row)
    queued = shown.model_copy(update={"status": RunStatus.QUEUED, "started_at": None})
    json = queued.json_bytes()
    frames = [wire.frame("thread.run.created", json), wire.frame("thread.run.queued", json)]
    if shown.status is RunStatus.IN_PROGRESS:
        frames.append(telling.event("thread.run", shown))
    return queued, frames


async def _stored(tx: Transaction, events: EventLog, row: Row, frames: list[bytes]) -> None:
    """Of a run that another process may execute keep what is told of it, and tell executors, both at the commit.

    So its stream is whole even if this process dies before it has told it.
    """
    if row["lease_token"] is None:
        await events.store(tx, row["id"], row["attempt"], frames)
        await leases.wake(tx)


def _told(events: EventLog, row: Row, run: Run, frames: list[bytes]) -> Queued:
    """Tell of what a command did, under the attempt before the one of the executor."""
    attempt = row["attempt"]
    if row["lease_token"] is None:
        events.append(run.id, attempt, frames)
        return Queued(run, None, attempt << 32)
    events.execute(run.id, attempt - 1)  # from here on, so that readers need not look at the table in between
    events.append(run.id, attempt - 1, frames)
    return Queued(run, leases.of_run(row), (attempt - 1) << 32)
