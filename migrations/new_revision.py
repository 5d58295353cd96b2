"""Drafts a migration: what the tables have that a database at head has not. `make revision m="what changes"`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic import command

from adlatus.backends.postgres import embedded_postgres
from adlatus.store import migrate


async def _draft(folder: Path, number: str, message: str) -> None:
    async with embedded_postgres(folder / "data") as database:
        await migrate.upgrade(database.dsn)
        config = migrate.alembic_config(database.dsn)
        await asyncio.to_thread(command.revision, config, message, autogenerate=True, rev_id=number)


def main() -> None:
    """Write the draft, numbered after the newest migration; it is to be reviewed by hand."""
    existing = list((Path(__file__).parent / "versions").glob("[0-9]*.py"))
    with tempfile.TemporaryDirectory(prefix="adlatus-revision-") as folder:
        Path(folder).chmod(0o755)  # the database's own user has to get in
        message = " ".join(sys.argv[1:]) or "describe the change"
        asyncio.run(_draft(Path(folder), f"{len(existing) + 1:04d}", message))


if __name__ == "__main__":
    main()
