"""/v1/threads/{thread_id}/messages"""

from typing import Annotated

from fastapi import Query, Response

from adlatus.api.deps import Db, MessageId, Paging, Project, ThreadId
from adlatus.api.routers import assistants_router, json_response
from adlatus.store import rows
from adlatus.store import threads as store
from adlatus.store.tables import messages
from adlatus.wire.common import Deleted, ObjectList, object_list
from adlatus.wire.messages import CreateMessageRequest, Message, ModifiedMessage, ModifyMessageRequest

router = assistants_router()


@router.post("/threads/{thread_id}/messages", response_model=Message)
async def create_message(db: Db, project: Project, thread_id: ThreadId, body: CreateMessageRequest) -> Response:
    """Create a message; refused while a run is active on the thread."""
    async with db.transaction() as tx:
        thread = await store.lock(tx, project, thread_id)
        await store.refuse_while_active(tx, thread_id)
        _, [row] = await store.add_messages(tx, thread, [body])
    return json_response(Message.of(row).json_bytes())


@router.get("/threads/{thread_id}/messages", response_model=ObjectList[Message])
async def list_messages(
    db: Db, project: Project, thread_id: ThreadId, page: Paging, run_id: Annotated[str | None, Query()] = None
) -> Response:
    """List the messages of a thread, or those that one run wrote."""
    found, has_more = await store.page(
        db, messages, "message", page, project_id=project, thread_id=thread_id, run_id=run_id or None
    )
    return json_response(object_list([(row["id"], Message.of(row).json_bytes()) for row in found], has_more))


@router.get("/threads/{thread_id}/messages/{message_id}", response_model=Message)
async def retrieve_message(db: Db, project: Project, thread_id: ThreadId, message_id: MessageId) -> Response:
    """Retrieve a message."""
    row = await rows.get(db, messages, "message", message_id, project_id=project, thread_id=thread_id)
    return json_response(Message.of(row).json_bytes())


@router.post("/threads/{thread_id}/messages/{message_id}", response_model=ModifiedMessage)
async def modify_message(
    db: Db, project: Project, thread_id: ThreadId, message_id: MessageId, body: ModifyMessageRequest
) -> Response:
    """Replace the metadata of a message."""
    changes = {"metadata": body.metadata or {}} if "metadata" in body.model_fields_set else {}
    row = await rows.modify(db, messages, "message", message_id, changes, project_id=project, thread_id=thread_id)
    return json_response(ModifiedMessage.of(row).json_bytes())


@router.delete("/threads/{thread_id}/messages/{message_id}", response_model=Deleted)
async def delete_message(db: Db, project: Project, thread_id: ThreadId, message_id: MessageId) -> Response:
    """Delete a message; refused while a run is writing it. A run that has begun knows those that were there then."""
    async with db.transaction() as tx:
        await store.remove_message(tx, project, thread_id, message_id)
    return json_response(Deleted(id=message_id, object="thread.message.deleted").json_bytes())
