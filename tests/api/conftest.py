"""What the tests of several nouns share."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import BETA, KEYS, Loop, Server, serving
from tests.runs.transcripts import client_of


@pytest.fixture
def stranger(server: Server, api_key: str) -> Iterator[httpx.Client]:
    """A client of another project."""
    key = f"key-{KEYS - 1 - int(api_key.removeprefix('key-'))}"
    with httpx.Client(base_url=server.base_url, headers={"Authorization": f"Bearer {key}", **BETA}) as client:
        yield client


@pytest.fixture(scope="module")
def idle(loop: Loop, new_database: Callable[[], str]) -> Iterator[httpx.Client]:
    """A client of a server that indexes nothing: all files of its vector stores stay in progress."""
    with (
        serving(loop, Settings(database_url=new_database()), executor=False) as server,
        client_of(server) as client,
    ):
        yield client
