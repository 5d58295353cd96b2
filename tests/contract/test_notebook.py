"""The notebook that this project was born from: every code cell is listed, and those that can run do, in order."""

import base64
import json
import random
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from openai import OpenAI
from sqlalchemy import text

from tests.conftest import Loop, Server
from tests.retrieval.documents import pdf
from tests.runs.coding import interpreting

Json = dict[str, Any]

LISTED: list[Json] = tomllib.loads(Path(__file__).with_name("notebook.toml").read_text("utf-8"))["cell"]
HOW = ("run", "never")
DEADLINE_S = 60


def cells_of(notebook: str) -> list[str]:
    """The code cells of a notebook's text: each follows a line `In [..]:` and goes on until prose begins."""
    cells: list[list[str]] = []
    inside = False
    for line in notebook.splitlines():
        if re.fullmatch(r"In \[[^\]]*\]:", line):
            inside = True
            cells.append([])
        elif re.match(r"##|[A-Z]", line):
            inside = False
        elif inside:
            cells[-1].append(line)
    return ["\n".join(lines).strip() for lines in cells]


def edited(cell: str, entry: Json) -> str:
    for edit in entry.get("edits", ()):
        cell = cell.replace(edit["find"], edit["replace"])
    return cell


@pytest.fixture(scope="module")
def cells(reference: Path) -> list[str]:
    return cells_of((reference / "assistants-overview-notebook.txt").read_text("utf-8"))


SOLVE = "from sympy import solve, symbols\nx = symbols('x')\nprint(solve(3 * x + 11 - 14, x))"
CHARTS = """\
import matplotlib.pyplot as plt
import pandas as pd
table = pd.read_csv('/mnt/data/revenue_forecast.csv')
for kind in ('line', 'bar', 'area'):
    table.plot(x='month', y='revenue', kind=kind)
    plt.show()
table.describe().to_csv('/mnt/data/summary.csv')
print(kind, len(table))"""
SUMMARY = "sandbox:/mnt/data/summary.csv"
SCRIPT = f"""
exchanges:
  - expect: {{user: {{contains: solve the equation}}, tool_results: {{code_interpreter: {{contains: "[1]"}}}}}}
    answer: {{text: "Jane Doe, x is 1."}}
  - expect: {{user: {{contains: solve the equation}}, tools: [code_interpreter]}}
    answer: {{tool_calls: [{{name: code_interpreter, arguments: {{code: {json.dumps(SOLVE)}}}}}]}}
  - expect: {{user: {{contains: 3 data visualizations}}, tool_results: {{code_interpreter: {{contains: area 12}}}}}}
    answer: {{text: "Three charts, and [a summary]({SUMMARY})."}}
  - expect: {{user: {{contains: 3 data visualizations}}, tools: [code_interpreter]}}
    answer: {{tool_calls: [{{name: code_interpreter, arguments: {{code: {json.dumps(CHARTS)}}}}}]}}
"""
SCRIPT += """
  - expect: {user: {contains: likelihood}}
    answer:
      tool_calls:
        - {name: get_current_temperature, arguments: {location: "San Francisco, CA", unit: Fahrenheit}}
        - {name: get_rain_probability, arguments: {location: "San Francisco, CA"}}
  - expect: {tool_results: {get_current_temperature: "57", get_rain_probability: "0.06"}}
    answer: {text: It is 57 degrees and will hardly rain.}
  - expect: {user: {contains: shares of AAPL}, tool_results: {file_search: {contains: "15,552,752,000"}}}
    answers:
      - {text: "There were 15,552,752,000 shares, Jane Doe【4:0†aapl-10k.pdf】."}
      - {text: "15,552,752,000 【5:0†aapl-10k.pdf】, as I said."}
  - expect: {user: {contains: shares of AAPL}, tools: [file_search]}
    answer: {tool_calls: [{name: file_search, arguments: {queries: ["AAPL shares outstanding October 2023"]}}]}
  - answer: {text: I am the rehearsal model.}
"""
SHARES = "15,552,752,000 shares of common stock were issued and outstanding as of October 20, 2023."
WEATHER = "It is 57 degrees and will hardly rain."


OF_AN_EXPIRED_STORE = 27
OF_AN_IMAGE = 32
PAGES = 300
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def annual_report(company: str) -> list[str]:
    """The pages of a long report in which one says what is asked for."""
    said = random.Random(company)
    words = "revenue risk segment operating income lease fiscal quarter tax market liability".split()  # noqa: SIM905
    # A line each: what stands beyond the edge of a page is not read
    pages = [f"Page {number} of {company}: " + " ".join(said.choices(words, k=7)) for number in range(1, PAGES + 1)]
    pages[PAGES // 2] = f"{company.upper()}: {SHARES}" if company == "aapl" else "No shares are counted here."
    return pages


def expire(server: Server, store_id: str) -> None:
    """Let the last use of a store, which stays for 7 days, be longer ago."""
    statement = text("UPDATE vector_stores SET last_active_at = last_active_at - 8 * 86400 WHERE id = :by_id")
    server.loop.run(server.resources.database.fetch(statement, by_id=store_id))


@dataclass
class Session:
    """A person at the notebook: one namespace for all cells, and what each of them has printed."""

    client: OpenAI
    opened: ExitStack  # files, which the cells leave open
    names: Json = field(default_factory=lambda: {"__name__": "__main__"})
    printed: dict[int, str] = field(default_factory=dict)
    kept: dict[int, Json] = field(default_factory=dict)

    def give_files(self) -> None:
        """The files that the cells open, in the working directory; five more, whose ids the cells leave out."""
        rows = "\n".join(f"2023-{month:02},{1000 + 37 * month}" for month in range(1, 13))
        for name in ("revenue_forecast.csv", "mydata.csv"):
            Path(name).write_text(f"month,revenue\n{rows}\n", "utf-8")
        Path("myimage.png").write_bytes(PNG)
        Path("edgar").mkdir()
        for company in ("goog", "aapl"):
            Path(f"edgar/{company}-10k.pdf").write_bytes(pdf(annual_report(company)))
        Path("edgar/brka-10k.txt").write_text("\n\n".join(annual_report("brka")), "utf-8")
        self.names["open"] = self._open
        guides = [
            self.client.files.create(file=(f"guide-{n}.md", f"# Guide {n}".encode()), purpose="assistants")
            for n in range(5)
        ]
        self.names["five"] = [guide.id for guide in guides]

    def _open(self, path: str, mode: str) -> IO[Any]:
        return self.opened.enter_context(open(path, mode))  # noqa: PTH123 - what the cells call

    def run(self, number: int, code: str) -> None:
        """Run a cell, then wait as a person would until its run has ended."""
        output = StringIO()
        self.names["print"] = partial(print, file=output)  # the process's own stdout has the server's log as well
        exec(compile(code, f"<cell {number}>", "exec"), self.names)
        self.printed[number] = output.getvalue()
        self.kept[number] = dict(self.names)
        self._wait()

    def _wait(self) -> None:
        give_up_at = time.monotonic() + DEADLINE_S
        while run := self.names.get("run"):
            if self.client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id).status == "completed":
                return
            assert time.monotonic() < give_up_at

    def draw(self) -> None:
        """Run the thread with the table, which no cell does, and remember the first image."""
        assistant, thread = self.kept[8]["assistant"], self.kept[9]["thread"]
        self.client.beta.threads.runs.create_and_poll(assistant_id=assistant.id, thread_id=thread.id)
        drawn = self.client.beta.threads.messages.list(thread.id, order="desc", limit=1).data[0]
        self.names["image_file_id"] = drawn.content[0].image_file.file_id  # type: ignore[union-attr]

    def said(self, thread_id: str) -> list[str]:
        """The texts of the assistant's messages on a thread, oldest first."""
        messages = self.client.beta.threads.messages.list(thread_id, order="asc").data
        parts = [message.content[0] for message in messages if message.role == "assistant"]
        return [part.text.value for part in parts if part.type == "text"]


@pytest.fixture(scope="module")
def session(
    cells: list[str], loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    """All cells that run have run, in order, on a server without keys, with two environment variables for the SDK."""
    folder, exchanges = tmp_path_factory.mktemp("script"), yaml.safe_load(SCRIPT)["exchanges"]
    with (
        interpreting(loop, new_database(), folder, "bubblewrap", exchanges) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", "any")
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        with OpenAI() as client, ExitStack() as opened:
            session = Session(client, opened)
            session.give_files()
            for entry in LISTED:
                if entry["index"] == OF_AN_EXPIRED_STORE:
                    expire(server, session.names["vector_store"].id)
                if entry["index"] == OF_AN_IMAGE:
                    session.draw()
                if "run" in entry:
                    session.run(entry["index"], edited(cells[entry["index"] - 1], entry))
            yield session
        for kept in session.kept.values():
            kept["client"].close()


def test_every_cell_of_the_notebook_is_listed_in_order(cells: list[str]) -> None:
    assert [entry["index"] for entry in LISTED] == list(range(1, len(cells) + 1))
    assert [entry["sha256"] for entry in LISTED] == [sha256(cell.encode()).hexdigest() for cell in cells]


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: f"{entry['index']} {entry['title']}")
def test_every_listed_cell_says_how_it_runs_or_why_not(entry: Json) -> None:
    [how] = [way for way in HOW if way in entry]
    assert set(entry) <= {"index", "title", "sha256", how, "reason", "edits"}
    match how, entry[how]:
        case "run", "verbatim":
            assert not {"reason", "edits"} & set(entry)
        case "run", "edited":
            assert entry["reason"]
            assert entry["edits"]
        case "never", reason:
            assert len(reason) > 10
        case _:
            pytest.fail(f"run = {entry['run']!r}")


def test_every_edit_has_one_place_in_its_cell(cells: list[str]) -> None:
    for entry in LISTED:
        for edit in entry.get("edits", ()):
            assert cells[entry["index"] - 1].count(edit["find"]) == 1, edit


def test_the_streamed_cell_prints_code_output_and_answer(session: Session) -> None:
    thread = session.kept[4]["thread"]
    said = "\nassistant > Jane Doe, x is 1."
    assert session.printed[4] == f"\nassistant > code_interpreter\n\n{SOLVE}\n\noutput >\n\n[1]\n\n{said}"
    assert session.said(thread.id)[0] == "Jane Doe, x is 1."


def test_the_table_becomes_three_charts_and_a_file(session: Session) -> None:
    client, thread = session.client, session.kept[9]["thread"]
    [drawn] = client.beta.threads.messages.list(thread.id, order="desc", limit=1).data
    *charts, text_part = drawn.content
    assert [part.type for part in charts] == ["image_file"] * 3
    for chart in charts:
        assert chart.type == "image_file"
        assert client.files.content(chart.image_file.file_id).read().startswith(b"\x89PNG\r\n\x1a\n")
    assert Path("my-image.png").read_bytes() == client.files.content(session.names["image_file_id"]).read()
    assert text_part.type == "text"
    [annotation] = text_part.text.annotations
    assert annotation.type == "file_path"
    assert annotation.text == SUMMARY
    assert text_part.text.value[annotation.start_index : annotation.end_index] == SUMMARY
    assert "mean" in client.files.content(annotation.file_path.file_id).read().decode()
    [run] = client.beta.threads.runs.list(thread.id).data
    steps = client.beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    assert steps[0].step_details.type == "tool_calls"
    [called] = steps[0].step_details.tool_calls
    assert called.type == "code_interpreter"
    assert [output.type for output in called.code_interpreter.outputs] == ["image"] * 3 + ["logs"]


def test_the_polled_cells_print_the_messages(session: Session) -> None:
    run, thread = session.kept[6]["run"], session.kept[6]["thread"]
    assert run.status == "completed"
    assert session.printed[5] == ""
    assert session.printed[6] == f"{session.kept[6]['messages']}\n"
    assert session.printed[6].count("role='assistant'") == 2
    assert "I need to solve the equation" in session.printed[6]
    assert [text in session.printed[6] for text in session.said(thread.id)] == [True, True]


def test_the_annotations_cell_reads_a_message_of_a_run(session: Session) -> None:
    message = session.kept[12]["message"]
    assert message.role == "assistant"
    assert message.content[0].text.value == session.said(message.thread_id)[-1] + "\n"


def test_the_run_cells_leave_completed_runs_on_the_thread(session: Session) -> None:
    """The thread is the one with the image, whose link the model endpoint may be given."""
    first, second = session.kept[13]["run"], session.kept[14]["run"]
    runs = session.client.beta.threads.runs.list(session.kept[13]["thread"].id, order="asc").data
    assert [(run.id, run.status) for run in runs] == [(first.id, "completed"), (second.id, "completed")]
    assert runs[1].instructions == "New instructions that override the Assistant instructions"
    assert [tool.type for tool in runs[1].tools] == ["code_interpreter", "file_search"]
    assert len(session.said(first.thread_id)) == 2
    assert {step.run_id for step in session.kept[33]["run_steps"].data} == {session.kept[20]["run"].id}


def test_what_the_cells_made_exists_on_the_server(session: Session) -> None:
    client = session.client
    made = [session.kept[number]["assistant"] for number in (1, 8, 17, 24, 28, 29, 35, 39)]
    assert [assistant.model_dump() for assistant in client.beta.assistants.list(order="asc").data] == [
        assistant.model_dump() for assistant in made
    ]
    assert [tool.function.name for tool in made[-1].tools] == ["get_current_temperature", "get_rain_probability"]
    for number in (2, 11, 36):
        thread = session.kept[number]["thread"]
        assert client.beta.threads.retrieve(thread.id).created_at == thread.created_at
    [asked, *_] = client.beta.threads.messages.list(session.kept[36]["thread"].id, order="asc").data
    assert asked.model_dump() == session.kept[36]["message"].model_dump()
    [shown] = client.beta.threads.messages.list(session.kept[11]["thread"].id, order="asc", limit=1).data
    assert [part.type for part in shown.content] == ["text", "image_url"]


def test_the_streamed_function_cell_prints_the_answer_of_its_second_stream(session: Session) -> None:
    assert session.printed[37] == f"{WEATHER}\n"
    thread = session.kept[37]["thread"]
    [run] = session.client.beta.threads.runs.list(thread.id, order="asc").data[:1]
    step, answer = session.client.beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    assert (run.status, step.type, answer.type) == ("completed", "tool_calls", "message_creation")
    assert step.step_details.type == "tool_calls"
    functions = [call.function for call in step.step_details.tool_calls if call.type == "function"]
    assert [(function.name, function.output) for function in functions] == [
        ("get_current_temperature", "57"),
        ("get_rain_probability", "0.06"),
    ]


def test_the_polled_function_cell_submits_outputs_and_prints_the_messages(session: Session) -> None:
    run = session.kept[38]["run"]
    assert run.status == "completed"
    first, second, shown = session.printed[38].split("\n", 2)
    assert (first, second) == ("requires_action", "Tool outputs submitted successfully.")
    assert shown == f"{session.kept[38]['messages']}\n"
    assert session.said(run.thread_id) == [WEATHER, WEATHER]


def test_the_table_is_given_to_assistant_and_thread(session: Session) -> None:
    for assistant, thread in ((8, 9), (29, 30)):
        file = session.kept[assistant]["file"]
        of_assistant = session.kept[assistant]["assistant"].tool_resources
        of_thread = session.kept[thread]["thread"].tool_resources
        assert of_assistant.code_interpreter.file_ids == of_thread.code_interpreter.file_ids == [file.id]


def test_the_batch_cell_prints_that_both_files_can_be_searched(session: Session) -> None:
    status, counts = session.printed[16].splitlines()
    assert status == "completed"
    assert "completed=2" in counts
    assert "total=2" in counts


def test_the_message_file_cell_prints_the_store_of_the_thread(session: Session) -> None:
    assert re.fullmatch(r"\w*FileSearch\(vector_store_ids=\['vs_[0-9a-f]{32}'\]\)\n", session.printed[18])


def test_the_streamed_search_cell_prints_footnotes(session: Session) -> None:
    assert session.printed[19] == (
        "\nassistant > file_search\n\n\nassistant > There were 15,552,752,000 shares, Jane Doe[0].\n[0] aapl-10k.pdf\n"
    )


def test_the_polled_search_cell_prints_footnotes(session: Session) -> None:
    assert session.printed[20] == "15,552,752,000 [0], as I said.\n[0] aapl-10k.pdf\n"
    assert session.kept[20]["run"].status == "completed"


def test_a_citation_quotes_the_passage_and_the_step_tells_its_page(session: Session) -> None:
    [annotation] = session.kept[20]["annotations"]
    assert annotation.file_citation.quote.endswith(SHARES)
    step = session.kept[25]["run_step"]
    assert session.printed[25] == f"{step}\n"
    [searched] = step.step_details.tool_calls
    best = searched.file_search.results[0]
    assert best.file_name == "aapl-10k.pdf"
    assert SHARES in best.content[0].text
    assert best.page_from <= PAGES // 2 + 1 <= best.page_to
    assert 0.5 < best.score <= 1


def test_the_store_cells_leave_stores_with_their_files(session: Session) -> None:
    client = session.client
    first, batch, again = session.kept[22]["vector_store"], session.kept[23]["batch"], session.kept[27]["vector_store"]
    assert session.kept[22]["file"].status == "completed"
    assert (batch.status, batch.file_counts.completed) == ("completed", 5)
    assert client.vector_stores.retrieve(first.id).file_counts.completed == 6
    assert client.vector_stores.retrieve(session.kept[26]["vector_store"].id).status == "expired"
    assert client.vector_stores.retrieve(again.id).file_counts.completed == 5
    resources = client.beta.threads.retrieve(session.kept[27]["thread"].id).tool_resources
    assert resources is not None
    assert resources.file_search is not None
    assert resources.file_search.vector_store_ids == [again.id]
