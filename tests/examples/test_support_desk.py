"""The example application, as its users start it: a process for every visit, before a server that plays its script."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.faults.processes import data_folder, serve

EXAMPLE = Path(__file__).parents[2] / "examples" / "support_desk"
HELMET = "Can I return a helmet within 30 days?"
SUMMARY = "Jane asked about returning a helmet; she was told that it takes 30 days and the receipt."

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Visit:
    """What the application said: to the customer, and to the person at the desk."""

    code: int
    said: str
    noted: str


@dataclass(frozen=True)
class Desk:
    """A server with the example's table and script, and a working directory for the application."""

    base_url: str
    model_url: str
    folder: Path

    def visit(self, *arguments: str) -> Visit:
        with self.started(*arguments) as process:
            said, noted = process.communicate(timeout=60)
            return Visit(process.returncode, said, noted)

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        command = [sys.executable, "-W", "error", str(EXAMPLE / "support_desk.py"), *arguments]
        settings = {"PATH": os.defpath, "OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": "any"}
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=self.folder, env=settings, encoding="utf-8", **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def log(self) -> list[dict[str, Any]]:
        """What the models were asked."""
        entries: list[dict[str, Any]] = httpx.get(f"{self.model_url}/requests").json()["data"]
        return entries

    def statuses(self, path: str) -> list[int | None]:
        return [entry["status"] for entry in self.log() if entry["path"] == path]

    @contextmanager
    def sdk(self) -> Iterator[OpenAI]:
        with OpenAI(base_url=self.base_url, api_key="any", max_retries=0) as client:
            yield client


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    """The addresses of the API and of the model's log."""
    settings: Any = {"models_file": str(EXAMPLE / "models.toml"), "rehearsal_script": str(EXAMPLE / "rehearsal.yaml")}
    with data_folder() as folder, serve(folder, **settings) as process:
        base_url = f"{process.url}/v1"
        log = next(word for word in process.log.split() if word.endswith("/requests"))
        yield base_url, log.removesuffix("/requests")


@pytest.fixture
def desk(server: tuple[str, str], tmp_path: Path) -> Desk:
    """The desk on its first day: nothing is kept, nothing was asked."""
    base_url, model_url = server
    httpx.delete(f"{model_url}/requests").raise_for_status()
    return Desk(base_url, model_url, tmp_path)


def people(visit: Visit) -> str:
    """The line that names the assistant and the thread."""
    [line] = [line for line in visit.noted.splitlines() if line.startswith("[assistant asst_")]
    return line


def test_a_customer_comes_again_and_again_until_all_of_the_script_was_played(desk: Desk) -> None:
    first = desk.visit("jane", HELMET)
    assert (first.code, first.said) == (0, "Yes, if it is unused. Please bring the receipt.\n"), first.noted
    assert "[handbook: 8 sections, 8 of them embedded now]" in first.noted
    assert re.search(r"\[orders: .*Returns", first.noted)
    assert desk.statuses("/v1/chat/completions") == [429, 429, 200, 200]
    assert len(desk.statuses("/v1/embeddings")) == 3, "two batches and a question"
    assert "gpt-4o 120+10, gpt-4o-mini " in first.noted

    second = desk.visit("jane", "Good morning!", "And without the receipt?")
    assert second.said == "Good morning, and a tailwind all day long!\nThen a colleague will call you.\n", second.noted
    assert people(second) == people(first)
    assert "[handbook: 8 sections, 0 of them embedded now]" in second.noted
    assert_told_of_the_conversation(desk.log()[-1]["body"])

    with desk.started("jane", "Where should I charge the battery of my electric bicycle?") as process:
        assert process.stdout
        assert process.stdout.read(len("Indoors,")) == "Indoors,"
    after = desk.visit("jane", "May I send the old battery by mail?")
    assert (after.said, people(after)) == ("No, please bring it to the shop.\n", people(first)), after.noted
    assert "[an answer that was left unfinished is cancelled]" in after.noted
    assert re.search(r"\[other: .*Batteries", after.noted)

    assert desk.visit("jane", "--handover").said == f"{SUMMARY}\n"
    with desk.sdk() as client:
        assert_kept(client, json.loads((desk.folder / ".support-desk" / "threads.json").read_text())["jane"])

    failed = desk.visit("jane", "Do you repair the motor?")
    assert (failed.code, failed.said) == (1, "")
    assert f"[known from last time: {SUMMARY}]" in failed.noted
    assert re.search(r"\[error: The assistant did not answer: .*The prompt is too long for this model\.]", failed.noted)

    script = httpx.get(f"{desk.model_url}/script").json()["data"]
    assert [exchange["exchange"] for exchange in script if not exchange["used"]] == []


def assert_told_of_the_conversation(body: dict[str, Any]) -> None:
    """The model is told what was said before, and the sections of this question only."""
    system, *conversation = body["messages"]
    assert system["content"].count("## Returns") == 1
    assert [message["content"] for message in conversation] == [
        HELMET,
        "Yes, if it is unused. Please bring the receipt.",
        "And without the receipt?",
    ]


def assert_kept(client: OpenAI, thread_id: str) -> None:
    """The thread has its summary as metadata, and the conversation without it."""
    assert client.beta.threads.retrieve(thread_id).metadata == {"customer": "jane", "summary": SUMMARY}
    messages = list(client.beta.threads.messages.list(thread_id, order="asc"))
    assert [message.role for message in messages] == ["user", "assistant"] * 4
    assert [message.status for message in messages].count("incomplete") == 1
    topics = [message.metadata["topic"] for message in messages if message.role == "user" and message.metadata]
    assert topics == ["orders", "billing", "other", "other"]


def test_customers_share_the_assistant_and_no_thread(desk: Desk) -> None:
    jane, joe = desk.visit("jane"), desk.visit("joe")
    assert (jane.code, joe.code) == (0, 0), jane.noted + joe.noted
    assert people(jane).split(", ")[0] == people(joe).split(", ")[0]
    assert people(jane) != people(joe)
    with desk.sdk() as client:
        assert len(client.beta.assistants.list().data) == 1


def test_a_question_that_is_not_in_the_script_is_told_and_fails(desk: Desk) -> None:
    visit = desk.visit("joe", "Is the moon a wheel?")
    assert (visit.code, visit.said) == (1, "")
    [line] = [line for line in visit.noted.splitlines() if line.startswith("[error: ")]
    assert "No exchange of the rehearsal script fits the request with the user message “Is the moon a wheel?”" in line
    assert "(HTTP 400, request req_" in line
    assert "Traceback" not in visit.noted


def test_a_server_without_the_models_is_found_out_at_the_start(desk: Desk) -> None:
    with data_folder() as folder, serve(folder) as other:
        visit = Desk(f"{other.url}/v1", "", desk.folder).visit("joe", HELMET)
    assert visit.code == 1
    assert "does not offer gpt-4o, gpt-4o-mini, text-embedding-3-small." in visit.noted


def test_a_deleted_thread_is_replaced(desk: Desk) -> None:
    first = desk.visit("joe")
    with desk.sdk() as client:
        client.beta.threads.delete(people(first).split("thread ")[1].removesuffix("]"))
    second, third = desk.visit("joe"), desk.visit("joe")
    assert people(first) != people(second) == people(third)
