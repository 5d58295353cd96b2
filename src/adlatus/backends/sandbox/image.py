"""The image of Docker's sandboxes: whether an engine has it, and building it. Everything here blocks."""

import io
import re
import tarfile
from collections import deque
from textwrap import shorten

import docker
import structlog
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from adlatus.backends.sandbox import parts
from adlatus.errors import StartupError
from adlatus.settings import Settings

log = structlog.get_logger(__name__)

REPOSITORY = "adlatus-sandbox"
CONTENT_LABEL = "adlatus.content"
ENGINE_ERRORS = (DockerException, RequestException, OSError)
_CODES = re.compile(r"\x1b\[[0-9;]*m")
_SILENCE_S = 900
"""How long an engine may say nothing while it builds: it does so while a base is pulled or packages are fetched."""


def name(settings: Settings) -> str:
    """The image that sandboxes are started from: the named one, or the one that belongs to this version."""
    return settings.sandbox_image or f"{REPOSITORY}:{parts.content_hash()}"


def connect(timeout_s: int = 10) -> docker.DockerClient | None:
    """A client of the engine that DOCKER_HOST names, or of this machine's; None where no engine answers."""
    try:
        return docker.from_env(timeout=timeout_s)  # it asks the engine for its version
    except ENGINE_ERRORS as error:
        log.debug("no Docker engine", error=str(error))
        return None


def exists(client: docker.DockerClient, image: str) -> bool:
    """Whether the engine has the image."""
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def build(client: docker.DockerClient, image: str, base_image: str | None = None) -> None:
    """Build the image under this name, which it gets when it is whole. Raises `StartupError` with the engine's words.

    An engine gives up a build whose client is gone; what it has finished it takes up again the next time.
    """
    log.info("building the sandbox image (some minutes, once)", image=image)
    said: deque[str] = deque(maxlen=8)
    try:
        for message in client.api.build(
            fileobj=_context(),
            custom_context=True,
            dockerfile=parts.DOCKERFILE,
            buildargs={"BASE_IMAGE": base_image} if base_image else {},
            labels={CONTENT_LABEL: parts.content_hash()},
            tag=image,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=_SILENCE_S,
        ):
            line = _CODES.sub("", message.get("error") or message.get("stream") or "").strip()
            if line.startswith("Step "):
                log.info("building the sandbox image", step=shorten(line, 90))
            elif line and "WARNING" not in line:
                said.append(line)
            if "error" in message:
                raise StartupError("The sandbox image cannot be built:\n" + "\n".join(said)[-1500:])
    except ENGINE_ERRORS as error:
        raise StartupError(f"The Docker engine stopped building the sandbox image: {error}") from error


def _context() -> io.BytesIO:
    """The build context as a tar file that is the same for the same files, whoever has them."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, path in parts.build_context().items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)
    content.seek(0)
    return content
