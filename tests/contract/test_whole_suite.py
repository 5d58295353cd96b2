"""Runs after all other tests: judges every answer and event that any test was sent, and writes down what was shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import conformance
from tests.contract.operations import EXTENSIONS, NOT_OFFERED, NOT_YET
from tests.contract.schema import DEVIATIONS, Schema
from tests.contract.test_openai_types import DEVIATIONS as OF_TYPES
from tests.contract.test_openai_types import EVENT_TYPES, OF_CODE, OF_IMPORTS, TYPES, differences
from tests.sdks.environments import ENVIRONMENTS
from tests.witness import GATHER_TIMEOUT_S, WITNESS, Seen
from tests.workers import worker_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
CONTENT_TYPES = {"application/json", "application/octet-stream", "text/event-stream; charset=utf-8"}
TYPES_OF_ERRORS = {4: {"invalid_request_error"}, 5: {"server_error"}}
TYPES_OF_LIMITS = {"requests", "tokens", "insufficient_quota"}
CODES_OF_LIMITS = {"rate_limit_exceeded", "storage_quota_exceeded"}

pytestmark = pytest.mark.timeout(GATHER_TIMEOUT_S + 60)


@pytest.fixture(scope="module")
def seen(pytestconfig: pytest.Config) -> list[Seen]:
    if worker := worker_of(pytestconfig):
        WITNESS.gather(worker)
    if not WITNESS.examples:
        pytest.skip("no other test has run")
    return list(WITNESS.examples.values())


def refusals(seen: list[Seen]) -> list[Seen]:
    return [each for each in seen if each.status >= 400]


def test_everything_is_json_or_a_stream_of_it(seen: list[Seen]) -> None:
    assert not WITNESS.broken
    assert {each.content_type for each in seen} <= CONTENT_TYPES


def test_every_refusal_has_the_shape_of_an_error_and_a_status_that_clients_repeat_at_a_limit_only(
    seen: list[Seen],
) -> None:
    for each in refusals(seen):
        assert list(each.body) in (["error"], ["error", "detail"] if "/files" in each.operation[1] else ["error"]), each
        assert list(each.body["error"]) == ["message", "type", "param", "code"], each
        types = TYPES_OF_LIMITS if each.status == 429 else TYPES_OF_ERRORS[each.status // 100]
        assert each.body["error"]["type"] in types, each
        assert (each.status == 429) == (each.body["error"]["code"] in CODES_OF_LIMITS), each
        assert each.body["error"]["message"], each
    assert {each.status for each in refusals(seen)} <= {400, 401, 403, 404, 405, 413, 416, 429, 500, 502, 503}


def test_every_answer_and_event_is_valid_but_for_the_list(seen: list[Seen], schema: Schema) -> None:
    assert set(_of_schema(seen, schema)) <= set(DEVIATIONS)


def _of_schema(seen: list[Seen], schema: Schema) -> Iterator[str]:
    """Everything that is not as the schema says."""
    places = dict(schema.of_events())
    known = schema.operations()
    for each in seen:
        if each.event and each.event != "error":  # which is wrapped, or the Python SDK would overlook it
            place, body = places[each.event], {"event": each.event, "data": each.body}
        elif each.event or each.status >= 400:
            place, body = "#/components/schemas/ErrorResponse", each.body
        elif each.operation in known:
            place, body = schema.of_answer(each.operation), each.body
        else:
            continue
        yield from schema.differences(place, body)


def test_every_answer_and_event_is_of_the_sdks_type_but_for_the_list(seen: list[Seen]) -> None:
    found = {difference: each for each in seen for difference in _of_types(each)}
    known = OF_TYPES | OF_CODE | OF_IMPORTS
    assert {difference: each for difference, each in found.items() if difference not in known} == {}


def _of_types(each: Seen) -> Iterator[str]:
    """What of one answer or event is not as the SDK's types say."""
    if each.event and each.event != "error":
        yield from differences(EVENT_TYPES[each.event], {"event": each.event, "data": each.body})
    elif each.status == 200 and not each.event:
        yield from differences(TYPES[each.operation], each.body)


def test_the_conformance_table_is_what_was_seen_and_has_no_hole(
    seen: list[Seen], schema: Schema, own_schema: Schema, request: pytest.FixtureRequest
) -> None:
    drove = {sdk for sdks in WITNESS.sdks.values() for sdk in sdks}
    environments = {(conformance.CLIENT[each.language], each.version) for each in ENVIRONMENTS}
    if not environments <= drove or len(WITNESS.recordings) < conformance.RECORDED:
        pytest.skip(f"{len(environments & drove)} SDKs and {len(WITNESS.recordings)} recorded operations were here")
    judged = conformance.judge(
        schema.operations(),
        done=own_schema.operations(),
        valid={each.operation for each in seen if each.status == 200},
        witness=WITNESS,
        environments=ENVIRONMENTS,
    )
    table = conformance.table(judged, NOT_YET, NOT_OFFERED, EXTENSIONS)
    if request.config.getoption("--write-conformance"):
        DOCUMENT.write_text(conformance.placed(DOCUMENT.read_text("utf-8"), table), "utf-8")
    assert conformance.placed(DOCUMENT.read_text("utf-8"), table) == DOCUMENT.read_text("utf-8"), (
        "run `make conformance` and read what has changed"
    )
    assert not list(conformance.holes(judged))
