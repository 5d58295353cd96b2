"""/v1/threads"""

from fastapi import Response

from adlatus.api.deps import Db, Paging, Project, ThreadId
from adlatus.api.routers import assistants_router, json_response
from adlatus.store import pages, rows, tool_resources
from adlatus.store import threads as store
from adlatus.store.tables import threads
from adlatus.wire.common import Deleted, ObjectList, object_list
from adlatus.wire.threads import CreateThreadRequest, ModifyThreadRequest, Thread

router = assistants_router()


@router.post("/threads", response_model=Thread)
async def create_thread(db: Db, project: Project, body: CreateThreadRequest) -> Response:
    """Create a thread, with messages if any are sent."""
    async with db.transaction() as tx:
        row = await store.add(tx, project, body)
    return json_response(Thread.of(row).json_bytes())


@router.get("/threads", response_model=ObjectList[Thread])
async def list_threads(db: Db, project: Project, page: Paging) -> Response:
    """List threads: an extension, the original showed them in its dashboard only."""
    found, has_more = await pages.read(db, threads, "thread", page, project_id=project)
    return json_response(object_list([(row["id"], Thread.of(row).filled().json_bytes()) for row in found], has_more))


@router.get("/threads/{thread_id}", response_model=Thread)
async def retrieve_thread(db: Db, project: Project, thread_id: ThreadId) -> Response:
    """Retrieve a thread."""
    row = await rows.get(db, threads, "thread", thread_id, project_id=project)
    return json_response(Thread.of(row).filled().json_bytes())


@router.post("/threads/{thread_id}", response_model=Thread)
async def modify_thread(db: Db, project: Project, thread_id: ThreadId, body: ModifyThreadRequest) -> Response:
    """Modify a thread: only what is sent changes."""
    sent = body.model_dump(include=body.model_fields_set)
    changes = {column: value or {} for column, value in sent.items()}
    async with db.transaction() as tx:
        if body.tool_resources:
            changes["tool_resources"] = await tool_resources.kept(tx, project, body.tool_resources)
        row = await rows.modify(tx, threads, "thread", thread_id, changes, project_id=project)
    return json_response(Thread.of(row).json_bytes())


@router.delete("/threads/{thread_id}", response_model=Deleted)
async def delete_thread(db: Db, project: Project, thread_id: ThreadId) -> Response:
    """Delete a thread with its messages and runs; an active run ends without a trace."""
    async with db.transaction() as tx:
        await store.remove(tx, project, thread_id)
    return json_response(Deleted(id=thread_id, object="thread.deleted").json_bytes())
