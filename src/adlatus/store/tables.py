"""The tables. Column names equal the wire's names; instants are unix seconds, UTC, by the database's clock.

JSON columns are `json`, not `jsonb`, which would lose the order of keys: objects come back as they were sent.
`seq` keeps the order of rows that were made in the same second.
"""

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from adlatus.wire.files import FilePurpose
from adlatus.wire.runs import RunStatus
from adlatus.wire.uploads import UploadStatus
from adlatus.wire.vector_stores import FileStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ENDED = (
    RunStatus.CANCELLED,
    RunStatus.FAILED,
    RunStatus.COMPLETED,
    RunStatus.INCOMPLETE,
    RunStatus.EXPIRED,
)
"""Final statuses of a run: nothing moves out of them, the lease is gone and `expires_at` is null."""

unix_now = func.floor(func.extract("epoch", func.now())).cast(BigInteger)
"""The start of the transaction in unix seconds, by the database's clock."""

_NOW = text("floor(extract(epoch FROM now()))::bigint")


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({_listed(tuple(values))})"


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _project() -> Column[str]:
    return Column("project_id", Text, ForeignKey("projects.id"), nullable=False)


def _project_of_thread() -> Column[str]:
    """The project that the thread belongs to: a key of its own would be looked up for nothing."""
    return Column("project_id", Text, nullable=False)


def _thread() -> Column[str]:
    return Column("thread_id", Text, ForeignKey("threads.id", ondelete="CASCADE"), nullable=False)


def _vector_store() -> Column[str]:
    return Column("vector_store_id", Text, ForeignKey("vector_stores.id", ondelete="CASCADE"), nullable=False)


def _created() -> tuple[Column[int], Column[int]]:
    return (
        Column("created_at", BigInteger, nullable=False, server_default=_NOW),
        Column("seq", BigInteger, Identity(always=True), nullable=False),
    )


def _json(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, JSON, nullable=nullable)


def _instant(name: str) -> Column[int]:
    return Column(name, BigInteger)


def _sound(table: str, columns: str) -> CheckConstraint:
    """What a row has to be like is said by a function of migration 0008, which is compiled once.

    Expressions are read and prepared for every statement: those of a run took PostgreSQL as long as writing it.
    """
    return CheckConstraint(f"{table}_sound({columns})", "sound")


projects = Table(
    "projects",
    metadata,
    _id(),
    Column("created_at", BigInteger, nullable=False, server_default=_NOW),
    # What it may do; null: as much as it likes
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("active_runs", Integer),
    Column("storage_bytes", BigInteger),
    CheckConstraint("requests_per_minute > 0", "requests_per_minute"),
    CheckConstraint("tokens_per_minute > 0", "tokens_per_minute"),
    CheckConstraint("active_runs > 0", "active_runs"),
    CheckConstraint("storage_bytes > 0", "storage_bytes"),
)

project_rates = Table(
    "project_rates",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("requests", Float, nullable=False),
    Column("tokens", Float, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    prefixes=["UNLOGGED"],
    comment="How full the buckets of limited projects were at an instant; a crash of PostgreSQL empties them",
)

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    _project(),
    Column("name", Text),
    Column("sha256", LargeBinary, nullable=False),
    Column("shown", Text, nullable=False),  # the key's first and last characters
    *_created(),
    _instant("revoked_at"),
    _instant("last_used_at"),
    UniqueConstraint("sha256"),
    Index(None, "project_id", "created_at", "seq"),
)

assistants = Table(
    "assistants",
    metadata,
    _id(),
    _project(),
    *_created(),
    Column("name", Text),
    Column("description", Text),
    Column("model", Text, nullable=False),
    Column("instructions", Text),
    _json("tools"),
    _json("tool_resources"),
    _json("metadata"),
    Column("temperature", Float),
    Column("top_p", Float),
    Column("reasoning_effort", Text),
    _json("response_format"),
    Index(None, "project_id", "created_at", "seq"),
)

threads = Table(
    "threads",
    metadata,
    _id(),
    _project(),
    *_created(),
    _json("metadata"),
    _json("tool_resources"),
    Index(None, "project_id", "created_at", "seq"),
)

messages = Table(
    "messages",
    metadata,
    _id(),
    _project_of_thread(),
    _thread(),
    *_created(),
    Column("assistant_id", Text),
    Column("run_id", Text),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    _json("incomplete_details", nullable=True),
    _instant("incomplete_at"),
    _instant("completed_at"),
    _json("content"),
    _json("attachments"),
    _json("metadata"),
    _sound("messages", "role, status, completed_at, incomplete_at, incomplete_details"),
    Index(None, "thread_id", "created_at", "seq"),
    Index(None, "run_id", postgresql_where=text("run_id IS NOT NULL")),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    _project_of_thread(),
    _thread(),
    *_created(),
    Column("assistant_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    _instant("started_at"),
    _instant("expires_at"),
    _instant("cancelled_at"),
    _instant("failed_at"),
    _instant("completed_at"),
    _json("required_action", nullable=True),
    _json("last_error", nullable=True),
    Column("model", Text, nullable=False),
    Column("instructions", Text),
    _json("tools"),
    _json("tool_resources"),
    _json("metadata"),
    Column("temperature", Float),
    Column("top_p", Float),
    Column("reasoning_effort", Text),
    Column("max_completion_tokens", Integer),
    Column("max_prompt_tokens", Integer),
    _json("truncation_strategy"),
    _json("incomplete_details", nullable=True),
    _json("usage", nullable=True),
    _json("response_format"),
    _json("tool_choice"),
    # What its creator wants to be told in its stream beyond the objects themselves
    Column("include", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("parallel_tool_calls", Boolean, nullable=False),
    # The lease: who executes the run, until when without a heartbeat; how often the run was claimed, and how many of
    # its executors died without handing it back.
    Column("lease_owner", Text),
    Column("lease_token", Text),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("abandoned", Integer, nullable=False, server_default=text("0")),
    # Abilities that its executor must have; since when it was last in want of one, leases apart
    Column("needs", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("claimable_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    _sound(
        "runs",
        "status, started_at, expires_at, cancelled_at, failed_at, completed_at, required_action, last_error, "
        "incomplete_details, lease_owner, lease_token, lease_expires_at",
    ),
    Index(None, "thread_id", "created_at", "seq"),
    Index(
        "uq_runs_active_thread",
        "thread_id",
        unique=True,
        postgresql_where=text(f"status NOT IN ({_listed(ENDED)})"),
    ),
    Index(
        "ix_runs_claimable",
        "project_id",
        text("(status = 'queued')"),
        "created_at",
        "seq",
        postgresql_where=text("status IN ('queued', 'in_progress', 'cancelling')"),
    ),
    Index("ix_runs_leased", "project_id", postgresql_where=text("lease_token IS NOT NULL")),
    Index("ix_runs_unfinished", "expires_at", postgresql_where=text(f"status NOT IN ({_listed(ENDED)})")),
)

run_steps = Table(
    "run_steps",
    metadata,
    _id(),
    _project_of_thread(),
    Column("thread_id", Text, nullable=False),  # the run's
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    *_created(),
    Column("assistant_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    _instant("cancelled_at"),
    _instant("completed_at"),
    _instant("expires_at"),
    _instant("expired_at"),
    _instant("failed_at"),
    _json("last_error", nullable=True),
    _json("step_details"),
    _json("usage", nullable=True),
    _json("metadata"),
    _sound("run_steps", "type, status, completed_at, cancelled_at, failed_at, expired_at"),
    Index(None, "run_id", "created_at", "seq"),
    Index(None, "thread_id"),
)

files = Table(
    "files",
    metadata,
    _id(),
    _project(),
    *_created(),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    _instant("expires_at"),
    CheckConstraint(f"purpose IN ({_listed(tuple(FilePurpose))})", "purpose"),
    CheckConstraint("bytes >= 0", "bytes"),
    CheckConstraint("expires_at > created_at", "expires_at"),
    Index(None, "project_id", "created_at", "seq"),
    Index(None, "project_id", "purpose", "created_at", "seq"),
    Index(None, "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)

uploads = Table(
    "uploads",
    metadata,
    _id(),
    _project(),
    *_created(),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("file_expires_after_s", Integer),
    CheckConstraint(f"purpose IN ({_listed(tuple(FilePurpose))})", "purpose"),
    CheckConstraint(_one_of("status", UploadStatus), "status"),
    CheckConstraint("bytes >= 1", "bytes"),
    CheckConstraint("expires_at > created_at", "expires_at"),
    Index(None, "project_id", "created_at", "seq"),
    Index("ix_uploads_pending", "expires_at", postgresql_where=text("status = 'pending'")),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    _id(),
    _project(),
    Column("upload_id", Text, ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False),
    *_created(),
    Column("bytes", BigInteger, nullable=False),
    CheckConstraint("bytes >= 0", "bytes"),
    Index(None, "upload_id", "created_at", "seq"),
    Index(None, "project_id"),
    comment="Those of pending uploads; the parts of others are gone",
)

loose_blobs = Table(
    "loose_blobs",
    metadata,
    Column("key", Text, primary_key=True),
    _project(),
    Column("due_at", BigInteger, nullable=False),
    Index(None, "due_at"),
    comment="Bytes in the storage that no row stands for yet, or any more: to be deleted when they are due",
)

vector_stores = Table(
    "vector_stores",
    metadata,
    _id(),
    _project(),
    *_created(),
    Column("name", Text),
    Column("description", Text),
    _json("metadata"),
    Column("expires_after_days", Integer),
    Column("last_active_at", BigInteger, nullable=False, server_default=_NOW),
    Column("expires_at", BigInteger, Computed("last_active_at + expires_after_days * 86400::bigint", persisted=True)),
    Column("emptied", Boolean, nullable=False, server_default=text("false")),  # since it expired
    CheckConstraint("expires_after_days BETWEEN 1 AND 365", "expires_after_days"),
    Index(None, "project_id", "created_at", "seq"),
    Index(None, "expires_at", postgresql_where=text("expires_at IS NOT NULL AND NOT emptied")),
)

vector_store_file_batches = Table(
    "vector_store_file_batches",
    metadata,
    _id(),
    _project(),
    _vector_store(),
    *_created(),
    _instant("cancelled_at"),
    Index(None, "vector_store_id"),
)

vector_store_files = Table(
    "vector_store_files",
    metadata,
    _vector_store(),
    Column("id", Text, ForeignKey("files.id", ondelete="CASCADE"), nullable=False),
    _project(),
    *_created(),
    Column("batch_id", Text, ForeignKey("vector_store_file_batches.id", ondelete="SET NULL")),
    Column("status", Text, nullable=False),
    _json("last_error", nullable=True),
    Column("usage_bytes", BigInteger, nullable=False, server_default=text("0")),
    _json("chunking_strategy"),
    _json("attributes"),
    # Where its chunks are: the space of their vectors, and how many there are
    Column("embedding_model", Text),
    Column("embedding_dimensions", Integer),
    Column("late_interaction", Boolean),
    Column("chunks", Integer),
    # The lease, as of runs. Every attempt has chunks of its own; attempts that failed through no fault of the file's
    # are counted, and repeated from `retry_at` on
    Column("lease_owner", Text),
    Column("lease_token", Text),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("abandoned", Integer, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("retry_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("vector_store_id", "id"),
    CheckConstraint(_one_of("status", FileStatus), "status"),
    CheckConstraint("(status = 'failed') = (last_error IS NOT NULL)", "last_error"),
    CheckConstraint(
        "(status = 'completed') = (embedding_model IS NOT NULL) AND (status = 'completed') = (chunks IS NOT NULL)"
        " AND (status = 'completed') = (embedding_dimensions IS NOT NULL)"
        " AND (status = 'completed') = (late_interaction IS NOT NULL)",
        "space",
    ),
    CheckConstraint("status = 'in_progress' OR lease_token IS NULL", "lease_ended"),
    CheckConstraint(
        "(lease_token IS NULL) = (lease_expires_at IS NULL) AND (lease_token IS NULL) = (lease_owner IS NULL)",
        "lease_whole",
    ),
    Index(None, "vector_store_id", "created_at", "seq"),
    Index(None, "vector_store_id", "status", postgresql_include=["usage_bytes"]),
    Index(None, "batch_id", "status", postgresql_where=text("batch_id IS NOT NULL")),
    Index(None, "id"),
    Index("ix_vector_store_files_claimable", "created_at", "seq", postgresql_where=text("status = 'in_progress'")),
    Index("ix_vector_store_files_lease_token", "lease_token", postgresql_where=text("lease_token IS NOT NULL")),
)

loose_chunks = Table(
    "loose_chunks",
    metadata,
    Column("vector_store_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("vector_store_id", "key"),
    Index(None, "due_at"),
    comment="Chunks in the index that no row stands for any more: to be deleted when due. No key: all of the store's",
)
"""Filled by triggers on `vector_stores` and `vector_store_files`, so that no way to delete a row forgets its chunks."""

index_owner = Table(
    "index_owner",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("id", Text, nullable=False),
    CheckConstraint("singleton", "singleton"),
    comment="The embedded index that has the chunks of this database's files: the id in its folder",
)

executors = Table(
    "executors",
    metadata,
    _id(),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("heartbeat", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("runs", Boolean, nullable=False),
    Column("ingestion", Boolean, nullable=False),
    Column("search", Boolean, nullable=False),
    Column("sandbox", Boolean, nullable=False),
    Column("sandbox_engine", Text),
    Column("sandbox_problem", Text),
    CheckConstraint("sandbox = (sandbox_engine IS NOT NULL)", "sandbox_engine"),
    CheckConstraint("NOT sandbox OR sandbox_problem IS NULL", "sandbox_problem"),
    prefixes=["UNLOGGED"],
    comment="The processes that execute, and what each can do; a crash of PostgreSQL empties it until they tell again",
)

sandbox_sessions = Table(
    "sandbox_sessions",
    metadata,
    Column("thread_id", Text, ForeignKey("threads.id", ondelete="CASCADE"), primary_key=True),
    Column("executor_id", Text, ForeignKey("executors.id", ondelete="CASCADE"), nullable=False),
    Column("engine", Text, nullable=False),
    Column("box", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("last_used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index(None, "executor_id"),
    prefixes=["UNLOGGED"],
    comment="Which executor has the sandbox of a thread; a crash of PostgreSQL empties it",
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("first_number", BigInteger, nullable=False),
    Column("last_number", BigInteger, nullable=False),
    Column("frames", LargeBinary, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("run_id", "first_number"),
    Index(None, "written_at"),
    prefixes=["UNLOGGED"],
    comment="A stream's bytes for readers in other processes; a crash of PostgreSQL may empty it",
)
