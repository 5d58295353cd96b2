"""/v1/vector_stores"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import Query, Response
from starlette.responses import StreamingResponse

from adlatus.api.deps import BatchId, Db, Opened, Paging, Project, VectorStoreId
from adlatus.api.files import FileId
from adlatus.api.routers import json_response, keyed_router
from adlatus.errors import InvalidRequest
from adlatus.retrieval import content, sweeping
from adlatus.retrieval.ranking import Question
from adlatus.retrieval.rewriting import rewritten
from adlatus.retrieval.search import filter_of, search
from adlatus.store import vector_store_files as files
from adlatus.store import vector_stores as stores
from adlatus.store.db import Row
from adlatus.wire.common import Deleted, ObjectList, object_list
from adlatus.wire.events import compact
from adlatus.wire.vector_stores import (
    AttachFileRequest,
    CreateFileBatchRequest,
    CreateVectorStoreRequest,
    FileBatch,
    FileContent,
    FileStatus,
    ModifyAttributesRequest,
    ModifyVectorStoreRequest,
    SearchContent,
    SearchRequest,
    SearchResult,
    SearchResults,
    VectorStore,
    VectorStoreFile,
    attaching,
)

router = keyed_router()
"""The original did not want the beta header here. *Source*: recorded requests."""

StatusFilter = Annotated[Literal["in_progress", "completed", "failed", "cancelled"] | None, Query(alias="filter")]
POLL_AFTER_MS = "100"
"""What the SDK's polling helpers are told: come back soon."""


# --- Stores


@router.post("/vector_stores", response_model=VectorStore)
async def create_vector_store(db: Db, project: Project, body: CreateVectorStoreRequest) -> Response:
    """Create a vector store, with files if any are named."""
    async with db.transaction() as tx:
        store_id = await stores.add(
            tx,
            project,
            name=body.name,
            description=body.description,
            metadata=body.metadata or {},
            expires_after_days=body.expires_after.days if body.expires_after else None,
        )
        await files.attach(tx, project, store_id, attaching(body.file_ids or (), body.chunking_strategy))
        row = await stores.get(tx, project, store_id)
    return json_response(VectorStore.of(row).json_bytes())


@router.get("/vector_stores", response_model=ObjectList[VectorStore])
async def list_vector_stores(db: Db, project: Project, page: Paging) -> Response:
    """List vector stores."""
    found, has_more = await stores.page(db, page, project)
    return json_response(object_list([(row["id"], VectorStore.of(row).json_bytes()) for row in found], has_more))


@router.get("/vector_stores/{vector_store_id}", response_model=VectorStore)
async def retrieve_vector_store(db: Db, project: Project, vector_store_id: VectorStoreId) -> Response:
    """Retrieve a vector store."""
    return _polled(VectorStore.of(await stores.get(db, project, vector_store_id)))


@router.post("/vector_stores/{vector_store_id}", response_model=VectorStore)
async def modify_vector_store(
    db: Db, project: Project, vector_store_id: VectorStoreId, body: ModifyVectorStoreRequest
) -> Response:
    """Modify a vector store: only what is sent changes."""
    sent = body.model_dump(include=body.model_fields_set)
    changes = {column: sent[column] for column in ("name",) if column in sent}
    if "metadata" in sent:
        changes["metadata"] = sent["metadata"] or {}
    if "expires_after" in sent:
        changes["expires_after_days"] = body.expires_after.days if body.expires_after else None
    row = await stores.modify(db, project, vector_store_id, changes)
    return json_response(VectorStore.of(row).json_bytes())


@router.delete("/vector_stores/{vector_store_id}", response_model=Deleted)
async def delete_vector_store(opened: Opened, project: Project, vector_store_id: VectorStoreId) -> Response:
    """Delete a vector store; its files stay files."""
    await stores.remove(opened.database, project, vector_store_id)
    await sweeping.sweep_soon(opened)
    return json_response(Deleted(id=vector_store_id, object="vector_store.deleted").json_bytes())


@router.post("/vector_stores/{vector_store_id}/search", response_model=SearchResults)
async def search_vector_store(
    opened: Opened, project: Project, vector_store_id: VectorStoreId, body: SearchRequest
) -> Response:
    """Find the passages of a vector store that answer a query best."""
    options = body.ranking_options
    queries = body.queries
    if body.rewrite_query:
        await stores.usable(opened.database, project, [vector_store_id])  # no model is asked for nothing
        queries = await rewritten(opened, queries)
    question = Question(
        queries=queries,
        vector_store_ids=[vector_store_id],
        limit=body.max_num_results or 10,
        filter=filter_of(body.filters) if body.filters else None,
        score_threshold=options.score_threshold if options else 0.0,
        rerank=options is None or options.ranker != "none",
    )
    results = await search(opened, project, question)
    data = [
        SearchResult(
            file_id=result.file_id,
            filename=result.filename,
            score=result.score,
            attributes=dict(result.attributes),
            content=[SearchContent(text=result.text)],
        )
        for result in results
    ]
    return json_response(SearchResults(search_query=queries, data=data).json_bytes())


# --- Files


@router.post("/vector_stores/{vector_store_id}/files", response_model=VectorStoreFile)
async def create_vector_store_file(
    db: Db, project: Project, vector_store_id: VectorStoreId, body: AttachFileRequest
) -> Response:
    """Put a file into a vector store, to be made searchable."""
    async with db.transaction() as tx:
        await files.attach(tx, project, vector_store_id, [body], any_type=True)
        row = await files.get(tx, project, vector_store_id, body.file_id)
    return json_response(VectorStoreFile.of(row).json_bytes())


@router.get("/vector_stores/{vector_store_id}/files", response_model=ObjectList[VectorStoreFile])
async def list_vector_store_files(
    db: Db, project: Project, vector_store_id: VectorStoreId, page: Paging, status: StatusFilter = None
) -> Response:
    """List the files of a vector store."""
    return _listed(*await files.page(db, page, project, vector_store_id, status=status))


@router.get("/vector_stores/{vector_store_id}/files/{file_id}", response_model=VectorStoreFile)
async def retrieve_vector_store_file(
    db: Db, project: Project, vector_store_id: VectorStoreId, file_id: FileId
) -> Response:
    """Retrieve a file of a vector store."""
    return _polled(VectorStoreFile.of(await files.get(db, project, vector_store_id, file_id)))


@router.post("/vector_stores/{vector_store_id}/files/{file_id}", response_model=VectorStoreFile)
async def modify_vector_store_file(
    opened: Opened, project: Project, vector_store_id: VectorStoreId, file_id: FileId, body: ModifyAttributesRequest
) -> Response:
    """Replace the attributes of a file of a vector store."""
    row = await content.set_attributes(opened, project, vector_store_id, file_id, body.attributes or {})
    return json_response(VectorStoreFile.of(row).json_bytes())


@router.delete("/vector_stores/{vector_store_id}/files/{file_id}", response_model=Deleted)
async def delete_vector_store_file(
    opened: Opened, project: Project, vector_store_id: VectorStoreId, file_id: FileId
) -> Response:
    """Take a file out of a vector store; it stays a file."""
    await files.remove(opened.database, project, vector_store_id, file_id)
    await sweeping.sweep_soon(opened)
    return json_response(Deleted(id=file_id, object="vector_store.file.deleted").json_bytes())


@router.get("/vector_stores/{vector_store_id}/files/{file_id}/content", response_model=FileContent)
async def retrieve_vector_store_file_content(
    opened: Opened, project: Project, vector_store_id: VectorStoreId, file_id: FileId
) -> Response:
    """The text of a file as it was read."""
    await stores.usable(opened.database, project, [vector_store_id])  # one that has expired has no chunks any more
    row = await files.get(opened.database, project, vector_store_id, file_id)
    if row["status"] != FileStatus.COMPLETED:
        raise InvalidRequest(f"The content of '{file_id}' cannot be shown: its status is '{row['status']}'.")
    texts = content.texts(opened, row)
    first = await anext(texts, None)  # what is wrong with the index is known before the answer begins
    return StreamingResponse(_content(first, texts), media_type="application/json")


async def _content(first: str | None, texts: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """The JSON of `FileContent`, as its text comes in."""
    yield b'{"object":"vector_store.file_content.page","data":['
    if first is not None:
        yield compact({"type": "text", "text": first})
        async for text in texts:
            yield b"," + compact({"type": "text", "text": text})
    yield b'],"has_more":false,"next_page":null}'


# --- Batches


@router.post("/vector_stores/{vector_store_id}/file_batches", response_model=FileBatch)
async def create_vector_store_file_batch(
    db: Db, project: Project, vector_store_id: VectorStoreId, body: CreateFileBatchRequest
) -> Response:
    """Put up to 2,000 files into a vector store at once."""
    async with db.transaction() as tx:
        row = await files.add_batch(tx, project, vector_store_id, body.attached())
    return json_response(FileBatch.of(row).json_bytes())


@router.get("/vector_stores/{vector_store_id}/file_batches/{batch_id}", response_model=FileBatch)
async def retrieve_vector_store_file_batch(
    db: Db, project: Project, vector_store_id: VectorStoreId, batch_id: BatchId
) -> Response:
    """Retrieve a batch of files."""
    return _polled(FileBatch.of(await files.get_batch(db, project, vector_store_id, batch_id)))


@router.post("/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", response_model=FileBatch)
async def cancel_vector_store_file_batch(
    db: Db, project: Project, vector_store_id: VectorStoreId, batch_id: BatchId
) -> Response:
    """Cancel what of a batch is still in progress."""
    async with db.transaction() as tx:
        row = await files.cancel_batch(tx, project, vector_store_id, batch_id)
    return json_response(FileBatch.of(row).json_bytes())


@router.get(
    "/vector_stores/{vector_store_id}/file_batches/{batch_id}/files", response_model=ObjectList[VectorStoreFile]
)
async def list_files_of_batch(
    db: Db,
    project: Project,
    vector_store_id: VectorStoreId,
    batch_id: BatchId,
    page: Paging,
    status: StatusFilter = None,
) -> Response:
    """List the files of a batch."""
    return _listed(*await files.page(db, page, project, vector_store_id, status=status, batch_id=batch_id))


def _listed(found: list[Row], has_more: bool) -> Response:
    return json_response(object_list([(row["id"], VectorStoreFile.of(row).json_bytes()) for row in found], has_more))


def _polled(shown: VectorStore | VectorStoreFile | FileBatch) -> Response:
    response = json_response(shown.json_bytes())
    response.headers["openai-poll-after-ms"] = POLL_AFTER_MS
    return response
