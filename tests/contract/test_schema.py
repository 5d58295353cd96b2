"""OpenAI's own schema as an oracle: every operation is offered or waits for its issue, every answer validates."""

from tests.contract.operations import EXTENSIONS, HANDED_ON, MOST_NOT_YET, NOT_OFFERED, NOT_YET
from tests.contract.schema import DEVIATIONS, Schema
from tests.contract.tour import Operation, Tour


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
    assert visited - HANDED_ON == offered


def test_every_operation_of_the_schema_is_done_or_not_yet_or_not_offered_for_a_reason(
    schema: Schema, own_schema: Schema
) -> None:
    done = own_schema.operations() - set(EXTENSIONS)
    assert done | set(NOT_YET) | set(NOT_OFFERED) == schema.operations()
    assert len(done) + len(NOT_YET) + len(NOT_OFFERED) == len(schema.operations())
    assert set(EXTENSIONS) <= own_schema.operations()
    assert len(NOT_YET) <= MOST_NOT_YET


def test_the_oracle_notices_what_is_missing_or_of_another_type(schema: Schema) -> None:
    place = schema.of_answer(("DELETE", "/threads/{thread_id}"))
    good = {"id": "thread_1", "object": "thread.deleted", "deleted": True}
    assert list(schema.differences(place, good)) == []
    assert list(schema.differences(place, good | {"id": 1})) == ["id: 1 is not of type 'string'"]
    assert list(schema.differences(place, {"id": "thread_1", "object": "thread.deleted"})) == [
        ": 'deleted' is a required property"
    ]
