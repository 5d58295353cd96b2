"""The objects of recorded sessions of the real service, brought in: they come back as they were."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adlatus.store.tables import ENDED
from adlatus.wire.steps import CONTENT
from adlatus.wire.threads import Thread
from tests.transfer.transfers import Transfers, write

Json = dict[str, Any]
MOST_BYTES = 100_000
"""Files that are larger are left out: their bytes are made up."""
MOST_FILES = 50
"""So many items of each list of files are taken: the account had a thousand."""
PATHS = {
    "assistant": "assistants/{id}",
    "file": "files/{id}",
    "thread": "threads/{id}",
    "thread.message": "threads/{thread_id}/messages/{id}",
    "thread.run": "threads/{thread_id}/runs/{id}",
    "thread.run.step": "threads/{thread_id}/runs/{run_id}/steps/{id}?include[]=" + CONTENT,
    "vector_store": "vector_stores/{id}",
    "vector_store.file": "vector_stores/{vector_store_id}/files/{id}",
    "vector_store.file_batch": "vector_stores/{vector_store_id}/file_batches/{id}",
}
COUNTED = {
    "vector_store": ("usage_bytes", "file_counts", "status"),
    "vector_store.file_batch": ("file_counts", "status"),
    "vector_store.file": ("usage_bytes", "status", "last_error"),
}
"""What is counted, or found out, here."""


def recorded(reference: Path) -> Iterator[Any]:
    """The bodies of all answers, as they came."""
    for recording in sorted((reference / "recordings").glob("*/*.json")):
        for entry in json.loads(recording.read_text("utf-8"))["Entries"]:
            body = entry["ResponseBody"]
            if isinstance(body, dict) and "object" in body:
                of_files = body["object"] == "list" and "/files?" in f"{entry['RequestUri']}?"
                yield body | {"data": body["data"][:MOST_FILES]} if of_files else body


def latest(bodies: list[Json]) -> dict[tuple[str, str], Json]:
    """The last version of every object, with what only earlier ones told."""
    found: dict[tuple[str, str], Json] = {}
    for body in bodies:
        for shown in (body, *body.get("data", ())):
            if isinstance(shown, dict) and shown.get("object") in PATHS and "deleted" not in shown:
                key = (shown["object"], f"{shown.get('vector_store_id', '')}/{shown['id']}")
                found[key] = found.get(key, {}) | shown
    return found


def differences(expected: Json, shown: Json) -> Json:
    if expected["object"] == "thread":  # *modify* did not show what *retrieve* does
        expected = Thread.model_validate(expected).filled().model_dump()
    if expected["object"] == "thread.run" and expected["status"] not in ENDED:  # nobody goes on with it
        expected = expected | {"status": "expired", "expires_at": None, "required_action": None}
    own = {*COUNTED.get(expected["object"], ()), "file_ids"}  # `file_ids`: of the first version, of modified messages
    return {
        key: (value, shown.get(key)) for key, value in expected.items() if key not in own and shown.get(key) != value
    }


@pytest.mark.slow
def test_recorded_objects_come_back_as_they_were(
    reference: Path, transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    bodies = list(recorded(reference))
    objects = latest(bodies)
    (tmp_path / "files").mkdir()
    for (kind, _), shown in objects.items():
        if kind == "file" and shown["bytes"] < MOST_BYTES:
            (tmp_path / "files" / shown["id"]).write_bytes(b"x" * shown["bytes"])
    told = transfers.bring(write(tmp_path / "recorded.jsonl", bodies), project=project)
    left_out = [line for line in told.lines if "its bytes are not at" in line]
    assert told.counts("file")[3] == len(left_out) == 4
    compared = 0
    for (kind, _), expected in objects.items():
        if kind == "file" and expected["bytes"] >= MOST_BYTES:
            continue
        answer = client.get(PATHS[kind].format(**expected))
        assert answer.status_code == 200, (expected, answer.text)
        assert differences(expected, answer.json()) == {}, expected["id"]
        compared += 1
    assert compared > 200
