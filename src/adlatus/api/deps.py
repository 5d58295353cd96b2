"""What routes need, by name: resources, the caller's project, ids of the right kind, a page."""

import re
from typing import Annotated, Any, Literal, Protocol

from fastapi import Depends, Header, Path, Query, Request
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticKnownError

from adlatus.api.callers import SEEN, project
from adlatus.errors import InvalidRequest, shortened
from adlatus.resources import Resources
from adlatus.store.db import Database
from adlatus.store.leases import Claim, Lease
from adlatus.store.pages import Page
from adlatus.tenants.rates import check_tokens
from adlatus.wire.steps import Included

MAX_EVENT = 2**63
"""Numbers of events are below this."""


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


async def _tokens_left(request: Request) -> None:
    """What makes a model work is refused where the tokens of the minute are used up."""
    project_id = await project(request)
    check_tokens(project_id, request.scope[SEEN]["standing"])


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


def _replacing(on_active_run: str) -> str:
    if on_active_run != "replace":
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
Project = Annotated[str, Depends(project)]
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
