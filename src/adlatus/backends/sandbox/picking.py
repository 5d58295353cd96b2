"""Which kind of sandbox this server has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from adlatus.backends.sandbox.bubblewrap import BubblewrapEngine
from adlatus.backends.sandbox.docker import DockerEngine
from adlatus.backends.sandbox.engine import Engine, SandboxUnavailableError
from adlatus.backends.sandbox.pool import Limits, Sandboxes, keep

log = structlog.get_logger(__name__)

Choice = Literal["auto", "docker", "bubblewrap", "off"]
OFF = "The code interpreter is switched off (ADLATUS_SANDBOX=off)."


@dataclass(frozen=True)
class Wish:
    """What the settings say. `instance` is the same for every start of one server, and no other's."""

    choice: Choice
    image: str
    environment: Path
    instance: str
    runtime: str | None = None


async def pick_engine(wish: Wish) -> Engine:
    """The engine that is wished for and works. `docker` is never replaced by anything else.

    Raises `SandboxUnavailableError`, which says what to install.
    """
    match wish.choice:
        case "docker":
            return await _checked(DockerEngine(wish.image, wish.instance, wish.runtime))
        case "bubblewrap":
            return await _checked(BubblewrapEngine(wish.environment, wish.instance))
        case "off":
            raise SandboxUnavailableError(OFF)
    reasons = []
    for choice in ("docker", "bubblewrap"):
        try:
            return await pick_engine(Wish(choice, wish.image, wish.environment, wish.instance, wish.runtime))
        except SandboxUnavailableError as error:
            reasons.append(str(error))
    raise SandboxUnavailableError(" ".join(reasons))


async def _checked(engine: Engine) -> Engine:
    try:
        await engine.check()
    except BaseException:
        await engine.close()
        raise
    return engine


@asynccontextmanager
async def open_sandboxes(wish: Wish, limits: Limits | None = None) -> AsyncIterator[Sandboxes]:
    """The sandboxes of this server. Raises `SandboxUnavailableError`, which says what to install."""
    engine = await pick_engine(wish)
    log.info("sandboxes for code", engine=engine.name, lacks=" ".join(engine.lacks))
    async with keep(engine, limits) as sandboxes:
        yield sandboxes
