"""OpenAI's own schema as an oracle: every operation is offered or waits for its issue, every answer validates."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from adlatus.api.relay import PATHS
from tests.conftest import Server
from tests.contract.tour import Operation, Tour

Json = dict[str, Any]

DEVIATIONS = {
    "first_id: None is not of type 'string'": "an empty list had null, as recorded",
    "last_id: None is not of type 'string'": "an empty list had null, as recorded",
    "instructions: None is not of type 'string'": "a run without instructions had null, as recorded",
    "incomplete_details.reason: 'content_filter' is not one of ['max_completion_tokens', 'max_prompt_tokens']": (
        "no reason of the schema fits an answer that a filter has stopped; messages have this one"
    ),
}

EXTENSIONS = {
    ("GET", "/threads"): "lists threads, which the original showed in its dashboard only",
    ("POST", "/completions"): "handed on as it is",
    ("POST", "/moderations"): "handed on as it is",
    ("POST", "/responses"): "handed on as it is",
}

NOT_OFFERED_YET = {
    "/chat/completions": "stored completions are not listed: nothing here stores them",
    "/files": "issue 5",
    "/models/{model}": "DELETE is for fine-tuned models, and refused as the original refuses others",
    "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs": "issue 4",
    "/uploads": "issue 5",
    "/vector_stores": "issue 5",
}
"""Paths, with all below them, of operations that wait for an issue."""


class Schema:
    """The document, and what it says of answers and events."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._registry: Registry[Any] = Registry().with_resource("urn:openapi", DRAFT202012.create_resource(document))

    def operations(self) -> set[Operation]:
        """Every (method, path) of the document."""
        paths: dict[str, Json] = self._document["paths"]
        return {(method.upper(), path) for path, methods in paths.items() for method in methods}

    def of_answer(self, operation: Operation) -> str:
        """The place of the schema of a successful answer."""
        method, path = operation
        answer: Json = self._document["paths"][path][method.lower()]["responses"]["200"]
        place: str = answer["content"]["application/json"]["schema"]["$ref"]
        return place

    def of_events(self, place: str = "#/components/schemas/AssistantStreamEvent") -> Iterator[tuple[str, str]]:
        """(name, place of its schema) of every event of a union of events."""
        schema = self._registry.resolver().lookup(f"urn:openapi{place}").contents
        if "$ref" in schema:
            yield from self.of_events(schema["$ref"])
        elif "oneOf" in schema:
            for number in range(len(schema["oneOf"])):
                yield from self.of_events(f"{place}/oneOf/{number}")
        else:
            yield schema["properties"]["event"]["enum"][0], place

    def differences(self, place: str, instance: Any) -> Iterator[str]:
        """What keeps a value from being valid, each by the field it is about."""
        validator = Draft202012Validator({"$ref": f"urn:openapi{place}"}, registry=self._registry)
        for error in validator.iter_errors(instance):
            found = _innermost(error)
            field = ".".join(step for step in found.absolute_path if isinstance(step, str) and step != "data")
            yield f"{field}: {found.message}"


def _innermost(error: ValidationError) -> ValidationError:
    found = best_match([error])
    assert isinstance(found, ValidationError)
    return found


@pytest.fixture(scope="module")
def schema(reference: Path) -> Schema:
    return Schema(json.loads((reference / "openapi-assistants.json").read_text("utf-8")))


@pytest.fixture
def offered(server: Server) -> set[Operation]:
    """Every operation below /v1 that the server documents."""
    paths: dict[str, Json] = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    return {(method.upper(), path.removeprefix("/v1")) for path, methods in paths.items() for method in methods}


def test_every_answer_is_valid_but_for_the_list(schema: Schema, tour: Tour) -> None:
    found: set[str] = set()
    for answer in tour.bodies():
        if answer.status != 200:
            found |= set(schema.differences("#/components/schemas/ErrorResponse", answer.body))
        elif answer.operation not in EXTENSIONS:
            found |= set(schema.differences(schema.of_answer(answer.operation), answer.body))
    places = dict(schema.of_events())
    for event in tour.events():
        found |= set(schema.differences(places[event.name], {"event": event.name, "data": event.data}))
    assert found == set(DEVIATIONS)


def test_the_tour_visits_every_operation_that_the_server_offers(tour: Tour, offered: set[Operation]) -> None:
    visited = {answer.operation for answer in tour.answers if answer.status == 200}
    assert visited == offered - {("POST", path) for path in PATHS}


def test_every_operation_of_the_schema_is_offered_or_waits_for_its_issue(
    schema: Schema, offered: set[Operation]
) -> None:
    left = schema.operations() - offered
    waiting = {path: [each for each in left if f"{each[1]}/".startswith(f"{path}/")] for path in NOT_OFFERED_YET}
    assert left == {operation for operations in waiting.values() for operation in operations}
    assert all(waiting.values()), waiting
    assert offered - schema.operations() == set(EXTENSIONS)


def test_the_oracle_notices_what_is_missing_or_of_another_type(schema: Schema) -> None:
    place = schema.of_answer(("DELETE", "/threads/{thread_id}"))
    good = {"id": "thread_1", "object": "thread.deleted", "deleted": True}
    assert list(schema.differences(place, good)) == []
    assert list(schema.differences(place, good | {"id": 1})) == ["id: 1 is not of type 'string'"]
    assert list(schema.differences(place, {"id": "thread_1", "object": "thread.deleted"})) == [
        ": 'deleted' is a required property"
    ]
