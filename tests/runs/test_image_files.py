"""Image files of messages: what the model is shown of them."""

import base64
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.contract.replay import events_of
from tests.runs.transcripts import client_of

PNG = b"\x89PNG\r\n\x1a\n and the rest"


def sent(http: httpx.Client, content: bytes = PNG, purpose: str = "vision") -> str:
    file = {"file": ("image.png", content)}
    file_id: str = http.post("files", data={"purpose": purpose}, files=file).json()["id"]
    return file_id


def ended(http: httpx.Client, *file_ids: str) -> dict[str, Any]:
    """A run of a thread whose message shows the files, once it has ended."""
    images = [{"type": "image_file", "image_file": {"file_id": file_id, "detail": "low"}} for file_id in file_ids]
    message = {"role": "user", "content": [{"type": "text", "text": "[[say: Nice]]"}, *images]}
    assistant_id = http.post("assistants", json={"model": "m"}).json()["id"]
    body = {"assistant_id": assistant_id, "thread": {"messages": [message]}, "stream": True}
    run: dict[str, Any] = events_of(http.post("threads/runs", json=body).text)[-2].data
    return run


def shown(server: Server, named: str) -> list[Any]:
    """The parts of the message in the newest request to the model that holds this."""
    asked = httpx.get(f"{server.model_url.removesuffix('/v1')}/requests").json()["data"]
    bodies = [request["body"] for request in asked if named in str(request["body"])]
    content: list[Any] = bodies[-1]["messages"][-1]["content"]
    return content


def test_the_model_is_shown_an_image_file_as_a_data_url(http: httpx.Client, server: Server) -> None:
    content = PNG + b" of this test"
    assert ended(http, sent(http, content))["status"] == "completed"
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    assert shown(server, url)[1:] == [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]


@pytest.mark.parametrize("fault", ["deleted", "purpose", "unknown", "foreign"])
def test_the_model_is_told_of_an_image_that_is_not_there_to_be_looked_at(
    http: httpx.Client, server: Server, fault: str
) -> None:
    file_id = (
        "file-unknown" if fault == "unknown" else sent(http, purpose="user_data" if fault == "purpose" else "vision")
    )
    if fault == "deleted":
        http.delete(f"files/{file_id}")
    if fault == "foreign":
        http.headers["authorization"] = "Bearer key-3998"
    assert ended(http, file_id)["status"] == "completed"
    told = f"[The image {file_id} is not available.]"
    assert shown(server, told)[1:] == [{"type": "text", "text": told}]


def test_a_file_that_is_no_image_fails_the_run(http: httpx.Client) -> None:
    file_id = sent(http, b"no image")
    error = ended(http, file_id)["last_error"]
    assert error == {"code": "invalid_prompt", "message": f"The file '{file_id}' is no PNG, JPEG, GIF or WebP image."}


def test_an_image_file_that_is_too_large_fails_the_run(http: httpx.Client) -> None:
    error = ended(http, sent(http, PNG + bytes(20 * 2**20)))["last_error"]
    assert error["code"] == "invalid_prompt"
    assert "An image may have 20 MiB" in error["message"]


def test_a_storage_that_does_not_answer_fails_the_run_and_says_so(loop: Loop, database_url: str) -> None:
    with serving(loop, Settings(database_url=database_url)) as server, client_of(server) as http:
        file_id = sent(http)
        storage = server.resources.settings.data_dir / "storage"
        storage.rename(storage.with_name("away"))
        storage.write_text("no folder any more")
        error = ended(http, file_id)["last_error"]
        assert error["code"] == "server_error"
        assert error["message"].startswith("The file storage does not answer")
        storage.unlink()
        storage.with_name("away").rename(storage)
        assert ended(http, file_id)["status"] == "completed"
