"""Assistants that execute code, as tests see them: a server whose model plays a script, in front of real sandboxes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import MACHINE_DATA_DIR, Loop, Server, missing
from tests.runs.searching import scripted
from tests.runs.transcripts import Conversation, sent

Json = dict[str, Any]
CODE = {"type": "code_interpreter"}
ENGINES = ("docker", "bubblewrap")


def call(code: str, name: str = "code_interpreter") -> Json:
    """A call as scripts have it."""
    return {"name": name, "arguments": {"code": code}}


def exchange(user: str, *answers: Json, output: str | None = None, **expect: Any) -> Json:
    """The answers to a question, or to output of code that contains `output`."""
    came_back = {} if output is None else {"tool_results": {"code_interpreter": {"contains": output}}}
    return {"expect": {"user": user, **came_back, **expect}, "answers": list(answers)}


def coding(user: str, code: str, output: str, answer: str) -> list[Json]:
    """A question that is answered after one call."""
    return [
        exchange(user, {"tool_calls": [call(code)]}, tools=["code_interpreter"]),
        exchange(user, {"text": answer}, output=output),
    ]


@contextmanager
def interpreting(
    loop: Loop, database_url: str, folder: Path, engine: str, exchanges: list[Json], **settings: Any
) -> Iterator[Server]:
    """A server whose model plays these exchanges, with sandboxes of an engine of this machine."""
    with tempfile.TemporaryDirectory(prefix="adlatus-tests-") as data_dir:
        Path(data_dir).chmod(0o755)  # the users of sandboxes have to get in
        Path(data_dir, "sandbox").symlink_to(MACHINE_DATA_DIR / "sandbox")
        settings |= {"sandbox": engine, "data_dir": Path(data_dir)}
        with scripted(loop, database_url, folder, exchanges, **settings) as server:
            if server.resources.sandboxes is None:
                missing(engine, server.resources.sandbox_problem)
            yield server


def upload(http: httpx.Client, content: bytes, name: str) -> str:
    file_id: str = sent(http.post("/files", data={"purpose": "assistants"}, files={"file": (name, content)}))["id"]
    return file_id


def coder(http: httpx.Client, question: str, thread: Json | None = None, **assistant: Any) -> Conversation:
    """A conversation with an assistant that executes code."""
    created = sent(http.post("/assistants", json={"model": "gpt-4o", "tools": [CODE], **assistant}))
    asked: Json = {"messages": [{"role": "user", "content": question}]} | (thread or {})
    return Conversation(http, created["id"], sent(http.post("/threads", json=asked))["id"])


def executed(step: Json) -> list[Json]:
    """The code and the outputs of a step's calls."""
    return [each["code_interpreter"] for each in step["step_details"]["tool_calls"] if "code_interpreter" in each]
