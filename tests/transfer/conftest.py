"""A server with a data folder, and transfers on what it serves, for a file of tests; and one of a test alone."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import BETA, Loop, Server, serving
from tests.transfer.transfers import Transfers

PROJECTS = 200


@pytest.fixture(scope="module")
def served(loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose storage is in a folder of these tests, with a key for each project."""
    keys = ",".join(f"key-{number}:project-{number}" for number in range(PROJECTS))
    folder = tmp_path_factory.mktemp("data")
    with serving(loop, Settings(database_url=new_database(), data_dir=folder, api_keys=keys)) as server:
        yield server


@pytest.fixture(scope="module")
def transfers(served: Server) -> Transfers:
    """Imports into it, and exports from it."""
    return Transfers(served.loop, served.resources.settings)


_numbers = iter(range(PROJECTS))


@pytest.fixture
def project() -> str:
    """A project that is empty at the start of the test; its key is of the same number."""
    return f"project-{next(_numbers)}"


@pytest.fixture
def client(served: Server, project: str) -> Iterator[httpx.Client]:
    """A client of the project; paths begin at /v1."""
    headers = {"Authorization": f"Bearer {project.replace('project', 'key')}", **BETA}
    with httpx.Client(base_url=served.base_url, headers=headers, timeout=30) as client:
        yield client
