"""Vector stores, their files and batches of them, the chunks that no row stands for any more, what runs include.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NOW = sa.text("floor(extract(epoch FROM now()))::bigint")
_LOOSEN_FILE = """
CREATE FUNCTION loosen_chunks_of_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.attempt > 0 THEN
        INSERT INTO loose_chunks (vector_store_id, key, due_at) VALUES (
            OLD.vector_store_id,
            OLD.id || '.' || OLD.seq || '.' || OLD.attempt,
            floor(extract(epoch FROM now()))::bigint + CASE WHEN OLD.lease_token IS NULL THEN 0 ELSE 60 END
        ) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$
"""
_LOOSEN_STORE = """
CREATE FUNCTION loosen_chunks_of_store() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO loose_chunks (vector_store_id, key, due_at) VALUES (OLD.id, '', floor(extract(epoch FROM now()))::bigint)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
"""
_TRIGGERS = (
    "CREATE TRIGGER loosen_deleted AFTER DELETE ON vector_store_files FOR EACH ROW EXECUTE FUNCTION loosen_chunks_of_file()",
    "CREATE TRIGGER loosen_repeated AFTER UPDATE OF attempt ON vector_store_files FOR EACH ROW"
    " WHEN (OLD.attempt <> NEW.attempt) EXECUTE FUNCTION loosen_chunks_of_file()",
    "CREATE TRIGGER loosen_given_up AFTER UPDATE OF status ON vector_store_files FOR EACH ROW"
    " WHEN (OLD.status = 'in_progress' AND NEW.status IN ('failed', 'cancelled')) EXECUTE FUNCTION loosen_chunks_of_file()",
    "CREATE TRIGGER loosen_deleted AFTER DELETE ON vector_stores FOR EACH ROW EXECUTE FUNCTION loosen_chunks_of_store()",
)


def _created() -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("created_at", sa.BigInteger(), server_default=_NOW, nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    ]


def _belonging(table: str, *columns: tuple[str, str, str]) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}_{other}"), ondelete=ondelete)
        for column, other, ondelete in columns
    ] + [sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f(f"fk_{table}_project_id_projects"))]


def upgrade() -> None:
    op.create_table(
        "vector_stores",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        *_created(),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("expires_after_days", sa.Integer(), nullable=True),
        sa.Column("last_active_at", sa.BigInteger(), server_default=_NOW, nullable=False),
        sa.Column(
            "expires_at",
            sa.BigInteger(),
            sa.Computed("last_active_at + expires_after_days * 86400::bigint", persisted=True),
        ),
        sa.Column("emptied", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("expires_after_days BETWEEN 1 AND 365", name=op.f("ck_vector_stores_expires_after_days")),
        *_belonging("vector_stores"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_stores")),
    )
    op.create_index(
        op.f("ix_vector_stores_project_id_created_at_seq"), "vector_stores", ["project_id", "created_at", "seq"]
    )
    op.create_index(
        op.f("ix_vector_stores_expires_at"),
        "vector_stores",
        ["expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL AND NOT emptied"),
    )
    op.create_table(
        "vector_store_file_batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("vector_store_id", sa.Text(), nullable=False),
        *_created(),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        *_belonging("vector_store_file_batches", ("vector_store_id", "vector_stores", "CASCADE")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_store_file_batches")),
    )
    op.create_index(
        op.f("ix_vector_store_file_batches_vector_store_id"), "vector_store_file_batches", ["vector_store_id"]
    )
    op.create_table(
        "vector_store_files",
        sa.Column("vector_store_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        *_created(),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("last_error", sa.JSON(), nullable=True),
        sa.Column("usage_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("chunking_strategy", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("embedding_model", sa.Text(), nullable=True),
        sa.Column("embedding_dimensions", sa.Integer(), nullable=True),
        sa.Column("late_interaction", sa.Boolean(), nullable=True),
        sa.Column("chunks", sa.Integer(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("abandoned", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint(
            "status IN ('in_progress', 'completed', 'failed', 'cancelled')", name=op.f("ck_vector_store_files_status")
        ),
        sa.CheckConstraint(
            "(status = 'failed') = (last_error IS NOT NULL)", name=op.f("ck_vector_store_files_last_error")
        ),
        sa.CheckConstraint(
            "(status = 'completed') = (embedding_model IS NOT NULL) AND (status = 'completed') = (chunks IS NOT NULL)"
            " AND (status = 'completed') = (embedding_dimensions IS NOT NULL)"
            " AND (status = 'completed') = (late_interaction IS NOT NULL)",
            name=op.f("ck_vector_store_files_space"),
        ),
        sa.CheckConstraint(
            "status = 'in_progress' OR lease_token IS NULL", name=op.f("ck_vector_store_files_lease_ended")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL) AND (lease_token IS NULL) = (lease_owner IS NULL)",
            name=op.f("ck_vector_store_files_lease_whole"),
        ),
        *_belonging(
            "vector_store_files",
            ("vector_store_id", "vector_stores", "CASCADE"),
            ("id", "files", "CASCADE"),
            ("batch_id", "vector_store_file_batches", "SET NULL"),
        ),
        sa.PrimaryKeyConstraint("vector_store_id", "id", name=op.f("pk_vector_store_files")),
    )
    op.create_index(
        op.f("ix_vector_store_files_vector_store_id_created_at_seq"),
        "vector_store_files",
        ["vector_store_id", "created_at", "seq"],
    )
    op.create_index(
        op.f("ix_vector_store_files_vector_store_id_status"),
        "vector_store_files",
        ["vector_store_id", "status"],
        postgresql_include=["usage_bytes"],
    )
    op.create_index(
        op.f("ix_vector_store_files_batch_id_status"),
        "vector_store_files",
        ["batch_id", "status"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index(op.f("ix_vector_store_files_id"), "vector_store_files", ["id"])
    op.create_index(
        "ix_vector_store_files_claimable",
        "vector_store_files",
        ["created_at", "seq"],
        postgresql_where=sa.text("status = 'in_progress'"),
    )
    op.create_index(
        "ix_vector_store_files_lease_token",
        "vector_store_files",
        ["lease_token"],
        postgresql_where=sa.text("lease_token IS NOT NULL"),
    )
    op.create_table(
        "loose_chunks",
        sa.Column("vector_store_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("vector_store_id", "key", name=op.f("pk_loose_chunks")),
        comment="Chunks in the index that no row stands for any more: to be deleted when due. No key: all of the store's",
    )
    op.create_index(op.f("ix_loose_chunks_due_at"), "loose_chunks", ["due_at"])
    op.add_column("runs", sa.Column("include", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.create_table(
        "index_owner",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ck_index_owner_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_index_owner")),
        comment="The embedded index that has the chunks of this database's files: the id in its folder",
    )
    for statement in (_LOOSEN_FILE, _LOOSEN_STORE, *_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """The chunks stay in the index; nothing deletes them any more."""
    for table in ("vector_store_files", "vector_store_file_batches", "vector_stores", "loose_chunks", "index_owner"):
        op.drop_table(table)
    op.drop_column("runs", "include")
    op.execute("DROP FUNCTION loosen_chunks_of_file()")
    op.execute("DROP FUNCTION loosen_chunks_of_store()")
