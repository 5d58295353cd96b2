"""Every status and every signal: what comes of each is written down here, and what is not written down is nothing.

A refusal is an error or silence; either way runs, steps and messages stay as they were.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import pytest

from adlatus.errors import InvalidRequest, NotFound
from adlatus.runs import commands
from adlatus.runs.endings import CANCELLED, COMPLETED, EXPIRED, OUT_OF_TOKENS, Ending, failed
from adlatus.runs.expiry import expire
from adlatus.runs.journal import Journal, LeaseLost
from adlatus.runs.lifecycle import ACTIVE, FINAL, MOVES, IllegalMove
from adlatus.store import leases, rows, threads
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.store.leases import Lease
from adlatus.store.tables import runs
from adlatus.wire.common import LastError
from adlatus.wire.messages import CreateMessageRequest
from adlatus.wire.runs import CreateRunRequest, ToolOutput
from adlatus.wire.runs import RunStatus as S
from tests.conftest import Loop
from tests.runs.stored import PROJECT, ROUTING, add_run, calling, contents, execute, journal, put, say


@dataclass(frozen=True)
class Scene:
    """A run that has said a text and called a function, in whatever status, and who may do something to it."""

    database: Database
    events: EventLog
    run_id: str
    thread_id: str
    assistant_id: str
    lease: Lease
    writer: Journal


Act = Callable[[Scene], Awaitable[object]]


async def scene(database: Database, status: S, *, executing: bool, calls: bool) -> Scene:
    run, lease = await add_run(database, leased=True)
    assert lease
    writer = journal(database, lease)
    await put(database, run.id, S.IN_PROGRESS)
    await say(writer, {"content": "Half"}, *([calling("get_weather", call_id="call_one")] if calls else []))
    await put(database, run.id, status)
    if not executing:
        await leases.RUNS.release_if_held(database, lease)
    return Scene(database, EventLog(database), run.id, run.thread_id, run.assistant_id, lease, writer)


def end(ending: Ending) -> Act:
    return lambda scene: scene.writer.end(ending)


async def cancel(scene: Scene) -> None:
    await commands.cancel(scene.database, scene.events, PROJECT, scene.thread_id, scene.run_id)


async def submit(scene: Scene) -> None:
    outputs = [ToolOutput(tool_call_id="call_one", output="sunny")]
    await commands.submit_tool_outputs(
        scene.database, scene.events, PROJECT, scene.thread_id, scene.run_id, outputs, claim=None
    )


async def sweep(scene: Scene) -> None:
    await expire(scene.database, scene.events)


async def overdue(scene: Scene) -> None:
    """Time passes, then somebody looks for overdue runs. What has ended has nothing left to expire."""
    await execute(scene.database, "UPDATE runs SET expires_at = 1 WHERE expires_at IS NOT NULL")
    await sweep(scene)


async def submit_too_late(scene: Scene) -> None:
    await execute(scene.database, "UPDATE runs SET expires_at = 1 WHERE expires_at IS NOT NULL")
    await submit(scene)


async def delete_thread(scene: Scene) -> None:
    async with scene.database.transaction() as tx:
        await threads.remove(tx, PROJECT, scene.thread_id)


async def modify(scene: Scene) -> None:
    changes, scope = {"metadata": {"a": "b"}}, {"project_id": PROJECT, "thread_id": scene.thread_id}
    await rows.modify(scene.database, runs, "run", scene.run_id, changes, **scope)


async def create_run(scene: Scene) -> None:
    request = CreateRunRequest(assistant_id=scene.assistant_id)
    await commands.create(
        scene.database,
        scene.events,
        ROUTING,
        PROJECT,
        scene.thread_id,
        request,
        expires_after_s=600,
        claim=None,
    )


async def create_message(scene: Scene) -> None:
    request = CreateMessageRequest.model_validate({"role": "user", "content": "And?"})
    async with scene.database.transaction() as tx:
        thread = await threads.lock(tx, PROJECT, scene.thread_id)
        await threads.refuse_while_active(tx, scene.thread_id)
        await threads.add_messages(tx, thread, [request])


GONE = "gone"
HELD = frozenset({S.QUEUED, S.IN_PROGRESS, S.CANCELLING})
"""Only in these has a run an executor: an executor's signal in any other is one of somebody who has lost his lease."""


@dataclass(frozen=True)
class Signal:
    """What is done to a run, and what becomes of it by the status that it had. What is not named is refused."""

    act: Act
    after: dict[S, S | str]
    executing: bool = False
    calls: bool = True
    """Whether the run has called a function: one that is completed has not."""


def kept(*statuses: S) -> dict[S, S | str]:
    """Something happens, but not to the status."""
    return {status: status for status in statuses}


SIGNALS = {
    # Of who executes it
    "begin": Signal(lambda scene: scene.writer.begin(), {S.QUEUED: S.IN_PROGRESS}, executing=True),
    "ask the client": Signal(
        lambda scene: scene.writer.ask_client(), {S.IN_PROGRESS: S.REQUIRES_ACTION}, executing=True
    ),
    "take back": Signal(lambda scene: scene.writer.take_back(), kept(*HELD), executing=True),
    "end: completed": Signal(
        end(COMPLETED), {S.IN_PROGRESS: S.COMPLETED, S.CANCELLING: S.COMPLETED}, executing=True, calls=False
    ),
    "end: incomplete": Signal(end(OUT_OF_TOKENS), {S.IN_PROGRESS: S.INCOMPLETE}, executing=True),
    "end: failed": Signal(
        end(failed(LastError(code="server_error", message="It broke."))), dict.fromkeys(HELD, S.FAILED), executing=True
    ),
    "end: expired": Signal(end(EXPIRED), dict.fromkeys(HELD, S.EXPIRED), executing=True),
    "end: cancelled": Signal(end(CANCELLED), {S.CANCELLING: S.CANCELLED}, executing=True),
    # Of workers
    "heartbeat": Signal(
        lambda scene: leases.RUNS.heartbeat(scene.database, [scene.lease.token]), kept(*HELD), executing=True
    ),
    "claim": Signal(lambda scene: leases.RUNS.claim(scene.database, "another", 1), kept(*HELD)),
    "claim of what is executed": Signal(
        lambda scene: leases.RUNS.claim(scene.database, "another", 1), {}, executing=True
    ),
    # Of clients
    "cancel": Signal(cancel, dict.fromkeys((S.QUEUED, S.IN_PROGRESS, S.REQUIRES_ACTION), S.CANCELLED)),
    "cancel of what is executed": Signal(
        cancel,
        {S.QUEUED: S.CANCELLING, S.IN_PROGRESS: S.CANCELLING, S.REQUIRES_ACTION: S.CANCELLED},
        executing=True,
    ),
    "submit": Signal(submit, {S.REQUIRES_ACTION: S.QUEUED}),
    "submit to what is executed": Signal(submit, {S.REQUIRES_ACTION: S.QUEUED}, executing=True),
    "submit too late": Signal(submit_too_late, {S.REQUIRES_ACTION: S.EXPIRED}),
    "delete the thread": Signal(delete_thread, dict.fromkeys(S, GONE)),
    "delete the thread of what is executed": Signal(delete_thread, dict.fromkeys(S, GONE), executing=True),
    "modify": Signal(modify, kept(*S)),
    "modify what is executed": Signal(modify, kept(*S), executing=True),
    "create another run": Signal(create_run, kept(*FINAL)),
    "create a message": Signal(create_message, kept(*FINAL)),
    # Of time
    "look for overdue runs": Signal(sweep, {}),
    "expire": Signal(
        overdue,
        {
            S.QUEUED: S.EXPIRED,
            S.IN_PROGRESS: S.EXPIRED,
            S.REQUIRES_ACTION: S.EXPIRED,
            S.CANCELLING: S.CANCELLED,
        },
    ),
    "expire what is executed": Signal(overdue, {S.REQUIRES_ACTION: S.EXPIRED}, executing=True),
}


def without_expiry(tables: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
    """All but the column that a test moves to let time pass."""
    return {name: [{**row, "expires_at": 0} for row in found] for name, found in tables.items()}


@pytest.mark.parametrize(("name", "status"), list(product(SIGNALS, S)))
def test_every_signal_does_in_every_status_what_is_written_down(
    loop: Loop, database: Database, name: str, status: S
) -> None:
    signal = SIGNALS[name]

    async def scenario() -> None:
        played = await scene(database, status, executing=signal.executing, calls=signal.calls)
        before = without_expiry(await contents(database))
        with suppress(InvalidRequest, NotFound, IllegalMove, LeaseLost):
            await signal.act(played)
        found = await execute(database, "SELECT status FROM runs WHERE id = $1", played.run_id)
        assert [row["status"] for row in found] == ([] if after == GONE else [after])
        assert (without_expiry(await contents(database)) != before) == (status in signal.after)

    after = signal.after.get(status, status)
    loop.run(scenario())


@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_written_down_is_legal(name: str) -> None:
    """A cancel of what nobody executes makes two moves at once."""
    for status, after in SIGNALS[name].after.items():
        by_way_of = MOVES[S.CANCELLING] if S.CANCELLING in MOVES[status] else frozenset()
        assert after in {GONE, status, *MOVES[status], *by_way_of}


def test_every_status_is_left_by_some_signal_unless_it_is_final() -> None:
    left = {
        status for signal in SIGNALS.values() for status, after in signal.after.items() if after not in (GONE, status)
    }
    assert left == ACTIVE
