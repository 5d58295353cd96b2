"""`adlatus import` and `adlatus export` as commands, beside a server and without one; and how they are documented."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from adlatus.cli import _parser
from adlatus.wire.exports import LAST_INSTANT
from tests.conftest import Server
from tests.faults.processes import adlatus, data_folder, run, serve
from tests.runs.transcripts import eventually
from tests.transfer.transfers import Transfers, message, put, thread, write

DOCUMENT = (Path(__file__).parents[2] / "docs" / "migrating-data.md").read_text("utf-8")
MESSAGES = 20_000


def count(said: str, kind: str) -> list[int]:
    [row] = re.findall(rf"^{re.escape(kind)} +(\d+) +(\d+) +(\d+) +(\d+)$", said, re.M)
    return [int(number) for number in row]


@pytest.mark.slow
def test_the_commands_work_beside_a_server_and_without_one(tmp_path: Path) -> None:
    source = str(write(tmp_path / "in" / "all.jsonl", [thread(), message()]))
    with data_folder() as folder:
        at = ("--data-dir", str(folder))
        code, said = run("import", source, *at)  # makes the database
        assert (code, count(said, "thread.message")) == (0, [1, 0, 0, 0])
        with serve(folder) as server, server.client() as http:
            more = str(write(tmp_path / "more.jsonl", [message(1), {"object": "thread"}]))
            code, said = run("import", more, *at)
            assert (code, count(said, "thread.message"), f"{more}:2: " in said) == (1, [1, 0, 0, 0], True)
            shown = http.get("threads/thread_t/messages").json()["data"]
            assert [each["id"] for each in shown] == ["msg_t1", "msg_t0"]
            code, said = run("export", str(tmp_path / "out"), *at)
            assert (code, re.findall(r"^thread\.message +(\d+)$", said, re.M)) == (0, ["2"])
            assert server.stop(signal.SIGTERM) == 0


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_killed_import_goes_on(tmp_path: Path) -> None:
    source = write(tmp_path / "all.jsonl", [thread(), *(message(number) for number in range(MESSAGES))])
    with data_folder() as folder, serve(folder) as server, server.client() as http:
        with adlatus("import", str(source), "--data-dir", str(folder)) as importing:
            eventually(
                lambda: http.get("threads/thread_t/messages", params={"limit": 1}).json().get("data"), within_s=120
            )
            importing.kill()
        code, said = run("import", str(source), "--data-dir", str(folder))
        created, unchanged, *others = count(said, "thread.message")
        assert (code, created + unchanged, others) == (0, MESSAGES, [0, 0])
        assert 0 < created < MESSAGES, "it was killed in the middle"


def test_the_objects_of_the_documentation_are_imported(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    [lines] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)
    (tmp_path / "objects.jsonl").write_text(lines, "utf-8")
    put(tmp_path, "abc", b"Hello")
    told = transfers.bring(tmp_path, project=project)
    assert told.code == 0, told.text
    shown = [json.loads(line) for line in lines.splitlines()]
    assert client.get("threads/thread_abc/messages").json()["data"][0]["content"] == shown[2]["content"]
    assert client.get("vector_stores/vs_abc/files/file-abc").json()["attributes"] == {"year": 2024}
    assert all(line["created_at"] < LAST_INSTANT for line in shown)


def test_the_program_of_the_documentation_fetches_what_is_imported(
    served: Server, transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    client.post("assistants", json={"model": "gpt-4o", "name": "Tutor"}).raise_for_status()
    thread_id = client.post("threads", json={"messages": [{"role": "user", "content": "Hello"}]}).json()["id"]
    [program] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
    for shown, here in (
        ("http://127.0.0.1:8000/v1", served.base_url),
        ('"any"', repr(project.replace("project", "key"))),
        ("thread_abc", thread_id),
    ):
        assert shown in program
        program = program.replace(shown, here)
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, check=True)
    told = transfers.bring(tmp_path / "objects.jsonl", project=project)
    assert [told.counts(kind) for kind in ("assistant", "thread", "thread.message")] == [[0, 1, 0, 0]] * 3


def test_the_commands_of_the_documentation_are_those_there_are() -> None:
    commands = re.findall(r"^adlatus ((?:import|export) [^#\n]+)", DOCUMENT, re.M)
    assert len(commands) == 4
    parsed = [_parser().parse_args(command.split()) for command in commands]
    assert [getattr(each, "dry_run", None) for each in parsed] == [True, False, None, False]
