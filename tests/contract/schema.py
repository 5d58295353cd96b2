"""OpenAI's own schema, and where the server differs from what it says of answers."""

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.contract.tour import Operation

Json = dict[str, Any]

DEVIATIONS = {
    "first_id: None is not of type 'string'": "an empty list had null, as recorded",
    "last_id: None is not of type 'string'": "an empty list had null, as recorded",
    "file.status_details: None is not of type 'string'": "a file had null, as recorded",
    "expires_at: None is not of type 'integer'": "a file that stays had null, as recorded",
    "file.expires_at: None is not of type 'integer'": "so has the file of an upload",
    "status_details: None is not of type 'string'": "a file had null, as recorded",
    "purpose: 'evals' is not one of ['assistants', 'assistants_output', 'batch', 'batch_output', 'fine-tune', "
    "'fine-tune-results', 'vision', 'user_data']": "files for evals may be uploaded, and the schema forgets them",
    "name: None is not of type 'string'": "a vector store without a name had null, as recorded",
    "expires_after: None is not of type 'object'": "so had one that does not expire",
    "object: 'vector_store.file_batch' is not one of ['vector_store.files_batch']": "recorded batches were called so",
    "instructions: None is not of type 'string'": "a run without instructions had null, as recorded",
    "tools: has more than 20 items": "a run has the tools of its assistant, of which there may be 128",
    "incomplete_details.reason: 'content_filter' is not one of ['max_completion_tokens', 'max_prompt_tokens']": (
        "no reason of the schema fits an answer that a filter has stopped; messages have this one"
    ),
}


class Schema:
    """An OpenAPI document whose paths begin after /v1, and what it says of requests, answers and events."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._registry: Registry[Any] = Registry().with_resource("urn:openapi", DRAFT202012.create_resource(document))

    @property
    def knows_events(self) -> bool:
        return "AssistantStreamEvent" in self.document["components"]["schemas"]

    def operations(self) -> set[Operation]:
        """Every (method, path) of the document."""
        paths: dict[str, Json] = self.document["paths"]
        return {(method.upper(), path) for path, methods in paths.items() for method in methods}

    def body(self, operation: Operation) -> Json | None:
        """The schema of a request's body, if there is one; of its form, if it is one."""
        body: Json = self._described(operation).get("requestBody", {})
        return _only(body["content"])["schema"] if body else None

    def takes_form(self, operation: Operation) -> bool:
        """Whether the request's body is a multipart form."""
        return "multipart/form-data" in self._described(operation).get("requestBody", {}).get("content", ())

    def query(self, operation: Operation) -> dict[str, Json]:
        """The schema of each parameter that a query string may have."""
        parameters: list[Json] = self._described(operation).get("parameters", [])
        return {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}

    def resolved(self, schema: Json) -> Json:
        """The schema itself where it is a reference."""
        while "$ref" in schema:
            schema = self._registry.resolver().lookup(f"urn:openapi{schema['$ref']}").contents
        return schema

    def _described(self, operation: Operation) -> Json:
        method, path = operation
        described: Json = self.document["paths"][path][method.lower()]
        return described

    def of_answer(self, operation: Operation) -> str:
        """The place of the schema of a successful answer."""
        method, path = operation
        content = self._described(operation)["responses"]["200"]["content"]
        kind = "application/json" if "application/json" in content else next(iter(content))
        steps = ("paths", path, method.lower(), "responses", "200", "content", kind, "schema")
        inline = "#/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)
        place: str = content[kind]["schema"].get("$ref", inline)
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
            too_many = found.validator == "maxItems"  # the message would repeat all of them
            yield f"{field}: has more than {found.validator_value} items" if too_many else f"{field}: {found.message}"


def _only(content: Json) -> Json:
    [described] = content.values()
    kept: Json = described
    return kept


def _innermost(error: ValidationError) -> ValidationError:
    found = best_match([error])
    assert isinstance(found, ValidationError)
    return found
