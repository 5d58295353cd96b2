"""What the contract tests share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.beta import Assistant

from tests.conftest import BETA, KEYS, Server
from tests.contract.operations import HANDED_ON
from tests.contract.schema import Schema
from tests.contract.tour import Operation, Tour


@pytest.fixture(scope="session")
def schema(reference: Path) -> Schema:
    """OpenAI's own."""
    return Schema(json.loads((reference / "openapi-assistants.json").read_text("utf-8")))


@pytest.fixture(scope="session")
def own_schema(server: Server) -> Schema:
    """What the server says of itself."""
    document: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    paths = {path.removeprefix("/v1"): methods for path, methods in document["paths"].items()}
    return Schema(document | {"paths": paths})


@pytest.fixture(scope="session")
def offered(own_schema: Schema) -> set[Operation]:
    """Every operation below /v1 that the server documents and answers itself."""
    return own_schema.operations() - HANDED_ON


@pytest.fixture(scope="session")
def tour(server: Server) -> Tour:
    """A tour of every operation, taken once, in the project of a key that no test gets."""
    headers = {"Authorization": f"Bearer key-{KEYS - 1}", **BETA}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=30) as client:
        return Tour(client).take()


@pytest.fixture
def assistant(sdk: OpenAI) -> Assistant:
    """An assistant that has instructions."""
    return sdk.beta.assistants.create(model="gpt-4o", instructions="Answer.", metadata={"for": "the contract"})


@pytest.fixture
def thread_with(sdk: OpenAI) -> Callable[[str], str]:
    """Makes a thread with one message of the user; gives its id."""

    def make(content: str) -> str:
        return sdk.beta.threads.create(messages=[{"role": "user", "content": content}]).id

    return make
