"""Find the next run of each project, and count those that are executed.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CLAIMABLE = sa.text("status IN ('queued', 'in_progress', 'cancelling')")


def upgrade() -> None:
    op.drop_index("ix_runs_claimable", table_name="runs")
    op.create_index(
        "ix_runs_claimable",
        "runs",
        ["project_id", sa.text("(status = 'queued')"), "created_at", "seq"],
        postgresql_where=_CLAIMABLE,
    )
    op.create_index("ix_runs_leased", "runs", ["project_id"], postgresql_where=sa.text("lease_token IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_runs_leased", table_name="runs")
    op.drop_index("ix_runs_claimable", table_name="runs")
    op.create_index("ix_runs_claimable", "runs", ["created_at", "seq"], postgresql_where=_CLAIMABLE)
