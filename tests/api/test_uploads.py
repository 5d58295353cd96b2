"""Uploads over HTTP: parts in any order, one file at the end."""

import os
from collections.abc import Callable
from hashlib import md5
from typing import Any

import httpx
import pytest
from openai import OpenAI
from sqlalchemy import update

from adlatus.settings import Settings
from adlatus.store.tables import uploads
from adlatus.wire.uploads import MAX_PART_BYTES
from tests.api.test_files import loose, stored, sweep
from tests.conftest import Loop, Server, serving

Json = dict[str, Any]
HELLO = [b"Hello, ", b"wor", b"ld!"]


def begun(http: httpx.Client, size_bytes: int = 13, **fields: Any) -> str:
    body = {"purpose": "vision", "filename": "hello.txt", "bytes": size_bytes, "mime_type": "text/plain"} | fields
    upload_id: str = http.post("uploads", json=body).raise_for_status().json()["id"]
    return upload_id


def add(http: httpx.Client, upload_id: str, content: bytes) -> httpx.Response:
    return http.post(f"uploads/{upload_id}/parts", files={"data": ("upload", content)})


def added(http: httpx.Client, upload_id: str, contents: list[bytes]) -> list[str]:
    return [add(http, upload_id, content).raise_for_status().json()["id"] for content in contents]


def complete(http: httpx.Client, upload_id: str, part_ids: list[str], **fields: Any) -> httpx.Response:
    return http.post(f"uploads/{upload_id}/complete", json={"part_ids": part_ids} | fields)


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    shown = response.json()
    assert list(shown) == ["error"]
    return response.status_code, shown["error"]["message"], shown["error"]["param"]


def parts_stored(server: Server, part_ids: list[str]) -> set[str]:
    return {f"parts/{part_id}" for part_id in part_ids} & (stored(server) | loose(server))


def test_parts_become_a_file_in_the_order_that_the_client_names(http: httpx.Client, server: Server) -> None:
    upload_id = begun(http)
    third, first, second = added(http, upload_id, [HELLO[2], HELLO[0], HELLO[1]])
    digest = md5(b"".join(HELLO)).hexdigest().upper()
    shown = complete(http, upload_id, [first, second, third], md5=digest).json()
    assert (shown["id"], shown["object"], shown["status"], shown["bytes"]) == (upload_id, "upload", "completed", 13)
    assert shown["expires_at"] == shown["created_at"] + 3600
    file = shown["file"]
    assert (file["filename"], file["bytes"], file["purpose"]) == ("hello.txt", 13, "vision")
    assert http.get(f"files/{file['id']}").json() == file
    assert http.get(f"files/{file['id']}/content").content == b"Hello, world!"
    assert parts_stored(server, [first, second, third]) == set()


def test_the_helper_of_the_sdk_uploads_in_chunks(sdk: OpenAI, http: httpx.Client) -> None:
    content = os.urandom(3 * 2**20 + 17)
    made = sdk.uploads.upload_file_chunked(
        file=content,
        filename="random.bin",
        bytes=len(content),
        mime_type="application/octet-stream",
        purpose="vision",
        part_size=2**20,
        md5=md5(content).hexdigest(),
    )
    assert made.status == "completed"
    assert made.file
    assert http.get(f"files/{made.file.id}/content").content == content


def test_the_file_expires_as_the_upload_says(http: httpx.Client) -> None:
    upload_id = begun(http, expires_after={"anchor": "created_at", "seconds": 7200})
    file = complete(http, upload_id, added(http, upload_id, HELLO)).json()["file"]
    assert file["expires_at"] == file["created_at"] + 7200


def test_parts_that_are_not_named_are_left_out_and_deleted(http: httpx.Client, server: Server) -> None:
    upload_id = begun(http)
    wrong, *right = added(http, upload_id, [b"Wrong", *HELLO])
    file = complete(http, upload_id, right).json()["file"]
    assert http.get(f"files/{file['id']}/content").content == b"Hello, world!"
    assert parts_stored(server, [wrong]) == set()


@pytest.mark.parametrize(
    ("fault", "message", "param"),
    [
        ("too few", "The parts have 10 bytes together, but the upload was created for 13.", "part_ids"),
        ("twice", "Each part may be named once in 'part_ids'.", "part_ids"),
        ("unknown", "No part of this upload found with id 'part_x'.", "part_ids"),
        ("order", f"The md5 checksum of the parts is '{md5(b'world!Hello, ').hexdigest()}', not '{'0' * 32}'.", "md5"),
    ],
)
def test_what_the_client_says_of_the_parts_has_to_be_true_and_may_be_said_again(
    http: httpx.Client, server: Server, fault: str, message: str, param: str
) -> None:
    upload_id = begun(http)
    ids = added(http, upload_id, HELLO)
    wrong: dict[str, Json] = {
        "too few": {"part_ids": ids[:2]},
        "twice": {"part_ids": [ids[0], ids[0]]},
        "unknown": {"part_ids": [*ids, "part_x"]},
        "order": {"part_ids": [ids[1], ids[2], ids[0]], "md5": "0" * 32},
    }
    before = stored(server)
    assert refusal(http.post(f"uploads/{upload_id}/complete", json=wrong[fault])) == (400, message, param)
    assert stored(server) == before
    assert http.get("files").json()["data"] == []
    assert complete(http, upload_id, ids, md5=md5(b"Hello, world!").hexdigest()).json()["status"] == "completed"


def test_a_part_belongs_to_its_upload_only(http: httpx.Client) -> None:
    one, other = begun(http), begun(http)
    part_ids = added(http, one, HELLO)
    assert refusal(complete(http, other, part_ids))[0] == 400


def test_a_cancelled_upload_is_over_and_its_parts_are_deleted(http: httpx.Client, server: Server) -> None:
    upload_id = begun(http)
    ids = added(http, upload_id, HELLO)
    shown = http.post(f"uploads/{upload_id}/cancel").json()
    assert (shown["status"], "file" in shown) == ("cancelled", False)
    assert parts_stored(server, ids) == set()
    assert refusal(add(http, upload_id, b"x"))[1] == "Cannot add parts to upload with status 'cancelled'."
    assert refusal(complete(http, upload_id, ids))[1] == "Cannot complete upload with status 'cancelled'."
    assert refusal(http.post(f"uploads/{upload_id}/cancel"))[1] == "Cannot cancel upload with status 'cancelled'."


def test_a_completed_upload_is_over(http: httpx.Client) -> None:
    upload_id = begun(http)
    ids = added(http, upload_id, HELLO)
    complete(http, upload_id, ids).raise_for_status()
    assert refusal(add(http, upload_id, b"x"))[1] == "Cannot add parts to upload with status 'completed'."
    assert refusal(complete(http, upload_id, ids))[1] == "Cannot complete upload with status 'completed'."
    assert refusal(http.post(f"uploads/{upload_id}/cancel"))[1] == "Cannot cancel upload with status 'completed'."
    assert len(http.get("files").json()["data"]) == 1


def test_an_upload_expires_after_an_hour(http: httpx.Client, server: Server) -> None:
    upload_id = begun(http)
    ids = added(http, upload_id, HELLO)
    hour_ago = update(uploads).where(uploads.c.id == upload_id).values(created_at=1, expires_at=3601)
    server.loop.run(server.resources.database.fetch(hour_ago))
    expected = "Cannot complete upload with status 'expired'."
    assert refusal(complete(http, upload_id, ids)) == (400, expected, None)
    assert len(parts_stored(server, ids)) == 3
    sweep(server)
    assert parts_stored(server, ids) == set()
    assert refusal(complete(http, upload_id, ids)) == (400, expected, None)


def test_a_part_of_more_than_64_mb_is_refused_and_leaves_nothing(http: httpx.Client, server: Server) -> None:
    upload_id, before = begun(http), stored(server)
    status, message, _ = refusal(add(http, upload_id, bytes(MAX_PART_BYTES + 1)))
    assert status == 413
    assert message.startswith(f"Maximum content size limit ({MAX_PART_BYTES}) exceeded")
    assert (stored(server), loose(server)) == (before, set())


def test_a_part_needs_its_data(http: httpx.Client) -> None:
    path = f"uploads/{begun(http)}/parts"
    assert refusal(http.post(path, files={"file": ("upload", b"x")}))[::2] == (400, "file")
    status, message, param = refusal(http.post(path, files={"data": (None, b"x")}))
    assert (status, param) == (400, "data")
    assert message.startswith("Missing required parameter: 'data'. (HINT: ")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"bytes": 0}, "bytes", "integer_below_min_value"),
        ({"bytes": 8 * 2**30 + 1}, "bytes", "integer_above_max_value"),
        ({"bytes": "13"}, "bytes", "invalid_type"),
        ({"purpose": "assistants_output"}, "purpose", "invalid_value"),
        ({"filename": ""}, "filename", "string_below_min_length"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds", "integer_below_min_value"),
    ],
)
def test_an_upload_that_makes_no_sense_is_refused(http: httpx.Client, fields: Json, param: str, code: str) -> None:
    body = {"purpose": "vision", "filename": "hello.txt", "bytes": 13, "mime_type": "text/plain"} | fields
    response = http.post("uploads", json=body)
    assert response.status_code == 400
    assert (response.json()["error"]["param"], response.json()["error"]["code"]) == (param, code)


def test_an_unknown_upload_is_refused(http: httpx.Client) -> None:
    assert refusal(http.post("uploads/upload_x/cancel")) == (404, "No upload found with id 'upload_x'.", None)
    assert refusal(http.post("uploads/x/cancel"))[::2] == (400, "upload_id")


def test_uploads_count_for_the_quota(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database(), storage_quota_gb=1e-6)
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url) as client:
        body = {"purpose": "vision", "filename": "a", "bytes": 1001, "mime_type": "text/plain"}
        assert client.post("uploads", json=body).json()["error"]["code"] == "storage_quota_exceeded"
        upload_id = begun(client, 1000)
        ids = added(client, upload_id, [b"x" * 600, b"y" * 400])
        assert add(client, upload_id, b"z").json()["error"]["code"] == "storage_quota_exceeded"
        assert complete(client, upload_id, ids).json()["status"] == "completed"
