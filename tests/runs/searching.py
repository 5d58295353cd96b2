"""Assistants that search files, as tests see them: a server whose model plays a script, files, stores."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import Conversation, Event, read, sent

Json = dict[str, Any]
CONTENT = "step_details.tool_calls[*].file_search.results[*].content"
FOODS = (
    "The favorite food of several people:\n- Summanus Ferdinand: tacos\n- Tekakwitha Effie: pizza\n- Filip Carola: cake"
)
SEARCH = {"type": "file_search"}


def call(*queries: str, name: str = "file_search") -> Json:
    """A call as scripts have it."""
    return {"name": name, "arguments": {"queries": list(queries)}}


def exchange(user: str, *answers: Json, results: str | None = None, **expect: Any) -> Json:
    """The answers to a question, or to what came back of tools if it contains `results`."""
    came_back = {} if results is None else {"tool_results": {"file_search": {"contains": results}} if results else {}}
    return {"expect": {"user": user, **came_back, **expect}, "answers": list(answers)}


@contextmanager
def scripted(loop: Loop, database_url: str, folder: Path, exchanges: list[Json], **settings: Any) -> Iterator[Server]:
    """A server whose model plays these exchanges."""
    script = folder / "script.yaml"
    script.write_text(yaml.safe_dump({"exchanges": exchanges}, allow_unicode=True), "utf-8")
    with serving(loop, Settings(database_url=database_url, rehearsal_script=script, **settings)) as server:
        yield server


def upload(http: httpx.Client, text: str, name: str = "favorite_foods.txt") -> str:
    file_id: str = sent(http.post("/files", data={"purpose": "assistants"}, files={"file": (name, text.encode())}))[
        "id"
    ]
    return file_id


def store_of(http: httpx.Client, *file_ids: str) -> str:
    """A vector store of files that can be searched."""
    store_id: str = sent(http.post("/vector_stores", json={"file_ids": list(file_ids)}))["id"]
    give_up_at = time.monotonic() + 30
    while sent(http.get(f"/vector_stores/{store_id}"))["file_counts"]["in_progress"]:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    return store_id


def of_store(store_id: str) -> Json:
    return {"file_search": {"vector_store_ids": [store_id]}}


def researcher(
    http: httpx.Client, question: str, store_id: str | None, thread_store: str | None = None, **assistant: Any
) -> Conversation:
    """A conversation with an assistant that searches a store, and another one of the thread's."""
    settings = {"model": "gpt-4o", "tools": [SEARCH], **assistant}
    if store_id:
        settings["tool_resources"] = of_store(store_id)
    created = sent(http.post("/assistants", json=settings))
    thread: Json = {"messages": [{"role": "user", "content": question}]}
    if thread_store:
        thread["tool_resources"] = of_store(thread_store)
    return Conversation(http, created["id"], sent(http.post("/threads", json=thread))["id"])


def including(talk: Conversation, **body: Any) -> list[Event]:
    """The stream of a run that wants the contents of results."""
    path = f"{talk.path}/runs?include[]={CONTENT}"
    request = {"assistant_id": talk.assistant_id, "stream": True, **body}
    with talk.http.stream("POST", path, json=request) as response:
        return list(read(response))


def played(server: Server) -> list[Json]:
    """The requests that the model has received, oldest first."""
    listed = httpx.get(f"{server.model_url.removesuffix('/v1')}/requests").json()["data"]
    return [request["body"] for request in listed if request["path"].endswith("/chat/completions")]


def forget(server: Server) -> None:
    httpx.delete(f"{server.model_url.removesuffix('/v1')}/requests")


def searches(step: Json) -> list[Json]:
    found: list[Json] = [call["file_search"] for call in step["step_details"]["tool_calls"] if "file_search" in call]
    return found


def named(events: list[Event], name: str) -> list[Json]:
    return [event.payload for event in events if event.name == name]
