"""Which embedded index has the chunks of this database's files, and how they all are indexed again."""

from sqlalchemy import Text, false, func, null, select, true, update
from sqlalchemy.dialects.postgresql import insert

from adlatus.store import leases
from adlatus.store.db import Connection, Transaction, param
from adlatus.store.leases import FREED
from adlatus.store.tables import index_owner, vector_store_files, vector_stores
from adlatus.wire.vector_stores import FileStatus


async def claim(connection: Connection, index_id: str) -> bool:
    """Let an embedded index have the chunks of this database unless another one has; whether it has them."""
    await connection.fetch(_CLAIM, id=index_id)
    row = await connection.fetch_row(_OWNER)
    return row is not None and row["id"] == index_id


async def replace(tx: Transaction, index_id: str | None) -> int:
    """Let another index have the chunks, and all files be indexed again; gives how many files. None: a shared index."""
    if index_id is not None:
        await tx.fetch(_REPLACE, id=index_id)
    await tx.fetch(_FILL_AGAIN)
    again = await tx.fetch(_AGAIN)
    await leases.wake(tx)
    return len(again)


_id = param("id", Text())
_OWNER = select(index_owner.c.id)
_CLAIM = insert(index_owner).values(id=_id).on_conflict_do_nothing()
_REPLACE = insert(index_owner).values(id=_id).on_conflict_do_update(index_elements=["singleton"], set_={"id": _id})
_FILL_AGAIN = update(vector_stores).where(vector_stores.c.emptied.is_(true())).values(emptied=false())
_AGAIN = (
    update(vector_store_files)
    .where(vector_store_files.c.status == FileStatus.COMPLETED.value)
    .values(
        status=FileStatus.IN_PROGRESS.value,
        embedding_model=null(),
        embedding_dimensions=null(),
        late_interaction=null(),
        chunks=null(),
        usage_bytes=0,
        failures=0,
        abandoned=0,
        retry_at=func.now(),
        **FREED,
    )
    .returning(vector_store_files.c.id)
)
