"""The rows about plain requests: P6, P7, P11, P12. The floor of P6 is a bare FastAPI route."""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

import asyncpg

from bench import load
from bench.client import request
from bench.processes import Server
from bench.rows_streams import PACE
from bench.site import Site, adlatus, assistant_request, embedded_dsn, interleaved, settle
from bench.targets import Row, percentile

CONNECTIONS = 16
LISTED = 1_000
"""Messages of the thread that P7 lists from."""

OTHERS_PER_THREAD = 10

_OTHERS = f"""
INSERT INTO threads (id, project_id, metadata, tool_resources)
SELECT 'thread_other' || n, 'default', '{{}}', '{{}}' FROM generate_series(0, $1 / {OTHERS_PER_THREAD}) n;
INSERT INTO messages (id, project_id, thread_id, created_at, role, status, completed_at, content, attachments, metadata)
SELECT 'msg_other' || n, 'default', 'thread_other' || (n / {OTHERS_PER_THREAD}), 1700000000 + n, 'user', 'completed',
       1700000000 + n, template.content, '[]', '{{}}'
FROM generate_series(1, $1) n, (SELECT content FROM messages LIMIT 1) template;
CREATE TEMPORARY TABLE other AS SELECT * FROM runs LIMIT 1;
INSERT INTO runs OVERRIDING SYSTEM VALUE SELECT (other).* FROM (
    SELECT json_populate_record(other, json_build_object('id', 'run_other' || n, 'thread_id', 'thread_other' || n,
        'created_at', 1700000000 + n, 'seq', -n)) other
    FROM other, generate_series(1, $1 / {OTHERS_PER_THREAD}) n
);
CREATE TEMPORARY TABLE other_step AS SELECT * FROM run_steps LIMIT 1;
INSERT INTO run_steps OVERRIDING SYSTEM VALUE SELECT (other_step).* FROM (
    SELECT json_populate_record(other_step, json_build_object('id', 'step_other' || n, 'run_id', 'run_other' || n,
        'thread_id', 'thread_other' || n, 'created_at', 1700000000 + n, 'seq', -n)) other_step
    FROM other_step, generate_series(1, $1 / {OTHERS_PER_THREAD}) n
);
"""
"""A run and its step on each thread of others, as those that the server has executed before."""


def retrieve_and_create(site: Site) -> list[Row]:
    """P6: 16 connections, each sending the next request when the last one is answered."""
    thread = site.threads(site.server, 1, "hello")[0]
    retrieve = request(site.server.port, "GET", f"/v1/threads/{thread}")
    return [
        _against_floor(site, "P6 retrieve", request(site.crud.port, "GET", "/v1/assistants/asst_floor"), retrieve),
        _against_floor(site, "P6 create", assistant_request(site.crud.port), assistant_request(site.server.port)),
    ]


def beside_others(site: Site) -> list[Row]:
    """P7: two servers that do the same, one of them with many messages, threads and runs of others beside it."""
    quiet_folder, crowded_folder = site.folder / "quiet", site.folder / "crowded"
    with adlatus(quiet_folder, site.model) as quiet, adlatus(crowded_folder, site.model) as crowded:
        requests = {server: _list_request(site, server) for server in (quiet, crowded)}
        for server in requests:
            _first_delta_s(site, server)
        asyncio.run(_crowd(quiet_folder, 0))
        asyncio.run(_crowd(crowded_folder, site.options.other_messages))
        repeats = site.options.repeats
        listed = interleaved(repeats, *(partial(_list_s, site, server, requests[server]) for server in requests))
        begun = interleaved(repeats, *(partial(_first_delta_s, site, server) for server in requests))
    details = {
        "messages of others": site.options.other_messages,
        "their threads, a run each": site.options.other_messages // OTHERS_PER_THREAD,
    }
    return [_beside("P7 list", listed, details), _beside("P7 first delta", begun, {})]


def _beside(name: str, seconds: list[list[float]], details: Mapping[str, float]) -> Row:
    """What was measured alone is the floor of the same beside others."""
    floors, values = ([1000 * one for one in repeats] for repeats in seconds)
    return Row(name, values, floors, _ratios(values, floors), details)


def write_tail(site: Site) -> list[Row]:
    """P11: the slowest of a hundred writes against the usual one. Each connection writes to a thread of its own."""
    body = json.dumps({"role": "user", "content": "A message of ordinary length, as people send them."}).encode()
    threads = site.threads(site.server, CONNECTIONS, "hello")
    requests = [request(site.server.port, "POST", f"/v1/threads/{thread}/messages", body) for thread in threads]

    def write() -> list[float]:
        return site.load(load.hammer, site.server.port, requests, site.scaled_s(3)).seconds

    [rounds] = interleaved(site.options.repeats, write)
    values = [1000 * percentile(seconds, 0.99) for seconds in rounds]
    floors = [1000 * median(seconds) for seconds in rounds]
    details = {"writes per repeat": median(len(seconds) for seconds in rounds)}
    return [Row("P11", values, floors, _ratios(values, floors), details)]


def read_beside_streams(site: Site) -> list[Row]:
    """P12: one client retrieves a thread now and then, on the idle server and while 50 streams run."""
    thread = site.threads(site.server, 1, "hello")[0]
    retrieve = request(site.server.port, "GET", f"/v1/threads/{thread}")
    seconds = site.scaled_s(3)

    def idle() -> list[float]:
        return site.load(load.hammer, site.server.port, [retrieve], seconds, 0.004).seconds

    def beside() -> list[float]:
        deltas = round((seconds + 1.5) * 50)
        runs = site.run_requests(50, f"[[tokens: {deltas}]]{PACE}")
        streaming = site.begin(load.stream, site.server.port, runs, 50, deltas)
        settle(0.7)
        measured = site.load(load.hammer, site.server.port, [retrieve], seconds, 0.004).seconds
        streaming.get()
        settle()
        return measured

    alone, busy = interleaved(site.options.repeats, idle, beside)
    values, floors = ([1000 * median(one) for one in rounds] for rounds in (busy, alone))
    details = {"p99 beside streams, ms": median(1000 * percentile(one, 0.99) for one in busy)}
    return [Row("P12", values, floors, _ratios(values, floors), details)]


def _against_floor(site: Site, name: str, on_floor: bytes, on_server: bytes) -> Row:
    def rate(server: Server, sent: bytes) -> tuple[float, float]:
        cpu_before = server.cpu_s()
        latencies = site.load(load.hammer, server.port, [sent] * CONNECTIONS, site.scaled_s(2))
        return latencies.per_s, 1e6 * (server.cpu_s() - cpu_before) / len(latencies.seconds)

    floor, served = interleaved(
        site.options.repeats, lambda: rate(site.crud, on_floor), lambda: rate(site.server, on_server)
    )
    values, floors = [rate for rate, _ in served], [rate for rate, _ in floor]
    details = {
        "server CPU per request, µs": median(cpu_us for _, cpu_us in served),
        "floor CPU per request, µs": median(cpu_us for _, cpu_us in floor),
    }
    return Row(name, values, floors, _ratios(values, floors), details)


def _list_request(site: Site, server: Server) -> bytes:
    """A request for 100 messages of a new thread that has 1,000."""
    message = {"role": "user", "content": "A message of ordinary length, as people send them."}
    body = json.dumps({"messages": [message] * LISTED}).encode()
    [thread] = site.load(load.create, server.port, [request(server.port, "POST", "/v1/threads", body)], 1)
    return request(server.port, "GET", f"/v1/threads/{thread}/messages?limit=100")


def _list_s(site: Site, server: Server, sent: bytes) -> float:
    latencies = site.load(load.hammer, server.port, [sent], site.scaled_s(2))
    return median(latencies.seconds)


def _first_delta_s(site: Site, server: Server) -> float:
    """A streamed run to its first delta, the model's own time with it."""
    [assistant_id] = site.load(load.create, server.port, [assistant_request(server.port)], 1)
    runs = site.run_requests(site.scaled(200), "[[tokens: 20]]", server, assistant_id)
    [seconds] = site.load(load.first_deltas, [(server.port, load.DELTA, runs)])
    return median(seconds)


async def _crowd(data_dir: Path, count: int) -> None:
    """Put what is of others into the embedded database of a running server, and let it know its tables."""
    connection = await asyncpg.connect(await embedded_dsn(data_dir))
    try:
        await connection.execute(_OTHERS.replace("$1", str(count)))
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def _ratios(values: list[float], floors: list[float]) -> list[float]:
    return [value / floor for value, floor in zip(values, floors, strict=True)]
