"""The table of legal moves against the real tables: what it forbids changes nothing, and the database itself refuses
rows that no move may leave behind."""

import asyncio
import re
from itertools import product

import asyncpg
import pytest
from sqlalchemy import CheckConstraint

from adlatus.errors import InvalidRequest
from adlatus.runs import commands
from adlatus.runs.endings import CANCELLED, COMPLETED, EXPIRED, FILTERED, OUT_OF_TOKENS, Ending, failed
from adlatus.runs.expiry import expire
from adlatus.runs.lifecycle import ACTIVE, FINAL, MOVES, IllegalMove, sources
from adlatus.runs.loop import execute as execute_run
from adlatus.settings import Settings
from adlatus.store import leases
from adlatus.store import runs as statements
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.store.tables import metadata
from adlatus.wire.common import NOTHING_USED, LastError
from adlatus.wire.runs import RunStatus as S
from adlatus.wire.runs import ToolOutput
from tests.conftest import Loop, serving
from tests.runs.stored import (
    PROJECT,
    WAITING,
    add_calling,
    add_leased,
    add_run,
    calling,
    contents,
    execute,
    journal,
    put,
    say,
)

HALF = {"content": "Half"}
ERROR = LastError(code="server_error", message="It broke.")
HELD = [status for status in S if status in leases.CLAIMABLE]
ENDINGS = [COMPLETED, CANCELLED, EXPIRED, OUT_OF_TOKENS, FILTERED, failed(ERROR)]


# --- Moves


@pytest.mark.parametrize(("status", "target"), list(product(S, S)))
def test_the_guarded_update_makes_the_moves_of_the_table_and_no_other(
    loop: Loop, database: Database, status: S, target: S
) -> None:
    async def scenario() -> None:
        run, _ = await add_run(database)
        await put(database, run.id, status)
        before = await contents(database)
        ends = target in FINAL
        values = {
            "new_usage": NOTHING_USED.model_dump() if ends else None,
            "new_last_error": ERROR.model_dump() if target is S.FAILED else None,
            "new_details": {"reason": "content_filter"} if target is S.INCOMPLETE else None,
        }
        statement = statements.move(target, sources(target), leased=False)
        given = values if ends else {"new_action": WAITING} if target is S.REQUIRES_ACTION else {}
        moved = await database.fetch_row(statement, the_run=run.id, **given)
        if target in MOVES[status]:
            assert moved is not None
            assert moved["status"] == target
            assert (moved["expires_at"] is None) == ends
        else:
            assert moved is None
            assert await contents(database) == before

    loop.run(scenario())


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: str(ending.details or ending.status))
@pytest.mark.parametrize("status", HELD)
def test_an_executor_ends_a_run_legally_or_not_at_all(
    loop: Loop, database: Database, status: S, ending: Ending
) -> None:
    async def scenario() -> None:
        lease = await add_leased(database)
        await put(database, lease.run_id, S.IN_PROGRESS)
        writer = journal(database, lease)
        await say(writer, HALF)
        await put(database, lease.run_id, status)
        before = await contents(database)
        if ending.status in MOVES[status]:
            await writer.end(ending)
            [run] = await execute(database, "SELECT status, lease_token FROM runs")
            assert dict(run) == {"status": ending.status, "lease_token": None}
        else:
            with pytest.raises(IllegalMove) as raised:
                await writer.end(ending)
            assert (raised.value.current, raised.value.target) == (status, ending.status)
            assert await contents(database) == before

    loop.run(scenario())


@pytest.mark.parametrize("status", HELD)
def test_an_executor_asks_its_client_legally_or_not_at_all(loop: Loop, database: Database, status: S) -> None:
    async def scenario() -> None:
        lease = await add_leased(database)
        await put(database, lease.run_id, S.IN_PROGRESS)
        writer = journal(database, lease)
        await say(writer, HALF, calling("get_weather"))
        await put(database, lease.run_id, status)
        before = await contents(database)
        if S.REQUIRES_ACTION in MOVES[status]:
            await writer.ask_client()
            [run] = await execute(database, "SELECT status, lease_token FROM runs")
            assert dict(run) == {"status": "requires_action", "lease_token": None}
            steps = await execute(database, "SELECT type, status FROM run_steps ORDER BY seq")
            assert [tuple(step) for step in steps] == [("message_creation", "completed"), ("tool_calls", "in_progress")]
        else:
            with pytest.raises(IllegalMove) as raised:
                await writer.ask_client()
            assert (raised.value.current, raised.value.target) == (status, S.REQUIRES_ACTION)
            assert await contents(database) == before

    loop.run(scenario())


@pytest.mark.parametrize("status", S)
def test_outputs_are_accepted_in_one_status_only(loop: Loop, database: Database, status: S) -> None:
    async def scenario() -> None:
        run_id = await add_calling(database)
        await put(database, run_id, status)
        [run] = await execute(database, "SELECT thread_id FROM runs")
        before = await contents(database)
        outputs = [ToolOutput(tool_call_id="call_one", output="sunny")]
        submit = commands.submit_tool_outputs(
            database, EventLog(database), PROJECT, run["thread_id"], run_id, outputs, claim=None
        )
        if status is S.REQUIRES_ACTION:
            assert (await submit).run.status is S.QUEUED
            [step] = await execute(database, "SELECT status, step_details FROM run_steps")
            assert step["status"] == "completed"
            assert step["step_details"]["tool_calls"][0]["function"]["output"] == "sunny"
        else:
            with pytest.raises(InvalidRequest, match=rf'^Runs in status "{status}" do not accept tool outputs\.$'):
                await submit
            assert await contents(database) == before

    loop.run(scenario())


@pytest.mark.parametrize("executing", [True, False])
@pytest.mark.parametrize("overdue", [True, False])
@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_an_overdue_run_expires_unless_somebody_executes_it(
    loop: Loop, database: Database, status: S, overdue: bool, executing: bool
) -> None:
    async def scenario() -> None:
        run_id = await add_calling(database)
        await put(database, run_id, status)
        if overdue:
            await execute(database, "UPDATE runs SET created_at = created_at - 601, expires_at = expires_at - 601")
        if executing and status in HELD:
            assert await leases.RUNS.claim(database, "me", 1)
        before = await contents(database)
        ends = overdue and not (executing and status in HELD)
        assert await expire(database, EventLog(database)) == int(ends)
        if ends:
            [run] = await execute(database, "SELECT status, usage FROM runs")
            [step] = await execute(database, "SELECT status FROM run_steps")
            expected = "cancelled" if status is S.CANCELLING else "expired"
            assert (run["status"], step["status"]) == (expected, expected)
            assert run["usage"] == NOTHING_USED.model_dump()
        else:
            assert await contents(database) == before

    loop.run(scenario())


@pytest.mark.parametrize(
    ("status", "executing"), [*((status, False) for status in S), *((status, True) for status in HELD)]
)
def test_a_cancel_is_legal_or_refused(loop: Loop, database: Database, status: S, executing: bool) -> None:
    async def scenario() -> None:
        run, lease = await add_run(database, leased=executing)
        if lease:
            await say(journal(database, lease), HALF)
        await put(database, run.id, status)
        before = await contents(database)
        cancel = commands.cancel(database, EventLog(database), PROJECT, run.thread_id, run.id)
        if S.CANCELLING in MOVES[status]:
            assert (await cancel).status is S.CANCELLING
            [row] = await execute(database, "SELECT status FROM runs")
            assert row["status"] == ("cancelling" if executing else "cancelled")
        else:
            with pytest.raises(InvalidRequest, match=rf"^Cannot cancel run with status '{status}'\.$"):
                await cancel
            assert await contents(database) == before

    loop.run(scenario())


def test_a_cancel_that_comes_before_an_ending_it_does_not_allow_wins(loop: Loop, database: Database) -> None:
    """`cancelling` cannot become `incomplete`; nor may the run be left to its lease."""
    with serving(loop, Settings(database_url=database.dsn), executor=False) as server:

        async def scenario() -> None:
            lease = await add_leased(database, text="[[tokens: 4]] [[pace: 0.1]] [[finish: length]]")
            executing = asyncio.create_task(execute_run(lease, server.resources))
            async with asyncio.timeout(60):
                while not await execute(database, "SELECT FROM messages WHERE status = 'in_progress'"):
                    await asyncio.sleep(0.005)
                await put(database, lease.run_id, S.CANCELLING)
                await executing
            [run] = await execute(database, "SELECT status, cancelled_at FROM runs")
            [message] = await execute(database, "SELECT * FROM messages WHERE role = 'assistant'")
            [step] = await execute(database, "SELECT status FROM run_steps")
            assert (run["status"], step["status"], message["status"]) == ("cancelled", "cancelled", "incomplete")
            assert message["incomplete_details"] == {"reason": "run_cancelled"}
            assert message["content"][0]["text"]["value"] == "word1 word2 word3 word4"

        loop.run(scenario())


# --- What the database refuses

STATUSES = {
    "runs": "status = 'queued', started_at = NULL, lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL",
    "run_steps": "status = 'in_progress'",
    "messages": "status = 'in_progress', content = '[]'",
}
"""The rows that the changes below are made to, one of each table."""

BAD_CHANGES = [
    ("runs", "status", "status = 'paused'"),
    ("runs", "status", "status = 'Queued'"),
    ("runs", "expires_at", "expires_at = NULL"),
    ("runs", "expires_at", "status = 'expired'"),
    ("runs", "completed_at", "completed_at = 1"),
    ("runs", "completed_at", "status = 'completed', expires_at = NULL, started_at = 1"),
    ("runs", "cancelled_at", "cancelled_at = 1"),
    ("runs", "cancelled_at", "status = 'cancelled', expires_at = NULL"),
    ("runs", "failed_at", "failed_at = 1"),
    ("runs", "failed_at", "status = 'failed', expires_at = NULL, last_error = '{}'"),
    ("runs", "last_error", "status = 'failed', expires_at = NULL, failed_at = 1"),
    ("runs", "incomplete_details", "incomplete_details = '{}'"),
    ("runs", "incomplete_details", "status = 'incomplete', expires_at = NULL, started_at = 1"),
    ("runs", "required_action", "required_action = '{}'"),
    ("runs", "required_action", "status = 'requires_action', started_at = 1"),
    ("runs", "started_at", "status = 'in_progress'"),
    ("runs", "started_at", "status = 'requires_action', required_action = '{}'"),
    ("runs", "started_at", "status = 'completed', expires_at = NULL, completed_at = 1"),
    (
        "runs",
        "lease_token",
        "status = 'expired', expires_at = NULL, lease_token = 'x', lease_owner = 'x', lease_expires_at = now()",
    ),
    (
        "runs",
        "lease_token",
        "status = 'requires_action', required_action = '{}', started_at = 1, "
        "lease_token = 'x', lease_owner = 'x', lease_expires_at = now()",
    ),
    ("runs", "lease_token", "lease_token = 'x'"),
    ("runs", "lease_owner", "lease_token = 'x', lease_expires_at = now()"),
    ("runs", "lease_owner", "lease_owner = 'x'"),
    ("runs", "lease_expires_at", "lease_token = 'x', lease_owner = 'x'"),
    ("run_steps", "type", "type = 'thought'"),
    ("run_steps", "status", "status = 'queued'"),
    ("run_steps", "completed_at", "status = 'completed'"),
    ("run_steps", "completed_at", "completed_at = 1"),
    ("run_steps", "cancelled_at", "status = 'cancelled'"),
    ("run_steps", "cancelled_at", "cancelled_at = 1"),
    ("run_steps", "failed_at", "status = 'failed'"),
    ("run_steps", "failed_at", "failed_at = 1"),
    ("run_steps", "expired_at", "status = 'expired'"),
    ("run_steps", "expired_at", "expired_at = 1"),
    ("messages", "role", "role = 'system'"),
    ("messages", "status", "status = 'failed'"),
    ("messages", "completed_at", "status = 'completed'"),
    ("messages", "completed_at", "completed_at = 1"),
    ("messages", "incomplete_at", "status = 'incomplete', incomplete_details = '{}'"),
    ("messages", "incomplete_at", "incomplete_at = 1"),
    ("messages", "incomplete_details", "status = 'incomplete', incomplete_at = 1"),
    ("messages", "incomplete_details", "incomplete_details = '{}'"),
]


@pytest.mark.parametrize(("table", "column", "change"), BAD_CHANGES)
def test_the_database_refuses_a_row_that_contradicts_itself(
    loop: Loop, database: Database, table: str, column: str, change: str
) -> None:
    async def scenario() -> None:
        lease = await add_leased(database)
        writer = journal(database, lease)
        await writer.begin()
        await say(writer, HALF)
        await execute(database, f"UPDATE {table} SET {STATUSES[table]} WHERE status = 'in_progress'")
        row = "AND run_id IS NOT NULL" if table == "messages" else ""
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await execute(database, f"UPDATE {table} SET {change} WHERE true {row}")
        assert refused.value.constraint_name == f"ck_{table}_sound"

    loop.run(scenario())


def test_every_column_that_the_database_checks_is_tried() -> None:
    checked = {
        (table.name, column.strip())
        for table in map(metadata.tables.get, STATUSES)
        if table is not None
        for check in table.constraints
        if isinstance(check, CheckConstraint)
        for column in str(check.sqltext).partition("(")[2].rstrip(")").split(",")
    }
    assert checked == {(table, column) for table, column, _ in BAD_CHANGES}


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_the_database_refuses_a_second_active_run_on_a_thread(loop: Loop, database: Database, status: S) -> None:
    async def scenario() -> None:
        first, second = (await add_run(database))[0], (await add_run(database))[0]
        await put(database, first.id, status)
        move = f"UPDATE runs SET thread_id = '{first.thread_id}' WHERE id = '{second.id}'"
        with pytest.raises(asyncpg.UniqueViolationError) as refused:
            await execute(database, move)
        assert refused.value.constraint_name == "uq_runs_active_thread"
        for final in sorted(FINAL):
            await put(database, first.id, final)
            await execute(database, move)
            await execute(database, f"UPDATE runs SET thread_id = '{second.thread_id}' WHERE id = '{second.id}'")

    loop.run(scenario())


def test_the_database_refuses_a_run_of_nobody_or_of_nowhere(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await add_run(database)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await execute(database, "UPDATE runs SET thread_id = 'none'")
        for column in ("project_id", "thread_id"):
            with pytest.raises(asyncpg.NotNullViolationError):
                await execute(database, f"UPDATE runs SET {column} = NULL")

    loop.run(scenario())


def test_the_tables_active_index_names_the_final_statuses_of_the_lifecycle() -> None:
    [index] = [index for index in metadata.tables["runs"].indexes if index.name == "uq_runs_active_thread"]
    where = str(index.dialect_options["postgresql"]["where"])
    assert set(re.findall(r"'(\w+)'", where)) == {str(status) for status in FINAL}
