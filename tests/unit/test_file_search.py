"""The hosted file search as far as it is pure: its offer, who does what, what the model is told, what fits."""

from typing import Any

import pytest

from adlatus.backends import tokens
from adlatus.backends.vectors.protocol import Weights
from adlatus.retrieval.search import Result
from adlatus.runs import tools
from adlatus.runs.budget import Left
from adlatus.runs.calls import Call
from adlatus.runs.loop import AskClient, Finish, UseTools, decide
from adlatus.runs.prompt import Calls, build
from adlatus.runs.tools import NotOffered, file_search
from adlatus.runs.tools.file_search import FileSearch, fitting, kept, passages, pending, queries, told
from adlatus.runs.turn import Turn
from adlatus.wire.common import FileSearchTool
from adlatus.wire.steps import CONTENT, RunStep, StepStatus, tool_calls
from tests.unit.test_prompt import STRICT, run_of

Json = dict[str, Any]


def tool(**options: Any) -> Json:
    return FileSearchTool.model_validate({"type": "file_search", "file_search": options}).model_dump()


SEARCH = FileSearch.of(tool())
F = {"type": "function", "function": {"name": "f", "parameters": {}}}


def result(text: str = "Cake.", name: str = "a.txt", **rest: Any) -> Result:
    given: Json = {"score": 0.5, "attributes": {}, "page_from": None, "page_to": None, **rest}
    return Result("vs_1", "file-1", name, text=text, **given)


def called(arguments: str = '{"queries": ["cake"]}', *results: Result, **rest: Any) -> Json:
    return kept(Call("call_1", "file_search", [arguments], **rest), SEARCH, 4, results)


# --- What the model is offered


def test_a_run_offers_its_search_under_a_free_name() -> None:
    names = ["file_search", "file_search_2"]
    functions = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in names]
    for taken, name in enumerate([*names, "file_search_3"]):
        run = run_of(tools=[tool(), *functions[:taken]], tool_choice={"type": "file_search"})
        request = build(run, [], STRICT, Left())
        assert [each["function"]["name"] for each in request["tools"]] == [*names[:taken], name]
        assert request["tool_choice"] == {"type": "function", "function": {"name": name}}


def test_required_means_hosted_tools_too_in_the_first_turn() -> None:
    run = run_of(tools=[tool()], tool_choice="required", parallel_tool_calls=False)
    request = build(run, [], STRICT, Left())
    assert (request["tool_choice"], request["parallel_tool_calls"]) == ("required", False)
    function = tools.as_function(called())
    assert function
    assert "tool_choice" not in build(run, [Calls(run.id, (function,))], STRICT, Left())


def test_the_choice_of_none_offers_no_search() -> None:
    assert "tools" not in build(run_of(tools=[tool()], tool_choice="none"), [], STRICT, Left())


def test_options_are_those_of_the_tool() -> None:
    assert FileSearch(None, "default_2024_08_21", 0.0, None) == SEARCH
    ranking = {"ranker": "auto", "score_threshold": 0.3, "hybrid_search": {"embedding_weight": 1, "text_weight": 0}}
    search = FileSearch.of(tool(max_num_results=3, ranking_options=ranking))
    assert search == FileSearch(3, "auto", 0.3, Weights(embedding=1, text=0))
    assert search.ranking_options == {"ranker": "auto", "score_threshold": 0.3}
    ranking = {"hybrid_search": {"embedding_weight": 0, "text_weight": 0}}
    assert FileSearch.of(tool(ranking_options=ranking)).weights is None


# --- Who carries out what


@pytest.mark.parametrize(
    ("offered", "names", "hosted", "decision"),
    [
        ([tool()], ["file_search"], {0: SEARCH}, UseTools()),
        ([tool()], ["file_search", "file_search"], {0: SEARCH, 1: SEARCH}, UseTools()),
        ([tool(), F], ["f", "file_search"], {1: SEARCH}, AskClient()),
        ([tool(), F], ["f"], {}, AskClient()),
        ([tool(), F], ["unknown"], {}, AskClient()),
        ([F], ["file_search"], {}, AskClient()),
        ([tool()], ["unknown"], {0: NotOffered(("file_search",))}, UseTools()),
        ([tool()], [], {}, Finish()),
    ],
)
def test_functions_are_the_clients_and_all_else_is_done_here(
    offered: list[Json], names: list[str], hosted: dict[int, tools.Tool], decision: object
) -> None:
    turn = Turn(toolbox=tools.toolbox(run_of(tools=offered)))
    calls = [{"index": n, "id": f"call_{n}", "function": {"name": name}} for n, name in enumerate(names)]
    turn.fold([{"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "stop"}]}])
    assert turn.hosted == hosted
    assert decide(turn) == decision


def test_positions_go_on_whatever_is_shown_of_the_thread() -> None:
    assert tools.position(1, []) == 4
    assert tools.position(3, [called()]) == 6
    assert tools.position(1, [called()]) == 5
    assert tools.position(1, [pending("call_1", SEARCH)]) == 4


def test_turns_count_in_which_something_was_carried_out_here() -> None:
    function = {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "", "output": ""}}
    steps = [tool_calls([called()]), tool_calls([function, called()]), tool_calls([function]), {"type": "message"}]
    assert tools.rounds(run_of(tools=[tool(), F]), steps) == 2
    assert tools.rounds(run_of(tools=[tool()]), steps) == 3


# --- Calls


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ('{"queries": ["a", " b "]}', ["a", "b"]),
        ('{"queries": "a", "more": 1}', ["a"]),
        ('{"queries": ["a\\u0000"]}', ["a\ufffd"]),
        ('{"queries": ["' + "x" * 9999 + '"]}', ["x" * 2000]),
    ],
)
def test_queries_are_read(arguments: str, asked: list[str]) -> None:
    assert queries(arguments) == asked


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("", "there are no queries"),
        ("{}", "there are no queries"),
        ('{"queries": []}', "there are no queries"),
        ('{"queries": {"a": 1}}', "there are no queries"),
        ('["a"]', "there are no queries"),
        ("cake", "the arguments are not JSON"),
        ('{"queries": ["a"', "the arguments are not JSON"),
        ('{"queries": ["a", ""]}', "every query must be a text"),
        ('{"queries": " "}', "every query must be a text"),
        ('{"queries": [1]}', "every query must be a text"),
        ('{"queries": ["a", "b", "c", "d", "e", "f"]}', "there are 6 queries. Give at most 5"),
    ],
)
def test_what_is_wrong_with_a_call_is_told(arguments: str, wrong: str) -> None:
    assert str(queries(arguments)).startswith(wrong)
    assert told(called(arguments)).startswith(f"Nothing was searched: {wrong}")


def test_the_model_is_told_passages_with_markers_and_pages() -> None:
    results = [
        result("Cake.\n", "a.txt"),
        result("Pie.", "b\n】.pdf", page_from=3, page_to=4),
        result("Tea.", "c.pdf", page_from=5, page_to=5),
    ]
    head, *shown = told(called('{"queries": ["x"]}', *results)).split("\n\n", 1)
    assert "【4:0†a.txt】" in head
    assert "".join(shown).splitlines() == [
        *("【4:0†a.txt】 a.txt", "Cake.", "", ""),
        *("【4:1†b__.pdf】 b 】.pdf (pages 3-4)", "Pie.", ""),
        *("【4:2†c.pdf】 c.pdf (page 5)", "Tea."),
    ]


def test_what_is_kept_tells_the_model_the_same_again() -> None:
    call = called('{"queries": ["x"]}', result(), extra={"google": 1})
    assert tools.as_function(call) == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "file_search", "arguments": '{"queries": ["x"]}', "output": told(call)},
        "extra_content": {"google": 1},
    }
    assert tools.as_function(pending("call_1", SEARCH)) is None
    [(numbers, passage)] = passages(call).items()
    assert (numbers, passage.marker, passage.file_id, passage.text) == ((4, 0), "【4:0†a.txt】", "file-1", "Cake.")
    assert passages(pending("call_1", SEARCH)) == {}


def _step(call: Json) -> Json:
    instants = dict.fromkeys(("cancelled_at", "completed_at", "expires_at", "expired_at", "failed_at"))
    ids = {"id": "step_1", "run_id": "run_1", "assistant_id": "asst_1", "thread_id": "thread_1"}
    rest = {"created_at": 1, "status": StepStatus.COMPLETED, "last_error": None, "usage": None, "metadata": {}}
    return {**ids, **instants, **rest, "type": "tool_calls", "step_details": tool_calls([call])}


def test_a_step_shows_what_is_asked_for_and_nothing_of_the_model() -> None:
    call = called('{"queries": ["x"]}', result("Cake.", page_from=3, page_to=4), extra={"google": 1})
    brief = {"file_id": "file-1", "file_name": "a.txt", "score": 0.5, "attributes": {}}
    whole = {**brief, "content": [{"type": "text", "text": "Cake."}], "page_from": 3, "page_to": 4}
    options = {"ranker": "default_2024_08_21", "score_threshold": 0.0}
    for include, shown in (((), brief), ((CONTENT,), whole)):
        [told_call] = RunStep.of(_step(call), include).step_details["tool_calls"]
        search = {"ranking_options": options, "results": [shown]}
        assert told_call == {"id": "call_1", "type": "file_search", "file_search": search}


# --- What fits

MODEL = "unknown"
TEXT = "Filip likes cake. " * 20


def test_results_fit_from_the_best_on() -> None:
    results = [result(f"{number} {TEXT}") for number in range(10)]
    assert fitting(results, 10**6, MODEL) == results
    counter = tokens.counter(MODEL)
    some = fitting(results, 4 * counter(TEXT), MODEL)
    assert some == results[: len(some)]
    assert 1 < len(some) < 4
    assert counter(told(called("{}", *some))) < 4 * counter(TEXT)
    assert fitting([], 100, MODEL) == []


def test_a_result_that_is_too_long_alone_is_cut() -> None:
    [only] = fitting([result("é" * 5000), result()], 300, MODEL)
    assert only.text
    assert ("é" * 5000).startswith(only.text)
    assert tokens.counter(MODEL)(only.text) <= 300
    assert [each.text for each in fitting([result()], 0, MODEL)] == [""]


def test_the_description_tells_how_to_cite() -> None:
    function = file_search.schema("file_search")["function"]
    assert "【4:0†report.txt】" in function["description"]
    assert function["parameters"]["required"] == ["queries"]
