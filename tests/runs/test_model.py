"""Whatever clients, executors and the clock do to runs, in any order: the database has what the model says."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from adlatus.errors import InvalidRequest
from adlatus.ids import new_id
from adlatus.runs import commands, endings, expiry, tools
from adlatus.runs.commands import ActiveRun
from adlatus.runs.journal import Journal, LeaseLost
from adlatus.runs.lifecycle import IllegalMove
from adlatus.runs.turn import Turn
from adlatus.store import leases, rows
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.store.executors import Ability
from adlatus.store.leases import Claim, Lease
from adlatus.store.seen import SeenAssistants
from adlatus.store.tables import assistants, threads
from adlatus.wire.common import LastError, Usage
from adlatus.wire.runs import CreateRunRequest, ToolOutput, waiting_calls
from tests.conftest import Loop
from tests.runs import model
from tests.runs.stored import PROJECT, ROUTING, calling, execute, expire_lease, say

Json = dict[str, Any]

ENDINGS = {
    "completed": endings.COMPLETED,
    "cancelled": endings.CANCELLED,
    "expired": endings.EXPIRED,
    "incomplete": endings.OUT_OF_TOKENS,
    "failed": endings.failed(LastError(code="server_error", message="-")),
}
ACTS = [
    *["prepare", "say", "get_weather", "file_search", "account", *["turn ends"] * 3],
    *["incomplete", "cancelled", "failed", "expired", "hand back", "abandon"],
]
"""What an executor does with a run that it has begun: what its model says or calls, or how it ends the run."""
MAY_END_EARLY = {("loaded", "queued"), ("turned", "queued"), ("turned", "in_progress")}
"""Stages of an executor, and how it found its run, in which it may end it without a question more."""
OUTPUTS = [*["right"] * 5, "none", "other", "all"]
FUNCTION = {"type": "function", "function": {"name": "get_weather"}}
SEARCH = {"type": "file_search"}
ALL = """
SELECT r.id, r.thread_id, r.status, r.lease_token, r.lease_owner, r.lease_expires_at < now() AS lapsed, r.attempt,
    r.abandoned, r.started_at, r.required_action, r.usage, r.expires_at,
    (SELECT json_agg(json_build_array(s.type, s.status, s.usage, s.step_details) ORDER BY s.created_at, s.seq)
        FROM run_steps s WHERE s.run_id = r.id) AS steps,
    (SELECT json_object_agg(m.id, json_build_array(m.status, m.content)) FROM messages m WHERE m.run_id = r.id) AS said
FROM runs r ORDER BY r.created_at, r.seq
"""


@dataclass
class Process:
    """A process that serves and executes."""

    name: str
    searches: bool
    log: EventLog
    seen: SeenAssistants = field(default_factory=SeenAssistants)

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.SEARCH} if self.searches else ())

    def claim(self, uses: bool) -> Claim | None:
        return leases.new_claim(self.name, self.abilities) if uses else None


@dataclass
class Hand:
    """An executor's work on a run, which goes on until it knows that it has lost it, or longer."""

    lease: Lease
    process: Process
    run: model.Run
    journal: Journal
    stage: str = "claimed"
    found: str = ""
    text: str = ""
    calls: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    used: int = 0
    writes: bool = False
    calls_open: bool = False

    @property
    def holds(self) -> bool:
        return self.run.token == self.lease.token

    def next_turn(self, turn: Turn) -> None:
        self.journal.turn = turn
        self.text, self.calls, self.asked, self.used = "", [], [], 0
        self.writes = self.calls_open = False


def _used(usage: Json | None) -> int | None:
    return usage["total_tokens"] if usage else None


def _shown_step(step: list[Any], said: Json) -> tuple[Any, ...]:
    kind, status, usage, details = step
    if kind == "tool_calls":
        calls = {call["id"]: call.get("function", {}).get("output") for call in details["tool_calls"]}
        return (kind, status, _used(usage), calls)
    message, content = said[details["message_creation"]["message_id"]]
    return (kind, status, _used(usage), message, "".join(part["text"]["value"] for part in content))


def _shown(row: Any) -> tuple[Any, ...]:
    """A run as the model shows it."""
    steps = [_shown_step(step, row["said"]) for step in row["steps"] or ()]
    lease = (row["lease_token"], bool(row["lapsed"]), row["attempt"], row["abandoned"])
    waits_for = set(waiting_calls(row["required_action"])) if row["required_action"] else None
    return (row["status"], lease, row["started_at"] is not None, waits_for, _used(row["usage"]), steps)


Thing = TypeVar("Thing")
_index = st.integers(0, 5)
_process = st.sampled_from([0, 1])
_acts = st.lists(st.sampled_from(ACTS), max_size=6)
_mostly = st.sampled_from([True, True, False])


class Machine(RuleBasedStateMachine):
    """Two processes, three threads; only one process searches. Executors keep to the order of `loop.execute`."""

    def __init__(self, loop: Loop, database: Database, assistant_id: str) -> None:
        super().__init__()
        self.do = loop.run
        self.database = database
        self.assistant_id = assistant_id
        self.processes = [Process(name, name == "A", EventLog(database)) for name in "AB"]
        self.runs = model.Runs()
        self.hands: list[Hand] = []
        self.numbers = count(1)
        self.thread_ids = self.do(self._empty())

    async def _empty(self) -> list[str]:
        await execute(self.database, "DELETE FROM threads")
        await execute(self.database, "DELETE FROM run_events")
        made = [
            await rows.add(
                self.database, threads, id=new_id("thread"), project_id=PROJECT, tool_resources={}, metadata={}
            )
            for _ in range(3)
        ]
        return [thread["id"] for thread in made]

    def _take(self, lease: Lease, process: Process, run: model.Run, acts: list[str]) -> None:
        process.log.execute(lease.run_id, lease.attempt)
        hand = Hand(lease, process, run, Journal(lease, self.database, process.log))
        self.hands.append(hand)
        self._work(hand, acts)

    def _write(self, hand: Hand, write: Awaitable[object], legal: Callable[[], bool | None]) -> bool:
        """Let an executor write, and tell whether it did. Else it hears why not, and nothing may have changed."""

        async def written() -> str:
            try:
                await write
            except LeaseLost:
                return "lost"
            except IllegalMove:
                return "illegal"
            return "written"

        expected = "lost" if not hand.holds else "illegal" if legal() is False else "written"
        assert self.do(written()) == expected
        return expected == "written"

    # --- Clients

    @initialize(first=_acts, second=_acts, fewer=st.booleans())
    def start(self, first: list[str], second: list[str], fewer: bool) -> None:
        """A run in its second turn, and one that waits for its client, unless they were to end before."""
        searched, called = ["file_search", "account", "turn ends"], ["get_weather", "account", "turn ends"]
        self._create(self.thread_ids[0], self.processes[0], True, True, [*first[:fewer], *searched, *first])
        self._create(self.thread_ids[1], self.processes[1], False, True, [*second[:fewer], *called, *second])

    @rule(which=_index, by=_process, claims=_mostly, searches=_mostly, acts=_acts)
    def create(self, which: int, by: int, claims: bool, searches: bool, acts: list[str]) -> None:
        """Mostly on a thread where nothing is active."""
        free = [thread_id for thread_id in self.thread_ids if not self.runs.active_on(thread_id)]
        thread_id = self._one_of(free if free and which < 4 else self.thread_ids, which)
        self._create(thread_id, self.processes[by], searches, claims, acts)

    def _create(self, thread_id: str, process: Process, searches: bool, claims: bool, acts: list[str]) -> None:
        request = CreateRunRequest.model_validate(
            {"assistant_id": self.assistant_id, "tools": [FUNCTION, SEARCH] if searches else [FUNCTION]}
        )
        creation = commands.create(
            self.database, process.log, ROUTING, PROJECT, thread_id, request,
            expires_after_s=600, claim=process.claim(claims), seen=process.seen,
        )  # fmt: skip
        if active := self.runs.active_on(thread_id):
            with pytest.raises(ActiveRun) as refused:
                self.do(creation)
            assert refused.value.run_id == active.id
            return
        queued = self.do(creation)
        run = model.Run(queued.run.id, thread_id, PROJECT, searches)
        self.runs.all.append(run)
        assert (queued.lease is not None) == (claims and (process.searches or not searches))
        if queued.lease:
            run.claim(queued.lease.token)
            run.begin()
            self._take(queued.lease, process, run, acts)

    @precondition(lambda self: self.runs.all)
    @rule(which=_index, by=_process)
    def cancel(self, which: int, by: int) -> None:
        self._cancel(self._one_of(self.runs.all, which), self.processes[by])

    def _cancel(self, run: model.Run, process: Process) -> None:
        cancellation = commands.cancel(self.database, process.log, run.project_id, run.thread_id, run.id)
        if run.cancel():
            assert self.do(cancellation).status == "cancelling"
        else:
            with pytest.raises(InvalidRequest, match=f"Cannot cancel run with status '{run.status}'"):
                self.do(cancellation)

    @precondition(lambda self: self.runs.all)
    @rule(which=_index, by=_process, claims=_mostly, what=st.sampled_from(OUTPUTS), acts=_acts)
    def submit(self, which: int, by: int, claims: bool, what: str, acts: list[str]) -> None:
        """To a run that waits if there is one; `all` are also those that it has had before."""
        waiting = [run for run in self.runs.all if run.status == "requires_action"]
        run = self._one_of(waiting if waiting and what != "all" else self.runs.all, which)
        every = sorted({call_id for step in run.steps for call_id in step.asked})
        ids = {"right": sorted(run.waits_for or ()), "all": every, "none": [], "other": ["call_other"]}[what]
        self._submit(run, self.processes[by], ids, claims, acts)

    def _submit(self, run: model.Run, process: Process, ids: Sequence[str], claims: bool, acts: list[str]) -> None:
        outputs = [ToolOutput(tool_call_id=call_id, output="sunny") for call_id in ids]
        submission = commands.submit_tool_outputs(
            self.database, process.log, run.project_id, run.thread_id, run.id, outputs, claim=process.claim(claims)
        )
        waits = run.status == "requires_action"
        if not waits or run.overdue or set(ids) != run.waits_for:
            with pytest.raises(InvalidRequest):
                self.do(submission)
            if waits and run.overdue:
                run.end_unexecuted("expired")
            return
        lease = self.do(submission).lease
        run.submit(dict.fromkeys(ids, "sunny"), lease.token if lease else None)
        assert (lease is not None) == (claims and (process.searches or not run.searches))
        if lease:
            assert lease.attempt == run.attempt
            self._take(lease, process, run, acts)

    # --- Leases and the clock

    @rule(by=_process, limit=st.integers(1, 3), acts=_acts)
    def claim(self, by: int, limit: int, acts: list[str]) -> None:
        self._claim(self.processes[by], limit, acts)

    def _claim(self, process: Process, limit: int, acts: list[str]) -> None:
        claimed = self.do(leases.RUNS.claim(self.database, process.name, limit, process.abilities))
        due = self.runs.due(limit, searches=process.searches)
        assert {lease.run_id for lease in claimed} == {run.id for run in due}
        for lease in claimed:
            run = self.runs.of(lease.run_id)
            run.claim(lease.token)
            assert (lease.attempt, lease.abandoned) == (run.attempt, run.abandoned)
            self._take(lease, process, run, acts)

    @precondition(lambda self: any(run.executing for run in self.runs.all))
    @rule(which=_index, by=_process, then=st.sampled_from(["take over", "take over", "cancel", "wait"]), acts=_acts)
    def silence(self, which: int, by: int, then: str, acts: list[str]) -> None:
        """An executor is not heard of until its lease has run out, and acts again once others have acted, if any."""
        run = self._one_of([run for run in self.runs.all if run.executing], which)
        self.do(expire_lease(self.database, run.id))
        run.lapsed = True
        late = [hand for hand in self.hands if hand.run is run and hand.holds]
        if then == "take over":
            self._claim(self.processes[by], 3, acts)
        elif then == "cancel":
            self._cancel(run, self.processes[by])
        for hand in late if then != "wait" else ():
            self._work(hand, acts)

    @precondition(lambda self: any(run.active for run in self.runs.all))
    @rule(which=_index, by=_process, then=st.sampled_from(["expire", "cancel and expire", "submit"]))
    def become_overdue(self, which: int, by: int, then: str) -> None:
        run, process = self._one_of([run for run in self.runs.all if run.active], which), self.processes[by]
        self.do(execute(self.database, "UPDATE runs SET expires_at = 1 WHERE id = $1", run.id))
        run.overdue = True
        if then == "submit":
            self._submit(run, process, sorted(run.waits_for or ()), True, [])
            return
        if then == "cancel and expire":
            self._cancel(run, process)
            for hand in self.hands:
                if hand.run is run:
                    self._hand_back(hand, failed=False)
        assert self.do(expiry.expire(self.database, process.log)) == self.runs.expire()

    @precondition(lambda self: any(run.active for run in self.runs.all))
    @rule(by=_process, what=st.sampled_from(["heartbeat", "expiry"]))
    def a_second_passes(self, by: int, what: str) -> None:
        process = self.processes[by]
        if what == "expiry":
            assert self.do(expiry.expire(self.database, process.log)) == self.runs.expire()
        else:
            tokens = [hand.lease.token for hand in self.hands if hand.process is process]
            assert self.do(leases.RUNS.heartbeat(self.database, tokens)) == self.runs.renew(tokens)

    # --- Executors, those that have lost their lease among them

    @precondition(lambda self: self.hands)
    @rule(which=_index, acts=_acts)
    def work(self, which: int, acts: list[str]) -> None:
        """Mostly one that holds its lease."""
        holding = [hand for hand in self.hands if hand.holds]
        self._work(self._one_of(holding if holding and which < 4 else self.hands, which), acts)

    def _work(self, hand: Hand, acts: list[str]) -> None:
        """An executor goes on. One that has lost its lease acts once, by which it hears of that."""
        for act in acts:
            held = hand.holds
            self._act(hand, act)
            if not held:
                return

    def _act(self, hand: Hand, act: str) -> None:
        """Act on the run, which is loaded before that and begun, or rid of what is half-written; or `prepare` only."""
        while hand.stage != "working" and act not in ("hand back", "abandon"):
            if act in ENDINGS and act != "completed" and (hand.stage, hand.found) in MAY_END_EARLY:
                break
            prepare = self._begin if hand.stage == "loaded" else self._load
            if not prepare(hand) or act == "prepare":
                return
        if act in ("hand back", "abandon"):
            self._hand_back(hand, failed=act == "abandon")
        elif act in ENDINGS or hand.found == "cancelling":
            self._end(hand, act if hand.found != "cancelling" else "cancelled")
        elif act == "turn ends":
            self._turn_ends(hand)
        elif act == "account":
            self._account(hand, next(self.numbers))
        elif act == "say":
            self._say(hand)
        elif act in ("get_weather", "file_search"):
            self._call(hand, act)

    def _hand_back(self, hand: Hand, *, failed: bool) -> None:
        give = leases.RUNS.abandon_if_held if failed else leases.RUNS.release_if_held
        self.do(give(self.database, hand.lease))
        if hand.holds:
            hand.run.abandoned += failed
            hand.run.free()

    def _load(self, hand: Hand) -> bool:
        run = hand.run
        if not hand.holds:
            with pytest.raises(LeaseLost):
                self.do(hand.journal.load())
            return False
        loaded = self.do(hand.journal.load())
        ended = [step for step in run.steps if step.status != "in_progress"]
        assert (loaded.run.status, loaded.began, loaded.left_s <= 0) == (run.status, run.began, run.overdue)
        assert (len(loaded.steps), loaded.used.total_tokens) == (len(ended), sum(step.used or 0 for step in ended))
        hand.next_turn(Turn(toolbox=tools.toolbox(loaded.run)))
        hand.found, hand.stage = run.status, "working" if hand.stage == "turned" else "loaded"
        return True

    def _begin(self, hand: Hand) -> bool:
        if hand.found == "queued":
            began = self._write(hand, hand.journal.begin(), hand.run.begin)
        else:
            began = self._write(hand, hand.journal.take_back(), hand.run.take_back)
        if began or not hand.holds:
            hand.stage = "working"
        return began

    def _say(self, hand: Hand) -> None:
        if hand.calls:
            return  # what is said behind a call is thought
        hand.text += "Hm. "
        saying = say(hand.journal, {"content": "Hm. "})
        if hand.writes:  # a delta, which is not committed
            self.do(saying)
        else:
            hand.writes = self._write(hand, saying, hand.run.open_message)

    def _call(self, hand: Hand, name: str) -> None:
        call_id = f"call_{next(self.numbers)}"
        hand.calls.append(call_id)
        if name == "get_weather" or not hand.run.searches:
            hand.asked.append(call_id)
        saying = say(hand.journal, calling(name, "{}", len(hand.calls) - 1, call_id))
        if hand.calls_open:
            self.do(saying)
        elif self._write(hand, saying, lambda: hand.run.open_calls(hand.text)):
            hand.writes, hand.calls_open = False, True

    def _account(self, hand: Hand, tokens: int) -> None:
        if hand.writes or hand.calls_open:
            hand.used = tokens
            hand.journal.turn.usage = Usage(prompt_tokens=0, completion_tokens=tokens, total_tokens=tokens)

    def _turn_ends(self, hand: Hand) -> None:
        """The run goes on with what came of its calls, or asks its client, or is completed."""
        run, journal = hand.run, hand.journal
        if hand.asked:
            self._write(hand, journal.ask_client(), lambda: run.ask_client(hand.calls, hand.asked, hand.used))
        elif not hand.calls:
            self._end(hand, "completed")
        elif self._write(hand, journal.complete_calls(), lambda: run.complete_calls(hand.calls, hand.used)):
            hand.next_turn(Turn())
            hand.stage = "turned"  # it loads the run again, unless it is cancelled first

    def _end(self, hand: Hand, ending: str) -> None:
        writing = hand.journal.end(ENDINGS[ending])
        ended = self._write(hand, writing, lambda: hand.run.end(ending, hand.used, hand.text, hand.calls))
        hand.writes |= ended and ending == "completed"

    # --- Readers

    @precondition(lambda self: any(run.status in model.STOPPED for run in self.runs.all))
    @rule(which=_index, by=st.sampled_from([0, 1, 2]))
    def follow(self, which: int, by: int) -> None:
        """A reader, in one of the processes or in a third, hears all that was told, in order, and the end of it."""
        stopped = [run for run in self.runs.all if run.status in model.STOPPED]
        run = self._one_of(stopped, which)
        for hand in [hand for hand in self.hands if hand.run is run]:
            hand.process.log.leave(run.id, hand.lease.attempt)
            self.hands.remove(hand)
        names, numbers = self.do(self._follow(run, by))
        assert [name for name in names if not name.endswith("delta")] == run.told
        assert all(first < second for first, second in pairwise(numbers))
        assert len(names) == len(numbers), "nothing stands in for what was told"

    async def _follow(self, run: model.Run, by: int) -> tuple[list[str], list[int]]:
        for process in self.processes:
            await process.log.write()
        log = [*(process.log for process in self.processes), EventLog(self.database)][by]
        names: list[str] = []
        numbers: list[int] = []
        async with asyncio.timeout(60):
            for _ in range(run.told.count("done")):
                async for frames in log.follow(run.id, numbers[-1] if numbers else 0):
                    lines = frames.decode().splitlines()
                    names += [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
                    numbers += [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]
        return names, numbers

    # --- What always holds

    @invariant()
    def the_database_has_what_the_model_says(self) -> None:
        found = self.do(execute(self.database, ALL))
        assert {row["id"]: _shown(row) for row in found} == {run.id: run.shown for run in self.runs.all}
        active = [row["thread_id"] for row in found if row["status"] not in ENDINGS]
        assert len(active) == len(set(active)), "one active run per thread"
        for row in found:
            steps, said = row["steps"] or [], row["said"] or {}
            leased = row["lease_token"] is not None
            assert not leased or row["status"] in model.CLAIMABLE
            assert (row["lease_owner"] is not None) == leased == (row["lapsed"] is not None)
            assert (row["required_action"] is not None) == (row["status"] == "requires_action")
            if row["status"] in ENDINGS:
                assert row["expires_at"] is None
                assert all(status != "in_progress" for _, status, *_ in steps)
                assert all(status != "in_progress" for status, _ in said.values())
                assert row["usage"]["total_tokens"] == sum(usage["total_tokens"] for _, _, usage, _ in steps)

    @staticmethod
    def _one_of(things: Sequence[Thing], which: int) -> Thing:
        return things[-1 - which % len(things)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "steps", "derandomized"),
    [
        pytest.param(60, 40, True, id="some"),
        pytest.param(3000, 60, False, id="many", marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
    ],
)
def test_runs_are_what_the_model_says(
    loop: Loop, database: Database, examples: int, steps: int, derandomized: bool
) -> None:
    assistant = loop.run(
        rows.add(
            database, assistants, id=new_id("asst"), project_id=PROJECT, model="gpt-4o", tools=[], tool_resources={},
            metadata={}, response_format="auto",
        )
    )  # fmt: skip
    run_state_machine_as_test(
        lambda: Machine(loop, database, assistant["id"]),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomized,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
