"""Who executes and what each can do, what runs need of them, and where the sandboxes of threads are.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEEDS = """
UPDATE runs SET needs = array_remove(ARRAY[
    CASE WHEN EXISTS (SELECT FROM json_array_elements(tools) AS tool WHERE tool ->> 'type' = 'file_search')
        THEN 'search' END,
    CASE WHEN EXISTS (SELECT FROM json_array_elements(tools) AS tool WHERE tool ->> 'type' = 'code_interpreter')
        THEN 'sandbox' END
], NULL)
WHERE status NOT IN ('cancelled', 'failed', 'completed', 'incomplete', 'expired') AND tool_choice::text <> '"none"'
"""


def upgrade() -> None:
    op.create_table(
        "executors",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("heartbeat", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("runs", sa.Boolean(), nullable=False),
        sa.Column("ingestion", sa.Boolean(), nullable=False),
        sa.Column("search", sa.Boolean(), nullable=False),
        sa.Column("sandbox", sa.Boolean(), nullable=False),
        sa.Column("sandbox_engine", sa.Text(), nullable=True),
        sa.Column("sandbox_problem", sa.Text(), nullable=True),
        sa.CheckConstraint("sandbox = (sandbox_engine IS NOT NULL)", name=op.f("ck_executors_sandbox_engine")),
        sa.CheckConstraint("NOT sandbox OR sandbox_problem IS NULL", name=op.f("ck_executors_sandbox_problem")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executors")),
        prefixes=["UNLOGGED"],
        comment="The processes that execute, and what each can do; a crash of PostgreSQL empties it until they tell again",
    )
    op.create_table(
        "sandbox_sessions",
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("executor_id", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("box", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["threads.id"], name=op.f("fk_sandbox_sessions_thread_id_threads"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["executor_id"],
            ["executors.id"],
            name=op.f("fk_sandbox_sessions_executor_id_executors"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("thread_id", name=op.f("pk_sandbox_sessions")),
        prefixes=["UNLOGGED"],
        comment="Which executor has the sandbox of a thread; a crash of PostgreSQL empties it",
    )
    op.create_index(op.f("ix_sandbox_sessions_executor_id"), "sandbox_sessions", ["executor_id"])
    op.add_column("runs", sa.Column("needs", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column(
        "runs",
        sa.Column("claimable_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.execute(_NEEDS)


def downgrade() -> None:
    op.drop_column("runs", "claimable_at")
    op.drop_column("runs", "needs")
    op.drop_table("sandbox_sessions")
    op.drop_table("executors")
