"""Name keys, limit projects, and count what limited projects do.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_LIMITS = (
    ("requests_per_minute", sa.Integer()),
    ("tokens_per_minute", sa.BigInteger()),
    ("active_runs", sa.Integer()),
    ("storage_bytes", sa.BigInteger()),
)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("name", sa.Text(), nullable=True))
    for name, type_ in _LIMITS:
        op.add_column("projects", sa.Column(name, type_, nullable=True))
        op.create_check_constraint(op.f(f"ck_projects_{name}"), "projects", f"{name} > 0")
    op.create_table(
        "project_rates",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("requests", sa.Float(), nullable=False),
        sa.Column("tokens", sa.Float(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_rates_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_project_rates")),
        prefixes=["UNLOGGED"],
        comment="How full the buckets of limited projects were at an instant; a crash of PostgreSQL empties them",
    )


def downgrade() -> None:
    op.drop_table("project_rates")
    for name, _ in _LIMITS:
        op.drop_column("projects", name)
    op.drop_column("api_keys", "name")
