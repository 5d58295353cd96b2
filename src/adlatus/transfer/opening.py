"""The database and the file storage alone, beside a server that runs, or without one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adlatus.attaching import attached
from adlatus.backends.blobs import Blobs, open_blobs, why
from adlatus.errors import StartupError, Unavailable
from adlatus.settings import Settings
from adlatus.store.db import Database

ANSWER_S = 3600.0
"""How long a statement may take that sorts all of an import, or of a project."""


@dataclass(frozen=True)
class Opened:
    """What a transfer works with. The database has one connection, which keeps its temporary tables."""

    database: Database
    blobs: Blobs


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """Open what the settings ask for. Raises `StartupError` with advice."""
    async with attached(settings, answer_s=ANSWER_S) as database:
        blobs = open_blobs(settings.storage_url, settings.data_dir)
        try:
            await blobs.check()
        except Unavailable as error:
            raise StartupError(f"the file storage ({blobs.shown}) cannot be used: {why(error)}.") from error
        yield Opened(database, blobs)
