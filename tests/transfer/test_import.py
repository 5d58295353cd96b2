"""Objects from files: what is written, what is told, and what stays as it is."""

import asyncio
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from adlatus.errors import StartupError
from adlatus.store import projects
from adlatus.transfer import commands
from tests.conftest import Server
from tests.retrieval.ingesting import found_by, until_settled
from tests.runs.stored import execute
from tests.runs.transcripts import eventually
from tests.transfer.transfers import (
    AT,
    Json,
    Transfers,
    assistant,
    file,
    message,
    put,
    run,
    store,
    store_file,
    thread,
    write,
)

MESSAGES = 10_000


def everything() -> list[Json]:
    """An object of every kind, what is needed last."""
    step = {
        "object": "thread.run.step",
        "id": "step_s",
        "created_at": AT,
        "run_id": "run_r",
        "thread_id": "thread_t",
        "assistant_id": "asst_a",
        "type": "message_creation",
        "status": "completed",
        "completed_at": AT + 1,
        "step_details": {"type": "message_creation", "message_creation": {"message_id": "msg_t1"}},
    }
    batch = {"object": "vector_store.files_batch", "id": "vsfb_b", "created_at": AT, "vector_store_id": "vs_v"}
    return [
        step,
        run(),
        message(1, role="assistant", assistant_id="asst_a", run_id="run_r"),
        message(0),
        thread(),
        assistant(tool_resources={"file_search": {"vector_store_ids": ["vs_v"]}}, tools=[{"type": "file_search"}]),
        store_file(batch_id="vsfb_b", attributes={"year": 2024}),
        batch,
        store(expires_after={"anchor": "last_active_at", "days": 365}),
        file(),
    ]


def own(objects: list[Json], mark: str) -> list[Json]:
    """The objects with ids of a test's own: ids are of one object, whatever its project."""
    text = re.sub(
        r'"((?:asst|thread|msg|run|step|vs|vsfb)_|file-)(?!ids?"|details")', rf'"\1{mark}', json.dumps(objects)
    )
    renamed: list[Json] = json.loads(text)
    return renamed


def named(project: str) -> str:
    """What makes the ids of a test its own."""
    return project.replace("project-", "p") + "x"


def paths(mark: str) -> list[str]:
    """Where everything is afterwards."""
    at = f"threads/thread_{mark}t"
    in_store = f"vector_stores/vs_{mark}v"
    return [
        f"files/file-{mark}f",
        in_store,
        f"{in_store}/files/file-{mark}f",
        f"{in_store}/file_batches/vsfb_{mark}b",
        f"assistants/asst_{mark}a",
        at,
        f"{at}/messages",
        f"{at}/runs/run_{mark}r",
        f"{at}/runs/run_{mark}r/steps",
    ]


def listed(client: httpx.Client, path: str, **params: str) -> list[Json]:
    """All of a list, the oldest first."""
    found: list[Json] = []
    while True:
        page = client.get(path, params={"order": "asc", "limit": "100", **params}).raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found
        params["after"] = page["last_id"]


def test_lines_may_come_in_any_order(transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path) -> None:
    mark = named(project)
    put(tmp_path, f"{mark}f")
    told = transfers.bring(write(tmp_path / "all.jsonl", own(everything(), mark)), project=project)
    assert told.code == 0, told.text
    assert told.counts("thread.message") == [2, 0, 0, 0]
    shown = [client.get(path).raise_for_status().json() for path in paths(mark)]
    assert shown[4]["tool_resources"] == {"file_search": {"vector_store_ids": [f"vs_{mark}v"]}}
    assert [each["created_at"] for each in shown if "created_at" in each] == [AT] * 7
    assert [each["id"] for each in shown[6]["data"]] == [f"msg_{mark}t1", f"msg_{mark}t0"]
    assert "not there" not in told.text


def test_a_second_time_changes_nothing(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    put(tmp_path, f"{mark}f")
    source = write(tmp_path / "all.jsonl", own(everything(), mark))
    transfers.bring(source, project=project)
    until_settled(client, f"vs_{mark}v")
    before = [client.get(path).text for path in paths(mark)]
    told = transfers.bring(source, project=project)
    assert told.code == 0
    kinds = ("file", "vector_store", "vector_store.file", "assistant", "thread", "thread.run", "thread.run.step")
    assert {kind: told.counts(kind) for kind in kinds} == {kind: [0, 1, 0, 0] for kind in kinds}
    assert [client.get(path).text for path in paths(mark)] == before


def test_an_import_that_is_stopped_goes_on_when_it_is_repeated(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    source = write(tmp_path / "many.jsonl", [thread(mark), *(message(number, mark) for number in range(4000))])
    work = commands.bring(transfers.settings, project, [source], dry_run=False, say=lambda _: None)
    importing = asyncio.run_coroutine_threadsafe(work, transfers.loop._loop)
    eventually(lambda: client.get(f"threads/thread_{mark}/messages", params={"limit": 1}).json().get("data"))
    assert importing.cancel()
    there = listed(client, f"threads/thread_{mark}/messages")
    assert 0 < len(there) < 4000
    created, unchanged, *others = transfers.bring(source, project=project).counts("thread.message")
    assert (created + unchanged, others) == (4000, [0, 0])
    assert unchanged >= len(there)
    found = listed(client, f"threads/thread_{mark}/messages")
    assert [each["id"] for each in found] == [f"msg_{mark}{number}" for number in range(4000)]


def test_what_is_there_and_differs_is_told_and_stays(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    source = write(tmp_path / "one.jsonl", [assistant(mark, name="First")])
    transfers.bring(source, project=project)
    client.post(f"assistants/asst_{mark}", json={"name": "Mine", "instructions": "Go on."}).raise_for_status()
    told = transfers.bring(source, project=project)
    assert (told.code, told.counts("assistant")) == (0, [0, 0, 1, 0])
    assert f"one.jsonl:1: assistant asst_{mark}: is there already with another name, instructions;" in told.text
    assert client.get(f"assistants/asst_{mark}").json()["name"] == "Mine"


def test_a_dry_run_tells_the_same_and_writes_nothing(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    put(tmp_path, f"{mark}f")
    lines = [*own(everything(), mark), message(2, f"{mark}gone"), store_file(f"{mark}nowhere", f"{mark}v")]
    source = write(tmp_path / "all.jsonl", lines)
    dry = transfers.bring(source, project=project, dry_run=True)
    assert [client.get(path).status_code for path in paths(mark)] == [404] * len(paths(mark))
    assert client.get("threads").json()["data"] == []
    real = transfers.bring(source, project=project)
    assert dry.code == real.code == 1
    assert "would be created" in dry.text
    heads = (dry.lines.index(next(line for line in dry.lines if "unchanged" in line)), "created")
    assert [line.split() for line in dry.lines[heads[0] + 1 :]] == [line.split() for line in real.lines[heads[0] + 1 :]]
    assert dry.lines[: heads[0]] == real.lines[: heads[0]]


GOOD = [assistant("good"), thread("good")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no JSON"),
        ("[1]", "expected an object, but got an integer"),
        ("null", "expected an object, but got null"),
        ('"text"', "expected an object, but got a string"),
        ('{"object": "assistant", "id": "asst_\ud83d"}', "no JSON"),
        ("[" * 5000 + "]" * 5000, "no JSON"),
        ('{"id": "asst_x"}', "its 'object' should say what it is"),
        ('{"object": 7}', "its 'object' should say what it is"),
        (thread(id="asst_wrong"), "Invalid 'id'"),
        (thread(id="thread_../../etc"), "Invalid 'id'"),
        (file(id="../file-x"), "Invalid 'id'"),
        (thread(id=None), "Invalid type for 'id'"),
        ({"object": "thread", "id": "thread_x"}, "Missing required parameter: 'created_at'."),
        (thread(created_at="1700000000"), "Invalid type for 'created_at'"),
        (thread(created_at=AT * 1000), "Invalid 'created_at'"),
        (thread(created_at=-1), "Invalid 'created_at'"),
        (thread(metadata={"k": "v" * 513}), "Invalid 'metadata.k'"),
        (thread(metadata={"k": "\0"}), "NUL"),
        (thread(tool_resources={"code_interpreter": {"file_ids": [1]}}), "file_ids"),
        (assistant(tools=[{"type": "retrieval"}]), "Invalid value: 'retrieval'."),
        (assistant(tools=[{"type": "function", "function": {"name": "no name"}}]), "does not match"),
        (assistant(temperature=7), "Invalid 'temperature'"),
        (assistant(model=None), "Invalid type for 'model'"),
        (message(role="system"), "Invalid value: 'system'."),
        (message(content="Hello"), "Invalid type for 'content'"),
        (message(content=[{"type": "text", "text": "Hello"}]), "Invalid type for 'content[0].text'"),
        (message(content=[{"type": "audio"}]), "Invalid value: 'audio'."),
        (run("sleeping"), "Invalid value: 'sleeping'."),
        (run(max_prompt_tokens=2**31), "Invalid 'max_prompt_tokens'"),
        (store(expires_after={"anchor": "last_active_at", "days": 0}), "expires_after.days"),
        (file(purpose="world_domination"), "Invalid value: 'world_domination'."),
        (file(bytes=-1), "Invalid 'bytes'"),
        (file(path="../../etc/passwd"), "its path leads out of"),
        (file("nowhere"), "its bytes are not at"),
        (store_file("nowhere", "nowhere"), "the file file-nowhere that it belongs to is not there"),
        ({**everything()[0], "run_id": "run_nowhere"}, "is not there"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_taken_is_told_with_its_line_and_stops_nothing(
    transfers: Transfers, project: str, tmp_path: Path, line: Any, reason: str
) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    source = tmp_path / "odd.jsonl"
    source.write_bytes("\n".join([json.dumps(GOOD[0]), "", text, json.dumps(GOOD[1])]).encode(errors="surrogatepass"))
    told = transfers.bring(source, project=project, dry_run=True)
    assert told.code == 1
    [refused] = [each for each in told.lines if ": refused: " in each]
    assert refused.startswith(f"{source}:3"), refused
    assert reason in refused
    assert told.counts("assistant")[0] == told.counts("thread")[0] == 1


def test_an_id_of_another_project_is_refused(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    put(tmp_path, f"{mark}f")
    source = write(tmp_path / "all.jsonl", own(everything(), mark))
    transfers.bring(source, project=project)
    before = [client.get(path).text for path in paths(mark)[4:]]
    told = transfers.bring(source, project="default")
    assert told.code == 1
    assert told.counts("assistant") == told.counts("file") == [0, 0, 0, 1]
    assert f"asst_{mark}a: refused: another project has it" in told.text
    strangers = write(tmp_path / "more.jsonl", [message(7, f"{mark}t")])
    told = transfers.bring(strangers, project="default")
    assert f"the thread thread_{mark}t that it belongs to is another project's" in told.text
    assert [client.get(path).text for path in paths(mark)[4:]] == before


def same_second(mark: str) -> list[Json]:
    """Messages of which three and three are of one second, the oldest first."""
    return [message(number, mark, created_at=AT + number // 3) for number in range(6)]


@pytest.mark.parametrize("kind", ["lines", "lines, newest first", "pages", "pages, oldest first", "array"])
def test_messages_of_one_second_keep_their_order(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path, kind: str
) -> None:
    mark = named(project)
    messages = same_second(mark)
    oldest_first = "newest" not in kind and kind != "pages"
    shown = messages if oldest_first else messages[::-1]
    if "pages" in kind:
        shown = [{"object": "list", "data": shown[:2]}, {"object": "list", "data": shown[2:]}]
    source = tmp_path / "messages.json"
    lines = json.dumps(shown) if kind == "array" else "\n".join(json.dumps(each) for each in shown)
    source.write_text(lines, "utf-8")
    assert transfers.bring(source, project=project).code == 0
    found = listed(client, f"threads/thread_{mark}/messages")
    assert [each["id"] for each in found] == [each["id"] for each in messages]


def test_a_thread_that_is_missing_is_made_for_its_messages(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    told = transfers.bring(
        write(tmp_path / "messages.jsonl", [message(number, mark) for number in (5, 3, 4)]), project=project
    )
    assert (told.code, "1 thread(s) were not among the objects" in told.text) == (0, True)
    made = client.get(f"threads/thread_{mark}").raise_for_status().json()
    assert (made["created_at"], made["metadata"]) == (AT + 3, {})


def test_what_is_named_and_missing_is_told_and_the_names_stay(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    resources = {
        "code_interpreter": {"file_ids": ["file-nowhere"]},
        "file_search": {"vector_store_ids": ["vs_nowhere"]},
    }
    lines = [
        assistant(mark, tool_resources=resources),
        message(0, mark, role="assistant", assistant_id="asst_nowhere", run_id="run_nowhere"),
    ]
    told = transfers.bring(write(tmp_path / "some.jsonl", lines), project=project)
    assert told.code == 0
    for missing in ("file file-nowhere", "vector_store vs_nowhere", "assistant asst_nowhere", "thread.run run_nowhere"):
        assert f"names the {missing}, which is not there" in told.text
    assert client.get(f"assistants/asst_{mark}").json()["tool_resources"] == resources
    assert client.get(f"threads/thread_{mark}/messages").json()["data"][0]["assistant_id"] == "asst_nowhere"


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        *(("queued", "expired"), ("in_progress", "expired"), ("requires_action", "expired")),
        *(("cancelling", "cancelled"), ("expired", "expired"), ("cancelled", "cancelled"), ("failed", "failed")),
        *(("completed", "completed"), ("incomplete", "incomplete")),
    ],
)
def test_runs_that_had_not_ended_have_ended_here(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path, status: str, ended: str
) -> None:
    step = {**everything()[0], "status": "in_progress", "completed_at": None}
    written = message(1, run_id="run_r", role="assistant", status="in_progress")
    mark = named(project)
    source = write(tmp_path / "run.jsonl", own([run(status, expires_at=AT + 600), step, written], mark))
    assert transfers.bring(source, project=project).code == 0
    assert transfers.bring(source, project=project).counts("thread.run") == [0, 1, 0, 0]
    at = f"threads/thread_{mark}t"
    shown = client.get(f"{at}/runs/run_{mark}r").raise_for_status().json()
    assert (shown["status"], shown["expires_at"], shown["required_action"]) == (ended, None, None)
    assert listed(client, f"{at}/runs/run_{mark}r/steps")[0]["status"] == "expired"
    assert listed(client, f"{at}/messages")[0]["status"] == "incomplete"
    body = {"role": "user", "content": "More"}
    assert client.post(f"{at}/messages", json=body).status_code == 200  # the thread is not locked


def test_files_lie_by_their_ids_or_at_their_paths(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    put(tmp_path, f"{mark}one", b"One")
    put(tmp_path, f"{mark}short", b"Sho")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "two.txt").write_bytes(b"Two!")
    lines = [
        file(f"{mark}one", b"One", purpose="vision"),
        file(f"{mark}two", b"Two!", purpose="vision", path="docs/two.txt"),
        file(f"{mark}short", b"Short"),
        file(f"{mark}old", expires_at=AT + 3600),
    ]
    told = transfers.bring(write(tmp_path / "files.jsonl", lines), project=project)
    assert (told.code, told.counts("file")) == (1, [2, 0, 0, 1])
    assert "it has 5 bytes, but" in told.text
    assert "1 of expired file" in told.text
    assert client.get(f"files/file-{mark}one/content").content == b"One"
    assert client.get(f"files/file-{mark}two/content").content == b"Two!"
    shown = client.get(f"files/file-{mark}two").json()
    assert (shown["filename"], shown["created_at"], shown["bytes"]) == (f"{mark}two.txt", AT, 4)


def test_bytes_of_a_writer_that_died_are_written_again(
    served: Server, transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    """And those that are about to be deleted are waited for."""
    mark = named(project)
    put(tmp_path, f"{mark}f")
    source = write(tmp_path / "files.jsonl", [file(f"{mark}f")])
    database = served.resources.database
    loosen = "INSERT INTO loose_blobs (key, project_id, due_at) VALUES ($1, $2, $3)"
    key = f"files/file-{mark}f"
    transfers.loop.run(execute(database, loosen, key, project, 0))
    told = transfers.bring(source, project=project)
    assert (told.code, "is still being removed" in told.text) == (1, True)
    due = "UPDATE loose_blobs SET due_at = $2 WHERE key = $1"
    transfers.loop.run(execute(database, due, key, 2**40))
    assert transfers.bring(source, project=project).counts("file") == [1, 0, 0, 0]


def test_files_of_stores_are_indexed_by_the_server_that_runs(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    put(tmp_path, f"{mark}f", b"Filip likes cake.")
    put(tmp_path, f"{mark}bad", b"Filip likes none.")
    small = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}}
    error = {"code": "unsupported_file", "message": "The file type is not supported."}
    lines = [
        store(mark, last_active_at=AT + 5),
        file(f"{mark}f", b"Filip likes cake."),
        file(f"{mark}bad", b"Filip likes none."),
        store_file(f"{mark}f", mark, attributes={"year": 2024}, chunking_strategy=small),
        store_file(f"{mark}bad", mark, status="failed", last_error=error, chunking_strategy={"type": "other"}),
    ]
    assert transfers.bring(write(tmp_path / "all.jsonl", lines), project=project).code == 0
    counted = until_settled(client, f"vs_{mark}")
    assert (counted["completed"], counted["failed"]) == (1, 1)
    assert client.get(f"vector_stores/vs_{mark}").json()["last_active_at"] == AT + 5
    assert found_by(client, f"vs_{mark}", "cake.") == [f"file-{mark}f"]
    shown = client.get(f"vector_stores/vs_{mark}/files/file-{mark}f").json()
    assert (shown["attributes"], shown["chunking_strategy"]) == ({"year": 2024}, small)
    assert client.get(f"vector_stores/vs_{mark}/files/file-{mark}bad").json()["last_error"] == error


def test_the_last_version_of_an_object_counts_with_what_earlier_ones_told(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    later = {"object": "assistant", "id": f"asst_{mark}", "created_at": AT, "model": "gpt-5"}
    told = transfers.bring(write(tmp_path / "versions.jsonl", [assistant(mark, name="Tutor"), later]), project=project)
    assert (told.counts("assistant"), "1 object(s) were there more than once" in told.text) == ([1, 0, 0, 0], True)
    shown = client.get(f"assistants/asst_{mark}").json()
    assert (shown["name"], shown["model"], shown["temperature"]) == ("Tutor", "gpt-5", None)


def test_other_objects_are_passed_over_and_counted(transfers: Transfers, project: str, tmp_path: Path) -> None:
    lines: list[Json] = [
        {"object": "model", "id": "gpt-4o"},
        {"object": "assistant.deleted", "id": "asst_x", "deleted": True},
        {"object": "file", "id": "file-x", "deleted": True},
        {"object": "conversation", "id": "conv_x"},
    ]
    told = transfers.bring(write(tmp_path / "others.jsonl", lines), project=project)
    counted = "1 of assistant.deleted, 1 of conversation, 1 of file.deleted, 1 of model."
    assert (told.code, told.lines[-1]) == (0, f"Passed over, as they are not imported: {counted}")


def test_folders_are_read_without_the_bytes_of_files(transfers: Transfers, project: str, tmp_path: Path) -> None:
    mark = named(project)
    write(tmp_path / "a" / "one.ndjson", [thread(f"{mark}1")])
    (tmp_path / "b.JSON").write_text(json.dumps(thread(f"{mark}2"), indent=2), "utf-8")
    (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(thread(f"{mark}3")).encode() + b"\r\n")
    write(tmp_path / "files" / "data.json", [thread(f"{mark}4")])
    (tmp_path / "readme.txt").write_text("no JSON")
    assert transfers.bring(tmp_path, project=project, dry_run=True).counts("thread") == [3, 0, 0, 0]
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(StartupError):
            transfers.bring(nothing)


def test_a_quota_counts_files_that_are_brought_in_and_a_projects_own_limit_takes_its_place(
    transfers: Transfers, served: Server, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    for name in ("a", "b"):
        put(tmp_path, f"{mark}{name}", b"x" * 60)
    source = write(tmp_path / "files.jsonl", [file(f"{mark}{name}", b"x" * 60) for name in "ab"])
    limited = Transfers(transfers.loop, transfers.settings.model_copy(update={"storage_quota_gb": 100 / 10**9}))
    told = limited.bring(source, project=project)
    assert (told.code, told.counts("file"), "larger than its quota" in told.text) == (1, [1, 0, 0, 1], True)
    assert client.get(f"files/file-{mark}b").status_code == 404
    served.loop.run(projects.limit(served.resources.database, project, {"storage_bytes": 1000}))
    assert limited.bring(source, project=project).code == 0
    assert client.get(f"files/file-{mark}b").status_code == 200


def test_a_run_goes_on_over_whatever_a_history_holds(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    """What only older servers wrote: no words, refusals, calls without results, files that are gone."""
    mark = named(project)
    calls = [
        {"id": "call_1", "type": "file_search", "file_search": {}},
        {"id": "call_2", "type": "code_interpreter", "code_interpreter": {"input": "1"}},
        {"id": "call_3", "type": "function", "function": {"name": "now"}},
        {"id": "call_4", "type": "function", "function": {"name": "now", "arguments": "no JSON", "output": "Noon"}},
    ]
    called = {"type": "tool_calls", "step_details": {"type": "tool_calls", "tool_calls": calls}}
    lines = [
        assistant(),
        message(0, content=[]),
        message(1, content=[{"type": "image_file", "image_file": {"file_id": "file-gone"}}]),
        run(),
        {**everything()[0], **called},
        message(2, role="assistant", run_id="run_r", content=[{"type": "refusal", "refusal": "No."}]),
        message(3, content=[{"type": "text", "text": {"value": "[[say: Hello]]"}}]),
    ]
    assert transfers.bring(write(tmp_path / "odd.jsonl", own(lines, mark)), project=project).code == 0
    at = f"threads/thread_{mark}t"
    assert client.get(f"{at}/runs/run_{mark}r/steps").status_code == 200
    body = {"assistant_id": f"asst_{mark}a", "stream": True}
    assert "event: thread.run.completed" in client.post(f"{at}/runs", json=body).text
    said = client.get(f"{at}/messages").json()["data"][0]["content"]
    assert said[0]["text"]["value"] == "Hello"


@pytest.mark.slow
def test_ten_thousand_messages_come_in_whole_and_in_order(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = named(project)
    text = "Ein längerer Satz, 好的, \U0001f469\u200d\U0001f4bb. " * 20
    content = [{"type": "text", "text": {"value": text, "annotations": []}}]
    messages = [
        message(number, mark, created_at=AT + number // 7, content=content, metadata={"number": str(number)})
        for number in range(MESSAGES)
    ]
    pages = [{"object": "list", "data": messages[at : at + 100][::-1]} for at in range(0, MESSAGES, 100)][::-1]
    source = write(tmp_path / "pages.jsonl", [thread(mark, metadata={"a": "1"}), *pages])
    told = transfers.bring(source, project=project)
    assert (told.code, told.counts("thread.message")) == (0, [MESSAGES, 0, 0, 0])
    assert transfers.bring(source, project=project).counts("thread.message") == [0, MESSAGES, 0, 0]
    found = listed(client, f"threads/thread_{mark}/messages")
    assert [{key: each[key] for key in messages[0]} for each in found] == messages
    assert all(earlier["created_at"] <= later["created_at"] for earlier, later in pairwise(found))
