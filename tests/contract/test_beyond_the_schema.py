"""What neither schema nor recordings can judge: words of refusals, units of times, ends of lists, what a change does.

*Source* of the words: users of the original who asked for help with them.
"""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.replay import events_of
from tests.contract.tour import Tour

Json = dict[str, Any]
WEEK_S = 7 * 86_400


def moments(shown: Any) -> Iterator[tuple[str, object]]:
    """Every moment of an answer or an event, with its name."""
    match shown:
        case dict():
            for key, value in shown.items():
                if key.endswith("_at") and value is not None:
                    yield key, value
                else:
                    yield from moments(value)
        case list():
            for item in shown:
                yield from moments(item)


def test_every_moment_is_in_unix_seconds(tour: Tour) -> None:
    now, seen = time.time(), set()
    for shown in [*(answer.body for answer in tour.bodies()), *(event.data for event in tour.events())]:
        for name, moment in moments(shown):
            seen.add(name)
            assert isinstance(moment, int), name
            assert abs(moment - now) <= WEEK_S, name
    assert {"created_at", "started_at", "expires_at", "cancelled_at", "failed_at", "incomplete_at"} < seen


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param", "code", "message"),
    [
        pytest.param(
            *("GET", "assistants/asst_x", None, 404, None, None),
            "No assistant found with id 'asst_x'.",
            id="not found",
        ),
        pytest.param(
            *("POST", "assistants", {}, 400, "model", "missing_required_parameter"),
            "Missing required parameter: 'model'.",
            id="missing",
        ),
        pytest.param(
            *("POST", "assistants", {"model": "m", "shape": 1}, 400, "shape", "unknown_parameter"),
            "Unknown parameter: 'shape'.",
            id="unknown",
        ),
        pytest.param(
            *("POST", "assistants", {"model": 1}, 400, "model", "invalid_type"),
            "Invalid type for 'model': expected a string, but got an integer instead.",
            id="type",
        ),
        pytest.param(
            *("POST", "assistants", {"model": "m", "tools": [{"type": "x"}]}, 400, "tools[0].type", "invalid_value"),
            "Invalid value: 'x'. Supported values are: 'code_interpreter', 'function', and 'file_search'.",
            id="value",
        ),
        pytest.param(
            *("GET", "assistants?limit=101", None, 400, "limit", "integer_above_max_value"),
            "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
            id="bound",
        ),
    ],
)
def test_a_refusal_has_the_words_of_the_original(
    http: httpx.Client,
    method: str,
    path: str,
    body: Json | None,
    status: int,
    param: str | None,
    code: str | None,
    message: str,
) -> None:
    response = http.request(method, path, json=body)
    expected = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    assert response.json() == {"error": expected}
    assert response.status_code == status


def test_a_busy_thread_and_its_run_are_named_as_applications_expect(http: httpx.Client) -> None:
    """Frameworks find out by these sentences that they have to wait, and for which run."""
    assistant_id = http.post("assistants", json={"model": "m"}).json()["id"]
    body: Json = {"assistant_id": assistant_id, "thread": {"messages": [{"role": "user", "content": "[[delay: 30]]"}]}}
    run = http.post("threads/runs", json=body).json()
    thread_id = run["thread_id"]
    added = http.post(f"threads/{thread_id}/messages", json={"role": "user", "content": "And?"})
    begun = http.post(f"threads/{thread_id}/runs", json={"assistant_id": assistant_id})
    http.post(f"threads/{thread_id}/runs/{run['id']}/cancel")
    assert [added.status_code, begun.status_code] == [400, 400]
    assert added.json()["error"]["message"] == f"Can't add messages to {thread_id} while a run {run['id']} is active."
    assert begun.json()["error"]["message"] == f"Thread {thread_id} already has an active run {run['id']}."


def test_has_more_tells_whether_the_list_goes_on(http: httpx.Client) -> None:
    for _ in range(4):
        http.post("assistants", json={"model": "m"})
    first = http.get("assistants?limit=2").json()
    last = http.get(f"assistants?limit=2&after={first['last_id']}").json()
    assert [[len(page["data"]), page["has_more"]] for page in (first, last)] == [[2, True], [2, False]]


def test_a_vector_store_expires_a_number_of_days_after_its_last_use(http: httpx.Client) -> None:
    body = {"expires_after": {"anchor": "last_active_at", "days": 3}}
    store = http.post("vector_stores", json=body).json()
    assert store["expires_at"] == store["last_active_at"] + 3 * 86_400


@pytest.fixture
def paths(http: httpx.Client) -> dict[str, str]:
    """The path of an object of every kind that has metadata and can be changed; each has two pairs of it."""
    metadata = {"first": "1", "second": "2"}
    assistant_id = http.post("assistants", json={"model": "m", "metadata": metadata}).json()["id"]
    message = {"role": "user", "content": "Hello", "metadata": metadata}
    thread_id = http.post("threads", json={"messages": [message], "metadata": metadata}).json()["id"]
    thread = f"threads/{thread_id}"
    body = {"assistant_id": assistant_id, "metadata": metadata, "stream": True}
    run_id = events_of(http.post(f"{thread}/runs", json=body).text)[0].data["id"]
    message_id = http.get(f"{thread}/messages?order=asc").json()["first_id"]
    store_id = http.post("vector_stores", json={"metadata": metadata}).json()["id"]
    return {
        "vector_stores": f"vector_stores/{store_id}",
        "assistants": f"assistants/{assistant_id}",
        "threads": thread,
        "messages": f"{thread}/messages/{message_id}",
        "runs": f"{thread}/runs/{run_id}",
    }


@pytest.mark.parametrize("noun", ["assistants", "threads", "messages", "runs", "vector_stores"])
def test_new_metadata_replaces_the_old_as_a_whole(http: httpx.Client, paths: dict[str, str], noun: str) -> None:
    new = {"second": "two", "third": "3"}
    assert http.get(paths[noun]).json()["metadata"] == {"first": "1", "second": "2"}
    assert http.post(paths[noun], json={"metadata": new}).json()["metadata"] == new
    assert http.get(paths[noun]).json()["metadata"] == new
    assert http.post(paths[noun], json={}).json()["metadata"] == new
