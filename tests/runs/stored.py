"""Runs put straight into a database, and the hands of an executor on them: for what no client can bring about."""

import json
from collections.abc import Sequence
from typing import Any

from adlatus.backends.routing import Endpoint, Route, Routing
from adlatus.ids import new_id
from adlatus.runs import commands
from adlatus.runs.journal import Journal
from adlatus.store import leases, rows
from adlatus.store.db import Database, Row
from adlatus.store.events import EventLog
from adlatus.store.leases import Claim, Lease, new_claim
from adlatus.store.tables import assistants
from adlatus.wire.common import Json
from adlatus.wire.runs import CreateThreadAndRunRequest, Run, RunStatus, submit_tool_outputs
from adlatus.wire.steps import function_call

PROJECT = "default"
ROUTING = Routing([], Route("*", Endpoint("none", "http://localhost/v1")))
WHOLE = ("runs", "run_steps", "messages")

CALLS = [function_call("call_one", "get_weather", "{}")]
WAITING = submit_tool_outputs(CALLS)

_NONE = dict.fromkeys(
    (
        "started_at",
        "cancelled_at",
        "failed_at",
        "completed_at",
        "required_action",
        "last_error",
        "incomplete_details",
    ),
    "NULL",
)
_ENDED = {"expires_at": "NULL", "started_at": "1"}
BESIDE = {
    RunStatus.QUEUED: {},
    RunStatus.IN_PROGRESS: {"started_at": "1"},
    RunStatus.REQUIRES_ACTION: {"started_at": "1", "required_action": f"'{json.dumps(WAITING)}'"},
    RunStatus.CANCELLING: {"started_at": "1"},
    RunStatus.CANCELLED: _ENDED | {"cancelled_at": "1"},
    RunStatus.FAILED: _ENDED | {"failed_at": "1", "last_error": "'{}'"},
    RunStatus.COMPLETED: _ENDED | {"completed_at": "1"},
    RunStatus.INCOMPLETE: _ENDED | {"incomplete_details": "'{}'"},
    RunStatus.EXPIRED: _ENDED,
}
"""What a run of each status has to have beside it, as SQL."""


async def execute(database: Database, sql: str, *values: object) -> list[Row]:
    """Raw SQL, past everything that Adlatus knows."""
    connection = await database.pool.borrow()
    try:
        return list(await connection.fetch(sql, *values))
    finally:
        database.pool.give_back(connection, sure=False)


async def add_assistant(database: Database, tools: Sequence[Json] = ()) -> str:
    """The id of an assistant."""
    row = await rows.add(
        database,
        assistants,
        id=new_id("asst"),
        project_id=PROJECT,
        model="gpt-4o",
        tools=list(tools),
        tool_resources={},
        metadata={},
        response_format="auto",
    )
    assistant_id: str = row["id"]
    return assistant_id


async def add_run(
    database: Database,
    *,
    leased: bool = False,
    text: str = "Hello?",
    tools: Sequence[Json] = (),
    tool_choice: str | None = None,
    claim: Claim | None = None,
) -> tuple[Run, Lease | None]:
    """A run on a thread of its own with one message of the user: queued, and so too if it is leased to the test; in
    progress by a claim.
    """
    request = CreateThreadAndRunRequest.model_validate(
        {
            "assistant_id": await add_assistant(database, tools),
            "thread": {"messages": [{"role": "user", "content": text}]},
            "tool_choice": tool_choice,
        }
    )
    claim = new_claim("the test") if leased else claim
    created = await commands.create_thread_and_run(
        database, EventLog(database), ROUTING, PROJECT, request, expires_after_s=600, claim=claim
    )
    if leased and created.lease:
        await execute(database, "UPDATE runs SET status = 'queued', started_at = NULL WHERE id = $1", created.run.id)
        created.lease.claimed = None
    return created.run, created.lease


async def add_leased(database: Database, *, text: str = "Hello?") -> Lease:
    """A queued run that is leased to the test."""
    _, lease = await add_run(database, leased=True, text=text)
    assert lease is not None
    return lease


async def put(database: Database, run_id: str, status: RunStatus) -> None:
    """Put a run into a status, by no rule but the database's own. Its lease goes where it may not stay."""
    columns = {"status": f"'{status}'", "expires_at": "created_at + 600", **_NONE, **BESIDE[status]}
    if status not in leases.CLAIMABLE:
        columns |= dict.fromkeys(("lease_owner", "lease_token", "lease_expires_at"), "NULL")
    changes = ", ".join(f"{name} = {value}" for name, value in columns.items())
    await execute(database, f"UPDATE runs SET {changes} WHERE id = $1", run_id)


async def expire_lease(database: Database, run_id: str) -> None:
    """The executor of a run has been silent for longer than a lease."""
    await execute(database, "UPDATE runs SET lease_expires_at = now() - interval '1 second' WHERE id = $1", run_id)


async def steal(database: Database, run_id: str) -> None:
    """Another executor takes the run over."""
    await execute(database, "UPDATE runs SET lease_token = 'stolen', attempt = attempt + 1 WHERE id = $1", run_id)


async def contents(database: Database) -> dict[str, Any]:
    """Every run, step and message of a database, whole."""
    return {
        table: [dict(row) for row in await execute(database, f"SELECT * FROM {table} ORDER BY id")] for table in WHOLE
    }


def journal(database: Database, lease: Lease) -> Journal:
    """The journal of a lease, whose events nobody hears."""
    return Journal(lease, database, EventLog(database))


async def claim_and_die(database: Database, *pieces: str | Json, writes: bool = True) -> None:
    """Claim the only run, say so much of the answer, and be heard of no more. An empty text only opens a message.

    Without `writes` nobody hears of what it has done.
    """
    [lease] = await leases.RUNS.claim(database, "the dead", 1)
    log = EventLog(database)
    writer = Journal(lease, database, log)
    if (await writer.load()).run.status is RunStatus.QUEUED:
        await writer.begin()
    else:
        await writer.take_back()
    for piece in pieces:
        if piece == "":
            await writer._open_message()
        await say(writer, {"content": piece} if isinstance(piece, str) else piece)
    if writes:
        await log.write()
    await expire_lease(database, lease.run_id)


async def say(writer: Journal, *deltas: Json) -> None:
    """The model of an executor streams these deltas."""
    for delta in deltas:
        await writer.say(writer.turn.fold([{"choices": [{"index": 0, "delta": delta}]}]))


def calling(name: str, arguments: str = "{}", index: int = 0, call_id: str = "") -> Json:
    """The delta in which a model calls a function."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


async def ask_client(database: Database, lease: Lease) -> None:
    """The executor of a run begins it, and asks its client for the call `call_one`."""
    writer = journal(database, lease)
    await writer.begin()
    await say(writer, calling("get_weather", call_id="call_one"))
    await writer.ask_client()


async def add_calling(database: Database) -> str:
    """A run whose executor, which is gone by now, has asked its client for the call `call_one`."""
    lease = await add_leased(database)
    await ask_client(database, lease)
    return lease.run_id
