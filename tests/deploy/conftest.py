"""The engine of the tests, and what they run in it."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from adlatus.backends.sandbox import image
from tests.conftest import missing
from tests.deploy.compose import Json, read
from tests.deploy.containers import IMAGE, volume
from tests.deploy.schemas import COMPOSE, KUBERNETES, Schemas, fetched


@pytest.fixture(scope="module")
def socket() -> Path:
    """Where the engine of this machine listens."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        missing("docker", "the engine is on another machine")
    socket = Path(host.removeprefix("unix://"))
    if not socket.is_socket():
        missing("docker", f"no engine listens at {socket}")
    return socket


@pytest.fixture(scope="module")
def engine(socket: Path) -> Iterator[docker.DockerClient]:
    """That engine, which has the image."""
    client = image.connect(timeout_s=60)
    if client is None:
        missing("docker", f"no engine answers at {socket}")
    try:
        client.images.get(IMAGE)
    except ImageNotFound:
        missing("docker", f"the engine has no image {IMAGE}: .ci/engine server")
    if shutil.which("docker") is None:
        missing("docker", "the command docker is not installed")
    yield client
    client.close()


@pytest.fixture
def services(socket: Path) -> Json:
    """The services of docker-compose.yml, with the values of a person who has filled in what has to be."""
    values = {"ADLATUS_API_KEYS": "sk-secret", "POSTGRES_PASSWORD": "secret", "QDRANT_API_KEY": "secret"}
    values |= {"DOCKER_SOCKET": str(socket), "DOCKER_GID": str(socket.stat()[stat.ST_GID])}
    found: Json = read(values)["services"]
    return found


@pytest.fixture
def data(engine: docker.DockerClient) -> Iterator[str]:
    """An empty volume."""
    with volume(engine) as name:
        yield name


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schemas]:
    """What the specifications of Compose and Kubernetes say."""
    folder = tmp_path_factory.mktemp("schemas")
    fetched(folder, COMPOSE, KUBERNETES)
    schemas = Schemas(folder)
    yield schemas
    schemas.close()
