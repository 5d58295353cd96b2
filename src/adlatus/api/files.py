"""/v1/files"""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import structlog
from fastapi import Depends, Path, Query, Request, Response
from pydantic import BeforeValidator, ValidationError
from starlette.responses import StreamingResponse

from adlatus.api.deps import Db, Opened, Project
from adlatus.api.downloads import attachment, satisfiable
from adlatus.api.forms import Form, SentFile, read_form
from adlatus.api.routers import json_response, keyed_router
from adlatus.errors import InternalError, InvalidFile, InvalidRequest, shortened
from adlatus.files import keeping
from adlatus.ids import new_id
from adlatus.retrieval import sweeping
from adlatus.store import files
from adlatus.store.pages import Page
from adlatus.validation import from_validation
from adlatus.wire.common import ObjectList, object_list
from adlatus.wire.files import (
    ACCEPTED,
    MAX_FILE_BYTES,
    MAX_FILENAME,
    NOT_DOWNLOADABLE,
    DeletedFile,
    ExpiresAfter,
    File,
    FilePurpose,
)

log = structlog.get_logger(__name__)
router = keyed_router()

OCTETS = "application/octet-stream"
FileId = Annotated[str, Path()]
"""Ids of any shape: the original knew none of them, and said so. *Source*: recorded errors."""

_LIST_LIMIT = 10_000
_EXPIRY_FIELDS = {"expires_after[anchor]": "anchor", "expires_after[seconds]": "seconds"}
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "required": ["file", "purpose"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "purpose": {"type": "string", "enum": [*ACCEPTED]},
                    "expires_after": ExpiresAfter.model_json_schema(),
                },
            }
        }
    },
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


def _in_range(limit: object) -> object:
    """*Source* of the words: a project that asks the original."""
    if isinstance(limit, str) and not (re.fullmatch(r"[0-9]{1,18}", limit) and 1 <= int(limit) <= _LIST_LIMIT):
        raise InvalidFile(f"limit must be between 1 and {_LIST_LIMIT}.", param="limit")
    return limit


@router.post("/files", response_model=File, openapi_extra={"requestBody": _FORM})
async def create_file(request: Request, opened: Opened, project: Project) -> Response:
    """Upload a file: a multipart form, with at most 512 MB. `expires_after` is sent as `expires_after[seconds]`."""
    file_id = new_id("file")
    key = files.key_of(file_id)

    async def write(pieces: AsyncIterator[bytes]) -> None:
        await opened.blobs.write(key, pieces)

    async with keeping.incoming(opened, project, key):
        form = await read_form(request, "file", MAX_FILE_BYTES, write)
        sent, purpose, expires_after_s = _checked(form)
        async with opened.database.transaction() as tx:
            row = await keeping.add(
                opened,
                tx,
                file_id,
                project,
                filename=sent.filename,
                purpose=purpose,
                size_bytes=sent.size_bytes,
                expires_after_s=expires_after_s,
            )
    return json_response(File.of(row).json_bytes())


def _checked(form: Form) -> tuple[SentFile, FilePurpose, int | None]:
    """File, purpose and seconds to its expiry. *Source* of the words: recorded errors, whose style the others keep."""
    for name in form.fields.keys() - {"file", "purpose", *_EXPIRY_FIELDS}:
        shown = shortened(name)
        raise InvalidFile(f"Additional properties are not allowed ('{shown}' was unexpected)", param=shown)
    if form.file is None:
        hint = " (HINT: It is sent as text; send it with a filename.)" if "file" in form.fields else ""
        raise InvalidFile(f"'file' is a required property{hint}", param="file")
    if not 1 <= len(form.file.filename) <= MAX_FILENAME:
        raise InvalidFile(
            f"The name of the file must have 1 to {MAX_FILENAME} characters, not {len(form.file.filename)}.",
            param="file",
        )
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidFile("'purpose' is a required property", param="purpose")
    if purpose not in ACCEPTED:
        listed = [str(each) for each in ACCEPTED]
        raise InvalidFile(f"'{shortened(purpose)}' is not one of {listed} - 'purpose'", param="purpose")
    return form.file, FilePurpose(purpose), _expires_after_s(form)


def _expires_after_s(form: Form) -> int | None:
    sent: dict[str, object] = {key: form.fields[name] for name, key in _EXPIRY_FIELDS.items() if name in form.fields}
    if not sent:
        return None
    if re.fullmatch(r"-?[0-9]{1,18}", str(sent.get("seconds"))):
        sent["seconds"] = int(str(sent["seconds"]))
    try:
        return ExpiresAfter.model_validate(sent).seconds
    except ValidationError as error:
        errors = [{**each, "loc": ("expires_after", *each["loc"])} for each in error.errors()]
        raise from_validation(errors, {"expires_after": sent}) from error


async def _page(
    limit: Annotated[int, Query(ge=1, le=_LIST_LIMIT), BeforeValidator(_in_range)] = _LIST_LIMIT,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    after: Annotated[str | None, Query()] = None,
) -> Page:
    return Page(limit=limit, order=order, after=after or None)


@router.get("/files", response_model=ObjectList[File])
async def list_files(
    db: Db, project: Project, page: Annotated[Page, Depends(_page)], purpose: str | None = None
) -> Response:
    """List files: up to 10,000 at a time, of one purpose if wanted."""
    found, has_more = await files.page(db, page, project, purpose)
    shown = [(row["id"], File.of(row).json_bytes()) for row in found]
    return json_response(object_list(shown, has_more, of_files=True))


@router.get("/files/{file_id}", response_model=File)
async def retrieve_file(db: Db, project: Project, file_id: FileId) -> Response:
    """Retrieve a file."""
    return json_response(File.of(await files.get(db, project, file_id)).json_bytes())


@router.delete("/files/{file_id}", response_model=DeletedFile)
async def delete_file(opened: Opened, project: Project, file_id: FileId) -> Response:
    """Delete a file."""
    await keeping.remove(opened, project, file_id)
    await sweeping.sweep_soon(opened)
    return json_response(DeletedFile(id=file_id).json_bytes())


@router.get("/files/{file_id}/content", response_class=Response, responses=_BYTES)
@router.head("/files/{file_id}/content", include_in_schema=False)
async def download_file(request: Request, opened: Opened, project: Project, file_id: FileId) -> Response:
    """The bytes of a file, or a range of them; not of files for assistants, which the original did not give back."""
    row = await files.get(opened.database, project, file_id)
    if row["purpose"] in NOT_DOWNLOADABLE:
        raise InvalidRequest(f"Not allowed to download files of purpose: {row['purpose']}")
    etag, size_bytes = f'"{file_id}"', row["bytes"]
    headers = {
        "content-disposition": attachment(row["filename"]),
        "accept-ranges": "bytes",
        "etag": etag,
        "cache-control": "private, no-store",
    }
    unchanged = request.headers.get("if-range", etag) == etag  # what has an id never changes
    part = satisfiable(request.headers.get("range"), size_bytes) if unchanged and request.method == "GET" else None
    start, end = part or (0, size_bytes)
    headers["content-length"] = str(end - start)
    if part:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=OCTETS)
    try:
        pieces = await opened.blobs.read(files.key_of(file_id), start, end)
    except FileNotFoundError as error:
        log.error("the bytes of a file are gone", file_id=file_id, storage=opened.blobs.shown)
        raise InternalError from error
    return StreamingResponse(pieces, 206 if part else 200, headers, OCTETS)
