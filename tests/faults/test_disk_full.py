"""A data folder on a disk that is full: what cannot be kept is refused, what was kept stays, and it goes on."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.processes import serve, small_disk
from tests.runs.transcripts import Conversation, converse, eventually, sent

pytestmark = pytest.mark.slow

SIZE_MB = 240


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(SIZE_MB) as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Take all the room that there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 2**16)
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 512)
    assert psutil.disk_usage(str(disk)).free == 0
    return ballast


def upload(http: httpx.Client, content: bytes) -> httpx.Response:
    return http.post("/files", data={"purpose": "assistants"}, files={"file": ("a.txt", content)})


def test_what_a_full_disk_cannot_keep_is_refused_and_goes_on_when_there_is_room(disk: Path) -> None:
    with serve(disk / "data") as server, server.client() as http:
        talk = converse(http, "[[say: Kept.]]")
        assert talk.completed() == "Kept."
        kept = {sent(upload(http, b"Hello"))["id"]}
        ballast = fill(disk)
        storage = upload(http, os.urandom(2**20))
        check_refused(storage, "The disk of the file storage is full")
        said = [content for content in big_messages() if is_taken(talk, content)]
        assert len(said) < 200, "the database had room for all of them"
        ballast.unlink()
        eventually(lambda: upload(http, b"again").status_code == 200, within_s=60)
        eventually(lambda: http.get(talk.path).status_code == 200, within_s=60)
        listed = sent(http.get("/files"))["data"]
        kept |= {file["id"] for file in listed}
        assert {path.name for path in (disk / "data" / "storage" / "files").iterdir()} == kept
        again = Conversation(http, talk.assistant_id, talk.thread_id)
        assert all_said(again) == ["[[say: Kept.]]", "Kept.", *said]
        talk.say("[[say: There is room.]]")
        assert talk.completed() == "There is room."
        assert server.stop(within_s=60) == 0


def big_messages() -> Iterator[str]:
    for number in range(200):
        yield f"{number} " + os.urandom(100_000).hex()


def is_taken(talk: Conversation, content: str) -> bool:
    """Whether a message is acknowledged; else it is refused as it should be."""
    response = talk.http.post(f"{talk.path}/messages", json={"role": "user", "content": content})
    if response.status_code == 200:
        return True
    check_refused(response, "database")
    return False


def check_refused(response: httpx.Response, told: str) -> None:
    assert (response.status_code, response.headers["retry-after"]) == (503, "1"), response.text
    error = response.json()["error"]
    assert error["type"] == "server_error"
    assert told in error["message"]


def all_said(talk: Conversation) -> list[str]:
    """The texts of a thread, all pages of them."""
    texts: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = sent(talk.http.get(f"{talk.path}/messages", params={"order": "asc", "limit": 100, **after}))
        texts += [message["content"][0]["text"]["value"] for message in page["data"]]
        if not page["has_more"]:
            return texts
        after = {"after": page["last_id"]}
