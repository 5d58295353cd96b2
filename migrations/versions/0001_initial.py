"""The first tables: projects, keys, assistants, threads, messages, runs, steps, events.

Revision ID: 0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("first_number", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "first_number", name=op.f("pk_run_events")),
        comment="A stream's bytes for readers in other processes; a crash of PostgreSQL may empty it",
        prefixes=["UNLOGGED"],
    )
    op.create_index(op.f("ix_run_events_written_at"), "run_events", ["written_at"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_api_keys_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_index(
        op.f("ix_api_keys_project_id_created_at_seq"), "api_keys", ["project_id", "created_at", "seq"], unique=False
    )
    op.create_table(
        "assistants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=True),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.Column("tool_resources", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=True),
        sa.Column("top_p", sa.Float(), nullable=True),
        sa.Column("reasoning_effort", sa.Text(), nullable=True),
        sa.Column("response_format", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_assistants_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assistants")),
    )
    op.create_index(
        op.f("ix_assistants_project_id_created_at_seq"), "assistants", ["project_id", "created_at", "seq"], unique=False
    )
    op.create_table(
        "threads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("tool_resources", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_threads_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threads")),
    )
    op.create_index(
        op.f("ix_threads_project_id_created_at_seq"), "threads", ["project_id", "created_at", "seq"], unique=False
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("assistant_id", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("incomplete_details", sa.JSON(), nullable=True),
        sa.Column("incomplete_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("attachments", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "(status = 'completed') = (completed_at IS NOT NULL)", name=op.f("ck_messages_completed_at")
        ),
        sa.CheckConstraint(
            "(status = 'incomplete') = (incomplete_at IS NOT NULL)", name=op.f("ck_messages_incomplete_at")
        ),
        sa.CheckConstraint(
            "(status = 'incomplete') = (incomplete_details IS NOT NULL)", name=op.f("ck_messages_incomplete_details")
        ),
        sa.CheckConstraint("role IN ('user', 'assistant')", name=op.f("ck_messages_role")),
        sa.CheckConstraint("status IN ('in_progress', 'incomplete', 'completed')", name=op.f("ck_messages_status")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_messages_project_id_projects")),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["threads.id"], name=op.f("fk_messages_thread_id_threads"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
    )
    op.create_index(
        op.f("ix_messages_run_id"), "messages", ["run_id"], unique=False, postgresql_where=sa.text("run_id IS NOT NULL")
    )
    op.create_index(
        op.f("ix_messages_thread_id_created_at_seq"), "messages", ["thread_id", "created_at", "seq"], unique=False
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("assistant_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("required_action", sa.JSON(), nullable=True),
        sa.Column("last_error", sa.JSON(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=True),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.Column("tool_resources", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=True),
        sa.Column("top_p", sa.Float(), nullable=True),
        sa.Column("reasoning_effort", sa.Text(), nullable=True),
        sa.Column("max_completion_tokens", sa.Integer(), nullable=True),
        sa.Column("max_prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("truncation_strategy", sa.JSON(), nullable=False),
        sa.Column("incomplete_details", sa.JSON(), nullable=True),
        sa.Column("usage", sa.JSON(), nullable=True),
        sa.Column("response_format", sa.JSON(), nullable=False),
        sa.Column("tool_choice", sa.JSON(), nullable=False),
        sa.Column("parallel_tool_calls", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("abandoned", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("(status = 'cancelled') = (cancelled_at IS NOT NULL)", name=op.f("ck_runs_cancelled_at")),
        sa.CheckConstraint("(status = 'completed') = (completed_at IS NOT NULL)", name=op.f("ck_runs_completed_at")),
        sa.CheckConstraint("(status = 'failed') = (failed_at IS NOT NULL)", name=op.f("ck_runs_failed_at")),
        sa.CheckConstraint(
            "(status = 'incomplete') = (incomplete_details IS NOT NULL)", name=op.f("ck_runs_incomplete_details")
        ),
        sa.CheckConstraint(
            "(status = 'requires_action') = (required_action IS NOT NULL)", name=op.f("ck_runs_required_action")
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'failed', 'completed', 'incomplete', 'expired')) = (expires_at IS NULL)",
            name=op.f("ck_runs_expires_at"),
        ),
        sa.CheckConstraint("status <> 'failed' OR last_error IS NOT NULL", name=op.f("ck_runs_last_error")),
        sa.CheckConstraint(
            "status IN ('queued', 'in_progress', 'requires_action', 'cancelling', 'cancelled', 'failed', 'completed', 'incomplete', 'expired')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('cancelled', 'failed', 'completed', 'incomplete', 'expired', 'requires_action') OR lease_token IS NULL",
            name=op.f("ck_runs_lease_ended"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('in_progress', 'requires_action', 'completed', 'incomplete') OR started_at IS NOT NULL",
            name=op.f("ck_runs_started_at"),
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL) AND (lease_token IS NULL) = (lease_owner IS NULL)",
            name=op.f("ck_runs_lease_whole"),
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_runs_project_id_projects")),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["threads.id"], name=op.f("fk_runs_thread_id_threads"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(
        "ix_runs_claimable",
        "runs",
        ["created_at", "seq"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'in_progress', 'cancelling')"),
    )
    op.create_index(op.f("ix_runs_thread_id_created_at_seq"), "runs", ["thread_id", "created_at", "seq"], unique=False)
    op.create_index(
        "uq_runs_active_thread",
        "runs",
        ["thread_id"],
        unique=True,
        postgresql_where=sa.text("status NOT IN ('cancelled', 'failed', 'completed', 'incomplete', 'expired')"),
    )
    op.create_table(
        "run_steps",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            server_default=sa.text("floor(extract(epoch FROM now()))::bigint"),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("assistant_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("expired_at", sa.BigInteger(), nullable=True),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.JSON(), nullable=True),
        sa.Column("step_details", sa.JSON(), nullable=False),
        sa.Column("usage", sa.JSON(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "(status = 'cancelled') = (cancelled_at IS NOT NULL)", name=op.f("ck_run_steps_cancelled_at")
        ),
        sa.CheckConstraint(
            "(status = 'completed') = (completed_at IS NOT NULL)", name=op.f("ck_run_steps_completed_at")
        ),
        sa.CheckConstraint("(status = 'expired') = (expired_at IS NOT NULL)", name=op.f("ck_run_steps_expired_at")),
        sa.CheckConstraint("(status = 'failed') = (failed_at IS NOT NULL)", name=op.f("ck_run_steps_failed_at")),
        sa.CheckConstraint(
            "status IN ('in_progress', 'cancelled', 'failed', 'completed', 'expired')", name=op.f("ck_run_steps_status")
        ),
        sa.CheckConstraint("type IN ('message_creation', 'tool_calls')", name=op.f("ck_run_steps_type")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_run_steps_project_id_projects")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_steps_run_id_runs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["threads.id"], name=op.f("fk_run_steps_thread_id_threads"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_steps")),
    )
    op.create_index(
        op.f("ix_run_steps_run_id_created_at_seq"), "run_steps", ["run_id", "created_at", "seq"], unique=False
    )
    op.create_index(op.f("ix_run_steps_thread_id"), "run_steps", ["thread_id"], unique=False)


def downgrade() -> None:

    op.drop_index(op.f("ix_run_steps_thread_id"), table_name="run_steps")
    op.drop_index(op.f("ix_run_steps_run_id_created_at_seq"), table_name="run_steps")
    op.drop_table("run_steps")
    op.drop_index(
        "uq_runs_active_thread",
        table_name="runs",
        postgresql_where=sa.text("status NOT IN ('cancelled', 'failed', 'completed', 'incomplete', 'expired')"),
    )
    op.drop_index(op.f("ix_runs_thread_id_created_at_seq"), table_name="runs")
    op.drop_index(
        "ix_runs_claimable",
        table_name="runs",
        postgresql_where=sa.text("status IN ('queued', 'in_progress', 'cancelling')"),
    )
    op.drop_table("runs")
    op.drop_index(op.f("ix_messages_thread_id_created_at_seq"), table_name="messages")
    op.drop_index(op.f("ix_messages_run_id"), table_name="messages", postgresql_where=sa.text("run_id IS NOT NULL"))
    op.drop_table("messages")
    op.drop_index(op.f("ix_threads_project_id_created_at_seq"), table_name="threads")
    op.drop_table("threads")
    op.drop_index(op.f("ix_assistants_project_id_created_at_seq"), table_name="assistants")
    op.drop_table("assistants")
    op.drop_index(op.f("ix_api_keys_project_id_created_at_seq"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_run_events_written_at"), table_name="run_events")
    op.drop_table("run_events")
    op.drop_table("projects")
