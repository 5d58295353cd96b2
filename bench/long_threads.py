"""What a run reads of its thread, by the thread's length and the model's window: `python -m bench.long_threads`.

A database of its own, a user and a run taking turns, every message of about 20 tokens. The tables are not analysed, so
PostgreSQL knows nothing of how long the threads are.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from adlatus.backends.postgres import embedded_postgres
from adlatus.backends.routing import Endpoint, Route
from adlatus.runs import history, prompt
from adlatus.runs.budget import Left
from adlatus.store import migrate
from adlatus.store.db import Database, Row, open_database
from adlatus.telemetry import configure_logging
from adlatus.wire.runs import Run

LENGTHS = (100, 10_000, 100_000)
WINDOWS = (2_000, 8_000, 32_000, 128_000)
REPEATS = 15

_THREAD = "INSERT INTO threads (id, project_id, metadata, tool_resources) VALUES ($1, 'default', '{}', '{}')"
_RUNS = """
INSERT INTO runs (id, project_id, thread_id, created_at, assistant_id, status, started_at, completed_at, model, tools,
  tool_resources, metadata, truncation_strategy, response_format, tool_choice, parallel_tool_calls)
SELECT $1 || '_run_' || i, 'default', $1, i, 'asst_1', 'completed', 1, 1, 'm', '[]', '{}', '{}', '{"type": "auto"}',
  '"auto"', '"auto"', true FROM generate_series(1, $2 / 2) AS i"""
_MESSAGES = """
INSERT INTO messages (id, project_id, thread_id, created_at, run_id, role, status, completed_at, content, attachments,
  metadata)
SELECT $1 || '_msg_' || i, 'default', $1, i / 2 + 1, CASE WHEN i % 2 = 1 THEN $1 || '_run_' || (i / 2 + 1) END,
  CASE WHEN i % 2 = 1 THEN 'assistant' ELSE 'user' END, 'completed', 1, json_build_array(json_build_object(
    'type', 'text', 'text', json_build_object('value', 'This is what was said in message number ' || i
    || ' of a long thread, and nothing else.', 'annotations', json_build_array()))), '[]', '{}'
FROM generate_series(0, $2 - 1) AS i"""
_STEPS = """
INSERT INTO run_steps (id, project_id, thread_id, run_id, created_at, assistant_id, type, status, completed_at,
  step_details, metadata)
SELECT $1 || '_step_' || i, 'default', $1, $1 || '_run_' || i, i, 'asst_1', 'message_creation', 'completed', 1,
  json_build_object('type', 'message_creation', 'message_creation',
    json_build_object('message_id', $1 || '_msg_' || (2 * i - 1))), '{}' FROM generate_series(1, $2 / 2) AS i"""


async def _fill(database: Database, length: int) -> Run:
    """A thread, and a run that is to be answered on it: a copy of its last."""
    thread_id = f"thread_{length}"
    connection = await database.pool.borrow()
    await connection.execute(_THREAD, thread_id)
    for statement in (_RUNS, _MESSAGES, _STEPS):
        await connection.execute(statement.replace("$2", str(length)), thread_id)
    row: Row = await connection.fetchrow("SELECT * FROM runs WHERE thread_id = $1 LIMIT 1", thread_id)
    database.pool.give_back(connection)
    return Run.of({**row, "id": "run_new"})


async def _measure(database: Database, run: Run, window: int) -> tuple[int, float]:
    """How many messages are shown, and the median of the seconds until the request is built."""
    route = Route("m", Endpoint("none", "http://localhost/v1"), model="gpt-4o", context_window=window)
    took_s = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        items = (await history.read(database, run, route, Left(), began=False)).items
        prompt.build(run, items, route, Left())
        took_s.append(time.perf_counter() - began)
    return len(items), statistics.median(took_s)


async def main() -> None:
    """Fill, measure, print."""
    configure_logging("json", "warning")
    with tempfile.TemporaryDirectory(prefix="adlatus-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)  # the database's own user has to get in
        async with embedded_postgres(Path(folder) / "data") as server:
            await migrate.upgrade(server.dsn)
            async with open_database(server.dsn) as database:
                connection = await database.pool.borrow()
                await connection.execute("INSERT INTO projects (id) VALUES ('default')")
                database.pool.give_back(connection)
                runs = {length: await _fill(database, length) for length in LENGTHS}
                for window in WINDOWS:
                    for length, run in runs.items():
                        shown, took_s = await _measure(database, run, window)
                        print(f"window {window:7,}  thread {length:7,}  shown {shown:5,}  {took_s * 1000:6.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
