"""Exports as back-ups: what comes out goes in elsewhere, and applications go on there."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from adlatus.backends.blobs import Blobs
from adlatus.errors import StartupError
from adlatus.settings import Settings
from adlatus.transfer import exporting
from adlatus.transfer.kinds import KINDS
from adlatus.transfer.opening import Opened, opened
from tests.conftest import Loop, Server, serving
from tests.retrieval.ingesting import until_settled
from tests.transfer.transfers import Transfers, file, put, store, store_file, thread, write

KEY = "any"
SEARCH = '[[call: file_search {"queries": ["cake"]}]] [[say: He likes cake【4:0】.]]'


@pytest.fixture(scope="module")
def other(loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another server, which is empty."""
    settings = Settings(database_url=new_database(), data_dir=tmp_path_factory.mktemp("other"))
    with serving(loop, settings) as server:
        yield server


@dataclass
class Application:
    """An application that knows its objects by their ids only."""

    sdk: OpenAI
    ids: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        sdk = self.sdk
        notes = sdk.files.create(file=("foods.txt", b"Filip likes cake."), purpose="assistants").id
        image = sdk.files.create(file=("pixel.png", b"\x89PNG"), purpose="vision").id
        years: Any = {"year": 2024}
        expiry: Any = {"anchor": "last_active_at", "days": 7}
        kept = sdk.vector_stores.create(name="Foods", expires_after=expiry, metadata={"k": "v"}).id
        sdk.vector_stores.files.create_and_poll(notes, vector_store_id=kept, attributes=years)
        more = sdk.vector_stores.file_batches.upload_and_poll(kept, files=[("1.txt", b"One"), ("2.md", b"Two")])
        function: Any = {"type": "function", "function": {"name": "now"}}
        assistant = sdk.beta.assistants.create(
            model="gpt-4o",
            name="Tutor",
            instructions="Teach.",
            tools=[{"type": "file_search"}, function],
            tool_resources={"file_search": {"vector_store_ids": [kept]}},
        ).id
        attached: Any = [{"file_id": notes, "tools": [{"type": "file_search"}, {"type": "code_interpreter"}]}]
        thread_id = sdk.beta.threads.create(
            metadata={"user": "7"},
            messages=[{"role": "user", "content": SEARCH, "attachments": attached, "metadata": {"a": "ä"}}],
        ).id
        self.ids = {"notes": notes, "image": image, "store": kept, "batch": more.id}
        self.ids |= {"assistant": assistant, "thread": thread_id}
        self.run()
        self.call()

    def run(self) -> Any:
        return self.sdk.beta.threads.runs.create_and_poll(
            thread_id=self.ids["thread"], assistant_id=self.ids["assistant"], poll_interval_ms=50
        )

    def call(self) -> None:
        """A run that calls a function of the application."""
        self.say("[[say: Wait.]] [[call: now {}]]")
        run = self.run()
        [call] = run.required_action.submit_tool_outputs.tool_calls
        self.sdk.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "Noon"}]
        )

    def say(self, content: str) -> None:
        self.sdk.beta.threads.messages.create(self.ids["thread"], role="user", content=content)

    def texts(self) -> list[str]:
        shown = self.sdk.beta.threads.messages.list(self.ids["thread"], order="asc")
        return [part.text.value for message in shown for part in message.content if part.type == "text"]


def same(left: Path, right: Path) -> list[str]:
    """The names of the files of both exports, all of which are equal byte by byte."""
    names = sorted(f"{path.relative_to(left)}" for path in left.rglob("*") if path.is_file())
    assert names == sorted(f"{path.relative_to(right)}" for path in right.rglob("*") if path.is_file())
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name
    return names


def test_an_application_goes_on_with_its_ids_on_another_server(
    served: Server, transfers: Transfers, other: Server, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    with OpenAI(base_url=served.base_url, api_key=project.replace("project", "key"), max_retries=0) as sdk:
        old = Application(sdk)
        old.begin()
        said, ids = old.texts(), old.ids
    there = Transfers(other.loop, other.resources.settings)
    assert transfers.take(tmp_path / "one", project).code == 0
    told = there.bring(tmp_path / "one")
    assert (told.code, "differs, kept" in told.text, "not there" in told.text) == (0, True, False), told.text
    with (
        OpenAI(base_url=other.base_url, api_key=KEY, max_retries=0) as sdk,
        httpx.Client(base_url=other.base_url, headers={"OpenAI-Beta": "assistants=v2"}) as http,
    ):
        for store_id in [each.id for each in sdk.vector_stores.list()]:
            assert until_settled(http, store_id)["failed"] == 0
        assert there.take(tmp_path / "two").code == 0
        names = same(tmp_path / "one", tmp_path / "two")
        assert {f"{kind.stem}.jsonl" for kind in KINDS} | {f"files/{ids['image']}"} < set(names)
        assert there.bring(tmp_path / "one").code == 0  # in spite of what goes on meanwhile

        new = Application(sdk, ids)
        assert new.texts() == said
        new.say(SEARCH)
        run = new.run()
        assert run.status == "completed"
        steps = sdk.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id)
        [searched] = [step for step in steps if step.type == "tool_calls"]
        calls: Any = searched.step_details
        assert ids["notes"] in [result.file_id for result in calls.tool_calls[0].file_search.results]
        assert new.texts()[: len(said)] == said
        assert "He likes cake" in "".join(new.texts()[len(said) + 1 :])
        assert sdk.files.content(ids["image"]).read() == b"\x89PNG"
        assert (
            sdk.vector_stores.file_batches.retrieve(ids["batch"], vector_store_id=ids["store"]).file_counts.total == 2
        )


@dataclass
class Interrupted:
    """A file storage in which something happens before it is read for the first time."""

    blobs: Blobs
    happens: Callable[[], None]
    reads: int = 0

    @property
    def shown(self) -> str:
        return self.blobs.shown

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        self.reads += 1
        if self.reads == 1:
            self.happens()
        return await self.blobs.read(key, start, end)


def interrupted(transfers: Transfers, project: str, folder: Path, happens: Callable[[], None]) -> list[str]:
    """What an export says during which something happens."""
    said: list[str] = []

    async def export() -> None:
        async with opened(transfers.settings) as source:
            storage: Any = Interrupted(source.blobs, happens)
            await exporting.export(Opened(source.database, storage), project, folder, said.append)

    aside = Loop()  # the server's own loop has to answer meanwhile
    try:
        aside.run(export())
    finally:
        aside.close()
    return said


def test_an_export_is_of_one_moment(transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path) -> None:
    mark = project.replace("project-", "x")
    put(tmp_path, mark)
    transfers.bring(write(tmp_path / "all.jsonl", [file(mark), thread(mark), thread(f"{mark}2")]), project=project)

    def happens() -> None:
        client.post("threads", json={}).raise_for_status()
        client.delete(f"threads/thread_{mark}").raise_for_status()
        client.post(f"threads/thread_{mark}2", json={"metadata": {"later": "1"}}).raise_for_status()

    interrupted(transfers, project, tmp_path / "out", happens)
    threads = (tmp_path / "out" / "threads.jsonl").read_text("utf-8")
    assert (threads.count("\n"), threads.count(mark), "later" in threads) == (2, 2, False)
    assert client.get(f"threads/thread_{mark}2").json()["metadata"] == {"later": "1"}


def test_a_file_that_is_deleted_meanwhile_is_left_out_everywhere(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    mark = project.replace("project-", "x")
    for name in ("a", "b"):
        put(tmp_path, f"{mark}{name}")
    files = [file(f"{mark}{name}", created_at=1_700_000_000 + at) for at, name in enumerate("ab")]
    lines = [*files, store(mark), *(store_file(f"{mark}{name}", mark) for name in "ab")]
    transfers.bring(write(tmp_path / "all.jsonl", lines), project=project)
    until_settled(client, f"vs_{mark}")
    out = tmp_path / "out"

    def happens() -> None:
        client.delete(f"files/file-{mark}b").raise_for_status()

    said = interrupted(transfers, project, out, happens)
    assert said == [f"file file-{mark}b: was deleted while the export ran, and is left out"]
    assert (out / "files.jsonl").read_text().count("\n") == 1
    assert (out / "vector_store_files.jsonl").read_text().count("\n") == 1
    assert [path.name for path in (out / "files").iterdir()] == [f"file-{mark}a"]
    assert transfers.bring(out, project=project, dry_run=True).code == 0


def test_a_stopped_export_is_begun_again_without_the_bytes_that_are_there(
    transfers: Transfers, project: str, tmp_path: Path
) -> None:
    mark = project.replace("project-", "x")
    for name in ("a", "b"):
        put(tmp_path, f"{mark}{name}")
    lines = [file(f"{mark}{name}") for name in "ab"]
    transfers.bring(write(tmp_path / "all.jsonl", lines), project=project)
    out = tmp_path / "out"
    transfers.take(out, project)
    whole = tmp_path / "whole"
    transfers.take(whole, project)
    kept = (out / "files" / f"file-{mark}a").stat()
    (out / "files" / f"file-{mark}b").write_bytes(b"half")
    (out / "files" / f"file-{mark}b").rename(out / "files" / f"file-{mark}b.part")
    (out / "files.jsonl").rename(out / "files.jsonl.part")
    assert transfers.take(out, project).code == 0
    same(whole, out)
    assert (out / "files" / f"file-{mark}a").stat().st_mtime_ns == kept.st_mtime_ns


def test_an_export_takes_no_folder_with_other_things_and_no_unknown_project(
    transfers: Transfers, project: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StartupError, match=r"has something else in it \(mine.txt\)"):
        transfers.take(tmp_path)
    with pytest.raises(StartupError, match="there is no project 'nobody'"):
        transfers.take(tmp_path / "new", "nobody")
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_runs_that_are_under_way_are_exported_as_they_are(
    transfers: Transfers, client: httpx.Client, project: str, tmp_path: Path
) -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    assistant = client.post("assistants", json={"model": "gpt-4o", "tools": tools}).json()["id"]
    asked = {"messages": [{"role": "user", "content": "[[call: now {}]]"}]}
    body = {"assistant_id": assistant, "thread": asked, "stream": True}
    assert "requires_action" in client.post("threads/runs", json=body).text
    assert transfers.take(tmp_path, project).code == 0
    assert '"status":"requires_action"' in (tmp_path / "runs.jsonl").read_text("utf-8")
