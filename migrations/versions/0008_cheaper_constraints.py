"""Check rows of runs by functions, and what is owned through another row by that row alone.

PostgreSQL reads and prepares the expressions of a table's checks for every statement that writes to it, and looks up
each foreign key: together a quarter of the time that it spends on a run. A function is compiled once per connection.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SOUND = {
    "messages": (
        "role text, status text, completed_at bigint, incomplete_at bigint, incomplete_details json",
        """
        role IN ('user', 'assistant')
        AND status IN ('in_progress', 'incomplete', 'completed')
        AND (status = 'completed') = (completed_at IS NOT NULL)
        AND (status = 'incomplete') = (incomplete_at IS NOT NULL)
        AND (status = 'incomplete') = (incomplete_details IS NOT NULL)
        """,
    ),
    "runs": (
        "status text, started_at bigint, expires_at bigint, cancelled_at bigint, failed_at bigint, "
        "completed_at bigint, required_action json, last_error json, incomplete_details json, "
        "lease_owner text, lease_token text, lease_expires_at timestamptz",
        """
        CASE status
            WHEN 'queued' THEN expires_at IS NOT NULL
            WHEN 'in_progress' THEN expires_at IS NOT NULL AND started_at IS NOT NULL
            WHEN 'cancelling' THEN expires_at IS NOT NULL
            WHEN 'requires_action' THEN expires_at IS NOT NULL AND started_at IS NOT NULL AND lease_token IS NULL
            WHEN 'completed' THEN expires_at IS NULL AND started_at IS NOT NULL AND lease_token IS NULL
            WHEN 'incomplete' THEN expires_at IS NULL AND started_at IS NOT NULL AND lease_token IS NULL
            WHEN 'failed' THEN expires_at IS NULL AND last_error IS NOT NULL AND lease_token IS NULL
            WHEN 'cancelled' THEN expires_at IS NULL AND lease_token IS NULL
            WHEN 'expired' THEN expires_at IS NULL AND lease_token IS NULL
            ELSE false
        END
        AND (status = 'completed') = (completed_at IS NOT NULL)
        AND (status = 'cancelled') = (cancelled_at IS NOT NULL)
        AND (status = 'failed') = (failed_at IS NOT NULL)
        AND (status = 'incomplete') = (incomplete_details IS NOT NULL)
        AND (status = 'requires_action') = (required_action IS NOT NULL)
        AND (lease_token IS NULL) = (lease_owner IS NULL)
        AND (lease_token IS NULL) = (lease_expires_at IS NULL)
        """,
    ),
    "run_steps": (
        "type text, status text, completed_at bigint, cancelled_at bigint, failed_at bigint, expired_at bigint",
        """
        type IN ('message_creation', 'tool_calls')
        AND status IN ('in_progress', 'cancelled', 'failed', 'completed', 'expired')
        AND (status = 'completed') = (completed_at IS NOT NULL)
        AND (status = 'cancelled') = (cancelled_at IS NOT NULL)
        AND (status = 'failed') = (failed_at IS NOT NULL)
        AND (status = 'expired') = (expired_at IS NOT NULL)
        """,
    ),
}
"""What a row of a table has to be like, and the columns that this depends on."""

_ENDED = "'cancelled', 'failed', 'completed', 'incomplete', 'expired'"
_BEFORE = {
    "messages": {
        "role": "role IN ('user', 'assistant')",
        "status": "status IN ('in_progress', 'incomplete', 'completed')",
        "completed_at": "(status = 'completed') = (completed_at IS NOT NULL)",
        "incomplete_at": "(status = 'incomplete') = (incomplete_at IS NOT NULL)",
        "incomplete_details": "(status = 'incomplete') = (incomplete_details IS NOT NULL)",
    },
    "runs": {
        "status": f"status IN ('queued', 'in_progress', 'requires_action', 'cancelling', {_ENDED})",
        "expires_at": f"(status IN ({_ENDED})) = (expires_at IS NULL)",
        "completed_at": "(status = 'completed') = (completed_at IS NOT NULL)",
        "cancelled_at": "(status = 'cancelled') = (cancelled_at IS NOT NULL)",
        "failed_at": "(status = 'failed') = (failed_at IS NOT NULL)",
        "last_error": "status <> 'failed' OR last_error IS NOT NULL",
        "incomplete_details": "(status = 'incomplete') = (incomplete_details IS NOT NULL)",
        "required_action": "(status = 'requires_action') = (required_action IS NOT NULL)",
        "started_at": (
            "status NOT IN ('in_progress', 'requires_action', 'completed', 'incomplete') OR started_at IS NOT NULL"
        ),
        "lease_ended": f"status NOT IN ({_ENDED}, 'requires_action') OR lease_token IS NULL",
        "lease_whole": (
            "(lease_token IS NULL) = (lease_expires_at IS NULL) AND (lease_token IS NULL) = (lease_owner IS NULL)"
        ),
    },
    "run_steps": {
        "type": "type IN ('message_creation', 'tool_calls')",
        "status": "status IN ('in_progress', 'cancelled', 'failed', 'completed', 'expired')",
        "completed_at": "(status = 'completed') = (completed_at IS NOT NULL)",
        "cancelled_at": "(status = 'cancelled') = (cancelled_at IS NOT NULL)",
        "failed_at": "(status = 'failed') = (failed_at IS NOT NULL)",
        "expired_at": "(status = 'expired') = (expired_at IS NOT NULL)",
    },
}

_OWNED_THROUGH_ANOTHER = (
    ("messages", "project_id", "projects", None),
    ("runs", "project_id", "projects", None),
    ("run_steps", "project_id", "projects", None),
    ("run_steps", "thread_id", "threads", "CASCADE"),
)
"""A thread has its project, a run its thread: they cannot be gone while a row is there that belongs to one of these."""


def upgrade() -> None:
    for table, (columns, rule) in _SOUND.items():
        op.execute(
            f"CREATE FUNCTION {table}_sound({columns}) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE "
            f"AS $$ BEGIN RETURN {rule}; END $$"
        )
        names = ", ".join(column.split()[0] for column in columns.split(", "))
        for name in _BEFORE[table]:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
        op.create_check_constraint(op.f(f"ck_{table}_sound"), table, f"{table}_sound({names})")
    for table, column, owner, _ in _OWNED_THROUGH_ANOTHER:
        op.drop_constraint(op.f(f"fk_{table}_{column}_{owner}"), table)


def downgrade() -> None:
    for table, column, owner, ondelete in _OWNED_THROUGH_ANOTHER:
        op.create_foreign_key(op.f(f"fk_{table}_{column}_{owner}"), table, owner, [column], ["id"], ondelete=ondelete)
    for table, (columns, _) in _SOUND.items():
        for name, rule in _BEFORE[table].items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, rule)
        op.drop_constraint(op.f(f"ck_{table}_sound"), table)
        op.execute(f"DROP FUNCTION {table}_sound({columns})")
