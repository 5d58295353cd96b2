"""Paging: the same rules for every list, whatever is in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI
from sqlalchemy import insert

from adlatus.ids import new_id
from adlatus.store.tables import run_steps
from tests.conftest import Server

EMPTY = '{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}'
MANY = 50


@dataclass(frozen=True)
class Filled:
    """A list over HTTP, and the ids that were put into it, oldest first."""

    path: str
    noun: str
    ids: list[str]


class Lists:
    """Fills the lists of one project."""

    def __init__(self, http: httpx.Client, server: Server) -> None:
        self._http = http
        self._server = server

    def assistants(self, size: int) -> Filled:
        return Filled("/assistants", "assistant", [self._post("/assistants", model="m") for _ in range(size)])

    def threads(self, size: int) -> Filled:
        return Filled("/threads", "thread", [self._post("/threads") for _ in range(size)])

    def messages(self, size: int) -> Filled:
        path = f"/threads/{self._post('/threads')}/messages"
        return Filled(path, "message", [self._post(path, role="user", content=str(n)) for n in range(size)])

    def messages_of_one_request(self, size: int) -> Filled:
        """All made in one transaction: not even the instants tell them apart."""
        sent = [{"role": "user", "content": str(number)} for number in range(size)]
        path = f"/threads/{self._post('/threads', messages=sent)}/messages"
        listed = self._http.get(path, params={"order": "asc", "limit": 100}).json()["data"]
        assert [message["content"][0]["text"]["value"] for message in listed] == [str(n) for n in range(size)]
        assert len({message["created_at"] for message in listed}) <= 1
        return Filled(path, "message", [message["id"] for message in listed])

    def runs(self, size: int) -> Filled:
        assistant_id = self._post("/assistants", model="m")
        path = f"/threads/{self._post('/threads', messages=[{'role': 'user', 'content': '[[say: Hi]]'}])}/runs"
        return Filled(path, "run", [self._run(path, assistant_id) for _ in range(size)])

    def steps(self, size: int) -> Filled:
        """Rows put into the database: a run without tools has one step."""
        run_path = f"/threads/{self._post('/threads', messages=[{'role': 'user', 'content': '[[say: Hi]]'}])}/runs"
        run_id = self._run(run_path, self._post("/assistants", model="m"))
        [made] = self._http.get(f"{run_path}/{run_id}/steps").json()["data"]
        extra = [self._step(made) for _ in range(size - 1)]
        return Filled(f"{run_path}/{run_id}/steps", "run step", [made["id"], *extra][:size])

    def vector_stores(self, size: int) -> Filled:
        return Filled("/vector_stores", "vector store", [self._post("/vector_stores") for _ in range(size)])

    def vector_store_files(self, size: int) -> Filled:
        """Put in one after the other."""
        path = f"/vector_stores/{self._post('/vector_stores')}/files"
        return Filled(path, "vector store file", [self._post(path, file_id=self._file()) for _ in range(size)])

    def files_of_a_batch(self, size: int) -> Filled:
        """All put in by one statement."""
        file_ids = [self._file() for _ in range(size)]
        path = f"/vector_stores/{self._post('/vector_stores')}/file_batches"
        return Filled(f"{path}/{self._post(path, file_ids=file_ids)}/files", "vector store file", file_ids)

    def _file(self) -> str:
        sent = {"file": ("notes.txt", b"Notes")}
        response = self._http.post("/files", data={"purpose": "assistants"}, files=sent)
        made: str = response.raise_for_status().json()["id"]
        return made

    def _run(self, path: str, assistant_id: str) -> str:
        self._http.post(path, json={"assistant_id": assistant_id, "stream": True}).raise_for_status()
        run_id: str = self._http.get(path, params={"limit": 1}).json()["first_id"]
        return run_id

    def _step(self, like: dict[str, Any]) -> str:
        project = {"id": new_id("step"), "project_id": self._http.get("/models").headers["openai-project"]}
        values = {name: value for name, value in like.items() if name in run_steps.c and name != "created_at"} | project
        statement = insert(run_steps).values(values).returning(run_steps.c.id)
        [row] = self._server.loop.run(self._server.resources.database.fetch(statement))
        step_id: str = row["id"]
        return step_id

    def _post(self, path: str, **fields: Any) -> str:
        response = self._http.post(path, json=fields)
        assert response.status_code == 200, response.text
        made: str = response.json()["id"]
        return made


LISTS = {
    "assistants": Lists.assistants,
    "threads": Lists.threads,
    "messages": Lists.messages,
    "messages of one request": Lists.messages_of_one_request,
    "runs": Lists.runs,
    "steps": Lists.steps,
    "vector stores": Lists.vector_stores,
    "vector store files": Lists.vector_store_files,
    "files of a batch": Lists.files_of_a_batch,
}
Fill = Callable[[int], Filled]


@pytest.fixture(params=LISTS)
def fill(request: pytest.FixtureRequest, http: httpx.Client, server: Server) -> Fill:
    """Fills one kind of list in the test's project."""
    lists = Lists(http, server)
    return lambda size: LISTS[request.param](lists, size)


def page(http: httpx.Client, path: str, **params: Any) -> tuple[list[str], bool]:
    """The ids of a page, whose ends are checked, and whether it says that there are more."""
    response = http.get(path, params=params)
    assert response.status_code == 200, response.text
    listed = response.json()
    assert list(listed) == ["object", "data", "first_id", "last_id", "has_more"]
    ids = [item["id"] for item in listed["data"]]
    assert listed["object"] == "list"
    assert (listed["first_id"], listed["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, listed["has_more"]


def test_many_objects_of_one_second_are_paged_in_order_without_loss_or_doubles(fill: Fill, http: httpx.Client) -> None:
    filled = fill(MANY)
    created = [item["created_at"] for item in http.get(filled.path, params={"limit": 100}).json()["data"]]
    assert len(set(created)) < MANY / 2, "the test needs ties"
    for order, limit in [*(("desc", limit) for limit in range(1, 8)), ("asc", 4), ("asc", 7)]:
        ids: list[str] = []
        more = True
        while more:
            after = {"after": ids[-1]} if ids else {}
            some, more = page(http, filled.path, order=order, limit=limit, **after)
            assert len(some) == limit or not more
            ids += some
        assert ids == (filled.ids if order == "asc" else filled.ids[::-1]), f"{order}, pages of {limit}"


def test_pages_can_be_read_backwards(fill: Fill, http: httpx.Client) -> None:
    filled = fill(11)
    for order, expected in (("asc", filled.ids), ("desc", filled.ids[::-1])):
        for limit in (1, 2, 3, 10):
            ids, more = [expected[-1]], True
            while more:
                some, more = page(http, filled.path, order=order, limit=limit, before=ids[0])
                assert len(some) == limit or not more
                ids = some + ids
            assert ids == expected, f"{order}, pages of {limit}"


@pytest.mark.parametrize(
    ("params", "expected", "has_more"),
    [
        ({}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], False),
        ({"order": "asc"}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], False),
        ({"limit": 3}, [9, 8, 7], True),
        ({"limit": 10}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], False),
        ({"limit": 9}, [9, 8, 7, 6, 5, 4, 3, 2, 1], True),
        ({"order": "asc", "limit": 3}, [0, 1, 2], True),
        ({"after": 5}, [4, 3, 2, 1, 0], False),
        ({"after": 5, "limit": 2}, [4, 3], True),
        ({"after": 5, "limit": 5}, [4, 3, 2, 1, 0], False),
        ({"after": 0}, [], False),
        ({"order": "asc", "after": 5}, [6, 7, 8, 9], False),
        ({"order": "asc", "after": 5, "limit": 3}, [6, 7, 8], True),
        ({"order": "asc", "after": 9}, [], False),
        ({"before": 5}, [9, 8, 7, 6], False),
        ({"before": 5, "limit": 2}, [7, 6], True),
        ({"before": 5, "limit": 4}, [9, 8, 7, 6], False),
        ({"before": 9}, [], False),
        ({"order": "asc", "before": 5, "limit": 2}, [3, 4], True),
        ({"order": "asc", "before": 2, "limit": 2}, [0, 1], False),
        ({"order": "asc", "before": 0}, [], False),
        ({"after": 8, "before": 2}, [7, 6, 5, 4, 3], False),
        ({"after": 8, "before": 2, "limit": 4}, [7, 6, 5, 4], True),
        ({"order": "asc", "after": 2, "before": 8}, [3, 4, 5, 6, 7], False),
        ({"order": "asc", "after": 2, "before": 8, "limit": 2}, [3, 4], True),
        ({"order": "asc", "after": 8, "before": 2}, [], False),
        ({"after": 4, "before": 4}, [], False),
        ({"after": "", "before": ""}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], False),
    ],
)
def test_a_page_is_what_lies_between_its_cursors(
    http: httpx.Client, server: Server, params: dict[str, Any], expected: list[int], has_more: bool
) -> None:
    filled = Lists(http, server).messages_of_one_request(10)
    sent = {
        name: filled.ids[value] if isinstance(value, int) and name != "limit" else value
        for name, value in params.items()
    }
    assert page(http, filled.path, **sent) == ([filled.ids[number] for number in expected], has_more)


def test_a_page_has_twenty_objects_unless_asked_otherwise_and_a_hundred_at_most(
    http: httpx.Client, server: Server
) -> None:
    filled = Lists(http, server).messages_of_one_request(100)
    newest = http.post(filled.path, json={"role": "user", "content": "the 101st"}).json()["id"]
    newest_first = [newest, *filled.ids[::-1]]
    assert page(http, filled.path) == (newest_first[:20], True)
    assert page(http, filled.path, limit=100) == (newest_first[:100], True)
    assert page(http, filled.path, limit=1) == (newest_first[:1], True)


BELOW = "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {} instead."
ABOVE = "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got {} instead."
NO_INTEGER = "Invalid type for 'limit': expected an integer, but got a string instead."
NO_ORDER = "Invalid value: '{}'. Supported values are: 'asc' and 'desc'."
BAD_PAGING = [
    ("limit", "0", BELOW, "integer_below_min_value"),
    ("limit", "-1", BELOW, "integer_below_min_value"),
    ("limit", "101", ABOVE, "integer_above_max_value"),
    ("limit", "9" * 20, ABOVE, "integer_above_max_value"),
    ("limit", "many", NO_INTEGER, "invalid_type"),
    ("limit", "1.5", NO_INTEGER, "invalid_type"),
    ("limit", "", NO_INTEGER, "invalid_type"),
    ("order", "up", NO_ORDER, "invalid_value"),
    ("order", "ASC", NO_ORDER, "invalid_value"),
    ("order", "", NO_ORDER, "invalid_value"),
]


def test_bad_paging_is_refused_by_every_list(fill: Fill, http: httpx.Client) -> None:
    path = fill(1).path
    for param, value, message, code in BAD_PAGING:
        response = http.get(path, params={param: value})
        assert response.status_code == 400, (param, value)
        error = {"message": message.format(value), "type": "invalid_request_error", "param": param, "code": code}
        assert response.json() == {"error": error}


def test_an_empty_list_has_no_ends(fill: Fill, http: httpx.Client) -> None:
    filled = fill(1)
    assert http.get(filled.path, params={"after": filled.ids[0]}).text == EMPTY
    assert http.get(filled.path, params={"before": filled.ids[0]}).text == EMPTY


def test_lists_of_a_new_project_and_a_new_thread_are_empty(http: httpx.Client) -> None:
    assert http.get("/assistants").text == EMPTY
    assert http.get("/threads").text == EMPTY
    assert http.get("/vector_stores").text == EMPTY
    store_id = http.post("/vector_stores").json()["id"]
    assert http.get(f"/vector_stores/{store_id}/files").text == EMPTY
    thread_id = http.post("/threads").json()["id"]
    assert http.get(f"/threads/{thread_id}/messages").text == EMPTY
    assert http.get(f"/threads/{thread_id}/runs").text == EMPTY


def test_a_cursor_that_does_not_exist_is_not_found(fill: Fill, http: httpx.Client) -> None:
    filled = fill(2)
    for params in (
        {"after": "nothing"},
        {"before": "nothing"},
        {"after": "nothing", "before": filled.ids[0]},
        {"after": filled.ids[0], "before": "nothing"},
        {"after": "nothing", "order": "asc", "limit": "1"},
    ):
        response = http.get(filled.path, params=params)
        assert response.status_code == 404, params
        assert response.json()["error"] == {
            "message": f"No {filled.noun} found with id 'nothing'.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


def test_a_cursor_of_another_project_is_not_found(fill: Fill, server: Server, stranger: httpx.Client) -> None:
    foreign = fill(1)
    kind = {"assistant": "assistants", "thread": "threads", "run": "runs", "run step": "steps"}
    kind |= {noun: f"{noun}s" for noun in ("message", "vector store", "vector store file")}
    own = LISTS[kind[foreign.noun]](Lists(stranger, server), 2)
    for cursor in ("after", "before"):
        response = stranger.get(own.path, params={cursor: foreign.ids[0]})
        assert response.status_code == 404
        assert response.json()["error"]["message"] == f"No {own.noun} found with id '{foreign.ids[0]}'."


@pytest.mark.parametrize("kind", ["messages", "runs", "steps", "vector store files", "files of a batch"])
def test_a_cursor_of_another_thread_or_run_or_store_is_not_found(http: httpx.Client, server: Server, kind: str) -> None:
    lists = Lists(http, server)
    here, elsewhere = LISTS[kind](lists, 2), LISTS[kind](lists, 1)
    for cursor in ("after", "before"):
        assert http.get(here.path, params={cursor: elsewhere.ids[0]}).status_code == 404


@pytest.mark.parametrize("kind", ["assistants", "threads", "messages", "vector stores", "vector store files"])
def test_a_deleted_cursor_is_not_found(http: httpx.Client, server: Server, kind: str) -> None:
    filled = LISTS[kind](Lists(http, server), 2)
    http.delete(f"{filled.path}/{filled.ids[0]}").raise_for_status()
    assert http.get(filled.path, params={"after": filled.ids[0]}).status_code == 404
    assert page(http, filled.path) == ([filled.ids[1]], False)


def test_what_is_added_while_paging_does_not_disturb_older_pages(http: httpx.Client, server: Server) -> None:
    lists = Lists(http, server)
    ids = lists.assistants(4).ids
    first, _ = page(http, "/assistants", limit=2)
    [new] = lists.assistants(1).ids
    rest, _ = page(http, "/assistants", limit=10, after=first[-1])
    assert first + rest == ids[::-1]
    assert page(http, "/assistants", order="asc", after=ids[-1]) == ([new], False)


def test_messages_can_be_narrowed_to_those_of_a_run(http: httpx.Client) -> None:
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    thread = f"/threads/{http.post('/threads').json()['id']}"
    for word in ("one", "two"):
        http.post(f"{thread}/messages", json={"role": "user", "content": f"[[say: {word}]]"}).raise_for_status()
        http.post(f"{thread}/runs", json={"assistant_id": assistant_id, "stream": True}).raise_for_status()
    question_1, answer_1, _, answer_2 = page(http, f"{thread}/messages", order="asc")[0]
    run_1, run_2 = page(http, f"{thread}/runs", order="asc")[0]
    assert page(http, f"{thread}/messages", run_id=run_1) == ([answer_1], False)
    assert page(http, f"{thread}/messages", run_id=run_2) == ([answer_2], False)
    assert page(http, f"{thread}/messages", run_id=run_2, order="asc", after=question_1) == ([answer_2], False)
    assert page(http, f"{thread}/messages", run_id=run_1, order="asc", after=answer_1) == ([], False)
    assert page(http, f"{thread}/messages", run_id="run_nothing") == ([], False)
    assert len(page(http, f"{thread}/messages", run_id="")[0]) == 4


@pytest.mark.parametrize("below", ["messages", "runs"])
def test_lists_below_a_thread_that_does_not_exist_are_not_found(http: httpx.Client, below: str) -> None:
    response = http.get(f"/threads/thread_nothing/{below}")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "No thread found with id 'thread_nothing'."


def test_the_iterators_of_the_sdk_read_to_the_end(sdk: OpenAI, http: httpx.Client, server: Server) -> None:
    lists, beta = Lists(http, server), sdk.beta
    ids = lists.assistants(7).ids
    assert [made.id for made in beta.assistants.list(limit=3)] == ids[::-1]
    assert [made.id for made in beta.assistants.list(limit=3, order="asc")] == ids
    assert [made.id for made in beta.assistants.list(limit=7, order="asc")] == ids
    with pytest.raises(NotFoundError, match="No assistant found with id 'asst_nothing'"):
        beta.assistants.list(after="asst_nothing")

    messages = lists.messages_of_one_request(45)
    thread_id = messages.path.split("/")[2]
    assert [made.id for made in beta.threads.messages.list(thread_id)] == messages.ids[::-1]
    assert [made.id for made in beta.threads.messages.list(thread_id, after=messages.ids[9])] == messages.ids[8::-1]

    steps = lists.steps(5)
    thread_id, run_id = steps.path.split("/")[2], steps.path.split("/")[4]
    assert [made.id for made in beta.threads.runs.list(thread_id, limit=1)] == [run_id]
    assert [made.id for made in beta.threads.runs.steps.list(run_id, thread_id=thread_id, limit=2)] == steps.ids[::-1]
