"""Files over HTTP: what may be sent, what comes back, and what becomes of it."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from sqlalchemy import delete, select, update

from adlatus.files import sweeping
from adlatus.ids import new_id
from adlatus.settings import Settings
from adlatus.store import files as statements
from adlatus.store.tables import files, loose_blobs
from adlatus.wire.files import MAX_FILE_BYTES
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import eventually

Json = dict[str, Any]
PURPOSES = ["fine-tune", "assistants", "batch", "user_data", "vision", "evals"]
BOUNDARY = "b0undary"


def send(http: httpx.Client, content: bytes = b"Hello", name: str = "hello.txt", **fields: str) -> httpx.Response:
    return http.post("files", data={"purpose": "vision"} | fields, files={"file": (name, content)})


def sent(http: httpx.Client, content: bytes = b"Hello", name: str = "hello.txt", **fields: str) -> Json:
    shown: Json = send(http, content, name, **fields).raise_for_status().json()
    return shown


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, message and param of a refusal that is said twice, as endpoints of files do."""
    shown = response.json()
    assert list(shown) == ["error", "detail"]
    assert list(shown["error"]) == ["message", "type", "param", "code"]
    assert shown["detail"] == {"message": shown["error"]["message"], "code": shown["error"]["code"]}
    assert shown["error"]["type"] == "invalid_request_error"
    return response.status_code, shown["error"]["message"], shown["error"]["param"]


def part(headers: bytes, content: bytes) -> bytes:
    return b"--" + BOUNDARY.encode() + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def raw(http: httpx.Client, *parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> httpx.Response:
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return http.post("files", content=b"".join(parts) + end, headers={"content-type": content_type})


PURPOSE = part(b'Content-Disposition: form-data; name="purpose"', b"vision")
FILE = part(b'Content-Disposition: form-data; name="file"; filename="a.txt"', b"Hello")


def stored(server: Server) -> set[str]:
    """The keys of everything in the storage."""
    folder = server.resources.settings.data_dir / "storage"
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {key for key in found if key != "probe"}


def loose(server: Server) -> set[str]:
    rows = server.loop.run(server.resources.database.fetch(select(loose_blobs.c.key)))
    return {row["key"] for row in rows}


# --- What comes back


def test_a_file_is_shown_as_recorded_and_its_bytes_come_back(http: httpx.Client) -> None:
    shown = sent(http, b"Hello\x00\xff", "hello.txt")
    assert list(shown) == [
        *("object", "id", "purpose", "filename", "bytes", "created_at", "expires_at", "status", "status_details"),
    ]
    assert re.fullmatch(r"file-[1-9A-HJ-NP-Za-km-z]{22}", shown["id"])
    assert (shown["purpose"], shown["filename"], shown["bytes"], shown["status"]) == (
        *("vision", "hello.txt", 7, "processed"),
    )
    assert shown["expires_at"] is shown["status_details"] is None
    assert http.get(f"files/{shown['id']}").json() == shown
    content = http.get(f"files/{shown['id']}/content")
    assert content.content == b"Hello\x00\xff"
    assert content.headers["content-type"] == "application/octet-stream"
    assert content.headers["content-disposition"] == 'attachment; filename="hello.txt"'
    assert content.headers["content-length"] == "7"
    assert content.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_purpose_that_clients_may_name_is_taken(http: httpx.Client, purpose: str) -> None:
    assert sent(http, purpose=purpose)["purpose"] == purpose


@pytest.mark.parametrize("order", [("purpose", "file"), ("file", "purpose")])
def test_the_file_may_come_before_or_after_the_fields(http: httpx.Client, order: tuple[str, str]) -> None:
    parts = {"purpose": PURPOSE, "file": FILE}
    shown = raw(http, *(parts[name] for name in order)).json()
    assert (shown["bytes"], shown["filename"], shown["purpose"]) == (5, "a.txt", "vision")


def test_an_empty_file_is_one(http: httpx.Client) -> None:
    shown = sent(http, b"", "empty.txt")
    assert shown["bytes"] == 0
    content = http.get(f"files/{shown['id']}/content")
    assert (content.status_code, content.content, content.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 2**20 + 1, 9 * 2**20 + 3])
def test_bytes_of_every_size_come_back_as_they_were_sent(http: httpx.Client, size: int) -> None:
    content = os.urandom(size)
    shown = sent(http, content)
    assert shown["bytes"] == size
    assert http.get(f"files/{shown['id']}/content").content == content


def test_bytes_that_look_like_the_boundary_are_kept(http: httpx.Client) -> None:
    content = f"\r\n--{BOUNDARY[:-1]}\r\n--{BOUNDARY}x"[:-3].encode() + b"\r\n\r\n--\r\n-"
    shown = raw(http, PURPOSE, part(b'Content-Disposition: form-data; name="file"; filename="a"', content)).json()
    assert http.get(f"files/{shown['id']}/content").content == content


NAMES = [
    "你好.txt",
    "naïve résumé.pdf",
    "👩‍👩‍👧‍👦 family.png",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "C:\\Users\\me\\file.txt",
    'say "hi"; filename=evil.txt',
    "a\r\nX-Evil: 1\r\n.txt",
    "tab\there",
    "100%.txt",
    " spaces ",
    ".hidden",
    "con:*?<>|",
    "x" * 1000 + ".txt",
    "\u202egpj.exe",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_kept_as_its_client_wrote_it_and_does_no_harm(
    http: httpx.Client, server: Server, sdk: OpenAI, name: str
) -> None:
    made = sdk.files.create(file=(name, b"Hello"), purpose="vision")
    assert made.filename == name
    assert sdk.files.retrieve(made.id).filename == name
    content = http.get(f"files/{made.id}/content")
    assert content.content == b"Hello"
    disposition = content.headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.startswith('attachment; filename="')
    assert "x-evil" not in content.headers
    encoded = re.search(r"; filename\*=UTF-8''(\S+)$", disposition)
    told = httpx.QueryParams(f"name={encoded[1]}")["name"] if encoded else disposition.split('"')[1]
    assert told == name
    assert f"files/{made.id}" in stored(server)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("filename=\"=?utf-8?B?5L2g5aW9?=\"; filename*=utf-8''%E4%BD%A0%E5%A5%BD.txt", "你好.txt"),
        ('filename="plain.txt"', "plain.txt"),
        ("filename=token.txt", "token.txt"),
        ('filename="a%22b%0D%0A.txt"', 'a"b\r\n.txt'),
        ('filename="a\\"b\\\\c.txt"', 'a"b\\c.txt'),
        ("filename*=iso-8859-1'en'%A3.txt", "£.txt"),
        ("filename*=utf-8''%FF.txt", "\ufffd.txt"),
        ("filename*=unknown''x; filename=\"y.txt\"", "y.txt"),
    ],
)
def test_names_are_read_however_clients_spell_them(http: httpx.Client, header: str, name: str) -> None:
    file = part(f'Content-Disposition: form-data; name="file"; {header}'.encode(), b"Hello")
    assert raw(http, PURPOSE, file).json()["filename"] == name


def test_a_name_in_latin_1_is_read(http: httpx.Client) -> None:
    file = part(b'Content-Disposition: form-data; name="file"; filename="caf\xe9.txt"', b"Hello")
    assert raw(http, PURPOSE, file).json()["filename"] == "café.txt"


# --- What is refused


def test_an_unknown_purpose_is_refused_as_recorded_and_leaves_nothing(http: httpx.Client, server: Server) -> None:
    before = stored(server)
    response = send(http, purpose="world_domination")
    assert refusal(response) == (400, f"'world_domination' is not one of {PURPOSES} - 'purpose'", "purpose")
    assert stored(server) == before
    assert loose(server) == set()
    assert http.get("files").json()["data"] == []


def test_purposes_of_the_server_may_not_be_named(http: httpx.Client) -> None:
    assert refusal(send(http, purpose="assistants_output"))[0] == 400


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"file": "text", "purpose": "vision"}, "'file' is a required property (HINT: ", "file"),
        ({"purpose": "vision"}, "'file' is a required property", "file"),
    ],
)
def test_a_form_without_a_file_is_refused(http: httpx.Client, fields: dict[str, str], message: str, param: str) -> None:
    parts = [
        part(f'Content-Disposition: form-data; name="{name}"'.encode(), value.encode())
        for name, value in fields.items()
    ]
    status, told, about = refusal(raw(http, *parts))
    assert (status, told.startswith(message), about) == (400, True, param)


def test_a_form_without_a_purpose_is_refused(http: httpx.Client) -> None:
    assert refusal(raw(http, FILE)) == (400, "'purpose' is a required property", "purpose")


def test_an_unknown_field_is_refused(http: httpx.Client) -> None:
    message = "Additional properties are not allowed ('colour' was unexpected)"
    assert refusal(send(http, colour="red")) == (400, message, "colour")


@pytest.mark.parametrize("name", ["", "x" * 5000])
def test_a_name_of_no_or_too_many_characters_is_refused(http: httpx.Client, name: str) -> None:
    file = part(f'Content-Disposition: form-data; name="file"; filename="{name}"'.encode(), b"Hello")
    status, message, param = refusal(raw(http, PURPOSE, file))
    assert (status, param) == (400, "file")
    assert message == f"The name of the file must have 1 to 4096 characters, not {len(name)}."


MALFORMED: list[tuple[str, bytes, str]] = [
    ("multipart/form-data", FILE, "no boundary"),
    (f"multipart/form-data; boundary={'b' * 201}", FILE, "no boundary"),
    (f"multipart/form-data; boundary={BOUNDARY}", PURPOSE + FILE, "it has no end"),
    (f"multipart/form-data; boundary={BOUNDARY}", b"", "it has no end"),
    (f"multipart/form-data; boundary={BOUNDARY}", b"{}", "."),
    (f"multipart/form-data; boundary={BOUNDARY}", part(b"X: y", b"Hello"), "a part has no name"),
    (f"multipart/form-data; boundary={BOUNDARY}", part(b"\xff\xfe", b"Hello"), "."),
    (
        f"multipart/form-data; boundary={BOUNDARY}",
        part(b'Content-Disposition: form-data; name="purpose"', b"\xff") + FILE,
        "a field is not UTF-8",
    ),
    (
        f"multipart/form-data; boundary={BOUNDARY}",
        part(b'Content-Disposition: form-data; name="purpose"', b"x" * 70_000),
        "the fields are longer than 65536 bytes",
    ),
    (
        f"multipart/form-data; boundary={BOUNDARY}",
        b"".join(part(f'Content-Disposition: form-data; name="f{n}"'.encode(), b"") for n in range(101)),
        "more than 100 fields",
    ),
    (
        f"multipart/form-data; boundary={BOUNDARY}",
        part(b'Content-Disposition: form-data; name="file"; filename="' + b"x" * 40_000 + b'"', b"Hello"),
        ".",
    ),
]


@pytest.mark.parametrize(("content_type", "content", "why"), MALFORMED)
def test_a_malformed_form_is_refused_and_leaves_nothing(
    http: httpx.Client, server: Server, content_type: str, content: bytes, why: str
) -> None:
    before = stored(server)
    response = http.post("files", content=content, headers={"content-type": content_type})
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message.startswith("Could not parse multipart form: ")
    assert why in message
    assert (stored(server), loose(server)) == (before, set())


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
def test_what_is_no_multipart_form_is_refused(http: httpx.Client, content_type: str) -> None:
    response = http.post("files", content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 400
    assert "expected multipart/form-data" in response.json()["error"]["message"]


def test_a_field_or_file_that_comes_twice_is_refused(http: httpx.Client) -> None:
    for parts in ((PURPOSE, PURPOSE, FILE), (PURPOSE, FILE, FILE)):
        response = raw(http, *parts)
        assert response.status_code == 400
        assert "is given twice" in response.json()["error"]["message"]


def test_nul_characters_are_refused(http: httpx.Client) -> None:
    file = part(b"Content-Disposition: form-data; name=\"file\"; filename*=utf-8''a%00b", b"Hello")
    assert "NUL" in raw(http, PURPOSE, file).json()["error"]["message"]


def test_a_file_that_says_that_it_is_too_large_is_refused_before_it_comes(server: Server, api_key: str) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api_key}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {MAX_FILE_BYTES + 2**30}\r\n\r\n"
    )
    host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert f"Maximum content size limit ({MAX_FILE_BYTES}) exceeded ({MAX_FILE_BYTES + 2**30} bytes read)" in answer


def test_an_upload_needs_little_memory_however_large_it_is(http: httpx.Client, server: Server) -> None:
    """Client and server are this one process; nothing of 160 MB piles up in it."""
    process, piece, pieces = psutil.Process(), b"x" * 2**16, 160 * 16
    sent(http, piece * 16)  # what a first upload needs for good
    before, most = process.memory_info().rss, 0

    def form() -> Iterator[bytes]:
        nonlocal most
        yield PURPOSE + FILE[: -len(b"Hello\r\n")]
        for _ in range(pieces):
            yield piece
            most = max(most, process.memory_info().rss)
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    shown = http.post("files", content=form(), headers=headers).json()
    assert shown["bytes"] == pieces * len(piece)
    assert most - before < 64 * 2**20
    with http.stream("GET", f"files/{shown['id']}/content") as response:
        size = 0
        for got in response.iter_bytes():
            size += len(got)
            most = max(most, process.memory_info().rss)
    assert size == shown["bytes"]
    assert most - before < 64 * 2**20
    http.delete(f"files/{shown['id']}")


def test_a_client_that_leaves_early_leaves_nothing(http: httpx.Client, server: Server) -> None:
    before = stored(server)

    def broken_off() -> Iterator[bytes]:
        yield PURPOSE + FILE[:-5] + b"x" * 100_000
        raise InterruptedError

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with pytest.raises(InterruptedError):
        http.post("files", content=broken_off(), headers=headers)
    eventually(lambda: (stored(server), loose(server)) == (before, set()))


# --- Expiry


def test_a_file_expires_when_its_client_says(sdk: OpenAI) -> None:
    made = sdk.files.create(
        file=("a.txt", b"Hello"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600


def test_files_for_batches_expire_after_thirty_days(http: httpx.Client) -> None:
    shown = sent(http, purpose="batch")
    assert shown["expires_at"] == shown["created_at"] + 30 * 86_400
    hour = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    shown = sent(http, b"Hello", "hello.jsonl", purpose="batch", **hour)
    assert shown["expires_at"] == shown["created_at"] + 3600


@pytest.mark.parametrize(
    ("anchor", "seconds", "param", "code"),
    [
        ("created_at", "3599", "expires_after.seconds", "integer_below_min_value"),
        ("created_at", "2592001", "expires_after.seconds", "integer_above_max_value"),
        ("created_at", "soon", "expires_after.seconds", "invalid_type"),
        ("created_at", "1e4", "expires_after.seconds", "invalid_type"),
        ("created_at", "9" * 5000, "expires_after.seconds", "invalid_type"),
        ("last_active_at", "3600", "expires_after.anchor", "invalid_value"),
        (None, "3600", "expires_after.anchor", "missing_required_parameter"),
        ("created_at", None, "expires_after.seconds", "missing_required_parameter"),
    ],
)
def test_an_expiry_that_makes_no_sense_is_refused(
    http: httpx.Client, anchor: str | None, seconds: str | None, param: str, code: str
) -> None:
    sent_fields = {"expires_after[anchor]": anchor, "expires_after[seconds]": seconds}
    fields = {name: value for name, value in sent_fields.items() if value is not None}
    response = send(http, b"Hello", "hello.txt", **fields)
    assert response.status_code == 400
    assert (response.json()["error"]["param"], response.json()["error"]["code"]) == (param, code)


def expire(server: Server, file_id: str) -> None:
    """Let a file expire now."""
    statement = update(files).where(files.c.id == file_id).values(created_at=1, expires_at=2)
    server.loop.run(server.resources.database.fetch(statement.returning(files.c.id)))


def sweep(server: Server) -> None:
    server.loop.run(sweeping.sweep(server.resources.database, server.resources.blobs))


def test_an_expired_file_is_gone_at_once_and_its_bytes_with_the_next_sweep(http: httpx.Client, server: Server) -> None:
    kept, gone = sent(http)["id"], sent(http)["id"]
    expire(server, gone)
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert refusal(http.request(method, f"files/{gone}{path}")) == (404, f"No such File object: {gone}", "id")
    assert [shown["id"] for shown in http.get("files").json()["data"]] == [kept]
    sweep(server)
    assert f"files/{gone}" not in stored(server) | loose(server)
    assert http.get(f"files/{kept}/content").content == b"Hello"


# --- Deleting, crashes, sweeping


def test_a_deleted_file_and_its_bytes_are_gone(http: httpx.Client, server: Server, sdk: OpenAI) -> None:
    file_id = sent(http)["id"]
    assert http.delete(f"files/{file_id}").text == f'{{"object":"file","deleted":true,"id":"{file_id}"}}'
    with pytest.raises(NotFoundError):
        sdk.files.retrieve(file_id)
    assert refusal(http.delete(f"files/{file_id}"))[0] == 404
    assert f"files/{file_id}" not in stored(server) | loose(server)


@pytest.mark.parametrize("path", ["files/fake_id", "files/fake_id/content"])
def test_an_unknown_file_is_refused_as_recorded(http: httpx.Client, path: str) -> None:
    assert refusal(http.get(path)) == (404, "No such File object: fake_id", "id")


def left_by_a_crash(server: Server, project_id: str, *, settled: bool, due_at: int) -> str:
    """Bytes as a process leaves them that dies before, or after, it has added their row."""
    file_id = new_id("file")
    key = statements.key_of(file_id)

    async def pieces() -> Any:
        yield b"Hello"

    async def crash() -> None:
        database = server.resources.database
        await statements.loosen(database, project_id, key)
        await server.resources.blobs.write(key, pieces())
        if settled:
            async with database.transaction() as tx:
                columns = {"purpose": "vision", "filename": "a.txt", "bytes": 5}
                await statements.add(tx, file_id, project_id, quota_bytes=None, **columns)
        await database.fetch(update(loose_blobs).where(loose_blobs.c.key == key).values(due_at=due_at))

    server.loop.run(crash())
    return file_id


def test_bytes_without_a_row_are_swept_when_they_are_due(http: httpx.Client, server: Server) -> None:
    project_id = http.get("files").headers["openai-project"]
    file_id = left_by_a_crash(server, project_id, settled=False, due_at=1)
    assert f"files/{file_id}" in stored(server) & loose(server)
    sweep(server)
    sweep(server)
    assert f"files/{file_id}" not in stored(server) | loose(server)


def test_bytes_that_may_still_get_their_row_are_not_swept(http: httpx.Client, server: Server) -> None:
    project_id = http.get("files").headers["openai-project"]
    file_id = left_by_a_crash(server, project_id, settled=False, due_at=2**40)
    sweep(server)
    assert f"files/{file_id}" in stored(server) & loose(server)
    server.loop.run(server.resources.database.fetch(delete(loose_blobs).where(loose_blobs.c.key == f"files/{file_id}")))


def test_bytes_whose_row_is_there_are_never_swept(http: httpx.Client, server: Server) -> None:
    project_id = http.get("files").headers["openai-project"]
    file_id = left_by_a_crash(server, project_id, settled=True, due_at=1)
    sweep(server)
    assert http.get(f"files/{file_id}/content").content == b"Hello"


def test_what_a_killed_writer_has_left_is_swept(http: httpx.Client, server: Server) -> None:
    project_id = http.get("files").headers["openai-project"]
    file_id = left_by_a_crash(server, project_id, settled=False, due_at=1)
    folder = server.resources.settings.data_dir / "storage" / "files"
    (folder / file_id).rename(folder / f"{file_id}#1")
    sweep(server)
    assert not list(folder.glob(f"{file_id}*"))


def test_bytes_that_are_gone_are_a_fault_of_the_server(http: httpx.Client, server: Server) -> None:
    file_id = sent(http)["id"]
    (server.resources.settings.data_dir / "storage" / "files" / file_id).unlink()
    assert http.get(f"files/{file_id}/content").status_code == 500


# --- Lists


def test_lists_are_newest_first_filtered_by_purpose_and_paged(http: httpx.Client, sdk: OpenAI) -> None:
    made = [sent(http, purpose=purpose)["id"] for purpose in ("vision", "batch", "vision", "evals", "vision")]
    assert [each.id for each in sdk.files.list()] == made[::-1]
    assert [each.id for each in sdk.files.list(purpose="vision")] == [made[4], made[2], made[0]]
    assert [each.id for each in sdk.files.list(order="asc", limit=2)] == made
    page = http.get("files", params={"limit": 2, "after": made[3]}).json()
    assert page["object"] == "list"
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([made[2], made[1]], True)
    assert (page["first_id"], page["last_id"]) == (made[2], made[1])
    assert http.get("files", params={"purpose": "unknown"}).json()["data"] == []


def test_a_list_holds_ten_thousand_files(http: httpx.Client) -> None:
    assert http.get("files", params={"limit": 10_000}).status_code == 200


@pytest.mark.parametrize("limit", ["0", "10001", "-1", "x", "1.5", "", "9" * 400])
def test_a_limit_out_of_range_is_refused(http: httpx.Client, limit: str) -> None:
    message = "limit must be between 1 and 10000."
    assert refusal(http.get("files", params={"limit": limit})) == (400, message, "limit")


def test_an_unknown_cursor_is_refused(http: httpx.Client) -> None:
    assert refusal(http.get("files", params={"after": "file-x"})) == (404, "Resource not found.", "after")


# --- Downloads


@pytest.mark.parametrize("purpose", ["assistants", "user_data"])
def test_some_purposes_are_not_given_back(sdk: OpenAI, purpose: Any) -> None:
    made = sdk.files.create(file=("a.txt", b"Hello"), purpose=purpose)
    with pytest.raises(BadRequestError, match=f"Not allowed to download files of purpose: {purpose}"):
        sdk.files.content(made.id)


@pytest.mark.parametrize(
    ("asked", "content", "told"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("BYTES=0-1", b"01", "bytes 0-1/10"),
    ],
)
def test_a_range_of_bytes_is_sent(http: httpx.Client, asked: str, content: bytes, told: str) -> None:
    path = f"files/{sent(http, b'0123456789')['id']}/content"
    response = http.get(path, headers={"range": asked})
    assert (response.status_code, response.content) == (206, content)
    assert response.headers["content-range"] == told
    assert response.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("asked", ["bytes=4-2", "bytes=x", "items=0-1", "bytes=0-1,3-4", "bytes=", "bytes=-", "0-1"])
def test_a_range_that_makes_no_sense_is_passed_over(http: httpx.Client, asked: str) -> None:
    response = http.get(f"files/{sent(http, b'0123456789')['id']}/content", headers={"range": asked})
    assert (response.status_code, response.content) == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_a_range_without_a_byte_is_refused(http: httpx.Client, asked: str) -> None:
    response = http.get(f"files/{sent(http, b'0123456789')['id']}/content", headers={"range": asked})
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */10")
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_range_counts_only_for_the_file_that_its_client_has(http: httpx.Client) -> None:
    path = f"files/{sent(http, b'0123456789')['id']}/content"
    etag = http.get(path).headers["etag"]
    ask = {"range": "bytes=0-1"}
    assert http.get(path, headers=ask | {"if-range": etag}).status_code == 206
    assert http.get(path, headers=ask | {"if-range": '"other"'}).status_code == 200


def test_head_answers_as_get_without_the_bytes(http: httpx.Client) -> None:
    path = f"files/{sent(http, b'0123456789')['id']}/content"
    head, get = http.head(path), http.get(path)
    own = ("x-request-id", "openai-processing-ms", "date")
    assert head.status_code == 200
    assert head.content == b""
    assert {n: v for n, v in head.headers.items() if n not in own} == {
        n: v for n, v in get.headers.items() if n not in own
    }


# --- Storage and quota


def test_a_project_keeps_no_more_than_its_quota(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database(), storage_quota_gb=1e-6, api_keys="one:one,two:two")
    with serving(loop, settings) as server, httpx.Client(base_url=server.base_url) as client:
        client.headers["authorization"] = "Bearer one"
        first = sent(client, b"x" * 600)
        refused = send(client, b"x" * 500)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "storage_quota_exceeded")
        assert refused.headers["x-should-retry"] == "false"
        assert stored(server) == {f"files/{first['id']}"}
        client.headers["authorization"] = "Bearer two"
        sent(client, b"x" * 1000)
        client.headers["authorization"] = "Bearer one"
        client.delete(f"files/{first['id']}")
        sent(client, b"x" * 1000)


def test_a_storage_that_is_gone_is_an_error_that_says_so(loop: Loop, new_database: Callable[[], str]) -> None:
    with (
        serving(loop, Settings(database_url=new_database())) as server,
        httpx.Client(base_url=server.base_url) as client,
    ):
        file_id = sent(client)["id"]
        folder = server.resources.settings.data_dir / "storage"
        folder.rename(folder.with_name("away"))
        folder.write_text("no folder any more")
        for refused in (send(client), client.get(f"files/{file_id}/content")):
            assert refused.status_code == 503
            assert refused.json()["error"]["message"].startswith("The file storage does not answer at the moment.")
        ready = client.get(f"{server.url}/readyz")
        assert (ready.status_code, ready.json()["components"]["storage"]) == (503, "does not answer")
        folder.unlink()
        folder.with_name("away").rename(folder)
        assert client.get(f"files/{file_id}/content").content == b"Hello"
        assert client.get(f"{server.url}/readyz").status_code == 200
