"""What is read of a thread for its next run: what fits, in its order, with few statements."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ClauseElement

from adlatus.backends import tokens
from adlatus.backends.routing import Endpoint, Route
from adlatus.ids import new_id
from adlatus.runs import budget, history, prompt
from adlatus.runs.budget import Left
from adlatus.runs.history import OutOfPromptTokens
from adlatus.runs.prompt import Calls, Item
from adlatus.store import history as statements
from adlatus.store.db import Database, Row, _bind
from adlatus.wire.messages import Message, text_content
from adlatus.wire.runs import Run
from adlatus.wire.steps import message_creation
from tests.conftest import Loop
from tests.runs.stored import execute
from tests.unit.test_prompt import run_of

Json = dict[str, Any]
ROUTE = Route("m", Endpoint("e", "http://localhost/v1"), model="unknown")
NO_LIMITS = Left()
SAID = 4 + tokens.estimate("Said 000.")
"""The tokens of each message of `numbered`."""
CALLED = 4 + 4 + sum(map(tokens.estimate, ("f", "{}", "out")))
"""The tokens of each turn with one `call`."""


def call(name: str, output: str | None = "out", **changes: str) -> Json:
    function = {"name": "f", "arguments": "{}", "output": output, **changes}
    return {"id": f"call_{name}", "type": "function", "function": function}


def numbered(count: int) -> list[str]:
    return [f"Said {number:03}." for number in range(count)]


@dataclass
class Thread:
    """A thread that is put into the database row by row, all in one second."""

    database: Database
    id: str = field(default_factory=lambda: new_id("thread"))

    async def add(self) -> None:
        await execute(
            self.database,
            "INSERT INTO threads (id, project_id, metadata, tool_resources) VALUES ($1, 'default', '{}', '{}')",
            self.id,
        )

    async def say(self, *texts: str) -> None:
        """Messages of the user."""
        for text in texts:
            await self._message("user", None, [text_content(text)])

    async def _message(self, role: str, run_id: str | None, content: list[Json], status: str = "completed") -> str:
        message_id = new_id("msg")
        await execute(
            self.database,
            "INSERT INTO messages (id, project_id, thread_id, created_at, run_id, role, status, completed_at, content, "
            "attachments, metadata) VALUES ($1, 'default', $2, 1, $3, $4, $5, $6, $7, '[]', '{}')",
            *(message_id, self.id, run_id, role, status, 1 if status == "completed" else None, content),
        )
        return message_id

    async def run(self, *steps: str | list[Json], status: str = "completed", last: str = "completed") -> str:
        """A run whose steps are messages (texts) and calls; `status` is the run's, `last` the last step's."""
        run_id = new_id("run")
        await execute(
            self.database,
            "INSERT INTO runs (id, project_id, thread_id, created_at, assistant_id, status, started_at, completed_at, "
            "expires_at, model, tools, tool_resources, metadata, truncation_strategy, response_format, tool_choice, "
            "parallel_tool_calls) VALUES ($1, 'default', $2, 1, 'asst_1', $3, 1, $4, $5, 'm', '[]', '{}', '{}', '{}', "
            "'\"auto\"', '\"auto\"', true)",
            *(run_id, self.id, status, *((1, None) if status == "completed" else (None, 601))),
        )
        for number, step in enumerate(steps, 1):
            await self.step(run_id, step, last if number == len(steps) else "completed")
        return run_id

    async def step(self, run_id: str, step: str | list[Json], status: str = "completed") -> None:
        details: Json = {"type": "tool_calls", "tool_calls": step}
        if isinstance(step, str):
            said = await self._message("assistant", run_id, [text_content(step)], status)
            details = message_creation(said)
        instants = {name: 1 if name == status else None for name in ("completed", "cancelled", "expired", "failed")}
        await execute(
            self.database,
            "INSERT INTO run_steps (id, project_id, thread_id, run_id, created_at, assistant_id, type, status, "
            "completed_at, cancelled_at, expired_at, failed_at, step_details, metadata) "
            "VALUES ($1, 'default', $2, $3, 1, 'asst_1', $4, $5, $6, $7, $8, $9, $10, '{}')",
            *(new_id("step"), self.id, run_id, details["type"], status),
            *(instants["completed"], instants["cancelled"], instants["expired"], instants["failed"], details),
        )


@dataclass
class Counting:
    """A connection that counts what goes through it."""

    database: Database
    statements: int = 0
    rows: int = 0
    chars: int = 0

    async def fetch(self, statement: ClauseElement, **params: object) -> list[Row]:
        rows = await self.database.fetch(statement, **params)
        self.statements += 1
        self.rows += len(rows)
        self.chars += sum(len(str(row["content"])) for row in rows)
        return rows

    async def fetch_row(self, statement: ClauseElement, **params: object) -> Row | None:
        raise NotImplementedError


@dataclass
class Reader:
    """A thread and how it is read."""

    loop: Loop
    thread: Thread
    counting: Counting

    def read(
        self, run_id: str = "run_new", left: Left = NO_LIMITS, *, began: bool = False, window: int = 0, **run: Any
    ) -> list[Item]:
        self.counting.statements = self.counting.rows = self.counting.chars = 0
        route = Route("m", ROUTE.endpoint, model=ROUTE.model, context_window=window or None)
        asking = self.asking(run_id, **run)
        items = self.loop.run(history.read(self.counting, asking, route, left, began=began)).items
        database = self.counting.database
        again = history.read(database, asking, route, left, began=began, first_page=self.first_page(run_id))
        assert self.loop.run(again).items == items, "it is the same if the first page came with the run's creation"
        return items

    def first_page(self, run_id: str = "run_new") -> list[Row]:
        """The first page as it comes with the creation of a run."""
        scope = statements.scope("newest first", self.thread.id, run_id)
        row = self.loop.run(self.counting.database.fetch_row(statements.FIRST, **scope))
        assert row is not None
        return row["first_page"] or []

    def asking(self, run_id: str = "run_new", **run: Any) -> Run:
        return run_of(id=run_id, thread_id=self.thread.id, **run)

    def shown(self, run_id: str = "run_new", left: Left = NO_LIMITS, **how: Any) -> list[str]:
        """What is read, each message as its text, each turn's calls as their ids."""
        return [plain(item) for item in self.read(run_id, left, **how)]


def plain(item: Item) -> str:
    return " ".join(call["id"] for call in item.calls) if isinstance(item, Calls) else prompt.text(item.content)


@pytest.fixture
def reader(loop: Loop, database: Database) -> Reader:
    thread = Thread(database)
    loop.run(thread.add())
    return Reader(loop, thread, Counting(database))


# --- What is read


def test_a_short_thread_is_one_statement(loop: Loop, reader: Reader) -> None:
    async def scenario() -> None:
        await reader.thread.say("Hello?")
        await reader.thread.run("Hello!")
        await reader.thread.say("What is the weather?", "In Bonn?")

    loop.run(scenario())
    items = reader.read()
    assert [plain(item) for item in items] == ["Hello?", "Hello!", "What is the weather?", "In Bonn?"]
    assert all(isinstance(item, Message) for item in items)
    assert reader.counting.statements == 1


def test_an_empty_thread_is_nothing(reader: Reader) -> None:
    assert reader.read() == []
    assert reader.read(began=True) == []


def test_messages_of_other_threads_are_not_read(loop: Loop, reader: Reader, database: Database) -> None:
    async def scenario() -> None:
        for name in ("thread_0", "thread_z", reader.thread.id + "0", reader.thread.id[:-1]):
            other = Thread(database, name)
            await other.add()
            await other.say("Not mine.")
        await reader.thread.say("Mine.")

    loop.run(scenario())
    assert reader.shown() == ["Mine."]
    assert reader.counting.rows == 1
    assert reader.shown(left=Left(prompt_tokens=1_000_000), window=1) == ["Mine."]


def test_calls_of_earlier_runs_stand_where_their_steps_have_them(loop: Loop, reader: Reader) -> None:
    async def scenario() -> None:
        await reader.thread.say("One?")
        await reader.thread.run([call("a"), call("b")], [call("c")], "First.", [call("d")], "Second.")
        await reader.thread.run("Third.", [call("e")])
        await reader.thread.say("Two?")

    loop.run(scenario())
    assert reader.shown() == [
        "One?",
        "call_a call_b",
        "call_c",
        "First.",
        "call_d",
        "Second.",
        "Third.",
        "call_e",
        "Two?",
    ]
    assert reader.counting.statements == 1


@pytest.mark.parametrize("status", ["in_progress", "cancelled", "expired", "failed"])
def test_calls_without_outputs_are_left_out(loop: Loop, reader: Reader, status: str) -> None:
    async def scenario() -> None:
        await reader.thread.say("One?")
        await reader.thread.run("Look:", [call("a")], [call("b", None), call("c")], last=status)

    loop.run(scenario())
    assert reader.shown() == ["One?", "Look:", "call_a"]


def test_of_a_turn_those_calls_count_that_have_outputs_and_are_functions(loop: Loop, reader: Reader) -> None:
    code = {"id": "call_c", "type": "code_interpreter", "code_interpreter": {"input": "1", "outputs": []}}
    loop.run(reader.thread.run([call("a", None), call("b"), code], [call("d", None)], "Done."))
    assert reader.shown() == ["call_b", "Done."]


def test_a_run_that_left_no_message_is_left_out(loop: Loop, reader: Reader) -> None:
    async def scenario() -> None:
        await reader.thread.say("One?")
        await reader.thread.run([call("a")])
        await reader.thread.say("Two?")

    loop.run(scenario())
    assert reader.shown() == ["One?", "Two?"]


def test_deleted_messages_are_passed_over(loop: Loop, reader: Reader, database: Database) -> None:
    async def scenario() -> None:
        await reader.thread.run("First.", [call("a")], "Second.", [call("b")], "Third.")
        await execute(database, "DELETE FROM messages WHERE content->0->'text'->>'value' = 'Second.'")

    loop.run(scenario())
    assert reader.shown() == ["First.", "call_a", "call_b", "Third."]


def test_messages_in_progress_are_left_out(loop: Loop, reader: Reader) -> None:
    async def scenario() -> str:
        await reader.thread.say("One?")
        run_id = await reader.thread.run([call("a")], status="in_progress")
        await reader.thread.step(run_id, "Half", "in_progress")
        return run_id

    run_id = loop.run(scenario())
    assert reader.shown() == ["One?"]
    assert reader.shown(run_id, began=True) == ["One?", "call_a"]


def test_what_was_said_before_calls_that_an_executor_did_not_live_to_hear_is_not_shown_as_an_answer(
    loop: Loop, reader: Reader
) -> None:
    """The message was completed when the calls began, which are taken back: the question comes again as it was."""

    async def scenario() -> str:
        await reader.thread.say("One?")
        return await reader.thread.run("Look:", status="in_progress")

    run_id = loop.run(scenario())
    assert reader.shown(run_id, began=True) == ["One?"]
    loop.run(reader.thread.step(run_id, [call("a")]))
    loop.run(reader.thread.step(run_id, "And now:"))
    assert reader.shown(run_id, began=True) == ["One?", "Look:", "call_a"]


def test_a_later_turn_is_one_statement_more_and_ends_with_the_runs_own_exchange(loop: Loop, reader: Reader) -> None:
    async def scenario() -> str:
        await reader.thread.say("One?")
        return await reader.thread.run("Look:", [call("a")], [call("b")], status="in_progress")

    run_id = loop.run(scenario())
    items = reader.read(run_id, began=True)
    assert [plain(item) for item in items] == ["One?", "Look:", "call_a", "call_b"]
    assert [len(turn) for turn in turns_of(items)] == [1, 2, 1]
    assert [item.run_id for item in items] == [None, run_id, run_id, run_id]
    assert reader.counting.statements == 2


def test_text_and_calls_of_one_turn_become_one_message(loop: Loop, reader: Reader) -> None:
    loop.run(reader.thread.run("Look:", [call("a", arguments='{"x": 1}')], "Done."))
    assert prompt.build(reader.asking(), reader.read(), ROUTE, NO_LIMITS)["messages"] == [
        {
            "role": "assistant",
            "content": "Look:",
            "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "out"},
        {"role": "assistant", "content": "Done."},
    ]


def test_runs_that_lie_across_pages_are_whole(loop: Loop, reader: Reader) -> None:
    texts = numbered(100)

    async def scenario() -> list[str]:
        await reader.thread.say(*texts[:50])
        steps: list[str | list[Json]] = []
        for number, text in enumerate(texts):
            steps += [text, [call(f"{number}", "x" * 200)]]
        await reader.thread.run(*steps)
        await reader.thread.say(*texts[:40])
        return [step if isinstance(step, str) else step[0]["id"] for step in steps]

    steps = loop.run(scenario())
    assert reader.shown() == [*texts[:50], *steps, *texts[:40]]
    assert reader.counting.statements > 1
    size = SAID + 4 + tokens.estimate("f") + tokens.estimate("{}") + tokens.estimate("x" * 200)
    room = 4 * (50 * SAID + 10 * size) + 3  # a quarter is the user's and ten turns, the rest in the middle of the run
    newest = (room - room // 4 - 40 * SAID) // size
    shown = reader.shown(left=Left(prompt_tokens=room))
    assert shown == [*texts[:50], *steps[:20], *steps[-2 * newest :], *texts[:40]]


# --- What fits


def test_the_middle_goes_first(loop: Loop, reader: Reader) -> None:
    texts = numbered(20)
    loop.run(reader.thread.say(*texts))
    assert reader.shown(left=Left(prompt_tokens=20 * SAID)) == texts
    assert reader.shown(left=Left(prompt_tokens=10 * SAID)) == texts[:2] + texts[-8:]
    assert reader.shown(left=Left(prompt_tokens=20 * SAID - 1)) == texts[:4] + texts[-15:]
    assert reader.shown(left=Left(prompt_tokens=3 * SAID)) == texts[-3:]
    assert reader.shown(left=Left(prompt_tokens=SAID)) == texts[-1:]


def test_the_window_leaves_room_for_the_answer(loop: Loop, reader: Reader) -> None:
    texts = numbered(20)
    loop.run(reader.thread.say(*texts))
    assert reader.shown(window=16 * SAID) == texts[:3] + texts[-9:]  # a quarter is the answer's
    assert reader.shown(window=16 * SAID, left=Left(completion_tokens=8 * SAID)) == texts[:2] + texts[-6:]
    assert reader.shown(window=16 * SAID, left=Left(completion_tokens=10**9)) == texts[:2] + texts[-6:]


def test_instructions_and_functions_take_room(loop: Loop, reader: Reader) -> None:
    texts = numbered(20)
    loop.run(reader.thread.say(*texts))
    function = {"type": "function", "function": {"name": "f", "parameters": {}}}
    schemas = tokens.estimate(json.dumps([function], separators=(",", ":")))
    left = Left(prompt_tokens=11 * SAID + schemas)
    assert reader.shown(left=left, instructions=texts[0], tools=[function]) == texts[:2] + texts[-8:]
    left = Left(prompt_tokens=11 * SAID)
    assert reader.shown(left=left, instructions=texts[0], tools=[]) == texts[:2] + texts[-8:]


def test_images_take_as_much_as_they_are_estimated_to(loop: Loop, reader: Reader) -> None:
    def link(detail: str) -> Json:
        return {"type": "image_url", "image_url": {"url": "data:," + "x" * 10_000, "detail": detail}}

    async def scenario() -> None:
        await reader.thread._message("user", None, [text_content("Said 000."), link("high")])
        await reader.thread._message("user", None, [text_content("Said 001."), link("low")])
        await reader.thread.say("Said 002.")

    loop.run(scenario())
    enough = 3 * SAID + 1105 + 85
    assert reader.shown(left=Left(prompt_tokens=enough)) == ["Said 000.", "Said 001.", "Said 002."]
    assert reader.shown(left=Left(prompt_tokens=enough - 1)) == ["Said 001.", "Said 002."]
    assert reader.shown(left=Left(prompt_tokens=2 * SAID + 84)) == ["Said 002."]


def test_of_the_last_messages_the_oldest_go_first(loop: Loop, reader: Reader) -> None:
    texts = numbered(20)
    loop.run(reader.thread.say(*texts))
    strategy = {"type": "last_messages", "last_messages": 5}
    assert reader.shown(truncation_strategy=strategy) == texts[-5:]
    assert reader.shown(truncation_strategy=strategy, left=Left(prompt_tokens=3 * SAID + 1)) == texts[-3:]
    assert reader.shown(truncation_strategy=strategy | {"last_messages": 100}) == texts


def test_calls_come_along_with_the_last_messages(loop: Loop, reader: Reader) -> None:
    async def scenario() -> str:
        await reader.thread.say("One?")
        await reader.thread.run([call("a")], "Look:", [call("b")], "Done.")
        await reader.thread.say("Two?")
        return await reader.thread.run("Own.", [call("c")], status="in_progress")

    run_id = loop.run(scenario())

    def last(count: int) -> list[str]:
        strategy = {"type": "last_messages", "last_messages": count}
        return reader.shown(run_id, began=True, truncation_strategy=strategy)

    assert last(1) == ["Two?", "Own.", "call_c"]
    assert last(2) == ["Done.", "Two?", "Own.", "call_c"]
    assert last(3) == ["Look:", "call_b", "Done.", "Two?", "Own.", "call_c"]
    assert last(4) == ["One?", "call_a", "Look:", "call_b", "Done.", "Two?", "Own.", "call_c"]


@pytest.mark.parametrize("strategy", [{"type": "auto"}, {"type": "last_messages", "last_messages": 3}])
def test_what_must_be_shown_may_not_exceed_the_prompt_tokens(loop: Loop, reader: Reader, strategy: Json) -> None:
    loop.run(reader.thread.say(*numbered(5)))
    with pytest.raises(OutOfPromptTokens):
        reader.read(left=Left(prompt_tokens=SAID - 1), truncation_strategy=strategy)
    with pytest.raises(OutOfPromptTokens):
        reader.read(left=Left(prompt_tokens=2 * SAID - 1), instructions="Said 000.", truncation_strategy=strategy)
    with pytest.raises(OutOfPromptTokens):
        reader.read(left=Left(prompt_tokens=0), truncation_strategy=strategy)
    assert reader.shown(left=Left(prompt_tokens=SAID), truncation_strategy=strategy) == ["Said 004."]


def test_the_runs_own_exchange_may_not_exceed_the_prompt_tokens(loop: Loop, reader: Reader) -> None:
    async def scenario() -> str:
        await reader.thread.say("Said 000.", "x" * 1000)
        return await reader.thread.run([call("a")], [call("b")], status="in_progress")

    run_id = loop.run(scenario())
    shown = reader.shown(run_id, Left(prompt_tokens=2 * CALLED), began=True)
    assert shown == ["call_a", "call_b"]
    with pytest.raises(OutOfPromptTokens):
        reader.read(run_id, Left(prompt_tokens=2 * CALLED - 1), began=True)


def test_the_newest_message_has_the_first_claim_beside_the_runs_own_exchange(loop: Loop, reader: Reader) -> None:
    async def scenario() -> str:
        await reader.thread.say(*numbered(20))
        return await reader.thread.run([call("a")], [call("b")], status="in_progress")

    run_id = loop.run(scenario())
    shown = reader.shown(run_id, Left(prompt_tokens=SAID + 2 * CALLED), began=True)
    assert shown == ["Said 019.", "call_a", "call_b"]


def test_what_must_be_shown_is_sent_where_only_the_window_is_too_small(loop: Loop, reader: Reader) -> None:
    loop.run(reader.thread.say("Before.", "x" * 1000))
    assert reader.shown(window=10) == ["x" * 1000]
    assert reader.shown(window=10, instructions="y" * 1000) == ["x" * 1000]
    assert reader.shown(window=10, left=Left(prompt_tokens=10**6)) == ["x" * 1000]


# --- Any thread, any room

TEXTS = st.integers(0, 60).map(lambda length: "word " * length + "end")
OUTPUTS = st.lists(st.integers(0, 30).map(lambda length: call("x", "word " * length)), min_size=1, max_size=3)
RUNS = st.lists(TEXTS | OUTPUTS, min_size=1, max_size=6)


def size_of(turns: Sequence[Sequence[Item]]) -> int:
    """The tokens of what stands in requests for these."""
    requests = [prompt.build(run_of(), turn, ROUTE, NO_LIMITS) for turn in turns]
    return sum(budget.counted(ROUTE.model, request, []).prompt_tokens for request in requests)


def turns_of(items: Sequence[Item]) -> list[list[Item]]:
    """Items by turns: a message and the calls that came with it."""
    turns: list[list[Item]] = []
    for item in items:
        if isinstance(item, Calls) and item.message_id:
            before = turns[-1][-1]
            assert isinstance(before, Message)
            assert (before.id, before.run_id) == (item.message_id, item.run_id)
            turns[-1].append(item)
        else:
            turns.append([item])
    return turns


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(TEXTS | RUNS, min_size=1, max_size=25), own=st.none() | RUNS, part=st.floats(0, 1.1))
def test_any_thread_is_cut_in_its_middle_between_turns(
    loop: Loop, database: Database, said: list[Any], own: list[Any] | None, part: float
) -> None:
    async def scenario() -> tuple[Thread, str]:
        thread = Thread(database)
        await thread.add()
        for one in said:
            await (thread.say(one) if isinstance(one, str) else thread.run(*one))
        return thread, await thread.run(*own, status="in_progress") if own else "run_new"

    thread, run_id = loop.run(scenario())
    reader = Reader(loop, thread, Counting(database))
    whole = turns_of(reader.read(run_id, began=bool(own)))
    before = [turn for turn in whole if turn[0].run_id != run_id]
    exchange = whole[len(before) :]
    room = int(size_of(whole) * part)
    try:
        shown = turns_of(reader.read(run_id, Left(prompt_tokens=room), began=bool(own)))
    except OutOfPromptTokens:
        assert size_of(exchange or before[-1:]) > room
        return
    assert size_of(shown) <= room
    assert shown[len(shown) - len(exchange) :] == exchange
    kept = shown[: len(shown) - len(exchange)]
    head = max(count for count in range(len(kept) + 1) if before[:count] == kept[:count])
    tail = len(kept) - head
    assert before[len(before) - tail :] == kept[head:]
    if len(kept) < len(before):
        assert size_of(whole) > room
        free = room - size_of(exchange)
        assert size_of(kept[:head]) <= max(free // 4, 0) or tail == 0
        assert size_of([*shown, before[-1 - tail]]) > room, "the last that was dropped would have fitted"


# --- However long the thread is


async def _fill(database: Database, thread_id: str, count: int, value: str = "'Said ' || i % 1000") -> None:
    await execute(
        database,
        "INSERT INTO messages (id, project_id, thread_id, created_at, role, status, completed_at, content, "
        "attachments, metadata) SELECT $1 || '_' || i, 'default', $1, i / 10, 'user', 'completed', 1, "
        "json_build_array(json_build_object('type', 'text', 'text', json_build_object('value', "
        f"{value}, 'annotations', json_build_array()))), '[]', '{{}}' FROM generate_series(1, {count}) AS i",
        thread_id,
    )


@pytest.mark.parametrize("strategy", [{"type": "auto"}, {"type": "last_messages", "last_messages": 50_000}])
def test_of_a_hundred_thousand_messages_no_more_are_read_than_of_two_thousand(
    loop: Loop, reader: Reader, database: Database, strategy: Json
) -> None:
    seen = []
    for count in (2_000, 100_000):
        reader.thread.id = f"thread_{count}"
        loop.run(reader.thread.add())
        loop.run(_fill(database, reader.thread.id, count))
        shown = reader.shown(window=8_000, truncation_strategy=strategy)
        seen.append((reader.counting.statements, reader.counting.rows, len(shown)))
        assert shown[-1] == f"Said {count % 1000}"
    assert seen[0] == seen[1]
    statements_needed, rows, shown_count = seen[1]
    assert statements_needed <= 6
    assert shown_count <= rows <= 2.5 * shown_count


@pytest.mark.parametrize(
    ("order", "size"),
    [
        *itertools.product(["newest first", "oldest first"], [16, 64, 256]),
        pytest.param("newest first", None, id="with the creation of a run"),
    ],
)
def test_a_page_walks_along_the_index(
    loop: Loop, reader: Reader, database: Database, order: statements.Order, size: int | None
) -> None:

    async def scenario() -> Json:
        for other in range(50):  # threads are short on average, this one is not
            await _fill(database, await _other(other), 10)
        await _fill(database, reader.thread.id, 20_000)
        statement = statements.page(order, size) if size else statements.FIRST
        sql, values = _bind(statement, statements.scope(order, reader.thread.id, "r"))
        [row] = await execute(database, f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
        plan: Json = row["QUERY PLAN"][0]["Plan"]
        return plan

    async def _other(number: int) -> str:
        other = Thread(database, f"thread_{number}")
        await other.add()
        return other.id

    left, scans = [loop.run(scenario())], []
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        scans += [node["Actual Rows"]] if node.get("Relation Name") == "messages" else []
    assert scans == [size or statements.FIRST_PAGE]


def test_a_page_of_large_messages_ends_early(loop: Loop, reader: Reader, database: Database) -> None:
    async def scenario() -> None:
        noise = "(SELECT string_agg(md5((i * n)::text), '') FROM generate_series(1, 8000) AS n)"  # 256,000 characters
        await _fill(database, reader.thread.id, 60, noise)
        await execute(database, "UPDATE messages SET created_at = 0")
        await _fill_later()

    async def _fill_later() -> None:
        await execute(database, "UPDATE messages SET id = 'large_' || id")
        await _fill(database, reader.thread.id, 64)

    loop.run(scenario())
    shown = reader.shown()
    assert len(shown) == 64
    assert reader.counting.chars < 4 * statements.PAGE_BYTES
    assert len(set(reader.shown(window=10**9))) == 64 + 60
