"""Workers as processes of their own: what one of them can do is known to all, until it stops or is dead."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from adlatus.store import executors
from adlatus.store.db import Database
from tests.conftest import Loop, missing
from tests.faults.processes import Process, adlatus, prepared_folder, run, serve
from tests.runs.stored import execute
from tests.runs.transcripts import Conversation, converse, eventually

CODE = {"type": "code_interpreter"}
OFF = "The code interpreter is switched off (ADLATUS_SANDBOX=off)."


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder with an environment for bubblewrap's sandboxes."""
    if shutil.which("bwrap") is None:
        missing("bubblewrap", "bwrap is not installed")
    with prepared_folder() as folder:
        if not any((folder / "sandbox").glob("programs-*")):
            missing("bubblewrap", "run `adlatus sandbox prepare`")
        yield folder


def refusal(talk: Conversation) -> str:
    response = talk.http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id})
    assert response.status_code == 400, response.text
    message: str = response.json()["error"]["message"]
    return message


def test_code_goes_to_the_worker_that_can_execute_it(
    loop: Loop, database: Database, database_url: str, folder: Path
) -> None:
    def workers(*, able: bool) -> list[str]:
        rows = loop.run(executors.of_runs(database))
        return [row["id"] for row in rows if row["sandbox"] == able]

    def worker_with(sandbox: str) -> AbstractContextManager[Process]:
        arguments = ("worker", "--only", "runs", "--data-dir", str(folder))
        return adlatus(*arguments, database_url=database_url, sandbox=sandbox)

    with (
        serve(folder, "--no-executor", database_url=database_url) as server,
        server.client() as http,
        worker_with("off") as unable,
    ):
        assert server.url
        [other] = eventually(lambda: workers(able=False))
        talk = converse(http, "[[say: Counted.]]", tools=[CODE])
        assert refusal(talk).endswith(OFF)
        with worker_with("bubblewrap") as able:
            eventually(lambda: workers(able=True))
            assert talk.completed() == "Counted."
            assert able.stop() == 0
            assert "Traceback" not in able.log
        assert (workers(able=True), workers(able=False)) == ([], [other])
        assert refusal(talk).endswith(OFF)
        with worker_with("bubblewrap") as able:
            [name] = eventually(lambda: workers(able=True))
            able.kill()
        left = talk.start()["id"]  # nobody knows yet
        silent = "UPDATE executors SET heartbeat = now() - interval '16 seconds' WHERE id = $1"
        loop.run(execute(database, silent, name))
        assert refusal(converse(http, "[[say: Counted.]]", tools=[CODE])).endswith(OFF)
        with worker_with("bubblewrap"):
            assert talk.ended(left)["status"] == "completed"
        assert unable.stop() == 0
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("sandbox", "path", "code", "expected"),
    [
        ("off", "", 0, "not executed: ADLATUS_SANDBOX=off"),
        ("bubblewrap", "/nowhere", 1, "bubblewrap is not installed. On Debian: apt install bubblewrap"),
        ("docker", "", 1, "not executed: the code interpreter is refused"),
        ("auto", "/nowhere", 0, "bubblewrap is not installed. On Debian: apt install bubblewrap"),
        ("bubblewrap", "", 0, "sandboxes by bubblewrap"),
    ],
)
def test_the_doctor_says_what_code_is_executed_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sandbox: str, path: str, code: int, expected: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    if path:
        monkeypatch.setenv("PATH", path)
    ended, log = run("doctor", "--data-dir", str(folder), sandbox=sandbox, port="1")
    assert (ended, expected in log) == (code, True), log
    assert "Traceback" not in log
