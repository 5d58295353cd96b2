"""Rows of the files of vector stores and of their batches. A row in progress is a job, see `leases.FILES`."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Text,
    and_,
    cast,
    delete,
    exists,
    func,
    literal,
    not_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from adlatus.errors import InvalidRequest, no_file_to_attach, not_found
from adlatus.ids import new_id
from adlatus.store import files, leases, pages, rows, vector_stores
from adlatus.store.db import Connection, Row, Transaction, param
from adlatus.store.leases import FREED, FileLease
from adlatus.store.pages import Page
from adlatus.store.tables import files as all_files
from adlatus.store.tables import unix_now, vector_store_file_batches, vector_store_files
from adlatus.wire.common import Json
from adlatus.wire.files import FilePurpose
from adlatus.wire.vector_stores import SEARCHABLE, AttachFileRequest, FileError, FileStatus, chunking, extension

NOUN = "vector store file"
BATCH_NOUN = "vector store file batch"
SEARCHED = (FilePurpose.ASSISTANTS, FilePurpose.USER_DATA)
"""Purposes of files that tools may use. *Source*: the guides name the first."""


async def attach(
    tx: Transaction,
    project_id: str,
    store_id: str,
    wanted: Sequence[AttachFileRequest],
    *,
    batch_id: str | None = None,
    any_type: bool = False,
) -> None:
    """Put files into a store, to be made searchable by whoever claims them first.

    A file that is there already with the same settings stays as it is, unless it failed; otherwise it is put in anew.
    Raises `NotFound` for the store and for files, and `InvalidRequest` for an expired store, for files of other
    purposes, and unless `any_type` for those of types that cannot be searched.
    """
    await vector_stores.hold(tx, project_id, store_id)
    by_id = {file.file_id: file for file in wanted}
    if not by_id:
        return
    await _check(tx, project_id, list(by_id), any_type=any_type)
    sent = {
        "store_id": store_id,
        "ids": list(by_id),
        "chunkings": [chunking(file.chunking_strategy) for file in by_id.values()],
        "attributes": [file.attributes or {} for file in by_id.values()],
    }
    await tx.fetch(_TAKE_OUT, **sent)
    await tx.fetch(_PUT_IN, **sent, project_id=project_id, batch_id=batch_id)
    await leases.wake(tx)


async def _check(tx: Transaction, project_id: str, file_ids: list[str], *, any_type: bool) -> None:
    found = {row["id"]: row for row in await tx.fetch(_HOLD_FILES, by_ids=file_ids, project_id=project_id)}
    for file_id in file_ids:
        if file_id not in found:
            raise no_file_to_attach(file_id)
        if (purpose := found[file_id]["purpose"]) not in SEARCHED:
            raise InvalidRequest(
                f"The file '{file_id}' has the purpose '{purpose}'. Files of vector stores need the purpose "
                "'assistants': upload it again with that one.",
                param="file_ids",
            )
    refused = sorted({extension(row["filename"]) for row in found.values()} - SEARCHABLE)
    if refused and not any_type:
        raise InvalidRequest(  # Source of the words: field reports
            f"Files with extensions [{', '.join(refused)}] are not supported for retrieval. See "
            "https://platform.openai.com/docs/assistants/tools/file-search/supported-files",
            param="file_ids",
            code="unsupported_file",
        )


async def get(connection: Connection, project_id: str, store_id: str, file_id: str) -> Row:
    """A file of a store. Raises `NotFound`: for the store, if it is the store that is not there."""
    row = await connection.fetch_row(_GET, store_id=store_id, by_id=file_id, project_id=project_id)
    if row is None:
        await vector_stores.get(connection, project_id, store_id)
        raise not_found(NOUN, file_id)
    return row


async def page(
    connection: Connection,
    page: Page,
    project_id: str,
    store_id: str,
    *,
    status: str | None = None,
    batch_id: str | None = None,
) -> tuple[list[Row], bool]:
    """The files of a store or of a batch. Raises `NotFound` for what is not there: the store, the batch, a cursor."""
    if batch_id is None:
        await vector_stores.get(connection, project_id, store_id)
    else:
        await get_batch(connection, project_id, store_id, batch_id)
    scope = {"project_id": project_id, "vector_store_id": store_id, "batch_id": batch_id, "status": status}
    return await pages.read(connection, vector_store_files, NOUN, page, **scope)


async def remove(connection: Connection, project_id: str, store_id: str, file_id: str) -> None:
    """Take a file out of a store. Raises `NotFound`."""
    await get(connection, project_id, store_id, file_id)
    await connection.fetch(_REMOVE, store_id=store_id, by_id=file_id)


async def exchange_attributes(connection: Connection, row: Row, attributes: Json) -> bool:
    """Set a file's attributes if they, and its status, are still those of the row; whether they were."""
    held = {"store_id": row["vector_store_id"], "by_id": row["id"], "seq": row["seq"], "old": row["attributes"]}
    held["status"] = row["status"]
    return await connection.fetch_row(_EXCHANGE_ATTRIBUTES, **held, new=attributes) is not None


async def settled(connection: Connection, store_ids: Sequence[str]) -> bool:
    """Whether no file of some stores is in progress."""
    row = await connection.fetch_row(_UNSETTLED, store_ids=list(store_ids))
    assert row is not None
    return not row["unsettled"]


# --- Batches


async def add_batch(tx: Transaction, project_id: str, store_id: str, wanted: Sequence[AttachFileRequest]) -> Row:
    """A batch of files that are put into a store, with its counts. Raises as `attach` does."""
    await vector_stores.hold(tx, project_id, store_id)
    batch = await rows.add(
        tx, vector_store_file_batches, id=new_id("vsfb"), project_id=project_id, vector_store_id=store_id
    )
    await attach(tx, project_id, store_id, wanted, batch_id=batch["id"])
    return await get_batch(tx, project_id, store_id, batch["id"])


async def get_batch(connection: Connection, project_id: str, store_id: str, batch_id: str) -> Row:
    """A batch with its counts. Raises `NotFound`: for the store, if it is the store that is not there."""
    row = await connection.fetch_row(_GET_BATCH, store_id=store_id, by_id=batch_id, project_id=project_id)
    if row is None:
        await vector_stores.get(connection, project_id, store_id)
        raise not_found(BATCH_NOUN, batch_id)
    return row


async def cancel_batch(tx: Transaction, project_id: str, store_id: str, batch_id: str) -> Row:
    """Cancel what of a batch is in progress; a batch that has ended stays as it is. Raises `NotFound`."""
    # As who puts files into the store, and as its deletion, before its files: else two could wait for each other
    await vector_stores.lock(tx, project_id, store_id)
    await get_batch(tx, project_id, store_id, batch_id)
    await rows.get_locked(tx, vector_store_file_batches, BATCH_NOUN, batch_id)
    if await tx.fetch(_CANCEL_FILES, batch_id=batch_id):
        await tx.fetch(_CANCEL_BATCH, batch_id=batch_id)
        await leases.wake(tx)  # whoever works on one of them may stop
    return await get_batch(tx, project_id, store_id, batch_id)


# --- What indexing needs


async def load(connection: Connection, lease: FileLease) -> Row | None:
    """The file with its name, size and settings; None if the lease is lost."""
    return await connection.fetch_row(_LOAD, token=lease.token)


async def complete_if_held(
    connection: Connection,
    lease: FileLease,
    *,
    attributes: Json,
    usage_bytes: int,
    chunks: int,
    embedding_model: str,
    embedding_dimensions: int,
    late_interaction: bool,
) -> bool:
    """The file can be searched. Whether the lease was held and the attributes were still those that were indexed."""
    values = {
        "usage_bytes": usage_bytes,
        "chunks": chunks,
        "embedding_model": embedding_model,
        "embedding_dimensions": embedding_dimensions,
        "late_interaction": late_interaction,
    }
    return await connection.fetch_row(_COMPLETE, token=lease.token, old=attributes, **values) is not None


async def fail_if_held(connection: Connection, lease: FileLease, error: FileError) -> bool:
    """The file can never be searched. Whether the lease was held."""
    return await connection.fetch_row(_FAIL, token=lease.token, error=error.model_dump()) is not None


async def retry_if_held(connection: Connection, lease: FileLease, after_s: float) -> None:
    """Let somebody try again after some seconds: what went wrong is no fault of the file's."""
    await connection.fetch(_RETRY, token=lease.token, after_s=after_s)


# --- What searching needs


async def spaces(connection: Connection, store_ids: Sequence[str]) -> list[tuple[str, int, bool]]:
    """Where the chunks of some stores are: models, dimensions of their vectors, and whether they interact late."""
    found = await connection.fetch(_SPACES, store_ids=list(store_ids))
    return [(row["embedding_model"], row["embedding_dimensions"], row["late_interaction"]) for row in found]


async def searchable(connection: Connection, keys: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Row]:
    """The files that chunks are of, by store and key (`FileLease.key`), with their names; those that are gone not."""
    store_ids, names = [store_id for store_id, _ in keys], [key for _, key in keys]
    ids = [key.rsplit(".", 2)[0] for key in names]
    found = await connection.fetch(_SEARCHABLE, store_ids=store_ids, ids=ids, keys=names)
    return {(row["vector_store_id"], row["key"]): row for row in found}


_files = vector_store_files
_texts = ARRAY(Text())
_store = _files.c.vector_store_id == param("store_id", Text())
_one = and_(_store, _files.c.id == param("by_id", Text()))
_in_progress = _files.c.status == FileStatus.IN_PROGRESS.value
_held = _files.c.lease_token == param("token", Text())
_unchanged = cast(_files.c.attributes, Text) == cast(param("old", JSON()), Text)
_sent = (
    func.unnest(param("ids", _texts), param("chunkings", ARRAY(JSON())), param("attributes", ARRAY(JSON())))
    .table_valued("id", "chunking", "attributes", with_ordinality="place", name="sent")
    .render_derived()
)


def _text(column: ColumnElement[object]) -> ColumnElement[str]:
    return cast(column, Text)


_HOLD_FILES = (
    select(all_files.c.id, all_files.c.filename, all_files.c.purpose)
    .where(
        all_files.c.id == func.any(param("by_ids", _texts)),
        all_files.c.project_id == param("project_id", Text()),
        files.not_expired,
    )
    .order_by(all_files.c.id)
    .with_for_update(read=True, key_share=True)
)
_TAKE_OUT = (
    delete(_files)
    .where(
        _store,
        _files.c.id == _sent.c.id,
        not_(
            and_(
                _files.c.status.in_((FileStatus.IN_PROGRESS.value, FileStatus.COMPLETED.value)),
                _text(_files.c.chunking_strategy) == _text(_sent.c.chunking),
                _text(_files.c.attributes) == _text(_sent.c.attributes),
            )
        ),
    )
    .returning(_files.c.id)
)
_put_in = upsert(_files).from_select(
    ["vector_store_id", "id", "project_id", "batch_id", "status", "chunking_strategy", "attributes"],
    select(
        param("store_id", Text()),
        _sent.c.id,
        param("project_id", Text()),
        param("batch_id", Text()),
        literal(FileStatus.IN_PROGRESS.value),
        _sent.c.chunking,
        _sent.c.attributes,
    ).order_by(_sent.c.place),
)
_PUT_IN = _put_in.on_conflict_do_update(
    index_elements=["vector_store_id", "id"],
    set_={"batch_id": func.coalesce(_put_in.excluded.batch_id, _files.c.batch_id)},
).returning(_files.c.id)
_GET = select(_files).where(_one, _files.c.project_id == param("project_id", Text()))
_REMOVE = delete(_files).where(_one).returning(_files.c.id)
_EXCHANGE_ATTRIBUTES = (
    update(_files)
    .where(_one, _files.c.seq == param("seq", BigInteger()), _files.c.status == param("status", Text()), _unchanged)
    .values(attributes=param("new", JSON()))
    .returning(_files.c.id)
)
_UNSETTLED = select(
    exists().where(_files.c.vector_store_id == func.any(param("store_ids", _texts)), _in_progress).label("unsettled")
)
_GET_BATCH = select(
    vector_store_file_batches,
    vector_stores.counts_of(_files.c.batch_id == vector_store_file_batches.c.id),
).where(
    vector_store_file_batches.c.id == param("by_id", Text()),
    vector_store_file_batches.c.vector_store_id == param("store_id", Text()),
    vector_store_file_batches.c.project_id == param("project_id", Text()),
)
_of_batch = _files.c.batch_id == param("batch_id", Text())
_CANCEL_FILES = (
    update(_files)
    .where(_of_batch, _in_progress)
    .values(status=FileStatus.CANCELLED.value, **FREED)
    .returning(_files.c.id)
)
_CANCEL_BATCH = (
    update(vector_store_file_batches)
    .where(vector_store_file_batches.c.id == param("batch_id", Text()))
    .values(cancelled_at=func.coalesce(vector_store_file_batches.c.cancelled_at, unix_now))
    .returning(vector_store_file_batches.c.id)
)
_LOAD = (
    select(_files, all_files.c.filename, all_files.c.bytes).join(all_files, all_files.c.id == _files.c.id).where(_held)
)
_COMPLETE = (
    update(_files)
    .where(_held, _unchanged)
    .values(
        status=FileStatus.COMPLETED.value,
        usage_bytes=param("usage_bytes", BigInteger()),
        chunks=param("chunks", Integer()),
        embedding_model=param("embedding_model", Text()),
        embedding_dimensions=param("embedding_dimensions", Integer()),
        late_interaction=param("late_interaction", Boolean()),
        **FREED,
    )
    .returning(_files.c.id)
)
_FAIL = (
    update(_files)
    .where(_held)
    .values(status=FileStatus.FAILED.value, last_error=param("error", JSON()), **FREED)
    .returning(_files.c.id)
)
_RETRY = (
    update(_files)
    .where(_held)
    .values(
        failures=_files.c.failures + 1,
        retry_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, param("after_s", Double())),
        **FREED,
    )
    .returning(_files.c.id)
)
_SPACES = (
    select(_files.c.embedding_model, _files.c.embedding_dimensions, _files.c.late_interaction)
    .where(
        _files.c.vector_store_id == func.any(param("store_ids", _texts)),
        _files.c.status == FileStatus.COMPLETED.value,
    )
    .distinct()
)
_wanted = (
    func.unnest(param("store_ids", _texts), param("ids", _texts), param("keys", _texts))
    .table_valued("store_id", "id", "key", name="wanted")
    .render_derived()
)
_key = _files.c.id + literal(".") + cast(_files.c.seq, Text) + literal(".") + cast(_files.c.attempt, Text)
_SEARCHABLE = (
    select(_files.c.vector_store_id, _wanted.c.key, _files.c.id, _files.c.attributes, all_files.c.filename)
    .join_from(_wanted, _files, and_(_files.c.vector_store_id == _wanted.c.store_id, _files.c.id == _wanted.c.id))
    .join(all_files, all_files.c.id == _files.c.id)
    .where(_files.c.status == FileStatus.COMPLETED.value, _key == _wanted.c.key)
)
