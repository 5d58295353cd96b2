"""A server that lives long: what it has done leaves nothing in its memory."""

import json

import httpx
import psutil
import pytest

from bench import load
from bench.client import request
from tests.faults.processes import data_folder, rehearsing, serve

pytestmark = pytest.mark.nightly

RUNS, BATCH = 20_000, 2_000
DELTAS = 20


def test_memory_stays_flat_over_twenty_thousand_runs() -> None:
    with (
        data_folder() as folder,
        rehearsing() as model,
        serve(folder, model_base_url=model) as server,
        server.client() as http,
    ):
        port = httpx.URL(server.url).port or 0
        assistant_id = http.post("/assistants", json={"model": "rehearsal"}).json()["id"]
        thread = json.dumps({"messages": [{"role": "user", "content": f"[[tokens: {DELTAS}]]"}]}).encode()
        run = json.dumps({"assistant_id": assistant_id, "stream": True}).encode()
        sizes = []
        for _ in range(RUNS // BATCH):
            threads = load.create(port, [request(port, "POST", "/v1/threads", thread)] * BATCH)
            requests = [request(port, "POST", f"/v1/threads/{thread_id}/runs", run) for thread_id in threads]
            load.stream(port, requests, 16, DELTAS)
            sizes.append(psutil.Process(server.pid).memory_info().rss)
        shown = [f"{size / 1e6:.1f} MB" for size in sizes]
        assert sizes[-1] - sizes[1] < 16e6, shown
        assert server.stop() == 0
        assert "Traceback" not in server.log
