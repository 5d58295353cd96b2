"""What routes need, by name: resources, the caller's project, ids of the right kind, a page, bodies as JSON."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, Protocol

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError, PydanticKnownError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from adlatus.api.width import refuse_wide
from adlatus.errors import (
    BAD_JSON,
    CLIENT_LEFT,
    ContentTooLarge,
    InvalidRequest,
    Unauthorized,
    shortened,
)
from adlatus.resources import Resources
from adlatus.settings import DEFAULT_PROJECT
from adlatus.store.db import Database
from adlatus.store.leases import Claim, Lease
from adlatus.store.pages import Page
from adlatus.tenants.rates import check_tokens
from adlatus.validation import from_validation
from adlatus.wire.common import MAX_DEPTH, ErrorResponse, Json, refuse_deep, refuse_nul
from adlatus.wire.steps import Included

NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the API "
    "from your browser and are prompted for a username and password. You can obtain an API key from your operator."
)


PREFIX = "/v1"
"""Where the API lives. Azure's paths are translated to it."""

REFUSED: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorResponse, "description": "An error"}}
"""What the documentation says of every answer but the one that was asked for."""

MAX_BODY_BYTES = 32 * 2**20
"""The longest JSON body that is read: more than a hundred messages of the greatest length."""

MAX_EVENT = 2**63
"""Numbers of events are below this."""

SEEN = "adlatus.seen"
"""Key of the request's scope under which the middleware learns what the route found out."""

BODY_SEND = "adlatus.body_send"
"""Key of the request's scope: how the body of an answer whose head is sent may go on, past all that wanted the head."""

AZURE = "adlatus.azure"
"""Key of the request's scope under which is kept what a client of Azure's has asked for."""

_HUGE = re.compile(rb"[0-9]{19}")


class Executor(Protocol):
    """The worker of this process, as far as a request needs it."""

    def offer(self) -> Claim | None:
        """A claim for a new run, if there is room."""

    def start(self, lease: Lease) -> None:
        """Execute a run that was committed with that claim."""


# All dependencies are `async def`: FastAPI sends the others through a thread each.


async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def _database(request: Request) -> Database:
    database: Database = request.app.state.resources.database
    return database


async def _executor(request: Request) -> Executor | None:
    executor: Executor | None = request.app.state.worker
    return executor


def secret_in(headers: Headers) -> str | None:
    """The key that a request comes with, if any. Azure's clients send a bare one as `api-key` instead."""
    sent = headers.get("authorization")
    if sent is None:
        return headers.get("api-key", "").strip() or None
    scheme, _, secret = sent.partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


async def project_of(resources: Resources, secret: str | None) -> str:
    """The project that a key opens. On a server without keys any key or none opens the default project.

    Raises `Unauthorized`.
    """
    if resources.access.keyless:
        return DEFAULT_PROJECT
    if secret is None:
        raise Unauthorized(NO_KEY)
    if project_id := await resources.access.project_of(secret):
        return project_id
    raise Unauthorized(
        f"Incorrect API key provided: {_masked(secret)}. You can obtain an API key from your operator, who makes one "
        "with `adlatus keys create`.",
        code="invalid_api_key",
    )


async def _project(request: Request) -> str:
    """The caller's project, once for each request; where its limits do not allow another request, that is all."""
    seen: dict[str, Any] = request.scope[SEEN]
    if "project" not in seen:
        resources: Resources = request.app.state.resources
        project_id = await project_of(resources, secret_in(request.headers))
        _check_named(request.headers.get("openai-project"), project_id, resources)
        seen["project"] = project_id
        seen["standing"] = await resources.rates.let_in(project_id)
    project: str = seen["project"]
    return project


def _check_named(named: str | None, project_id: str, resources: Resources) -> None:
    """*Source* of the words: field reports."""
    if named and named != project_id and not resources.access.keyless:
        raise Unauthorized("OpenAI-Project header should match project for API key", code="mismatched_project")


async def _tokens_left(request: Request) -> None:
    """What makes a model work is refused where the tokens of the minute are used up."""
    project_id = await _project(request)
    check_tokens(project_id, request.scope[SEEN]["standing"])


def _check_beta(request: Request) -> None:
    """The rules of the `OpenAI-Beta` header. Azure wanted none. *Source*: field reports (semantics, section 3)."""
    openai_beta = request.headers.get("openai-beta")
    if openai_beta == "assistants=v2":
        return
    if openai_beta is None:
        if AZURE in request.scope:
            return
        raise InvalidRequest(
            "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the "
            "header 'OpenAI-Beta: assistants=v2'.",
            code="invalid_beta",
        )
    for entry in openai_beta.split(","):
        name, _, version = entry.strip().partition("=")
        if not version:
            raise InvalidRequest(
                f"Invalid beta header provided: '{entry.strip()}'. The header should be in the format "
                "'OpenAI-Beta: example_beta=v1'.",
                code="invalid_beta",
            )
        if name == "assistants" and version == "v1":
            raise InvalidRequest(
                "The v1 Assistants API has been deprecated. See the migration guide for more information: "
                "https://platform.openai.com/docs/assistants/migration.",
                code="invalid_beta",
            )
        if (name, version) != ("assistants", "v2"):
            raise InvalidRequest(f"Unknown beta requested: '{name}'.", code="invalid_beta")


def _digits(value: object) -> object:
    """Refuse what Python takes for an integer and nobody else does, such as `1_0`."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise PydanticKnownError("int_parsing")
    return value


async def _page(
    limit: Annotated[int, Query(ge=1, le=100), BeforeValidator(_digits)] = 20,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    after: Annotated[str | None, Query()] = None,
    before: Annotated[str | None, Query()] = None,
) -> Page:
    return Page(limit=limit, order=order, after=after or None, before=before or None)


async def _after_event(
    after: Annotated[
        int,
        Query(ge=0, lt=MAX_EVENT, description="The number of the last event that you have, from its `id:` line"),
        BeforeValidator(_digits),
    ] = 0,
    last_event_id: Annotated[
        str | None, Header(description="The same, as browsers send it; the greater counts")
    ] = None,
) -> int:
    if last_event_id is None:
        return after
    if not re.fullmatch(r"[0-9]{1,19}", last_event_id) or int(last_event_id) >= MAX_EVENT:
        raise InvalidRequest(
            f"Invalid 'Last-Event-ID' header: '{last_event_id[:64]}'. Expected the number of an event, as the 'id:' "
            "lines of streams have it.",
            param="Last-Event-ID",
            code="invalid_value",
        )
    return max(after, int(last_event_id))


def _replacing(on_active_run: str | None) -> str | None:
    if on_active_run not in (None, "replace"):
        raise InvalidRequest(
            f"Invalid value: '{shortened(on_active_run)}'. The header 'adlatus-on-active-run' may be 'replace', which "
            "cancels the run that is active on the thread; without it a run is refused while one is active.",
            param="adlatus-on-active-run",
            code="invalid_value",
        )
    return on_active_run


def _id(name: str, prefix: str) -> Any:
    """The path parameter `name`, which has to be an id of the right kind. *Source*: a field report."""

    def check(value: str) -> str:
        if not value.startswith(prefix):
            raise InvalidRequest(
                f"Invalid '{name}': '{value[:128]}'. Expected an ID that begins with '{prefix}'.",
                param=name,
                code="invalid_value",
            )
        return value

    return Annotated[str, Path(alias=name, description=f"An ID that begins with '{prefix}'"), AfterValidator(check)]


# A dependency costs a request many times what a validator does, so that only what needs the request is one

Opened = Annotated[Resources, Depends(_resources)]
Db = Annotated[Database, Depends(_database)]
WorkerHere = Annotated[Executor | None, Depends(_executor)]
Project = Annotated[str, Depends(_project)]
TOKENS_LEFT = [Depends(_tokens_left)]
"""Dependencies of routes that make a model work."""
Paging = Annotated[Page, Depends(_page)]
AfterEvent = Annotated[int, Depends(_after_event)]
AssistantId = _id("assistant_id", "asst")
ThreadId = _id("thread_id", "thread")
MessageId = _id("message_id", "msg")
RunId = _id("run_id", "run")
UploadId = _id("upload_id", "upload")
VectorStoreId = _id("vector_store_id", "vs_")
BatchId = _id("batch_id", "vsfb_")
StepId = _id("step_id", "step")

# Defaults of these are given where they are used: a `default_factory` would cost as much as the rest of a request
ReplacesActive = Annotated[str | None, AfterValidator(_replacing), Header(alias="adlatus-on-active-run")]
Include = Annotated[tuple[Included, ...], Query(alias="include[]")]


class _WireRequest(Request):
    """A request whose JSON body has been read and parsed already."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class WireRoute(APIRoute):
    """Wants a key, and reads bodies the way the original does: strictly JSON, and an absent body is an empty object."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle, has_json = super().get_route_handler(), self.body_field is not None

        async def handler(request: Request) -> Response:
            await _project(request)  # before anything is looked at: strangers learn only that they are strangers
            self.check(request)
            return await handle(await _with_json(request) if has_json else request)

        return handler

    def check(self, request: Request) -> None:
        """Refuse a request by its headers."""


class AssistantsRoute(WireRoute):
    """Wants the beta header, too."""

    def check(self, request: Request) -> None:
        _check_beta(request)


async def _with_json(request: Request) -> _WireRequest:
    body, parsed = await read_json(request)
    if b"\\u0000" in body:
        _refuse(refuse_nul, parsed)
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
    wire_request = _WireRequest(scope, request.receive)
    wire_request._body = b"{}"  # what FastAPI looks at to know that there is a body
    wire_request.parsed = parsed
    return wire_request


async def read_json(request: Request) -> tuple[bytes, Json]:
    """The body, and the object that it is; an absent body is an empty object.

    Raises `InvalidRequest` for what is no JSON object or nested too deep, `ContentTooLarge`.
    """
    body = await _read(request)
    return body, _parse(body, request.headers.get("content-type", "")) if body.strip() else {}


async def _read(request: Request) -> bytes:
    """The body, if it is not longer than we read."""
    pieces, size_bytes = [], 0
    try:
        async for piece in request.stream():
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > MAX_BODY_BYTES:
                raise ContentTooLarge(
                    f"The request body is longer than {MAX_BODY_BYTES // 2**20} MiB. "
                    "Send the messages in several requests."
                )
    except ClientDisconnect as error:
        raise InvalidRequest(CLIENT_LEFT) from error
    return b"".join(pieces)


def _parse(body: bytes, content_type: str) -> Json:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise InvalidRequest(
            f"Invalid Content-Type header ({media_type or 'none'}), expected application/json. (HINT: If you're using "
            "curl, you can pass -H 'Content-Type: application/json')"
        )
    refuse_wide(body)
    try:
        parsed = orjson.loads(body)
        if _HUGE.search(body):  # orjson makes floats of integers that do not fit into 64 bits
            parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(BAD_JSON) from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _refuse(refuse_deep, parsed)
    if not isinstance(parsed, dict):
        raise from_validation([{"type": "dict_type", "loc": (), "input": parsed}], parsed)
    return parsed


def _refuse(check: Callable[[object], None], parsed: Json) -> None:
    try:
        check(parsed)
    except PydanticCustomError as error:
        raise InvalidRequest(error.message(), code=error.type) from error


def keyed_router() -> APIRouter:
    """A router whose routes want a key."""
    return APIRouter(prefix=PREFIX, route_class=WireRoute, responses=REFUSED)


def assistants_router() -> APIRouter:
    """A router of the Assistants API: its routes want a key and the beta header."""
    return APIRouter(prefix=PREFIX, route_class=AssistantsRoute, responses=REFUSED)


def json_response(json: bytes) -> Response:
    """JSON that is serialised already."""
    return Response(json, media_type="application/json")


def _masked(secret: str) -> str:
    return f"{secret[:3]}***{secret[-4:]}" if len(secret) > 12 else "***"
