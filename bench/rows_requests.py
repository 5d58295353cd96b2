"""The rows about plain requests: P6, P7, P11, P12. The floor of P6 is a bare FastAPI route."""

import asyncio
import json
from pathlib import Path
from statistics import median

import asyncpg

from adlatus.backends.postgres import attach
from bench import load
from bench.client import request
from bench.load import Latencies
from bench.processes import Server
from bench.rows_streams import PACE
from bench.site import Site, adlatus, assistant_request, interleaved, settle
from bench.targets import Row, percentile

CONNECTIONS = 16
LISTED = 1_000
"""Messages of the thread that P7 lists from."""

_OTHERS = """
WITH thread AS (
    INSERT INTO threads (id, project_id, metadata, tool_resources)
    SELECT 'thread_other' || n, 'default', '{}', '{}' FROM generate_series(1, $1 / 100 + 1) n RETURNING id
)
INSERT INTO messages (id, project_id, thread_id, created_at, role, status, completed_at, content, attachments, metadata)
SELECT 'msg_other' || n, 'default', 'thread_other' || (n / 100 + 1), 1700000000 + n, 'user', 'completed',
       1700000000 + n, template.content, '[]', '{}'
FROM generate_series(1, $1) n, (SELECT content FROM messages LIMIT 1) template
"""


def retrieve_and_create(site: Site) -> list[Row]:
    """P6: 16 connections, each sending the next request when the last one is answered."""
    thread = site.threads(site.server, 1, "hello")[0]
    retrieve = request(site.server.port, "GET", f"/v1/threads/{thread}")
    return [
        _against_floor(site, "P6 retrieve", request(site.crud.port, "GET", "/v1/assistants/asst_floor"), retrieve),
        _against_floor(site, "P6 create", assistant_request(site.crud.port), assistant_request(site.server.port)),
    ]


def list_messages(site: Site) -> list[Row]:
    """P7: two servers with the same thread, one of them with many messages of other threads beside it."""
    quiet_folder, crowded_folder = site.folder / "quiet", site.folder / "crowded"
    with adlatus(quiet_folder, site.model) as quiet, adlatus(crowded_folder, site.model) as crowded:
        requests = {server: _list_request(site, server) for server in (quiet, crowded)}
        asyncio.run(_crowd(quiet_folder, 0))
        asyncio.run(_crowd(crowded_folder, site.options.other_messages))
        alone, beside = interleaved(
            site.options.repeats, *(lambda server=server: _alone(site, server, requests[server]) for server in requests)
        )
    floors = [1000 * median(latencies.seconds) for latencies in alone]
    values = [1000 * median(latencies.seconds) for latencies in beside]
    details = {"messages of other threads": site.options.other_messages}
    return [Row("P7", values, floors, _ratios(values, floors), details)]


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


def _alone(site: Site, server: Server, sent: bytes) -> Latencies:
    return site.load(load.hammer, server.port, [sent], site.scaled_s(2))


async def _crowd(data_dir: Path, count: int) -> None:
    """Put messages of other threads into the embedded database of a running server, and let it know its tables."""
    database = await attach(data_dir)
    assert database is not None
    connection = await asyncpg.connect(database.dsn)
    try:
        await connection.execute(_OTHERS.replace("$1", str(count)))
        await connection.execute("VACUUM ANALYZE messages")
    finally:
        await connection.close()


def _ratios(values: list[float], floors: list[float]) -> list[float]:
    return [value / floor for value, floor in zip(values, floors, strict=True)]
