"""Schemathesis makes requests of the server's own document, good ones and bad ones, and judges the answers by it."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import BETA, KEYS, Server
from tests.contract.test_made_requests import World
from tests.contract.test_openai_types import TYPES

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_BODIES = [response_schema_conformance]
"""Not for streams, of which the document says only that they are text; test_stream_frames.py judges their events."""

HANDED_ON = [
    ("POST", f"/{name}") for name in ("chat/completions", "completions", "embeddings", "moderations", "responses")
]
OPERATIONS = sorted({*TYPES, *HANDED_ON})
IDS = {
    "assistant_id": "asst",
    "thread_id": "thread",
    "message_id": "msg",
    "run_id": "run",
    "step_id": "step",
    "file_id": "searched",
    "upload_id": "upload",
    "vector_store_id": "vs",
    "batch_id": "vsfb",
    "model": "model",
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client whose project all tests of this file share, since objects take time to make."""
    headers = {"Authorization": f"Bearer key-{KEYS - 2}", **BETA}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def world(client: httpx.Client) -> World:
    return World(client)


@cache
def described(url: str) -> Any:
    """The server's document, as Schemathesis reads it."""
    document = httpx.get(f"{url}/openapi.json").json()
    return schemathesis.openapi.from_dict(document, config=schemathesis.Config())


def test_every_operation_of_the_document_is_tried(server: Server) -> None:
    labels = {each.ok().label for each in described(server.url).get_all_operations()}
    assert {f"{method} /v1{path}" for method, path in OPERATIONS} == labels


@pytest.mark.parametrize(
    "examples",
    [pytest.param(3, id="few", marks=pytest.mark.slow), pytest.param(200, id="many", marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_answers_are_those_that_the_document_describes_and_never_faults(
    server: Server, client: httpx.Client, world: World, operation: tuple[str, str], mode: GenerationMode, examples: int
) -> None:
    method, path = operation
    tried = described(server.url)[f"/v1{path}"][method]
    ids = world.ids() if "{" in path and mode is GenerationMode.POSITIVE else {}
    real = {name: ids[kind] for name, kind in IDS.items() if ids and f"{{{name}}}" in path}
    headers = {"Authorization": client.headers["authorization"], **BETA}

    def check(case: Any) -> None:
        response = case.call(base_url=server.url, headers=headers, timeout=30)
        streams = response.headers["content-type"][0].startswith("text/event-stream")
        case.validate_response(response, checks=[each for each in CHECKS if each not in OF_BODIES or not streams])

    tries = given(case=tried.as_strategy(generation_mode=mode, path_parameters=real or None))(
        settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(check)
    )
    try:
        tries()
        if method == "DELETE":
            world.forget()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not tried.query
        assert method != "POST" or path.endswith("/cancel")
        pytest.skip("it has nothing but ids, and any text may be one")
