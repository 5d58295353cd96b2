"""Files, uploads, and the bytes that no row stands for.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NOW = sa.text("floor(extract(epoch FROM now()))::bigint")
_PURPOSES = "'fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals', 'assistants_output', 'batch_output', 'fine-tune-results'"


def _common() -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default=_NOW, nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    ]


def _constraints(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f(f"fk_{table}_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    ]


def upgrade() -> None:
    op.create_table(
        "files",
        *_common(),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(f"purpose IN ({_PURPOSES})", name=op.f("ck_files_purpose")),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_files_bytes")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_files_expires_at")),
        *_constraints("files"),
    )
    op.create_index(op.f("ix_files_project_id_created_at_seq"), "files", ["project_id", "created_at", "seq"])
    op.create_index(
        op.f("ix_files_project_id_purpose_created_at_seq"), "files", ["project_id", "purpose", "created_at", "seq"]
    )
    op.create_index(
        op.f("ix_files_expires_at"), "files", ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL")
    )
    op.create_table(
        "uploads",
        *_common(),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("file_expires_after_s", sa.Integer(), nullable=True),
        sa.CheckConstraint(f"purpose IN ({_PURPOSES})", name=op.f("ck_uploads_purpose")),
        sa.CheckConstraint(
            "status IN ('pending', 'completed', 'cancelled', 'expired')", name=op.f("ck_uploads_status")
        ),
        sa.CheckConstraint("bytes >= 1", name=op.f("ck_uploads_bytes")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_uploads_expires_at")),
        *_constraints("uploads"),
    )
    op.create_index(op.f("ix_uploads_project_id_created_at_seq"), "uploads", ["project_id", "created_at", "seq"])
    op.create_index("ix_uploads_pending", "uploads", ["expires_at"], postgresql_where=sa.text("status = 'pending'"))
    op.create_table(
        "upload_parts",
        *_common(),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_upload_parts_bytes")),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("fk_upload_parts_upload_id_uploads"), ondelete="CASCADE"
        ),
        *_constraints("upload_parts"),
        comment="Those of pending uploads; the parts of others are gone",
    )
    op.create_index(
        op.f("ix_upload_parts_upload_id_created_at_seq"), "upload_parts", ["upload_id", "created_at", "seq"]
    )
    op.create_index(op.f("ix_upload_parts_project_id"), "upload_parts", ["project_id"])
    op.create_table(
        "loose_blobs",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_loose_blobs_project_id_projects")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_loose_blobs")),
        comment="Bytes in the storage that no row stands for yet, or any more: to be deleted when they are due",
    )
    op.create_index(op.f("ix_loose_blobs_due_at"), "loose_blobs", ["due_at"])


def downgrade() -> None:
    """The bytes stay in the storage; nothing deletes them any more."""
    op.drop_table("loose_blobs")
    op.drop_table("upload_parts")
    op.drop_table("uploads")
    op.drop_table("files")
