"""Two projects on one server, and every request by which one of them may try to reach what is the other's.

The requests come from `/openapi.json` alone: every id in a path, each query parameter and each field of a body that
takes one. So an operation that is new is tried, or is not known to this file and fails the tests.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from adlatus import ids as fresh
from tests.runs.searching import store_of, upload
from tests.runs.transcripts import eventually, sent

Json = dict[str, Any]
IMAGE = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
Operation = tuple[str, str]

NO_OBJECTS = {
    ("POST", "/v1/files"),
    ("POST", "/v1/uploads"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/moderations"),
    ("POST", "/v1/responses"),
}
"""Operations that name no object of a project. This list only gets shorter."""

HARMLESS = frozenset(("limit", "order", "purpose", "filter", "include[]"))
"""Query parameters that name no object."""

KINDS: Mapping[str, fresh.Kind] = {
    "assistant_id": "asst",
    "thread_id": "thread",
    "message_id": "msg",
    "run_id": "run",
    "step_id": "step",
    "file_id": "file",
    "upload_id": "upload",
    "part_id": "part",
    "vector_store_id": "vs",
    "batch_id": "vsfb",
    "tool_call_id": "call",
}
"""The kind of an id by the name of the parameter or field that takes it."""

REFUSED_AS_WRONG = {
    ("POST", "/v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs", "tool_outputs.[].tool_call_id"): 400,
    ("POST", "/v1/uploads/{upload_id}/complete", "part_ids"): 400,
}
"""Ids that are compared with those of the own object and never looked up: they are a 400 as any wrong one is."""

KEPT_AS_SENT = (".code_interpreter.file_ids", ".image_file.file_id")
"""Ends of fields whose ids are kept as they are sent, as those of deleted files are: they are looked up when they are
used, in the project that uses them. This list only gets shorter."""

_COMPANIONS: Mapping[str, Json] = {
    "messages": {"role": "user", "content": "x"},
    "additional_messages": {"role": "user", "content": "x"},
    "attachments": {"tools": [{"type": "file_search"}]},
    "content": {"type": "image_file"},
    "tool_outputs": {"output": "x"},
}
"""What an item of a list has besides the id."""

_BODIES: Mapping[str, Json] = {
    "/v1/assistants": {"model": "m"},
    "/v1/threads/{thread_id}/messages": {"role": "user", "content": "x"},
    "/v1/vector_stores/{vector_store_id}/search": {"query": "x"},
    "/v1/vector_stores/{vector_store_id}/files/{file_id}": {"attributes": {"tried": "yes"}},
}
"""What a body needs that takes no id there; one that modifies changes something."""


@dataclass(frozen=True)
class Project:
    """A client, one object of each kind by the name of its parameter, and a word that is in all of them.

    `others` are more of them: a file whose bytes may be read, and a thread without an active run.
    """

    http: httpx.Client
    word: str
    ids: dict[str, str]
    others: dict[str, str]


@dataclass(frozen=True)
class Attempt:
    """A request with ids of others among one's own; `foreign` are those, by their names."""

    operation: Operation
    foreign: Mapping[str, str]
    path: str
    where: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None

    def __str__(self) -> str:
        return f"{' '.join(self.operation)} {self.where} {', '.join(self.foreign)}"


def populate(http: httpx.Client, word: str) -> Project:
    """Make one object of each kind, which do not change any more afterwards."""
    said = {"metadata": {"word": word}}
    file_id = upload(http, f"{word} is written here", f"{word}.txt")
    image = {"file": (f"{word}.gif", IMAGE + word.encode())}
    image_id = sent(http.post("/files", data={"purpose": "vision"}, files=image))["id"]
    store_id = store_of(http, file_id)
    batch_id = sent(http.post(f"/vector_stores/{store_id}/file_batches", json={"file_ids": [file_id]}))["id"]
    eventually(lambda: not sent(http.get(f"/vector_stores/{store_id}"))["file_counts"]["in_progress"])
    tools = [{"type": "function", "function": {"name": "ask"}}]
    assistant = {"model": "m", "name": word, "instructions": word, "tools": tools, **said}
    assistant_id = sent(http.post("/assistants", json=assistant))["id"]
    messages = [{"role": "user", "content": f'[[call: ask {{"word": "{word}"}}]]', **said}]
    thread_id = sent(http.post("/threads", json={"messages": messages, **said}))["id"]
    runs = f"/threads/{thread_id}/runs"
    run_id = sent(http.post(runs, json={"assistant_id": assistant_id, **said}))["id"]
    waiting = eventually(lambda: (run := sent(http.get(f"{runs}/{run_id}")))["status"] == "requires_action" and run)
    [call] = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    coming = {"purpose": "vision", "filename": f"{word}.txt", "bytes": 5, "mime_type": "text/plain"}
    upload_id = sent(http.post("/uploads", json=coming))["id"]
    part = http.post(f"/uploads/{upload_id}/parts", files={"data": ("part", b"12345")})
    return Project(
        http,
        word,
        {
            "assistant_id": assistant_id,
            "thread_id": thread_id,
            "message_id": sent(http.get(f"/threads/{thread_id}/messages"))["first_id"],
            "run_id": run_id,
            "step_id": sent(http.get(f"{runs}/{run_id}/steps"))["first_id"],
            "file_id": file_id,
            "upload_id": upload_id,
            "part_id": sent(part)["id"],
            "vector_store_id": store_id,
            "batch_id": batch_id,
            "tool_call_id": call["id"],
        },
        {"file_id": image_id, "thread_id": sent(http.post("/threads", json={"messages": messages, **said}))["id"]},
    )


def operations(document: Json) -> list[Operation]:
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


def attempts(document: Json, project: Project, foreign: Mapping[str, str]) -> Iterator[Attempt]:
    """Every request by which a project may try to reach `foreign`, which has the same names as its own ids."""
    own = project.ids
    for operation in operations(document):
        if operation == ("GET", "/v1/models/{model}"):
            continue
        described = document["paths"][operation[1]][operation[0].lower()]
        yield from _in_path(operation, own, foreign)
        yield from _in_query(operation, described, own, foreign)
        yield from _in_body(operation, described, document, project, foreign)


def _in_path(operation: Operation, own: Mapping[str, str], foreign: Mapping[str, str]) -> Iterator[Attempt]:
    """All ids foreign, and each of them foreign amidst ids of one's own."""
    names = tuple(part[1:-1] for part in operation[1].split("/") if part.startswith("{"))
    for those in dict.fromkeys((names, *((name,) for name in names)) if names else ()):
        tried = {name: foreign[name] for name in those}
        yield Attempt(operation, tried, operation[1].format(**{**own, **tried}), "path", body=_body(operation, own))


def _in_query(
    operation: Operation, described: Json, own: Mapping[str, str], foreign: Mapping[str, str]
) -> Iterator[Attempt]:
    for parameter in described.get("parameters", ()):
        name = parameter["name"]
        if parameter["in"] != "query" or name in HARMLESS or parameter["schema"].get("type") == "integer":
            continue
        noun = _listed(operation[1]) if name in ("after", "before") else name
        tried = {noun: foreign[noun]}
        yield Attempt(operation, tried, operation[1].format(**own), name, query={name: foreign[noun]})


def _listed(path: str) -> str:
    """The name of the id of what a path lists."""
    noun = path.rsplit("/", 1)[1].removesuffix("s")
    return {"file_batche": "batch"}.get(noun, noun) + "_id"


def _in_body(
    operation: Operation, described: Json, document: Json, project: Project, foreign: Mapping[str, str]
) -> Iterator[Attempt]:
    own = project.ids
    contents = described.get("requestBody", {}).get("content", {})
    for field_path in sorted({each for content in contents.values() for each in _fields(document, content["schema"])}):
        noun = field_path.rsplit(".", 1)[-1].removesuffix("s")
        body = _merged(_body(operation, own) or {}, _nested(field_path, foreign[noun]))
        if "{thread_id}" in operation[1] and "{run_id}" not in operation[1]:  # one without an active run
            own = own | {"thread_id": sent(project.http.post("/threads"))["id"]}
        yield Attempt(operation, {noun: foreign[noun]}, operation[1].format(**own), field_path, body=body)


def _fields(
    document: Json, schema: Json, path: tuple[str, ...] = (), seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """The fields of a body that take ids, with `[]` for the items of a list."""
    if name := schema.get("$ref"):
        if name not in seen:
            target = document["components"]["schemas"][name.rsplit("/", 1)[1]]
            yield from _fields(document, target, path, seen | {name})
        return
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _fields(document, branch, path, seen)
    if "items" in schema:
        yield from _fields(document, schema["items"], (*path, "[]"), seen)
    for name, inner in schema.get("properties", {}).items():
        if name.endswith(("_id", "_ids")):
            yield ".".join((*path, name))
        yield from _fields(document, inner, (*path, name), seen)


def _body(operation: Operation, own: Mapping[str, str]) -> Json | None:
    """The least body that the operation takes, with ids of one's own."""
    method, path = operation
    if method != "POST":
        return None
    needed: Json = {
        "/v1/threads/runs": {"assistant_id": own["assistant_id"]},
        "/v1/threads/{thread_id}/runs": {"assistant_id": own["assistant_id"]},
        "/v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs": {"tool_outputs": []},
        "/v1/vector_stores/{vector_store_id}/files": {"file_id": own["file_id"]},
        "/v1/uploads/{upload_id}/complete": {"part_ids": [own["part_id"]]},
    }
    if path.endswith("/file_batches"):
        return {"file_ids": [own["file_id"]]}
    modifies = {"metadata": {"tried": "yes"}} if path.endswith("_id}") else {}
    return _BODIES.get(path) or needed.get(path) or modifies


def _nested(field_path: str, value: str) -> Json:
    """A body that has an id in this field, and nothing else but what has to be beside it."""
    names = field_path.split(".")
    made: Any = [value] if names[-1].endswith("s") else value
    for place in range(len(names) - 1, -1, -1):
        name = names[place]
        made = [{**_COMPANIONS.get(names[place - 1], {}), **made}] if name == "[]" else {name: made}
    result: Json = made
    return result


def _merged(body: Json, changes: Json) -> Json:
    """Bodies that take either one of two fields get the one that is tried."""
    either = {"files": "file_ids"}
    return {name: value for name, value in body.items() if name not in {either.get(each) for each in changes}} | changes


def unknown(ids: Mapping[str, str]) -> dict[str, str]:
    """Ids of the same kinds that nothing has."""
    return {name: fresh.new_id(KINDS[name]) for name in ids}
