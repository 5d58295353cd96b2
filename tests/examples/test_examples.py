"""The examples, as their users start them: programs of their own before a server that plays their script."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import Loop, Server, missing
from tests.docs.documents import ROOT
from tests.runs.coding import interpreting
from tests.sdks.environments import ENVIRONMENTS, node, node_command

EXAMPLES = ROOT / "examples"
PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def playing(loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model plays the script of the examples, with sandboxes."""
    exchanges = yaml.safe_load((EXAMPLES / "rehearsal.yaml").read_text("utf-8"))["exchanges"]
    folder = tmp_path_factory.mktemp("examples")
    with interpreting(loop, new_database(), folder, "bubblewrap", exchanges) as server:
        yield server


@dataclass(frozen=True)
class Runner:
    """Starts programs in an empty working directory, which know nothing but where the server is."""

    server: Server
    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"PATH": os.defpath, "OPENAI_BASE_URL": self.server.base_url, "OPENAI_API_KEY": "any"}

    def run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.settings, capture_output=True, encoding="utf-8", timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def python(self, name: str, *arguments: str) -> str:
        return self.run(sys.executable, "-W", "default", EXAMPLES / name, *arguments)


@pytest.fixture
def runner(playing: Server, tmp_path: Path) -> Runner:
    return Runner(playing, tmp_path)


def test_functions_are_called_until_the_model_has_its_answer(runner: Runner) -> None:
    assert runner.python("function_calling.py").splitlines() == [
        'Let me see. [count_in_stock {"article":"helmet"}]',
        '[order {"article":"helmet","pieces":2}]',
        "There were three, and two of them are yours now.",
    ]


def test_a_folder_is_searched_and_cited(runner: Runner) -> None:
    searchable, answer, note = runner.python("file_search_folder.py").splitlines()
    assert searchable == "[4 of 4 files can be searched]"
    assert answer == "For a night away from home 28 euros are paid for meals [1]. No receipts are needed."
    assert note.startswith("[1] travel.md: “For a night away from home 28 euros")


def test_a_table_is_analysed_and_what_came_of_it_downloaded(runner: Runner) -> None:
    said = runner.python("data_analysis.py")
    assert 'pd.read_csv("/mnt/data/sales.csv")' in said
    assert "\n| {'Basel': 0.63, 'Bern': 1.04}" in said
    assert "Bern: its revenue has doubled" in said
    assert {path.name for path in runner.folder.iterdir()} == {"chart-1.png", "totals.csv"}
    assert (runner.folder / "chart-1.png").read_bytes().startswith(PNG)
    assert (runner.folder / "totals.csv").read_text().splitlines()[:2] == ["month,revenue", "2026-01,32350"]


def test_the_notebook_runs_from_the_first_cell_to_the_last(runner: Runner) -> None:
    cells = json.loads((EXAMPLES / "overview.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells), "outputs would grow old"
    (runner.folder / "overview.py").write_text("\n\n".join(code), "utf-8")
    for name in ("handbook", "sales.csv"):
        (runner.folder / name).symlink_to(EXAMPLES / name)
    said = runner.run(sys.executable, "-W", "default", "overview.py")
    for expected in (
        "So x = 1.completed Usage(",
        "assistant: In the same way x = 2.",
        'calculate {"expression":"5 * 2 + 11"} = 21',
        "14 and 21: both are right.",
        "Four years【4:0†equipment.md】.",
        "【4:0†equipment.md】 is equipment.md",
        "| {'Basel': 0.63, 'Bern': 1.04}",
        "2026-06,58500",
        "tool_calls completed",
        "message_creation completed",
    ):
        assert expected in said, said


@contextmanager
def page(runner: Runner) -> Iterator[str]:
    """The address of the chat page, served by a process of its own."""
    log = runner.folder / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / "chat_page.py"], env=runner.settings | {"PORT": "0"}, stdout=said, stderr=said
        )
    try:
        give_up_at = time.monotonic() + 60
        while not (address := re.search(r"running on (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.02)
        yield address[1]
    finally:
        process.terminate()
        process.wait(30)


def test_the_chat_page_shows_what_the_assistant_says(runner: Runner) -> None:
    questions = ("And 5x + 11 = 21?", "Is the moon a wheel?")
    with page(runner) as url:
        said = runner.run(node() / "bin" / "node", Path(__file__).with_name("page.mjs"), url, *questions)
    first, answer, second, failure = json.loads(said)
    assert [first, second] == [["user", question] for question in questions]
    assert answer == ["assistant", "In the same way x = 2."]
    assert "No exchange of the rehearsal script fits" in failure[1]


def test_the_chat_page_has_fifty_lines() -> None:
    source = (EXAMPLES / "chat_page.py").read_text("utf-8")
    docstring = ast.get_docstring(ast.parse(source), clean=False) or ""
    lines = [line for line in source.replace(f'"""{docstring}"""', "").splitlines() if line.strip()]
    assert len(lines) <= 50


def test_the_example_for_node_runs_and_so_does_the_line_to_migrate(runner: Runner) -> None:
    newest = ENVIRONMENTS[-1]
    command = node_command(newest, EXAMPLES / "assistant.mjs")
    assert runner.run(*command).splitlines() == [
        '[get_weather {"city":"Paris"}]',
        "A shirt will do: it is sunny, and 22 °C.",
    ]
    line = re.findall(r"^\+(const client = .*)$", (ROOT / "docs" / "migrating.md").read_text("utf-8"), re.M)
    code = "\n".join(["import OpenAI from 'openai';", *line, "console.log((await client.models.list()).data.length);"])
    program = runner.folder / "migrated.mjs"
    program.write_text(code.replace("http://127.0.0.1:8000", runner.server.url))
    assert int(runner.run(*node_command(newest, program))) > 0


def test_the_example_for_curl_shows_a_stream_and_the_messages(runner: Runner) -> None:
    if not shutil.which("curl"):
        missing("curl", "it is not installed")
    said = runner.run("/bin/bash", EXAMPLES / "assistant.sh", "And 5x + 11 = 21?")
    stream, _, messages = said.partition("data: [DONE]\n\n")
    assert "event: thread.message.delta" in stream
    heard = [part["text"]["value"] for message in json.loads(messages)["data"] for part in message["content"]]
    assert heard == ["And 5x + 11 = 21?", "In the same way x = 2."]


def test_the_whole_script_was_played(playing: Server) -> None:
    script: list[dict[str, Any]] = httpx.get(f"{playing.model_url.removesuffix('/v1')}/script").json()["data"]
    assert [exchange["exchange"] for exchange in script if not exchange["used"]] == []
