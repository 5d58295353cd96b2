"""Find the runs that should have expired, whoever waits for them.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_runs_unfinished",
        "runs",
        ["expires_at"],
        postgresql_where=sa.text("status NOT IN ('cancelled', 'failed', 'completed', 'incomplete', 'expired')"),
    )


def downgrade() -> None:
    op.drop_index("ix_runs_unfinished", table_name="runs")
