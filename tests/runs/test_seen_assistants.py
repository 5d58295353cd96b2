"""A run is of the assistant as it is, however well this process remembers what it was."""

import asyncio
from typing import Any

import httpx
import pytest

from adlatus.store.seen import LONGEST_BYTES, MOST, SeenAssistants
from tests.conftest import Server
from tests.runs.functions import function
from tests.runs.stored import execute
from tests.runs.transcripts import converse, sent


def test_a_change_is_seen_by_the_next_run_whoever_made_it(server: Server, http: httpx.Client) -> None:
    talk = converse(http, "Hello?", instructions="First.")
    shown = [_run(talk, server) for _ in range(2)]
    sent(http.post(f"/assistants/{talk.assistant_id}", json={"instructions": "Second."}))
    shown.append(_run(talk, server))
    elsewhere = execute(
        server.resources.database, "UPDATE assistants SET instructions = 'Third.' WHERE id = $1", talk.assistant_id
    )
    server.loop.run(elsewhere)
    shown += [_run(talk, server) for _ in range(2)]
    assert shown == ["First.", "First.", "Second.", "Third.", "Third."]


def _run(talk: Any, server: Server) -> str:
    run = talk.start()
    talk.ended(run["id"])
    instructions: str = run["instructions"]
    return instructions


def test_an_assistant_that_is_gone_is_not_remembered(http: httpx.Client) -> None:
    talk = converse(http, "Hello?")
    talk.ended(talk.start()["id"])
    sent(http.delete(f"/assistants/{talk.assistant_id}"))
    response = http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id})
    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"No assistant found with id '{talk.assistant_id}'."


def test_what_is_amiss_is_told_as_if_the_assistant_were_not_known(http: httpx.Client) -> None:
    talk = converse(http, "[[pace: 5]] Hello?", tools=[function("f")])
    talk.start()
    for path, body, told in (
        (talk.path, {}, "already has an active run"),
        ("/threads/thread_missing", {}, "No thread found"),
        (talk.path, {"tools": [], "tool_choice": "required"}, "'required' is only allowed"),
    ):
        response = http.post(f"{path}/runs", json={"assistant_id": talk.assistant_id, **body})
        assert response.status_code in (400, 404)
        assert told in response.json()["error"]["message"]


def test_an_assistant_is_known_to_its_own_project_only(http: httpx.Client, server: Server, api_key: str) -> None:
    talk = converse(http, "Hello?")
    talk.ended(talk.start()["id"])
    stranger = {"Authorization": "Bearer key-1" if api_key != "key-1" else "Bearer key-2"}
    thread_id = sent(http.post("/threads", headers=stranger))["id"]
    body = {"assistant_id": talk.assistant_id}
    assert http.post(f"/threads/{thread_id}/runs", json=body, headers=stranger).status_code == 404


@pytest.mark.parametrize("field", ["instructions", "tools"])
def test_few_and_short_ones_are_remembered(field: str) -> None:
    seen = SeenAssistants()
    short: dict[str, Any] = {"project_id": "p", "instructions": "", "tools": []}
    for number in range(MOST + 1):
        seen.keep({**short, "id": str(number)})
        seen.get("p", "0" if number < MOST else "")
    assert seen.get("p", "0")
    assert seen.get("p", "1") is None
    seen.keep({**short, "id": "0", field: "x" * LONGEST_BYTES + "x"})
    assert seen.get("p", "0") is None


def test_runs_of_one_assistant_at_once_are_all_of_its_last_version(server: Server, http: httpx.Client) -> None:
    talk = converse(http, "Hello?", instructions="0")
    talk.ended(talk.start()["id"])
    threads = [sent(http.post("/threads", json={}))["id"] for _ in range(10)]

    async def race() -> list[tuple[int, int]]:
        async with httpx.AsyncClient(base_url=http.base_url, headers=http.headers, timeout=30) as client:
            known = 0

            async def change() -> None:
                nonlocal known
                for number in range(1, 11):
                    await client.post(f"/assistants/{talk.assistant_id}", json={"instructions": str(number)})
                    known = number

            async def start(thread_id: str) -> tuple[int, int]:
                least = known
                body = {"assistant_id": talk.assistant_id}
                run = (await client.post(f"/threads/{thread_id}/runs", json=body)).json()
                return least, int(run["instructions"])

            changing = asyncio.create_task(change())
            pairs = [await start(thread_id) for thread_id in threads]
            await changing
            return pairs

    for least, shown in server.loop.run(race()):
        assert shown >= least, "what was acknowledged counts"
