"""Made requests: valid ones are never refused for a wrong reason, invalid ones never break the server.

The oracles are OpenAI's schema and the server's own document.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.contract.making import JSON, REAL, Maker, Request
from tests.contract.operations import EXTENSIONS
from tests.contract.replay import events_of
from tests.contract.schema import DEVIATIONS, Schema
from tests.contract.test_openai_types import TYPES
from tests.contract.tour import MESSAGES, RUN, RUNS, Operation

ID_NAMES = {placeholder: name for name, placeholder in REAL.items()}
CANCEL = ("POST", f"{RUN}/cancel")
OPERATIONS = sorted(TYPES)
MAX_REFUSAL = 12_000  # an id in a path may be repeated whole, a body may not
MAX_INTEGER = 2_147_483_647
WHOLE = r"(max_num_results|max_(prompt|completion)_tokens|last_messages)"


@dataclass(frozen=True)
class Reason:
    """Why a request that a document allows may be refused, and a request that is. Texts are whole regexes."""

    why: str
    example: Request
    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400

    def __str__(self) -> str:
        return self.why

    def fits(self, response: httpx.Response) -> bool:
        error = response.json()["error"]
        return response.status_code == self.status and all(
            told is None if pattern is None else re.fullmatch(pattern, told or "", re.DOTALL) is not None
            for pattern, told in (
                (self.message, error["message"]),
                (self.param, error["param"]),
                (self.code, error["code"]),
            )
        )


def get(path: str, query: str = "") -> Request:
    return Request("GET", path.format(**REAL), query)


def post(path: str, **body: Any) -> Request:
    return Request("POST", path.format(**REAL), "", json.dumps(body).encode(), JSON)


def assistant(**fields: Any) -> Request:
    return post("/assistants", model="m", **fields)


def message(**fields: Any) -> Request:
    return post(MESSAGES, **{"role": "user", "content": "x"} | fields)


def run(**fields: Any) -> Request:
    return post(RUNS, **{"assistant_id": REAL["assistant_id"]} | fields)


def function(**fields: Any) -> Request:
    return assistant(tools=[{"type": "function", "function": fields}])


OF_BOTH = [
    Reason(
        "the id is of no object",
        get("/assistants/asst_x"),
        r"No (assistant|thread|message|run|run step) found with id '.*'\.",
        status=404,
    ),
    Reason(
        "the id is of another kind",
        get("/threads/x"),
        r"Invalid '\w+_id': '.*'\. Expected an ID that begins with '(asst|thread|msg|run|step)'\.",
        r"\w+_id",
        "invalid_value",
    ),
    Reason(
        "the model is none",
        get("/models/none"),
        r"The model '.*' does not exist",
        "model",
        "model_not_found",
        status=404,
    ),
    Reason(
        "the router lets no line break into the name of a model",
        get("/models/a%0Ab"),
        r"Invalid URL \(GET /v1/models/.*\) \(HINT: .*\)\.",
        status=404,
    ),
    Reason(
        "the run has ended",
        Request("POST", f"{RUN}/cancel".format(**REAL)),
        r"Cannot cancel run with status 'completed'\.",
    ),
    Reason(
        "the database keeps no NUL characters",
        message(content="\0"),
        r"Strings must not hold the NUL character \(\\u0000\)\.",
        code="invalid_value",
    ),
    Reason(
        "the database keeps no NUL characters, so none is looked for",
        get("/assistants", "after=%00"),
        r"Paths and query strings must not hold the NUL character \(%00\)\.",
    ),
    Reason(
        "vector stores wait for issue 5",
        post("/threads", tool_resources={"file_search": {"vector_stores": [{}]}}),
        r"Vector stores are not offered by this version of the server: leave out '(.*)\.vector_stores'\.",
        r"(thread\.)?tool_resources\.file_search",
        "unsupported_value",
    ),
    Reason(
        "a decimal without a fraction is an integer for the schema only",
        run(max_prompt_tokens=300.0),
        r"Invalid type for '(.*)': expected an integer, but got a decimal instead\.",
        rf".*{WHOLE}",
        "invalid_type",
    ),
]
BY_SCHEMA = [
    Reason(
        "the schema says how much metadata there may be in prose only",
        assistant(metadata={str(number): "" for number in range(17)}),
        r"Invalid '(.*)': too many properties\. Expected an object with at most 16 properties, but got .*",
        r"(.*\.)?metadata",
        "object_above_max_properties",
    ),
    Reason(
        "the schema says how long metadata may be in prose only",
        assistant(metadata={"k": "v" * 513}),
        r"Invalid '(.*)': string too long\. Expected a string with maximum length 512, but got .*",
        r"(.*\.)?metadata\..*",
        "string_above_max_length",
    ),
    Reason(
        "the schema says how long names of metadata may be in prose only",
        assistant(metadata={"k" * 65: "v"}),
        r"Invalid property name in '.*': '.*' is too long\. Expected a string with maximum length 64, but got .*",
        r"(.*\.)?metadata\..*",
        "property_name_above_max_length",
    ),
    Reason(
        "the schema says what a limit may be in prose only",
        get("/assistants", "limit=101"),
        r"Invalid 'limit': integer (above maximum|below minimum) value\. Expected a value (<= 100|>= 1), but got .*",
        "limit",
        "integer_(above_max|below_min)_value",
    ),
    Reason(
        "the schema says what a name may be in prose only",
        function(name="no spaces"),
        r"Invalid '(.*)': string does not match pattern\. Expected a string that matches the pattern '.*'\.",
        r".*(function|json_schema)\.name",
        "invalid_value",
    ),
    Reason(
        "the schema says how long a name may be in prose only",
        function(name="n" * 65),
        r"Invalid '(.*)': string too long\. Expected a string with maximum length 64, but got .*",
        r".*(function|json_schema)\.name",
        "string_above_max_length",
    ),
    Reason(
        "nothing is named by an empty string",
        run(model=""),
        r"Invalid '(.*)': string too short\. Expected a string with minimum length 1, but got an empty string.*",
        r"(.*\.)?(model|assistant_id|file_id|url)",
        "string_below_min_length",
    ),
    Reason(
        "the database's integers end somewhere",
        run(max_completion_tokens=MAX_INTEGER + 1),
        rf"Invalid '.*': integer above maximum value\. Expected a value <= {MAX_INTEGER}, but got .*",
        r"max_(prompt|completion)_tokens",
        "integer_above_max_value",
    ),
    Reason(
        "the schema says of the array of attachments what is required of each",
        message(attachments=[{"tools": []}]),
        r"Missing required parameter: '.*attachments\[\d+\]\.(file_id|tools)'\.",
        r"(.*\.)?attachments\[\d+\]\.(file_id|tools)",
        "missing_required_parameter",
    ),
    Reason(
        "only a function is named by `tool_choice.function`",
        run(tool_choice={"type": "file_search", "function": {"name": "f"}}),
        r"Unknown parameter: 'tool_choice\.function'\.",
        r"tool_choice\.function",
        "unknown_parameter",
    ),
    Reason(
        "a function is named by `tool_choice.function` only",
        run(tool_choice={"type": "function"}),
        r"Missing required parameter: 'tool_choice\.function'\.",
        r"tool_choice\.function",
        "missing_required_parameter",
    ),
]


class World:
    """Objects of every kind in the project of a test, made anew when a request has used them up."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._ids: dict[str, str] = {}

    def send(self, request: Request) -> httpx.Response:
        """Fill in the ids of real objects, and send."""
        if not self._ids:
            self._make()
        headers = {} if request.content_type is None else {"content-type": request.content_type}
        response = self._http.request(
            request.method,
            self._real(request.path).removeprefix("/") + (f"?{self._real(request.query)}" if request.query else ""),
            content=self._real(request.content.decode("latin-1")).encode("latin-1"),
            headers=headers,
        )
        if response.is_success and (request.method == "DELETE" or request.path.endswith("/runs")):
            self._http.delete(f"threads/{self._ids['thread']}")  # ends a run that is on its way
            self._ids = {}
        return response

    def _real(self, text: str) -> str:
        return re.sub(r"\b(asst|thread|msg|run|step|model)_real\b", lambda found: self._ids[found[1]], text)

    def _make(self) -> None:
        assistant_id = self._http.post("assistants", json={"model": "m"}).json()["id"]
        messages = [{"role": "user", "content": "Hello"}]
        body = {"assistant_id": assistant_id, "thread": {"messages": messages}, "stream": True}
        events = events_of(self._http.post("threads/runs", json=body).text)
        self._ids = {"asst": assistant_id, "model": "rehearsal"}
        for event in events:
            if event.name in (
                "thread.created",
                "thread.message.created",
                "thread.run.created",
                "thread.run.step.created",
            ):
                self._ids[event.data["id"].partition("_")[0]] = event.data["id"]


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
            if not told or len(error) != 4 or len(response.json()) != 1 or len(response.text) > MAX_REFUSAL:
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
    assert accepted or operation == CANCEL  # whose run has ended


@EXAMPLES
@each_operation
def test_requests_that_the_server_says_it_allows_are_accepted_or_refused_for_a_reason(
    world: World, own_schema: Schema, own_maker: Maker, operation: Operation, examples: int
) -> None:
    def check(request: Request) -> None:
        response = world.send(request)
        assert differences(own_schema, operation, response) == set()
        assert response.is_success or any(reason.fits(response) for reason in OF_BOTH), response.text

    for_all(own_maker.valid(operation), examples, check)


@EXAMPLES
@each_operation
def test_spoiled_requests_never_break_the_server(
    world: World, own_schema: Schema, own_maker: Maker, operation: Operation, examples: int
) -> None:
    def check(request: Request) -> None:
        response = world.send(request)
        assert response.is_success or not list(_of_refusal(response))
        if request.method == operation[0] and not _allowed(own_schema, operation, request):
            assert not response.is_success

    for_all(own_maker.spoiled(operation), examples, check)


def _allowed(schema: Schema, operation: Operation, request: Request) -> bool:
    """Whether the document allows the body."""
    described = schema.body(operation)
    if described is None or not request.content.strip():
        return True
    try:
        body = json.loads(request.content)
    except (ValueError, RecursionError):
        return False
    return request.content_type == JSON and not list(schema.differences(described["$ref"], body))


@pytest.mark.parametrize("reason", OF_BOTH + BY_SCHEMA, ids=str)
def test_each_reason_is_one_for_refusing_what_the_schema_allows(world: World, schema: Schema, reason: Reason) -> None:
    request = reason.example
    path = re.sub(r"\w+_real", lambda found: f"{{{ID_NAMES[found[0]]}}}", request.path)
    assert not request.content or _allowed(schema, (request.method, path), request)
    assert reason.fits(world.send(request))
