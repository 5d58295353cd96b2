"""/v1/uploads"""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response

from adlatus.api.deps import Opened, Project, UploadId
from adlatus.api.forms import read_form
from adlatus.api.routers import json_response, keyed_router
from adlatus.errors import InvalidRequest, shortened
from adlatus.files import uploads
from adlatus.wire.files import File
from adlatus.wire.uploads import MAX_PART_BYTES, CompleteUploadRequest, CreateUploadRequest, Upload, UploadPart

router = keyed_router()

_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "required": ["data"],
                "properties": {"data": {"type": "string", "format": "binary"}},
            }
        }
    },
}


@router.post("/uploads", response_model=Upload)
async def create_upload(opened: Opened, project: Project, body: CreateUploadRequest) -> Response:
    """Create an upload of up to 8 GB, which takes parts for an hour."""
    return json_response(Upload.of(await uploads.create(opened, project, body)).json_bytes())


@router.post("/uploads/{upload_id}/parts", response_model=UploadPart, openapi_extra={"requestBody": _FORM})
async def add_upload_part(request: Request, opened: Opened, project: Project, upload_id: UploadId) -> Response:
    """Add a part of up to 64 MB; parts may come in any order, and at the same time."""

    async def arrives(key: str) -> int:
        async def write(pieces: AsyncIterator[bytes]) -> None:
            await opened.blobs.write(key, pieces)

        form = await read_form(request, "data", MAX_PART_BYTES, write)
        for name in form.fields.keys() - {"data"}:
            raise InvalidRequest(
                f"Unknown parameter: '{shortened(name)}'.", param=shortened(name), code="unknown_parameter"
            )
        if form.file is None:
            hint = " (HINT: It is sent as text; send it with a filename.)" if form.fields else ""
            raise InvalidRequest(
                f"Missing required parameter: 'data'.{hint}", param="data", code="missing_required_parameter"
            )
        return form.file.size_bytes

    return json_response(UploadPart.of(await uploads.add_part(opened, project, upload_id, arrives)).json_bytes())


@router.post("/uploads/{upload_id}/complete", response_model=Upload)
async def complete_upload(
    opened: Opened, project: Project, upload_id: UploadId, body: CompleteUploadRequest
) -> Response:
    """Make a file of parts, in the order in which they are named."""
    upload, file = await uploads.complete(opened, project, upload_id, body)
    return json_response(Upload.of({**upload, "file": File.of(file)}).json_bytes())


@router.post("/uploads/{upload_id}/cancel", response_model=Upload)
async def cancel_upload(opened: Opened, project: Project, upload_id: UploadId) -> Response:
    """Cancel an upload; its parts are deleted."""
    return json_response(Upload.of(await uploads.cancel(opened, project, upload_id)).json_bytes())
