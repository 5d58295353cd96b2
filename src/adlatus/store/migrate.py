"""Brings a database to the schema of this version, by Alembic; the scripts are `migrations/`, in a wheel inside it."""

import asyncio
from importlib import resources
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from adlatus.store.db import plain_dsn

LOCK = 0x41646C61747573
"""Advisory lock that lets one process migrate at a time."""


def alembic_config(dsn: str) -> Config:
    """Alembic's configuration for the database `dsn`, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["dsn"] = plain_dsn(dsn)
    return config


def head() -> str:
    """The newest revision of this version."""
    revision = ScriptDirectory(str(_scripts())).get_current_head()
    assert revision
    return revision


def knows(revision: str) -> bool:
    """Whether this version has a revision."""
    return revision in {script.revision for script in ScriptDirectory(str(_scripts())).walk_revisions()}


async def current(dsn: str) -> str | None:
    """The revision of a database; None for an empty one."""
    connection = await asyncpg.connect(plain_dsn(dsn), timeout=10)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return revision
    finally:
        await connection.close()


async def upgrade(dsn: str, revision: str = "head") -> None:
    """Run the migrations up to `revision`, each in a transaction, one process at a time."""
    await asyncio.to_thread(command.upgrade, alembic_config(dsn), revision)


async def upgrade_if_behind(dsn: str) -> None:
    """Run the migrations unless the database is at this version's schema already."""
    if await current(dsn) != head():
        await upgrade(dsn)


async def downgrade(dsn: str, revision: str) -> None:
    """Run the migrations back to `revision`."""
    await asyncio.to_thread(command.downgrade, alembic_config(dsn), revision)


def _scripts() -> Path:
    packaged = Path(str(resources.files("adlatus") / "_migrations"))
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "migrations"
