"""Who executes: which process may claim which run, which one is preferred, and what no process can do."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from adlatus.backends.sandbox.availability import Availability
from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.errors import InvalidRequest
from adlatus.presence import present
from adlatus.resources import open_resources
from adlatus.runs import commands, needs
from adlatus.runs.endings import COMPLETED
from adlatus.settings import Settings
from adlatus.store import executors, leases, sandbox_sessions
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.store.executors import Ability
from adlatus.store.leases import Lease, new_claim
from adlatus.telemetry import Metrics
from adlatus.wire.common import Json
from adlatus.wire.runs import CreateRunRequest, Run, RunStatus, ToolOutput
from tests.conftest import BETA, Loop, NoBoxes, Server, serving
from tests.runs.stored import PROJECT, ROUTING, add_run, ask_client, contents, execute, expire_lease, journal, put

CODE, SEARCH = {"type": "code_interpreter"}, {"type": "file_search"}
FUNCTION = {"type": "function", "function": {"name": "code_interpreter", "description": '"code_interpreter"'}}
SANDBOX = (Ability.SANDBOX,)
BOTH = (Ability.SANDBOX, Ability.SEARCH)
NOT_INSTALLED = "bubblewrap is not installed. On Debian: apt install bubblewrap"


async def live(
    database: Database,
    name: str,
    *,
    abilities: Sequence[Ability] = SANDBOX,
    problem: str = "",
    sandboxed: Sequence[str] = (),
) -> None:
    """An executor of runs that has just told that it is alive."""
    await executors.beat(
        database,
        name,
        runs=True,
        ingestion=False,
        search=Ability.SEARCH in abilities,
        sandbox_engine="docker" if Ability.SANDBOX in abilities else None,
        sandbox_problem=problem or None,
        sandboxed=sandboxed,
    )


async def silent_for(database: Database, name: str, seconds: float) -> None:
    """An executor has not been heard of for so long."""
    sql = "UPDATE executors SET heartbeat = now() - $2 * interval '1 second' WHERE id = $1"
    await execute(database, sql, name, seconds)


async def claimable_for(database: Database, run_id: str, seconds: float) -> None:
    """A run has been waiting for an executor for so long."""
    sql = "UPDATE runs SET claimable_at = now() - $2 * interval '1 second' WHERE id = $1"
    await execute(database, sql, run_id, seconds)


async def named(database: Database) -> list[str]:
    return [row["id"] for row in await execute(database, "SELECT id FROM executors ORDER BY id")]


async def add_coding(database: Database, *, sandbox_at: str = "first") -> Run:
    """A run that needs a sandbox, on a thread that has one; the executors `first` and `second` are alive."""
    await live(database, "first")
    await live(database, "second")
    run, _ = await add_run(database, tools=[CODE])
    assert await sandbox_sessions.record(database, run.thread_id, sandbox_at, "docker", "box")
    return run


async def claimed(database: Database, owner: str, abilities: Sequence[Ability] = SANDBOX) -> list[Lease]:
    return await leases.RUNS.claim(database, owner, 10, abilities)


# --- What runs need


@pytest.mark.parametrize(
    ("tools", "choice", "needed"),
    [
        ([], "auto", []),
        ([FUNCTION], "auto", []),
        ([CODE], "auto", [Ability.SANDBOX]),
        ([CODE], "required", [Ability.SANDBOX]),
        ([CODE], {"type": "code_interpreter"}, [Ability.SANDBOX]),
        ([CODE, CODE, SEARCH], "auto", [Ability.SANDBOX, Ability.SEARCH]),
        ([CODE, SEARCH], "none", []),
        ([FUNCTION, SEARCH], {"type": "function", "function": {"name": "f"}}, [Ability.SEARCH]),
    ],
)
def test_what_a_run_needs(tools: list[Json], choice: str | Json, needed: list[Ability]) -> None:
    assert needs.of(tools, choice) == needed


@pytest.mark.parametrize(
    ("tools", "abilities", "is_claimed"),
    [
        ([], (), True),
        ([FUNCTION], (), True),
        ([CODE], (), False),
        ([CODE], (Ability.SEARCH,), False),
        ([CODE], SANDBOX, True),
        ([SEARCH], SANDBOX, False),
        ([SEARCH], (Ability.SEARCH,), True),
        ([CODE, SEARCH], SANDBOX, False),
        ([CODE, SEARCH], BOTH, True),
    ],
)
def test_a_run_is_claimed_by_who_has_what_it_needs(
    loop: Loop, database: Database, tools: list[Json], abilities: tuple[Ability, ...], is_claimed: bool
) -> None:
    async def scenario() -> None:
        run, _ = await add_run(database, tools=tools)
        found = await claimed(database, "me", abilities)
        assert [lease.run_id for lease in found] == ([run.id] if is_claimed else [])
        _, lease = await add_run(database, tools=tools, claim=new_claim("me", abilities))
        assert (lease is not None) == is_claimed

    loop.run(scenario())


def test_a_run_that_calls_no_tools_needs_nothing(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await live(database, "without", abilities=())
        run, _ = await add_run(database, tools=[CODE], tool_choice="none")
        assert [lease.run_id for lease in await claimed(database, "without", ())] == [run.id]

    loop.run(scenario())


def test_to_end_a_cancelled_run_nothing_is_needed(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        await put(database, run.id, RunStatus.CANCELLING)
        assert [lease.run_id for lease in await claimed(database, "another", ())] == [run.id]

    loop.run(scenario())


# --- Who is preferred


def test_a_run_is_left_to_the_executor_that_has_the_sandbox(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        assert await claimed(database, "second") == []
        assert [lease.run_id for lease in await claimed(database, "first")] == [run.id]

    loop.run(scenario())


def test_after_two_seconds_any_other_takes_it(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        await claimable_for(database, run.id, 1.5)
        assert await claimed(database, "second") == []
        await claimable_for(database, run.id, 2.1)
        assert await claimed(database, "second", ()) == []
        assert [lease.run_id for lease in await claimed(database, "second")] == [run.id]

    loop.run(scenario())


@pytest.mark.parametrize("how", ["dead", "gone", "without sandboxes", "indexes only", "forgotten"])
def test_who_has_the_sandbox_is_not_waited_for_in_vain(loop: Loop, database: Database, how: str) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        match how:
            case "dead":
                await silent_for(database, "first", executors.LIVE_S + 1)
            case "gone":
                await executors.leave(database, "first")
                assert await sandbox_sessions.of_thread(database, run.thread_id) is None
            case "without sandboxes":
                await live(database, "first", abilities=(), problem="The engine is gone.")
            case "indexes only":
                await execute(database, "UPDATE executors SET runs = false WHERE id = 'first'")
            case "forgotten":
                await sandbox_sessions.forget(database, run.thread_id)
        assert [lease.run_id for lease in await claimed(database, "second")] == [run.id]

    loop.run(scenario())


def test_a_run_that_needs_no_sandbox_goes_to_anybody(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await live(database, "first")
        run, _ = await add_run(database)
        await sandbox_sessions.record(database, run.thread_id, "first", "docker", "box")
        assert [lease.run_id for lease in await claimed(database, "second", ())] == [run.id]

    loop.run(scenario())


def test_the_two_seconds_begin_again_with_the_end_of_a_lease(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        assert await claimed(database, "first")
        await claimable_for(database, run.id, 60)
        await expire_lease(database, run.id)
        assert await claimed(database, "second") == []
        ended_s = "UPDATE runs SET lease_expires_at = now() - interval '2.1 seconds' WHERE id = $1"
        await execute(database, ended_s, run.id)
        assert [lease.run_id for lease in await claimed(database, "second")] == [run.id]

    loop.run(scenario())


def test_the_two_seconds_begin_again_with_the_outputs_of_the_client(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        [lease] = await claimed(database, "first")
        await ask_client(database, lease)
        await claimable_for(database, run.id, 60)
        outputs = [ToolOutput(tool_call_id="call_one", output="1")]
        at_another = new_claim("second", SANDBOX)
        queued = await commands.submit_tool_outputs(
            database, EventLog(database), PROJECT, run.thread_id, run.id, outputs, claim=at_another
        )
        assert queued.lease is None
        assert await claimed(database, "second") == []
        assert [lease.run_id for lease in await claimed(database, "first")] == [run.id]

    loop.run(scenario())


def test_who_receives_a_run_leaves_it_to_the_executor_that_has_the_sandbox(loop: Loop, database: Database) -> None:
    async def create(thread_id: str, assistant_id: str, owner: str) -> commands.Queued:
        request = CreateRunRequest(assistant_id=assistant_id)
        return await commands.create(
            database,
            EventLog(database),
            ROUTING,
            PROJECT,
            thread_id,
            request,
            expires_after_s=600,
            claim=new_claim(owner, SANDBOX),
        )

    async def scenario() -> None:
        run = await add_coding(database)
        for owner, executes_it in (("second", False), ("first", True)):
            [lease] = await claimed(database, "first")
            writer = journal(database, lease)
            await writer.begin()
            await writer.end(COMPLETED)
            queued = await create(run.thread_id, run.assistant_id, owner)
            assert (queued.lease is not None) == executes_it

    loop.run(scenario())


# --- What nobody can do


def test_a_run_that_nobody_can_execute_is_refused_with_every_reason(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await live(database, "one", abilities=(), problem=NOT_INSTALLED)
        await live(
            database, "two", abilities=(), problem="The Docker engine has no image: run `adlatus sandbox prepare`."
        )
        await live(database, "three", abilities=(), problem=NOT_INSTALLED)
        await live(database, "dead")
        await silent_for(database, "dead", executors.LIVE_S + 1)
        before = await contents(database)
        with pytest.raises(InvalidRequest) as refused:
            await add_run(database, tools=[CODE])
        assert refused.value.message == (
            "This run may use the code interpreter, which is not available here. "
            "bubblewrap is not installed. On Debian: apt install bubblewrap. "
            "The Docker engine has no image: run `adlatus sandbox prepare`."
        )
        assert (refused.value.status, refused.value.param) == (400, "tools")
        assert await contents(database) == before
        assert await execute(database, "SELECT FROM threads") == []
        await live(database, "two")
        await add_run(database, tools=[CODE])

    loop.run(scenario())


def test_a_run_that_searches_where_nobody_reaches_the_index_is_refused(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await live(database, "one")
        with pytest.raises(InvalidRequest, match="no process that executes runs reaches the index of files"):
            await add_run(database, tools=[SEARCH])
        await live(database, "two", abilities=(Ability.SEARCH,))
        await add_run(database, tools=[SEARCH])
        with pytest.raises(InvalidRequest, match="needs sandbox and search, but no process that executes runs has all"):
            await add_run(database, tools=[SEARCH, CODE])

    loop.run(scenario())


def test_where_nothing_executes_yet_every_run_waits(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run, _ = await add_run(database, tools=[CODE])
        await live(database, "me")
        assert [lease.run_id for lease in await claimed(database, "me")] == [run.id]

    loop.run(scenario())


# --- Sessions


def test_a_session_is_that_of_the_last_sandbox_of_a_thread(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        await sandbox_sessions.record(database, run.thread_id, "second", "bubblewrap", "another box")
        session = await sandbox_sessions.of_thread(database, run.thread_id)
        assert session is not None
        assert (session["executor_id"], session["engine"], session["box"]) == ("second", "bubblewrap", "another box")
        await execute(database, "UPDATE sandbox_sessions SET last_used_at = now() - interval '1 hour'")
        await sandbox_sessions.touch(database, run.thread_id)
        [row] = await execute(
            database, "SELECT now() - last_used_at < interval '1 minute' AS used FROM sandbox_sessions"
        )
        assert row["used"]
        assert [await sandbox_sessions.is_elsewhere(database, run.thread_id, name) for name in ("first", "second")] == [
            True,
            False,
        ]
        await execute(database, "DELETE FROM threads")
        assert await sandbox_sessions.of_thread(database, run.thread_id) is None

    loop.run(scenario())


def test_nothing_is_recorded_of_what_is_gone(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        run = await add_coding(database)
        assert not await sandbox_sessions.record(database, run.thread_id, "nobody", "docker", "box")
        assert not await sandbox_sessions.record(database, "thread_none", "first", "docker", "box")

    loop.run(scenario())


def test_sessions_whose_sandboxes_are_closed_are_forgotten_with_a_heartbeat(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        open_, new, closed, elsewhere = [(await add_coding(database)).thread_id for _ in range(4)]
        await sandbox_sessions.record(database, elsewhere, "second", "docker", "box")
        old = "UPDATE sandbox_sessions SET last_used_at = now() - interval '31 seconds' WHERE thread_id <> $1"
        await execute(database, old, new)
        await live(database, "first", sandboxed=[open_])
        left = {row["thread_id"] for row in await execute(database, "SELECT thread_id FROM sandbox_sessions")}
        assert left == {open_, new, elsewhere}
        assert closed not in left

    loop.run(scenario())


# --- Heartbeats


def test_a_heartbeat_removes_who_is_dead_for_long(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        for name, seconds in (("dead", executors.FORGOTTEN_S + 1), ("silent", executors.LIVE_S + 1), ("me", 700.0)):
            await live(database, name)
            await silent_for(database, name, seconds)
        await live(database, "me")
        assert await named(database) == ["me", "silent"]
        assert [row["id"] for row in await executors.of_runs(database)] == ["me"]

    loop.run(scenario())


def test_a_heartbeat_keeps_when_a_process_has_started(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await live(database, "me")
        await execute(database, "UPDATE executors SET started_at = started_at - interval '1 day'")
        await live(database, "me", abilities=())
        [row] = await execute(database, "SELECT now() - started_at > interval '1 day' AS old, sandbox FROM executors")
        assert (row["old"], row["sandbox"]) == (True, False)

    loop.run(scenario())


def test_a_process_tells_at_once_what_has_become_of_its_sandboxes(
    loop: Loop, database: Database, tmp_path: Path
) -> None:
    async def scenario() -> None:
        code = Availability(problem=NOT_INSTALLED)
        settings = Settings(database_url=SecretStr(database.dsn), data_dir=tmp_path)
        async with (
            open_resources(settings, Metrics(), has_folder=False) as opened,
            present(replace(opened, code=code), runs=True, ingestion=False),
        ):
            [row] = await executors.of_runs(database)
            assert (row["runs"], row["ingestion"], row["search"]) == (True, False, False)
            assert (row["sandbox"], row["sandbox_problem"]) == (False, NOT_INSTALLED)
            sandboxes = Sandboxes(NoBoxes())
            for problem, engine in (("", "docker"), ("The engine is gone.", None)):
                code.tell(sandboxes, problem)
                async with asyncio.timeout(3):  # less than a heartbeat
                    while (row := (await executors.of_runs(database))[0])["sandbox_engine"] != engine:
                        await asyncio.sleep(0.01)
                assert row["sandbox_problem"] == (problem or None)
        assert await named(database) == []

    loop.run(scenario())


# --- Over HTTP


@contextmanager
def asking(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, headers=BETA, timeout=30) as http:
        yield http


def create(http: httpx.Client, **more: object) -> httpx.Response:
    assistant = http.post("/assistants", json={"model": "m", "tools": [CODE]}).raise_for_status().json()
    body = {"assistant_id": assistant["id"], "thread": {"messages": [{"role": "user", "content": "Hello"}]}}
    return http.post("/threads/runs", json=body | more)


def test_a_server_without_sandboxes_says_so_before_it_makes_anything(loop: Loop, database: Database) -> None:
    settings = Settings(database_url=SecretStr(database.dsn))
    with serving(loop, settings) as server, asking(server) as http:
        refused = create(http)
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == (
            "This run may use the code interpreter, which is not available here. "
            "The code interpreter is switched off (ADLATUS_SANDBOX=off)."
        )
        assert loop.run(execute(database, "SELECT FROM threads")) == []
        assert create(http, tool_choice="none").status_code == 200
        assert create(http, tools=[]).status_code == 200
        ready = httpx.get(f"{server.url}/readyz").json()
        assert ready["status"] == "ok"
        assert "code" not in ready["components"]
        assert "ADLATUS_SANDBOX=off" in ready["uses"]["code"]


def test_a_run_is_streamed_from_the_process_that_has_a_sandbox(loop: Loop, database: Database) -> None:
    settings = Settings(database_url=SecretStr(database.dsn))
    with (
        serving(loop, settings, sandboxes=Sandboxes(NoBoxes())) as able,
        serving(loop, settings) as unable,
        asking(unable) as http,
    ):
        events = create(http, stream=True).text
        assert "event: thread.run.completed" in events
        [run] = loop.run(execute(database, "SELECT attempt, status FROM runs"))
        assert (run["attempt"], run["status"]) == (1, "completed")
        assert able.resources.executor_id in loop.run(named(database))


def test_a_server_that_executes_nothing_tells_what_its_workers_lack(loop: Loop, database: Database) -> None:
    settings = Settings(database_url=SecretStr(database.dsn))
    with serving(loop, settings, executor=False) as server, asking(server) as http:
        assert server.resources.sandboxes is None
        assert server.resources.sandbox_problem == ""
        assert create(http).json()["status"] == "queued"
        loop.run(live(database, "a worker", abilities=(), problem=NOT_INSTALLED))
        assert NOT_INSTALLED in create(http).json()["error"]["message"]
