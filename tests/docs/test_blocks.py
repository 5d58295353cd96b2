"""Every block of code in the documents is run, or checked as far as that goes without running it."""

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import AzureOpenAI, OpenAI

from adlatus.app import create_app
from adlatus.backends import models_file
from adlatus.rehearsal import script as rehearsal
from adlatus.rehearsal import server as rehearsal_server
from adlatus.settings import Settings
from tests.conftest import Loop, Server
from tests.contract.operations import NOT_OFFERED
from tests.docs import shell
from tests.docs.documents import ROOT, Block, Document, blocks, documents
from tests.docs.exceptions import MOST, NEVER
from tests.retrieval.documents import pdf

QUOTED = {"docs/adding-an-endpoint.md": "src/adlatus/api/runs.py"}
"""Documents whose Python is quoted from a file, word for word."""

OF_OTHER_TESTS = {"README.md": "tests/api/test_readme.py", "docs/rehearsal.md": "below"}
"""Documents whose Python a test of its own runs."""

URL = "http://127.0.0.1:8000"

EXAMPLES = ROOT / "examples"
HEADS: dict[str, Callable[[str], str]] = {
    ".py": lambda source: ast.get_docstring(ast.parse(source)) or "",
    ".ipynb": lambda source: "".join(json.loads(source)["cells"][0]["source"]),
    ".mjs": lambda source: re.sub("(?m)^// ?", "", source.partition("\nimport ")[0]),
    ".sh": lambda source: re.sub("(?m)^# ?", "", source.partition("\nset ")[0]),
}
"""The beginnings of examples that explain them, by suffix."""


def excepted(block: Block) -> bool:
    return (block.document, block.text.partition("\n")[0]) in NEVER


def of(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [each for each in blocks(*languages) if not excepted(each)], ids=str)


@pytest.fixture(scope="module")
def has_route() -> Callable[[str, str], bool]:
    """Whether the server has a route for a method and a path."""
    paths = create_app(Settings()).openapi()["paths"]
    places = {path: re.compile(re.sub(r"\\?\{\w+\\?\}", "[^/]+", re.escape(path))) for path in paths}

    def has(method: str, path: str) -> bool:
        beside = path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
        path = re.sub("^/openai/(v1/)?(deployments/[^/]+/)?", "/v1/", path)  # Azure's dialect
        return beside or any(place.fullmatch(path) and method.lower() in paths[name] for name, place in places.items())

    return has


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_operations_that_are_named_are_offered(document: Document, has_route: Callable[[str, str], bool]) -> None:
    for name in document.names():
        operation = re.fullmatch(r"(GET|POST|DELETE) (/[\w/{}-]+)(\?.*)?", name)
        if operation is None or document.name == "docs/rehearsal.md":  # whose server is another
            continue
        method, path = operation[1], operation[2].replace("{", "").replace("}", "")
        if (method, operation[2]) not in NOT_OFFERED:
            assert has_route(method, path) or has_route(method, f"/v1{path}"), name


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_block_has_a_language_that_is_looked_at(block: Block) -> None:
    known = {"bash", "python", "toml", "yaml", "json", "diff", "mermaid"}
    assert block.language in known or excepted(block), block.language


def test_the_exceptions_are_still_needed_and_do_not_grow() -> None:
    there = {(block.document, block.text.partition("\n")[0]) for block in blocks()}
    assert set(NEVER) <= there
    assert len(NEVER) <= MOST


@of("bash")
def test_commands_name_what_is_there(block: Block, has_route: Callable[[str, str], bool]) -> None:
    for command in shell.commands(block.text):
        shell.check(command, has_route)


@pytest.mark.parametrize(
    "wrong",
    [
        "make everything",
        "adlatus serve --prot 8000",
        "ADLATUS_MODLE=a adlatus serve",
        "export ADLATUS_PORT=http",
        "python -m bench.nothing",
        "python -m bench --fast",
        "python examples/nothing.py",
        "pip install 'adlatus[all]'",
        "pytest tests/unit/test_settings.py::test_nothing",
        "docker build -f docker/nothing.Dockerfile docker",
        "curl -X PUT http://127.0.0.1:8000/v1/threads",
        "true && unheard --of",
    ],
)
def test_a_command_that_names_what_is_not_there_is_found_out(wrong: str, has_route: Callable[[str, str], bool]) -> None:
    *before, command = shell.commands(wrong)
    assert len(before) == wrong.count("&&")
    with pytest.raises((shell.WrongError, ValueError)):
        shell.check(command, has_route)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in HEADS))
def test_examples_say_at_their_top_how_they_are_started(name: str, has_route: Callable[[str, str], bool]) -> None:
    head = HEADS[Path(name).suffix]((EXAMPLES / name).read_text("utf-8"))
    started = [line.strip() for line in head.splitlines() if line.startswith("    ")]
    for command in shell.commands("\n".join(started)):
        shell.check(command, has_route)
    if name != "test_with_rehearsal.py":  # pytest starts its servers
        assert "make run" in "\n".join(started)
        assert any(f"examples/{name}" in line for line in started)
        assert "getting-started.md" in head


@of("diff")
def test_what_a_change_adds_is_right(
    block: Block, server: Server, api_key: str, has_route: Callable[[str, str], bool]
) -> None:
    after = "".join(line[1:] + "\n" for line in block.text.splitlines() if not line.startswith("-"))
    if after.startswith("curl"):
        for command in shell.commands(after):
            shell.check(command, has_route)
    elif "baseURL" in after:
        assert f"baseURL: '{URL}/v1', apiKey: 'any'" in after  # tests/examples runs it
    else:
        shown: dict[str, Any] = {"OpenAI": OpenAI, "AzureOpenAI": AzureOpenAI}
        exec(compile(pointed(after, server, api_key), str(block), "exec"), shown)
        with shown["client"] as client:
            assert client.models.list().data


@of("json")
def test_json_is_json(block: Block) -> None:
    """One value, or lines of one each."""
    lines = block.text.splitlines()
    for text in lines if all(line.startswith("{") for line in lines) else [block.text]:
        json.loads(text)


@of("yaml")
def test_yaml_is_yaml_and_scripts_can_be_played(block: Block) -> None:
    [*parts] = yaml.safe_load_all(block.text)
    for part in parts:
        if isinstance(part, dict) and "exchanges" in part:
            rehearsal.parse(block.text.encode(), str(block))


@of("toml")
def test_toml_is_toml_and_tables_of_models_can_be_used(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tomllib.loads(block.text)
    if table.keys() & {"models", "endpoints"}:
        for endpoint in table.get("endpoints", {}).values():
            if name := endpoint.get("api_key_env"):
                monkeypatch.setenv(name, "sk-of-the-endpoint")
        (tmp_path / "models.toml").write_text(block.text, "utf-8")
        models_file.read(tmp_path / "models.toml")


@of("mermaid")
def test_diagrams_are_drawn_from_the_code(block: Block) -> None:
    """What is between marks is compared elsewhere; nothing else may be drawn."""
    before = (ROOT / block.document).read_text("utf-8").splitlines()[: block.line - 1]
    assert before[-1].startswith("<!-- ")


# --- Python


def pointed(code: str, server: Server, api_key: str) -> str:
    """Code of the documents, pointed at the server of the tests."""
    code = code.replace(URL, server.url).replace('api_key="any"', f"api_key={api_key!r}")
    return code.replace("Bearer any", f"Bearer {api_key}")


def python_documents() -> list[str]:
    return sorted({block.document for block in blocks("python")} - set(QUOTED) - set(OF_OTHER_TESTS))


@pytest.fixture
def shown(sdk: OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What blocks of code take for granted: a client, an assistant, a thread, and files in the working directory."""
    (tmp_path / "report.pdf").write_bytes(pdf(["The report"]))
    (tmp_path / "manual.pdf").write_bytes(pdf(["It is switched off with the red button."]))
    (tmp_path / "data.jsonl").write_text('{"a": 1}\n')
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "client": sdk,
        "assistant": sdk.beta.assistants.create(model="gpt-4o"),
        "thread": sdk.beta.threads.create(messages=[{"role": "user", "content": "Hello"}]),
        "Path": Path,
    }
    yield names
    if isinstance(names["client"], (OpenAI, httpx.Client)):
        names["client"].close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("document", python_documents())
def test_python_runs(document: str, server: Server, api_key: str, shown: dict[str, Any]) -> None:
    for block in blocks("python"):
        if block.document == document and not excepted(block):
            code = pointed(block.text, server, api_key).replace('"thread_abc"', repr(shown["thread"].id))
            exec(compile(code, str(block), "exec"), shown)


@pytest.mark.parametrize("document", QUOTED)
def test_quoted_python_is_what_the_file_says(document: str) -> None:
    source = (ROOT / QUOTED[document]).read_text("utf-8")
    for block in blocks("python"):
        if block.document == document:
            assert block.text in source


def test_the_script_of_the_rehearsal_is_played_as_its_document_says(loop: Loop, tmp_path: Path) -> None:
    [script] = [block for block in blocks("yaml") if block.document == "docs/rehearsal.md"]
    [check] = [block for block in blocks("python") if block.document == "docs/rehearsal.md"]
    path = tmp_path / "tutor.yaml"
    path.write_text(script.text, "utf-8")
    weather = {"type": "function", "function": {"name": "get_weather"}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees"}
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    with loop.stack() as stack:
        base_url = loop.run(stack.enter_async_context(rehearsal_server.running(script=path)))
        tutor = {"role": "system", "content": "You are a tutor."}
        for messages in (
            [tutor, {"role": "user", "content": "What is 3 + 4?"}],
            [{"role": "user", "content": "What is the Weather?"}],
            [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}, result],
            [{"role": "user", "content": "Hello"}],
        ):
            body = {"model": "any", "messages": messages, "tools": [weather]}
            httpx.post(f"{base_url}/chat/completions", json=body).raise_for_status()
        code = check.text.replace("http://127.0.0.1:8001", base_url.removesuffix("/v1"))
        exec(compile(code, str(check), "exec"), {"httpx": httpx})
