"""No request reaches what is another project's: it is answered as if that did not exist, and changes nothing of it."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import ForeignKeyConstraint, Table, text

from adlatus.files.images import as_data_urls
from adlatus.runs.tools import workspace
from adlatus.settings import Settings
from adlatus.store.tables import metadata
from tests.api.strangers import (
    IMAGE,
    KEPT_AS_SENT,
    KINDS,
    NO_OBJECTS,
    REFUSED_AS_WRONG,
    Attempt,
    Project,
    attempts,
    operations,
    populate,
    unknown,
)
from tests.conftest import Loop, Server, serving
from tests.retrieval.qdrant_server import qdrant_server
from tests.runs.searching import store_of, upload
from tests.runs.transcripts import client_of, converse, sent

Json = dict[str, Any]
VICTIM, STRANGER = "harbour", "mountain"

OF_NO_PROJECT = {
    "projects": "the projects themselves",
    "index_owner": "which embedded index there is",
    "executors": "the processes",
    "loose_chunks": "keys of chunks to be deleted, whose store is gone",
    "run_events": "of runs, by whose ids alone they are read; unlogged, so without a foreign key",
}
"""Tables whose rows neither have a project nor hang on a row that has. This list only gets shorter."""


@pytest.fixture(scope="module")
def shared(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server of two projects, with the names of their keys."""
    keys = f"{VICTIM}:{VICTIM},{STRANGER}:{STRANGER}"
    with serving(loop, Settings(database_url=new_database(), api_keys=keys, run_expires_after_s=3600)) as server:
        yield server


@pytest.fixture(scope="module")
def victim(shared: Server) -> Iterator[Project]:
    with client_of(shared, VICTIM) as http:
        yield populate(http, VICTIM)


@pytest.fixture(scope="module")
def stranger(shared: Server) -> Iterator[Project]:
    with client_of(shared, STRANGER) as http:
        yield populate(http, STRANGER)


@pytest.fixture(scope="module")
def document(shared: Server) -> Json:
    found: Json = httpx.get(f"{shared.url}/openapi.json").json()
    return found


def everything_of(server: Server, project_id: str) -> dict[str, list[str]]:
    """All rows of a project, as the database has them."""

    async def read() -> dict[str, list[str]]:
        found = {}
        for table in metadata.sorted_tables:
            if "project_id" in table.c:
                rows = await server.resources.database.fetch(
                    text(f"SELECT ({table.name}.*)::text AS shown FROM {table.name} WHERE project_id = :project_id"),
                    project_id=project_id,
                )
                found[table.name] = sorted(row["shown"] for row in rows)
        return found

    return server.loop.run(read())


def ask(project: Project, attempt: Attempt) -> httpx.Response:
    url = project.http.base_url.copy_with(raw_path=attempt.path.encode())
    return project.http.request(attempt.operation[0], url, params=attempt.query, json=attempt.body)


def expected(attempt: Attempt) -> int:
    """The status of the answer."""
    if attempt.where.endswith(KEPT_AS_SENT) or attempt.where == "run_id":
        return 200
    return REFUSED_AS_WRONG.get((*attempt.operation, attempt.where), 404)


def tries(document: Json, stranger: Project, victim: Project) -> Iterator[Attempt]:
    """All attempts; those on files and threads with both of them, because not every one is fit for all."""
    yield from attempts(document, stranger, victim.ids)
    for name, object_id in victim.others.items():
        for attempt in attempts(document, stranger, victim.ids | {name: object_id}):
            if name in attempt.foreign:
                yield attempt


def told_besides(response: httpx.Response, attempt: Attempt, victim: Project) -> list[str]:
    """The ids of the other project that an answer tells, but for those that were sent, which an error may repeat."""
    every = {*victim.ids.values(), *victim.others.values()} - set(attempt.foreign.values())
    return [each for each in every if each in response.text]


def shape(response: httpx.Response, attempt: Attempt) -> tuple[int, str]:
    """An answer without the ids that were tried, and so the same whether they exist or not."""
    shown = response.text
    for name, object_id in attempt.foreign.items():
        shown = shown.replace(object_id, name)
    return response.status_code, shown


def test_every_operation_is_tried_or_knows_no_objects(document: Json, stranger: Project, victim: Project) -> None:
    tried = {attempt.operation for attempt in attempts(document, stranger, victim.ids)}
    assert set(operations(document)) - tried == NO_OBJECTS - tried
    assert tried.isdisjoint(NO_OBJECTS)
    assert (len(NO_OBJECTS), len(KEPT_AS_SENT), len(REFUSED_AS_WRONG)) <= (9, 2, 2)
    assert stranger.ids.keys() == victim.ids.keys() == KINDS.keys()


def test_what_is_another_projects_is_answered_as_if_it_did_not_exist_and_stays_as_it_is(
    shared: Server, document: Json, stranger: Project, victim: Project
) -> None:
    nothing = unknown(victim.ids)
    before = everything_of(shared, VICTIM)
    missing = {str(attempt): attempt for attempt in attempts(document, stranger, nothing)}
    found = set()
    for attempt in tries(document, stranger, victim):
        response = ask(stranger, attempt)
        twin = missing[str(attempt)]
        as_nothing = ask(stranger, twin)
        assert response.status_code == as_nothing.status_code == expected(attempt), f"{attempt}: {response.text}"
        assert VICTIM not in response.text + str(response.headers), attempt
        assert not told_besides(response, attempt, victim), attempt
        if response.status_code != 200:
            assert shape(response, attempt) == shape(as_nothing, twin), attempt
        found.add(str(attempt))
    assert found == missing.keys()
    assert len(found) > 100
    assert everything_of(shared, VICTIM) == before
    assert sum(map(len, before.values())) > 10
    asked = httpx.get(f"{shared.model_url.removesuffix('/v1')}/requests").text
    assert STRANGER in asked
    assert base64.b64encode(IMAGE).decode()[:12] not in asked


def test_lists_hold_what_is_of_the_own_project_only(document: Json, stranger: Project, victim: Project) -> None:
    listed = 0
    for method, path in operations(document):
        if method == "GET" and "{" not in path and path != "/v1/models":
            for project, other in ((stranger, victim), (victim, stranger)):
                response = project.http.get(path.removeprefix("/v1"), params={"limit": 100})
                found = {each["id"] for each in sent(response)["data"]}
                assert found & {*project.ids.values()}, path
                assert not found & {*other.ids.values(), *other.others.values()}, path
                assert other.word not in response.text
                listed += 1
    assert listed == 8


def test_the_bytes_of_a_file_are_its_projects(stranger: Project, victim: Project) -> None:
    path = f"/files/{victim.others['file_id']}/content"
    for headers in ({}, {"range": "bytes=0-3"}, {"if-range": f'"{victim.others["file_id"]}"', "range": "bytes=0-"}):
        assert stranger.http.get(path, headers=headers).status_code == 404
        head = stranger.http.head(path, headers=headers)
        assert (head.status_code, "etag" in head.headers) == (404, False)
    assert victim.http.get(path).content == IMAGE + VICTIM.encode()


def test_streams_tell_of_the_own_runs_only(stranger: Project, victim: Project) -> None:
    def hear(place: int) -> tuple[str, str]:
        project = (stranger, victim)[place % 2]
        talk = converse(project.http, f"[[say: {project.word} {place}]] [[pace: 0.01]]", instructions=project.word)
        with project.http.stream(
            "POST", f"{talk.path}/runs", json={"assistant_id": talk.assistant_id, "stream": True}
        ) as response:
            return project.word, response.read().decode()

    with ThreadPoolExecutor(8) as crowd:
        for word, heard in crowd.map(hear, range(8)):
            assert "thread.run.completed" in heard
            assert word in heard
            assert (STRANGER if word == VICTIM else VICTIM) not in heard


# --- Where ids stand that nobody could have put there: looking up is by project everywhere, not only at the door


def test_ids_of_another_project_in_the_database_open_nothing(
    shared: Server, stranger: Project, victim: Project
) -> None:
    run, resources = shared.loop.run, shared.resources
    file_id, image_id, thread_id = victim.ids["file_id"], victim.others["file_id"], stranger.ids["thread_id"]
    assert run(workspace.given(resources, STRANGER, thread_id, [file_id])) == []
    assert run(as_data_urls(resources, STRANGER, [image_id])) == {}
    assert len(run(workspace.given(resources, VICTIM, thread_id, [file_id]))) == 1
    assert run(as_data_urls(resources, VICTIM, [image_id])).keys() == {image_id}


def test_a_run_does_not_search_the_store_of_another_project(shared: Server, stranger: Project, victim: Project) -> None:
    tools = [{"type": "file_search"}]
    assistant_id = sent(stranger.http.post("/assistants", json={"model": "m", "tools": tools}))["id"]
    planted = json.dumps({"file_search": {"vector_store_ids": [victim.ids["vector_store_id"]]}})
    plant = text("UPDATE assistants SET tool_resources = CAST(:planted AS json) WHERE id = :id")
    shared.loop.run(shared.resources.database.fetch(plant, planted=json.loads(planted), id=assistant_id))
    talk = converse(stranger.http, VICTIM)
    refused = stranger.http.post(f"{talk.path}/runs", json={"assistant_id": assistant_id})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"].startswith("No vector store found with id")


# --- Vectors


@pytest.mark.parametrize("engine", ["edge", "qdrant"])
def test_a_search_finds_chunks_of_the_own_project_only(
    loop: Loop, new_database: Callable[[], str], engine: str
) -> None:
    keys = f"{VICTIM}:{VICTIM},{STRANGER}:{STRANGER}"
    with qdrant_server() as qdrant:
        chosen = qdrant.settings if engine == "qdrant" else {}
        settings = Settings(database_url=new_database(), api_keys=keys, **chosen)
        with (
            serving(loop, settings) as server,
            client_of(server, VICTIM) as one,
            client_of(server, STRANGER) as other,
        ):
            stores = [
                store_of(http, upload(http, f"boats in the {word}"))
                for http, word in zip((one, other), (VICTIM, STRANGER), strict=True)
            ]
            for http, store, word in zip((one, other), stores, (VICTIM, STRANGER), strict=True):
                found = sent(http.post(f"/vector_stores/{store}/search", json={"query": f"boats {VICTIM} {STRANGER}"}))
                assert [part["text"] for hit in found["data"] for part in hit["content"]] == [f"boats in the {word}"]
            assert other.post(f"/vector_stores/{stores[0]}/search", json={"query": "boats"}).status_code == 404


# --- The tables


def parents(table: Table) -> set[str]:
    """Tables on whose rows all rows of a table hang."""
    return {
        constraint.referred_table.name
        for constraint in table.constraints
        if isinstance(constraint, ForeignKeyConstraint) and not any(column.nullable for column in constraint.columns)
    }


def test_every_row_has_a_project_or_hangs_on_one_that_has() -> None:
    def is_owned(table: Table) -> bool:
        if "project_id" in table.c:
            assert not table.c.project_id.nullable
            return True
        return any(is_owned(metadata.tables[name]) for name in parents(table) if name not in OF_NO_PROJECT)

    assert {name for name, table in metadata.tables.items() if not is_owned(table)} == OF_NO_PROJECT.keys()
    assert len(OF_NO_PROJECT) <= 5


def test_what_hangs_together_is_of_one_project(shared: Server, stranger: Project, victim: Project) -> None:
    assert stranger.ids.keys() == victim.ids.keys()
    compared = 0
    for table in metadata.sorted_tables:
        for constraint in table.foreign_key_constraints:
            parent = constraint.referred_table
            if "project_id" in table.c and "project_id" in parent.c:
                columns = [(element.parent.name, element.column.name) for element in constraint.elements]
                joined = " AND ".join(f"child.{here} = parent.{there}" for here, there in columns)
                mixed = text(
                    "SELECT count(*) FILTER (WHERE child.project_id <> parent.project_id) AS mixed, "
                    f"count(*) AS all_of FROM {table.name} child JOIN {parent.name} parent ON {joined}"
                )
                row = shared.loop.run(shared.resources.database.fetch_row(mixed))
                assert row
                assert row["mixed"] == 0, (table.name, parent.name)
                compared += row["all_of"]
    assert compared > 10
