"""The search of vector stores: what is found, how many, by which filters, and what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from tests.api.test_vector_store_files import SMALL, attach
from tests.api.test_vector_stores import FOODS, refusal, send, settled, store_of
from tests.conftest import Loop, Server
from tests.contract.reasons import nested
from tests.runs.searching import exchange, scripted
from tests.runs.transcripts import client_of

Json = dict[str, Any]
ATTRIBUTES: dict[str, Json] = {
    "a": {"year": 2023, "kind": "food", "open": True},
    "b": {"year": 2024.5, "kind": "drink", "open": False},
    "c": {"year": "2024", "kind": "food"},
    "d": {"open": 1, "a.b": 5, "a[0]": "x"},
    "e": {},
}


def search(http: httpx.Client, store_id: str, query: Any = "word", **fields: Any) -> Json:
    response = http.post(f"/vector_stores/{store_id}/search", json={"query": query, **fields})
    found: Json = response.raise_for_status().json()
    return found


@pytest.fixture
def attributed(http: httpx.Client) -> tuple[str, dict[str, str]]:
    """A store of five files with one word and different attributes, and their names by their ids."""
    store_id = store_of(http)
    files = {name: send(http, f"word {name}", f"{name}.txt") for name in ATTRIBUTES}
    for name, file_id in files.items():
        attach(http, store_id, file_id, attributes=ATTRIBUTES[name])
    settled(http, store_id)
    return store_id, {file_id: name for name, file_id in files.items()}


def compare(kind: str, key: str, value: Any) -> Json:
    return {"type": kind, "key": key, "value": value}


FILTERS = [
    (compare("eq", "year", 2023), "a"),
    (compare("eq", "year", 2023.0), "a"),
    (compare("eq", "year", 2024.5), "b"),
    (compare("eq", "year", "2024"), "c"),
    (compare("eq", "year", 2024), ""),
    (compare("eq", "kind", "food"), "ac"),
    (compare("eq", "kind", "FOOD"), ""),
    (compare("eq", "open", True), "a"),
    (compare("eq", "open", False), "b"),
    (compare("eq", "open", 1), "d"),
    (compare("eq", "open", "true"), ""),
    (compare("eq", "a.b", 5), "d"),
    (compare("eq", "a[0]", "x"), "d"),
    (compare("eq", "none", ""), ""),
    (compare("ne", "kind", "food"), "bde"),
    (compare("ne", "open", True), "bcde"),
    (compare("ne", "year", 2023), "bcde"),
    (compare("gt", "year", 2023), "b"),
    (compare("gte", "year", 2023), "ab"),
    (compare("lt", "year", 2024.5), "a"),
    (compare("lte", "year", 2024.5), "ab"),
    (compare("gt", "year", 10**30), ""),
    (compare("lt", "year", 10**30), "ab"),
    (compare("gt", "year", "2000"), ""),
    (compare("gt", "open", False), ""),
    (compare("gte", "open", 1), "d"),
    (compare("lt", "a.b", 6), "d"),
    (compare("in", "year", [2023, 2024.5, "x"]), "ab"),
    (compare("in", "year", []), ""),
    (compare("in", "open", [True, 1]), "ad"),
    (compare("nin", "kind", ["food", "drink"]), "de"),
    (compare("nin", "kind", []), "abcde"),
    ({"type": "and", "filters": [compare("eq", "kind", "food"), compare("gte", "year", 2000)]}, "a"),
    ({"type": "or", "filters": [compare("eq", "kind", "drink"), compare("eq", "year", "2024")]}, "bc"),
    ({"type": "and", "filters": []}, "abcde"),
    ({"type": "or", "filters": []}, ""),
    (
        {
            "type": "and",
            "filters": [
                {"type": "or", "filters": [compare("eq", "kind", "drink"), compare("eq", "kind", "food")]},
                {"type": "and", "filters": [compare("ne", "open", True), compare("ne", "year", "2024")]},
            ],
        },
        "b",
    ),
    ({"type": "or", "filters": [nested(15), compare("eq", "open", True)]}, "a"),
]


def test_every_filter_finds_the_files_that_it_describes(
    http: httpx.Client, attributed: tuple[str, dict[str, str]]
) -> None:
    store_id, names = attributed
    for wanted, expected in FILTERS:
        found = search(http, store_id, filters=wanted)["data"]
        assert "".join(sorted(names[result["file_id"]] for result in found)) == expected, wanted
        for result in found:
            assert result["attributes"] == ATTRIBUTES[names[result["file_id"]]]


DEEP = "Invalid 'filters': there may be 1000 filters, nested 16 levels deep, but these are {} in {} levels."
MANY = {"type": "or", "filters": [{"type": "or", "filters": [nested(1)] * 100}] * 10}
BAD_SEARCHES = [
    ({"query": None}, "query", "invalid_type"),
    ({"query": 5}, "query", "invalid_type"),
    ({"query": ""}, "query", "string_below_min_length"),
    ({"query": []}, "query", "empty_array"),
    ({"query": [""]}, "query[0]", "string_below_min_length"),
    ({"query": ["q"] * 17}, "query", "array_above_max_length"),
    ({"query": "q" * 4097}, "query", "string_above_max_length"),
    ({"query": "\0"}, None, "invalid_value"),
    ({"max_num_results": 0}, "max_num_results", "integer_below_min_value"),
    ({"max_num_results": 51}, "max_num_results", "integer_above_max_value"),
    ({"max_num_results": 1.5}, "max_num_results", "invalid_type"),
    ({"rewrite_query": "yes"}, "rewrite_query", "invalid_type"),
    ({"ranking_options": {"ranker": "default_2024_08_21"}}, "ranking_options.ranker", "invalid_value"),
    ({"ranking_options": {"score_threshold": 1.1}}, "ranking_options.score_threshold", "decimal_above_max_value"),
    ({"ranking_options": {"score_threshold": -0.1}}, "ranking_options.score_threshold", "decimal_below_min_value"),
    ({"ranking_options": {"weights": 1}}, "ranking_options.weights", "unknown_parameter"),
    ({"limit": 5}, "limit", "unknown_parameter"),
    ({"filters": []}, "filters", "invalid_type"),
    ({"filters": {}}, "filters.type", "missing_required_parameter"),
    ({"filters": {"type": "like", "key": "k", "value": "v"}}, "filters.type", "invalid_value"),
    ({"filters": {"type": "eq", "value": 1}}, "filters.key", "missing_required_parameter"),
    ({"filters": {"type": "eq", "key": "k"}}, "filters.value", "missing_required_parameter"),
    ({"filters": compare("eq", "k", None)}, "filters.value", "invalid_type"),
    ({"filters": compare("eq", "k", {})}, "filters.value", "invalid_type"),
    ({"filters": compare("eq", "k" * 65, 1)}, "filters.key", "string_above_max_length"),
    ({"filters": compare("eq", "k", "v" * 513)}, "filters.value", "string_above_max_length"),
    ({"filters": compare("eq", "k", [1])}, "filters", "invalid_value"),
    ({"filters": compare("in", "k", 1)}, "filters", "invalid_value"),
    ({"filters": compare("nin", "k", "v")}, "filters", "invalid_value"),
    ({"filters": compare("in", "k", [[1]])}, "filters.value[0]", "invalid_type"),
    ({"filters": compare("in", "k", list(range(101)))}, "filters.value", "array_above_max_length"),
    ({"filters": compare("eq", "k", 1) | {"filters": []}}, "filters.filters", "unknown_parameter"),
    ({"filters": {"type": "and"}}, "filters.filters", "missing_required_parameter"),
    ({"filters": {"type": "or", "filters": [{"type": "x"}]}}, "filters.filters[0].type", "invalid_value"),
    ({"filters": {"type": "or", "filters": [nested(1)] * 101}}, "filters.filters", "array_above_max_length"),
    ({"filters": nested(17)}, "filters", "invalid_value"),
    ({"filters": nested(40)}, "filters", "invalid_value"),
    ({"filters": MANY}, "filters", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD_SEARCHES)
def test_a_bad_search_is_refused(http: httpx.Client, fields: Json, param: str | None, code: str) -> None:
    response = http.post(f"/vector_stores/{store_of(http)}/search", json={"query": "word"} | fields)
    status, message, *told = refusal(response)
    assert (status, told) == (400, [param, code]), message


def test_how_filters_are_refused_is_told_in_words(http: httpx.Client) -> None:
    path = f"/vector_stores/{store_of(http)}/search"

    def told(wanted: Json) -> str:
        return refusal(http.post(path, json={"query": "q", "filters": wanted}))[1]

    assert told(compare("in", "k", 1)) == "Invalid 'filters': the comparison 'in' wants an array as its value."
    assert told({"type": "and", "filters": [compare("gt", "k", [1])]}) == (
        "Invalid 'filters.filters[0]': the comparison 'gt' wants a string, a number or a boolean as its value."
    )
    assert told(nested(17)) == DEEP.format(17, 17)
    assert told(MANY) == DEEP.format(1011, 3)


def test_the_best_passages_come_first_and_as_many_as_wanted(http: httpx.Client) -> None:
    lines = "\n".join(f"Paragraph {number} is about word{number % 5}. " + "filler " * 90 for number in range(60))
    file_id, store_id = send(http, lines), store_of(http)
    attach(http, store_id, file_id, chunking_strategy=SMALL)
    settled(http, store_id)
    assert len(search(http, store_id, "word3")["data"]) == 10
    assert len(search(http, store_id, "word3", max_num_results=None)["data"]) == 10
    for limit in (1, 3, 50):
        found = search(http, store_id, "word3", max_num_results=limit)["data"]
        assert 0 < len(found) <= limit
        scores = [result["score"] for result in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        texts = [result["content"][0]["text"] for result in found]
        assert len(set(texts)) == len(texts)
    assert "word3" in search(http, store_id, "word3", max_num_results=1)["data"][0]["content"][0]["text"]


def test_several_queries_find_what_each_of_them_would_and_nothing_twice(http: httpx.Client) -> None:
    cake, tea = send(http, "There is cake."), send(http, "There is tea.")
    store_id = store_of(http, cake, tea)
    found = search(http, store_id, ["cake", "tea"])
    assert found["search_query"] == ["cake", "tea"]
    assert sorted(result["file_id"] for result in found["data"]) == sorted([cake, tea])
    assert len(search(http, store_id, ["cake", "tea"], max_num_results=1)["data"]) == 1
    assert [result["file_id"] for result in search(http, store_id, ["cake", "cake"])["data"]][:1] == [cake]
    assert search(http, store_id, "cake", rewrite_query=True)["search_query"] == ["cake"]


@pytest.mark.parametrize("ranker", ["none", "auto", "default-2024-11-15"])
def test_no_result_has_less_than_the_threshold_and_none_above_it_is_missing(http: httpx.Client, ranker: str) -> None:
    files = [send(http, f"cake {'and tea ' * number}") for number in range(6)]
    store_id = store_of(http, *files)
    everything = search(http, store_id, "cake", ranking_options={"ranker": ranker})["data"]
    assert everything
    for threshold in (0.0, 0.3, everything[len(everything) // 2]["score"], 1.0):
        options = {"ranker": ranker, "score_threshold": threshold}
        found = search(http, store_id, "cake", ranking_options=options)["data"]
        assert [result["file_id"] for result in found] == [
            result["file_id"] for result in everything if result["score"] >= threshold
        ]


def test_an_empty_store_and_words_that_are_nowhere_find_nothing(http: httpx.Client) -> None:
    expected: Json = {
        "object": "vector_store.search_results.page",
        "search_query": ["xyzzy"],
        "data": [],
        "has_more": False,
        "next_page": None,
    }
    assert search(http, store_of(http), "xyzzy") == expected
    assert search(http, store_of(http, send(http, FOODS)), "xyzzy") == expected


def test_a_search_stays_within_its_store(http: httpx.Client) -> None:
    here, elsewhere = store_of(http, send(http, "Here is tea.")), store_of(http, send(http, FOODS))
    assert search(http, here, "cake")["data"] == []
    assert len(search(http, elsewhere, "cake")["data"]) == 1


@pytest.mark.parametrize(
    "query", ["👩‍👩‍👧‍👦", "你好", "'; DROP TABLE files; --", "\n\t ", "*:* AND (", "a" * 4096, "[[say: hi]]"]
)
def test_any_text_may_be_looked_for(http: httpx.Client, query: str) -> None:
    store_id = store_of(http, send(http, "你好 world"))
    assert search(http, store_id, query)["search_query"] == [query]


def test_the_sdk_searches_with_filters(sdk: OpenAI, http: httpx.Client) -> None:
    store_id = store_of(http)
    attach(http, store_id, send(http, FOODS), attributes={"year": 2024})
    settled(http, store_id)
    wanted: Any = {"type": "and", "filters": [compare("gte", "year", 2024), compare("ne", "kind", "x")]}
    [result] = sdk.vector_stores.search(
        store_id, query=["cake"], filters=wanted, max_num_results=3, ranking_options={"score_threshold": 0.0}
    )
    assert (result.attributes, result.content[0].text) == ({"year": 2024}, FOODS)
    with pytest.raises(BadRequestError, match="wants an array"):
        sdk.vector_stores.search(store_id, query="x", filters={"type": "in", "key": "k", "value": 1})


@pytest.fixture(scope="module")
def rewriting(
    loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    exchanges = [
        exchange("Hi! Could you please tell me about cake?", {"text": "<think>Hm.</think>“cake\nrecipe”"}),
        exchange("Long?", {"text": "so " * 1000}),
        exchange("Empty?", {"text": " "}),
        exchange("Broken?", {"error": {"status": 400, "message": "no"}}),
    ]
    folder = tmp_path_factory.mktemp("rewriting")
    with scripted(loop, new_database(), folder, exchanges, rewrite_model="small") as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "searched"),
    [
        ("Hi! Could you please tell me about cake?", ["cake recipe"]),
        (["Long?", "Hi! Could you please tell me about cake?"], ["Long?", "cake recipe"]),
        ("Empty?", ["Empty?"]),
        ("Broken?", ["Broken?"]),
    ],
)
def test_a_model_rewrites_queries_where_one_is_set_for_it(rewriting: Server, asked: Any, searched: list[str]) -> None:
    with client_of(rewriting) as http:
        store_id = store_of(http, send(http, "A cake recipe: flour and eggs."))
        found = search(http, store_id, asked, rewrite_query=True)
        assert found["search_query"] == searched
        assert search(http, store_id, asked)["search_query"] == ([asked] if isinstance(asked, str) else asked)
        missing = http.post("/vector_stores/vs_none/search", json={"query": asked, "rewrite_query": True})
        assert missing.status_code == 404
