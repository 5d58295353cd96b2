"""Which kind of sandbox this server has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from adlatus.backends.sandbox import image
from adlatus.backends.sandbox.bubblewrap import BubblewrapEngine
from adlatus.backends.sandbox.docker import DockerEngine
from adlatus.backends.sandbox.engine import Engine, SandboxUnavailableError
from adlatus.backends.sandbox.pool import Limits, Sandboxes, keep
from adlatus.settings import Settings

log = structlog.get_logger(__name__)

OFF = "The code interpreter is switched off (ADLATUS_SANDBOX=off)."


async def pick_engine(settings: Settings, instance: str) -> Engine:
    """The engine that is wished for and works. `docker` is never replaced by anything else.

    `instance` is the same for every start of one server, and no other's. Raises `SandboxUnavailableError`, which says
    what to install.
    """
    match settings.sandbox:
        case "docker":
            return await _checked(_docker(settings, instance))
        case "bubblewrap":
            return await _checked(BubblewrapEngine(settings.data_dir, instance))
        case "off":
            raise SandboxUnavailableError(OFF)
        case "auto":
            try:
                return await _checked(_docker(settings, instance))
            except SandboxUnavailableError as error:
                without_docker = str(error)
            try:
                return await _checked(BubblewrapEngine(settings.data_dir, instance))
            except SandboxUnavailableError as error:
                raise SandboxUnavailableError(f"{without_docker} {error}") from None


def _docker(settings: Settings, instance: str) -> DockerEngine:
    return DockerEngine(image.name(settings), instance, settings.sandbox_runtime)


async def _checked(engine: Engine) -> Engine:
    try:
        await engine.check()
    except BaseException:
        await engine.close()
        raise
    return engine


@asynccontextmanager
async def open_sandboxes(settings: Settings, instance: str, limits: Limits | None = None) -> AsyncIterator[Sandboxes]:
    """The sandboxes of this server. Raises `SandboxUnavailableError`, which says what to install."""
    engine = await pick_engine(settings, instance)
    log.info("sandboxes for code", engine=engine.name, lacks=" ".join(engine.lacks))
    async with keep(engine, limits) as sandboxes:
        yield sandboxes
