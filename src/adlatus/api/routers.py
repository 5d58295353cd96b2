"""The routes of the API: they want a key, and read JSON the way the original does."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic_core import PydanticCustomError
from starlette.requests import ClientDisconnect

from adlatus.api.callers import check_beta, project
from adlatus.api.width import refuse_wide
from adlatus.errors import BAD_JSON, CLIENT_LEFT, ContentTooLarge, InvalidRequest
from adlatus.validation import from_validation
from adlatus.wire.common import MAX_DEPTH, ErrorResponse, Json, refuse_deep, refuse_nul

PREFIX = "/v1"
"""Where the API lives. Azure's paths are translated to it."""

REFUSED: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorResponse, "description": "An error"}}
"""What the documentation says of every answer but the one that was asked for."""

MAX_BODY_BYTES = 32 * 2**20
"""The longest JSON body that is read: more than a hundred messages of the greatest length."""

_HUGE = re.compile(rb"[0-9]{19}")


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
            await project(request)  # before anything is looked at: strangers learn only that they are strangers
            self.check(request)
            return await handle(await _with_json(request) if has_json else request)

        return handler

    def check(self, request: Request) -> None:
        """Refuse a request by its headers."""


class AssistantsRoute(WireRoute):
    """Wants the beta header, too."""

    def check(self, request: Request) -> None:
        check_beta(request)


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
