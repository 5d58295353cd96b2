"""Made requests: valid ones are never refused for a wrong reason, invalid ones never break the server.

The oracles are OpenAI's schema and the server's own document.
"""

import json
import re
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.contract.making import JSON, REAL, Maker, Request
from tests.contract.operations import EXTENSIONS
from tests.contract.reasons import BY_DOCUMENT, BY_SCHEMA, OF_BOTH, Reason
from tests.contract.replay import DEADLINE_S, events_of
from tests.contract.schema import DEVIATIONS, Schema
from tests.contract.test_openai_types import TYPES
from tests.contract.tour import RUN, UPLOAD, Operation
from tests.witness import OCTETS

ID_NAMES = {placeholder: name for name, placeholder in REAL.items()}
OF_RUNNING = {("POST", f"{RUN}/cancel"), ("POST", f"{RUN}/submit_tool_outputs"), ("POST", f"{UPLOAD}/complete")}
"""What a run that has ended refuses, however the request is made; and an upload without parts."""

OF_FILES = re.compile("/v1/files(/|$)")
OPERATIONS = sorted(TYPES)
MAX_REFUSAL = 12_000  # an id in a path may be repeated whole, a body may not


class World:
    """Objects of every kind in the project of a test, made anew when a request has used them up."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._ids: dict[str, str] = {}

    def send(self, request: Request) -> httpx.Response:
        """Fill in the ids of real objects, and send."""
        self.ids()
        headers = {} if request.content_type is None else {"content-type": request.content_type}
        self._ids["file"] = self._ids["searched" if request.path.startswith("/vector_stores") else "shown"]
        response = self._http.request(
            request.method,
            self._real(request.path).removeprefix("/") + (f"?{self._real(request.query)}" if request.query else ""),
            content=self._real(request.content.decode("latin-1")).encode("latin-1"),
            headers=headers,
        )
        if response.is_success and (request.method == "DELETE" or request.path.endswith(("/runs", "_real/cancel"))):
            self._http.delete(f"threads/{self._ids['thread']}")  # ends a run that is on its way
            self._ids = {}
        return response

    def ids(self) -> dict[str, str]:
        """The ids of the objects that are there, by kind."""
        if not self._ids:
            self._make()
        return self._ids

    def forget(self) -> None:
        """Make the objects anew when they are next wanted."""
        self._ids = {}

    def _real(self, text: str) -> str:
        kinds = "asst|thread|msg|run|step|file|upload|vsfb|vs|model"
        return re.sub(rf"\b({kinds})_real\b", lambda found: self._ids[found[1]], text)

    def _make(self) -> None:
        assistant_id = self._http.post("assistants", json={"model": "m"}).json()["id"]
        messages = [{"role": "user", "content": "Hello"}]
        run = {"assistant_id": assistant_id, "thread": {"messages": messages}, "stream": True}
        events = events_of(self._http.post("threads/runs", json=run).text)
        shown, searched = (
            self._http.post("files", data={"purpose": purpose}, files={"file": ("a.txt", b"Hello")}).json()["id"]
            for purpose in ("vision", "assistants")
        )
        body = {"purpose": "vision", "filename": "a.txt", "bytes": 5, "mime_type": "text/plain"}
        upload = self._http.post("uploads", json=body).json()
        self._ids = {"asst": assistant_id, "upload": upload["id"], "model": "rehearsal"}
        self._ids |= {"shown": shown, "searched": searched}
        self._make_store(searched)
        for event in events:
            if event.name in (
                "thread.created",
                "thread.message.created",
                "thread.run.created",
                "thread.run.step.created",
            ):
                self._ids[event.data["id"].partition("_")[0]] = event.data["id"]

    def _make_store(self, file_id: str) -> None:
        """A vector store, and a batch of one file in it, which can be searched."""
        store = self._http.post("vector_stores", json={}).json()["id"]
        batch = self._http.post(f"vector_stores/{store}/file_batches", json={"file_ids": [file_id]}).json()["id"]
        give_up_at = time.monotonic() + DEADLINE_S
        while self._http.get(f"vector_stores/{store}").json()["status"] == "in_progress":
            assert time.monotonic() < give_up_at
        self._ids |= {"vs": store, "vsfb": batch}


@pytest.fixture
def world(http: httpx.Client) -> World:
    return World(http)


@pytest.fixture(scope="session")
def maker(schema: Schema) -> Maker:
    return Maker(schema)


@pytest.fixture(scope="session")
def own_maker(own_schema: Schema) -> Maker:
    return Maker(own_schema)


def differences(schema: Schema, operation: Operation, response: httpx.Response) -> set[str]:
    """What is wrong with an answer: nothing, if the request was accepted; else nothing but that it was refused."""
    if response.status_code >= 400:
        return set(_of_refusal(response))
    if response.headers["content-type"] == OCTETS:
        return set()
    if response.headers["content-type"] == JSON:
        return set(schema.differences(schema.of_answer(operation), response.json())) - set(DEVIATIONS)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = [{"event": event.name, "data": event.data} for event in events_of(response.text)]
    assert events[-1] == {"event": "done", "data": "[DONE]"}
    places = dict(schema.of_events()) if schema.knows_events else {}
    found = (schema.differences(places[event["event"]], event) for event in events if places)
    return {difference for each in found for difference in each} - set(DEVIATIONS)


def _of_refusal(response: httpx.Response) -> Iterator[str]:
    if response.status_code >= 500 or response.status_code == 409:
        yield f"status {response.status_code}"
    if response.headers["content-type"] != JSON:
        yield f"content-type {response.headers['content-type']}"
    match response.json():
        case {"error": {"message": str(told), "type": "invalid_request_error", "param": param, "code": code} as error}:
            twice = (
                {"detail": {"message": told, "code": code}} if OF_FILES.match(str(response.request.url.path)) else {}
            )
            others = {name: value for name, value in response.json().items() if name != "error"}
            if not told or len(error) != 4 or others not in ({}, twice) or len(response.text) > MAX_REFUSAL:
                yield f"body {response.text}"
            if not isinstance(param, str | None) or not isinstance(code, str | None):
                yield f"body {response.text}"
        case _:
            yield f"body {response.text}"


EXAMPLES = pytest.mark.parametrize(
    "examples",
    [
        pytest.param(4, id="few"),
        pytest.param(30, id="more", marks=pytest.mark.slow),
        pytest.param(1000, id="many", marks=pytest.mark.nightly),
    ],
)
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)


def for_all(requests: st.SearchStrategy[Request], examples: int, check: Callable[[Request], None]) -> None:
    """Check that many requests, the same each time."""

    def noted(request: Request) -> None:
        note(str(request)[:MAX_REFUSAL])
        check(request)

    given(requests)(
        settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(noted)
    )()


@EXAMPLES
@each_operation
def test_requests_that_the_schema_allows_are_accepted_or_refused_for_a_reason(
    world: World, schema: Schema, maker: Maker, operation: Operation, examples: int
) -> None:
    if operation in EXTENSIONS:
        pytest.skip("the schema does not know it")

    accepted = 0

    def check(request: Request) -> None:
        nonlocal accepted
        response = world.send(request)
        accepted += response.is_success
        assert differences(schema, operation, response) == set()
        assert response.is_success or any(reason.fits(response) for reason in OF_BOTH + BY_SCHEMA), response.text

    for_all(maker.valid(operation), examples, check)
    assert accepted or operation in OF_RUNNING  # whose run has ended


@EXAMPLES
@each_operation
def test_requests_that_the_server_says_it_allows_are_accepted_or_refused_for_a_reason(
    world: World, own_schema: Schema, own_maker: Maker, operation: Operation, examples: int
) -> None:
    def check(request: Request) -> None:
        response = world.send(request)
        assert differences(own_schema, operation, response) == set()
        assert response.is_success or any(reason.fits(response) for reason in OF_BOTH + BY_DOCUMENT), response.text

    for_all(own_maker.valid(operation), examples, check)


@EXAMPLES
@each_operation
def test_spoiled_requests_never_break_the_server(
    world: World, own_schema: Schema, own_maker: Maker, operation: Operation, examples: int
) -> None:
    def check(request: Request) -> None:
        response = world.send(request)
        sent = (request.method, operation[1])
        if sent not in OPERATIONS or not _allowed(own_schema, sent, request):
            assert not response.is_success
        assert differences(own_schema, sent, response) == set()

    for_all(own_maker.spoiled(operation), examples, check)


def _allowed(schema: Schema, operation: Operation, request: Request) -> bool:
    """Whether the document allows the body."""
    described = schema.body(operation)
    if schema.takes_form(operation):
        return True  # not judged here: whether bytes are a form is no matter of a schema
    if described is None or not request.content.strip():
        return True
    try:
        body = json.loads(request.content)
    except (ValueError, RecursionError):
        return False
    return request.content_type == JSON and not list(schema.differences(described["$ref"], body))


@pytest.mark.parametrize("reason", OF_BOTH + BY_SCHEMA + BY_DOCUMENT, ids=str)
def test_each_reason_is_one_for_refusing_what_the_schema_allows(
    world: World, schema: Schema, own_schema: Schema, reason: Reason
) -> None:
    request = reason.example
    schema = own_schema if reason in BY_DOCUMENT else schema
    path = re.sub(r"\w+_real", lambda found: f"{{{ID_NAMES[found[0]]}}}", request.path)
    assert not request.content or _allowed(schema, (request.method, path), request)
    assert reason.fits(world.send(request))
