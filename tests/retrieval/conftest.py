"""Both vector indexes, each opened once for a file of tests; every test has vector stores of its own.

A real Qdrant server is used where `ADLATUS_TEST_QDRANT_URL` names one; else the client's own engine stands in for it.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.protocol import VectorIndex
from adlatus.backends.vectors.qdrant import QdrantIndex, open_qdrant
from tests.conftest import Loop
from tests.retrieval.asking import Asking


@asynccontextmanager
async def _stand_in() -> AsyncIterator[QdrantIndex]:
    client = AsyncQdrantClient(":memory:")
    yield QdrantIndex(client, "memory")
    await client.close()


def _opened(engine: str, folder: Path) -> AbstractAsyncContextManager[VectorIndex]:
    if engine == "edge":
        return open_edge(folder / "vectors")
    if url := os.environ.get("ADLATUS_TEST_QDRANT_URL"):
        return open_qdrant(url, os.environ.get("ADLATUS_TEST_QDRANT_API_KEY"))
    return _stand_in()


@pytest.fixture(scope="module", params=["edge", "qdrant"])
def opened(request: pytest.FixtureRequest, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """One of the two engines."""
    with loop.stack() as stack:
        folder = tmp_path_factory.mktemp("index")
        yield Asking(loop, loop.run(stack.enter_async_context(_opened(request.param, folder))))


@pytest.fixture
def index(opened: Asking) -> Iterator[Asking]:
    """One of the two engines; the stores of the test are removed after it."""
    yield opened
    opened.forget()
