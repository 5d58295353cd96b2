"""/v1/assistants"""

from fastapi import Response

from adlatus.api.deps import AssistantId, Db, Opened, Paging, Project
from adlatus.api.routers import assistants_router, json_response
from adlatus.ids import new_id
from adlatus.store import pages, rows, tool_resources
from adlatus.store.tables import assistants
from adlatus.wire.assistants import (
    DEFAULTS,
    Assistant,
    CreateAssistantRequest,
    ModifyAssistantRequest,
    columns,
    with_tool_entries,
)
from adlatus.wire.common import Deleted, ObjectList, object_list

router = assistants_router()


@router.post("/assistants", response_model=Assistant)
async def create_assistant(opened: Opened, project: Project, body: CreateAssistantRequest) -> Response:
    """Create an assistant. The routing table has to know the model; its endpoint is not asked, it may be down."""
    settings = DEFAULTS | columns(body)
    opened.llm.routing.for_assistants(body.model, tools=settings["tools"], response_format=settings["response_format"])
    async with opened.database.transaction() as tx:
        kept = await tool_resources.kept(tx, project, body.tool_resources)
        settings["tool_resources"] = with_tool_entries(settings["tools"], kept)
        row = await rows.add(tx, assistants, id=new_id("asst"), project_id=project, **settings)
    return json_response(Assistant.of(row).json_bytes())


@router.get("/assistants", response_model=ObjectList[Assistant])
async def list_assistants(db: Db, project: Project, page: Paging) -> Response:
    """List assistants."""
    found, has_more = await pages.read(db, assistants, "assistant", page, project_id=project)
    return json_response(object_list([(row["id"], Assistant.of(row).json_bytes()) for row in found], has_more))


@router.get("/assistants/{assistant_id}", response_model=Assistant)
async def retrieve_assistant(db: Db, project: Project, assistant_id: AssistantId) -> Response:
    """Retrieve an assistant."""
    row = await rows.get(db, assistants, "assistant", assistant_id, project_id=project)
    return json_response(Assistant.of(row).json_bytes())


@router.post("/assistants/{assistant_id}", response_model=Assistant)
async def modify_assistant(
    opened: Opened, project: Project, assistant_id: AssistantId, body: ModifyAssistantRequest
) -> Response:
    """Modify an assistant: only what is sent changes."""
    changes = columns(body)
    if body.model:
        opened.llm.routing.for_assistants(body.model)
    async with opened.database.transaction() as tx:
        if body.tool_resources:
            changes["tool_resources"] = await tool_resources.kept(tx, project, body.tool_resources)
        row = await rows.modify(tx, assistants, "assistant", assistant_id, changes, project_id=project)
    return json_response(Assistant.of(row).json_bytes())


@router.delete("/assistants/{assistant_id}", response_model=Deleted)
async def delete_assistant(db: Db, project: Project, assistant_id: AssistantId) -> Response:
    """Delete an assistant. Its runs have their own copy of its settings and go on."""
    await rows.remove(db, assistants, "assistant", assistant_id, project_id=project)
    return json_response(Deleted(id=assistant_id, object="assistant.deleted").json_bytes())
