"""Back-ups as docs/operations.md describes them, by its own commands: what was there is there again, and goes on."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from adlatus.backends import postgres_cluster
from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.docs.documents import Document
from tests.faults.processes import ADLATUS, data_folder, serve
from tests.runs.transcripts import eventually

pytestmark = pytest.mark.slow

SHELL = [block.text for block in Document("docs/operations.md").blocks() if block.language == "bash"]
FOLDER = "/var/lib/adlatus"


def documented(word: str) -> str:
    """The block of the document in which a command stands."""
    [block] = [text for text in SHELL if word in text]
    return block


def sh(script: str, cwd: Path, **settings: str) -> None:
    """Run a block of the document. `pg_dump` and its like are those of the embedded PostgreSQL's wheel."""
    package, _ = postgres_cluster._wheel()
    programs = package / f"pginstall{postgres_cluster.MAJOR}" / "bin"
    adlatus = cwd / "adlatus"
    adlatus.write_text(f'#!/bin/sh\nexec {" ".join(ADLATUS)} "$@"\n')
    adlatus.chmod(0o755)
    path = f"{cwd}:{programs}:{os.defpath}"
    environment = {"PATH": path, "HOME": str(cwd), "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **settings}
    done = subprocess.run(
        ["/bin/bash", "-euc", script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Application:
    """Objects of every kind, and what a client sees of them."""

    def __init__(self, client: OpenAI) -> None:
        self.assistant = client.beta.assistants.create(
            model="gpt-4o", name="Tutor", tools=[{"type": "file_search"}], metadata={"a": "1"}
        ).id
        self.thread = client.beta.threads.create(messages=[{"role": "user", "content": "Hello"}]).id
        self.ask(client, "[[say: first]]")
        self.file = client.files.create(file=("foods.md", b"Filip likes cake."), purpose="assistants").id
        self.store = client.vector_stores.create(name="Foods", file_ids=[self.file]).id
        self.found(client)
        self.before = self.seen(client)

    def ask(self, client: OpenAI, content: str) -> None:
        client.beta.threads.messages.create(self.thread, role="user", content=content)
        run = client.beta.threads.runs.create_and_poll(
            thread_id=self.thread, assistant_id=self.assistant, poll_interval_ms=20
        )
        assert run.status == "completed", run

    def found(self, client: OpenAI) -> None:
        """Wait until a search finds the file."""
        eventually(
            lambda: [hit.file_id for hit in client.vector_stores.search(self.store, query="cake")] == [self.file]
        )

    def seen(self, client: OpenAI) -> list[object]:
        return [
            client.beta.assistants.retrieve(self.assistant),
            client.beta.threads.retrieve(self.thread),
            *client.beta.threads.messages.list(self.thread),
            *client.beta.threads.runs.list(self.thread),
            client.files.retrieve(self.file),
            client.vector_stores.files.content(self.file, vector_store_id=self.store).data,
        ]

    def assert_goes_on(self, client: OpenAI) -> None:
        assert self.seen(client) == self.before
        self.ask(client, "[[say: second]]")
        answers = client.beta.threads.messages.list(self.thread, order="desc").data
        assert [part.text.value for part in answers[0].content if part.type == "text"] == ["second"]
        self.found(client)


@contextmanager
def sdk(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.nightly
def test_a_copied_data_folder_is_the_whole_server(tmp_path: Path) -> None:
    with data_folder() as folder:
        with serve(folder) as process:
            with sdk(process.url) as client:
                application = Application(client)
            assert process.stop() == 0
        sh(documented("tar --create").replace(FOLDER, str(folder)), tmp_path)
        shutil.rmtree(folder)
        elsewhere = folder.with_name("elsewhere")
        restoring = documented("tar --extract").replace(FOLDER, str(elsewhere)).replace("adlatus serve\n", "")
        sh(restoring, tmp_path)
        with serve(elsewhere) as process, sdk(process.url) as client:
            application.assert_goes_on(client)


def test_a_dump_of_the_database_and_the_storage_are_the_whole_deployment(
    loop: Loop, new_database: Callable[..., str], tmp_path: Path
) -> None:
    before, after = new_database(), new_database(empty=True)
    storage = f"file://{tmp_path / 'storage'}"
    (tmp_path / "storage").mkdir()
    with serving(loop, Settings(database_url=before, storage_url=storage)) as server, sdk(server.url) as client:
        application = Application(client)
        sh(documented("pg_dump"), tmp_path, ADLATUS_DATABASE_URL=before)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    settings = {"ADLATUS_DATABASE_URL": after, "ADLATUS_DATA_DIR": str(data_dir)}
    sh(documented("pg_restore"), tmp_path, **settings)
    with (
        serving(loop, Settings(database_url=after, storage_url=storage, data_dir=data_dir)) as server,
        sdk(server.url) as client,
    ):
        application.found(client)
        application.assert_goes_on(client)
