"""The checks of this machine and of what runs on it: folder, disk, clock, keys, traces, the server itself."""

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

import asyncpg
import httpx

from adlatus.backends.postgres import attach
from adlatus.doctor.finding import Finding
from adlatus.errors import StartupError
from adlatus.settings import Settings
from adlatus.store.db import plain_dsn
from adlatus.telemetry import tracing

LEAST_FREE_MB = 500
"""Below this the disk of the data folder is as good as full: the embedded database alone keeps that much in reserve."""

MOST_APART_S = 5.0
"""How far the clock of the database may be from that of this machine."""


async def data_folder(settings: Settings) -> Finding:
    """Whether this user may write where everything is kept."""
    folder = settings.data_dir
    advice = "Give it to the user that runs Adlatus, or choose another one by --data-dir or ADLATUS_DATA_DIR."
    try:
        if not folder.exists():
            above = _existing(folder)
            if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
                return Finding("data folder", False, f"{folder} cannot be made in {above}", advice)
            return Finding("data folder", None, f"{folder}; `adlatus serve` makes it")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("data folder", False, f"{folder} cannot be written to: {error.strerror}", advice)
    return Finding("data folder", True, str(folder))


async def disk(settings: Settings) -> Finding:
    """Whether there is room where everything is kept."""
    try:
        usage = shutil.disk_usage(_existing(settings.data_dir))
    except OSError as error:
        return Finding("disk", None, f"the disk of {settings.data_dir} cannot be looked at: {error.strerror}")
    if usage.total == 0:  # such as below /proc
        return Finding("disk", None, f"{settings.data_dir} is on none")
    free_mb = usage.free // 10**6
    if free_mb < LEAST_FREE_MB:
        advice = f"Make room, or choose another ADLATUS_DATA_DIR: keep {LEAST_FREE_MB} MB free at least."
        return Finding("disk", False, f"{free_mb} MB free for {settings.data_dir}", advice)
    return Finding("disk", True, f"{free_mb / 1000:,.1f} GB free")


async def clock(settings: Settings) -> Finding:
    """Whether the database's clock, by which everything is dated, is that of this machine."""
    try:
        apart_s = await _apart_s(settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError, StartupError):
        return Finding("clock", None, "not compared: the database does not answer")
    if apart_s is None:
        return Finding("clock", None, "that of this machine: the database is embedded")
    if abs(apart_s) > MOST_APART_S:
        found = f"the database is {abs(apart_s):,.0f} s {'ahead of' if apart_s > 0 else 'behind'} this machine"
        return Finding("clock", False, found, "Let both machines keep time by NTP: objects are dated by the database.")
    return Finding("clock", True, "the database and this machine agree")


async def _apart_s(settings: Settings) -> float | None:
    """By how many seconds the database is ahead; None where it is on this machine."""
    if settings.database_url is None:
        return None
    connection = await asyncpg.connect(plain_dsn(settings.database_url.get_secret_value()), timeout=10)
    try:
        before = time.time()
        there: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return there - (before + time.time()) / 2
    finally:
        await connection.close()


async def traces(_settings: Settings) -> Finding:
    """Whether traces could be sent; whether anybody takes them, the log tells."""
    if not tracing.configured():
        return Finding("traces", None, "off: OTEL_EXPORTER_OTLP_ENDPOINT is not set")
    try:
        return Finding("traces", True, f"sent to {tracing.check()}")
    except StartupError as error:
        return Finding("traces", False, str(error))


async def keys(settings: Settings) -> Finding:
    """How many keys open the API: those of the settings, and those of the database if that can be asked now."""
    configured, stored = len(settings.keys), await _stored_keys(settings)
    if configured or stored:
        return Finding("keys", True, f"{configured} configured" + (f" and {stored} made" if stored else ""))
    advice = "Make one with `adlatus keys create`, or set ADLATUS_API_KEYS, to serve other machines."
    known = "" if stored is not None else ", if the database has none: it does not answer"
    return Finding("keys", None, f"none: loopback only{known}", advice)


async def _stored_keys(settings: Settings) -> int | None:
    """How many keys of the database open anything; None where it cannot be asked."""
    try:
        if settings.database_url is not None:
            dsn = plain_dsn(settings.database_url.get_secret_value())
        elif running := await attach(settings.data_dir):
            dsn = running.dsn
        else:
            return None
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            count: int = await connection.fetchval("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL")
            return count
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError, StartupError):
        return None


async def server(settings: Settings) -> Finding:
    url = f"http://{settings.host}:{settings.port}/readyz"
    headers = {"authorization": f"Bearer {settings.keys[0].secret.get_secret_value()}"} if settings.keys else {}
    try:
        async with httpx.AsyncClient(timeout=3, trust_env=False) as client, asyncio.timeout(5):
            response = await client.get(url, headers=headers)
            state = response.json()
    except (httpx.HTTPError, ValueError, TimeoutError):
        return Finding("server", None, f"none answers at {url}")
    broken = {name: what for name, what in state.get("components", {}).items() if what != "ok"}
    if broken or response.status_code != httpx.codes.OK:
        return Finding("server", False, f"{url} says: {broken or state}", "Its log has the details.")
    return Finding("server", True, f"{url} is ready")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that is there."""
    return next((each for each in (path, *path.parents) if each.exists()), path)
