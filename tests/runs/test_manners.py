"""Runs against every manner of `manners`: what becomes of them, and what the servers are sent."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest

from adlatus.backends import tokens
from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.manners import TOOLS, Manner, Scenario
from tests.runs.manners.azure import AZURE
from tests.runs.manners.deepseek import DEEPSEEK
from tests.runs.manners.gemini import GEMINI
from tests.runs.manners.litellm import LITELLM
from tests.runs.manners.llama_cpp import LLAMA_CPP
from tests.runs.manners.ollama import OLLAMA
from tests.runs.manners.openai import OPENAI
from tests.runs.manners.openrouter import OPENROUTER
from tests.runs.manners.server import MannersServer, serving_manners
from tests.runs.manners.transport import TRANSPORT
from tests.runs.manners.vllm import VLLM
from tests.runs.transcripts import (
    DONE,
    OPENING,
    Conversation,
    Event,
    Json,
    calling,
    check_ended,
    client_of,
    converse,
    sent,
    speaking,
    transcript,
    usage,
    words,
)

MANNERS = (OPENAI, AZURE, GEMINI, DEEPSEEK, VLLM, OLLAMA, LLAMA_CPP, LITELLM, OPENROUTER, TRANSPORT)
SPOKEN = ["thread.message.completed completed", "thread.run.step.completed completed"]
HELLO = {"role": "user", "content": "Hello?"}
OUR_ID = re.compile(r"call_[A-Za-z0-9]{24}")
MENDED = {"": "{}", '{"city": "Berl': '{"malformed_arguments":"{\\"city\\": \\"Berl"}'}
"""Arguments that are not as servers take them, and what becomes of them."""


@dataclass(frozen=True)
class Met:
    """A server of ours whose model endpoint has a manner."""

    http: httpx.Client
    manner: Manner
    endpoint: MannersServer


@pytest.fixture(scope="module")
def endpoint() -> Iterator[MannersServer]:
    with serving_manners(*MANNERS) as server:
        yield server


@pytest.fixture(scope="module")
def shared_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def met(request: pytest.FixtureRequest, loop: Loop, shared_url: str, endpoint: MannersServer) -> Iterator[Met]:
    manner: Manner = request.param
    settings = Settings(database_url=shared_url, model_base_url=endpoint.base_url(manner), model_api_key="sk-model")
    with serving(loop, settings) as server, client_of(server) as http:
        yield Met(http, manner, endpoint)


def each_scenario(*, waits: bool) -> pytest.MarkDecorator:
    """Every scenario of every manner whose runs wait for outputs, or do not."""
    scenarios = [
        pytest.param(manner, scenario, id=f"{manner.name}-{scenario.name}")
        for manner in MANNERS
        for scenario in manner.scenarios
        if scenario.waits is waits
    ]
    return pytest.mark.parametrize(("met", "scenario"), scenarios, indirect=["met"], scope="module")


each_manner = pytest.mark.parametrize("met", MANNERS, indirect=True, scope="module", ids=lambda manner: manner.name)


def talk_of(met: Met, scenario: Scenario) -> Conversation:
    """A conversation with a model of the scenario's, which is offered functions if it calls any."""
    met.endpoint.requests[met.manner.name, scenario.name].clear()
    return converse(met.http, "Hello?", model=scenario.name, tools=TOOLS if scenario.calls else [])


def used(scenario: Scenario, *turns: tuple[Json, list[str]]) -> Json:
    """The usage that the server tells; where it tells none, what was asked and said in each turn is counted."""
    if scenario.usage:
        return usage(*(count * max(len(turns), 1) for count in scenario.usage))
    count = tokens.counter(scenario.name)
    prompt = sum(sum(map(count, _texts(message))) + 4 for request, _ in turns for message in request["messages"])
    tools = sum(count(orjson.dumps(request["tools"]).decode()) for request, _ in turns if "tools" in request)
    reasoning = count(scenario.hidden)
    completion = sum(map(count, (text for _, said in turns for text in said)))
    return usage(prompt + tools, completion + reasoning, reasoning=reasoning)


def _texts(message: Json) -> Iterator[str]:
    """What is said in a message of a request."""
    yield message["content"] or ""
    for call in message.get("tool_calls", ()):
        yield from (call["function"]["name"], call["function"]["arguments"])


def assert_ended(talk: Conversation, run: Json, scenario: Scenario) -> None:
    assert run["status"] == scenario.status, run["last_error"]
    assert (run["incomplete_details"] or {}).get("reason") == scenario.reason
    error = run["last_error"] or {"code": None, "message": ""}
    assert error["code"] == scenario.code
    for said in scenario.says:
        assert said in error["message"]
    answers = [words(message["content"]) for message in talk.messages() if message["role"] == "assistant"]
    assert answers == [text for text in (scenario.said, scenario.text) if text is not None]


@each_scenario(waits=False)
def test_a_run_ends_as_the_manner_means_it(met: Met, scenario: Scenario) -> None:
    talk = talk_of(met, scenario)
    events = talk.stream(max_completion_tokens=300, **scenario.asks)
    run, _, steps = check_ended(talk, events)
    assert_ended(talk, run, scenario)
    asked = check_requests(met, scenario)
    assert [request["messages"] for request in asked] == [[HELLO]] * len(asked)
    said = [scenario.text or "", *(word for call in scenario.calls for word in call)]
    assert run["usage"] == used(scenario, *([(asked[-1], said)] if any(said) or scenario.hidden else []))
    called = [step for step in steps if step["type"] == "tool_calls"]
    ended = {"incomplete": "cancelled", "failed": "failed"}
    assert [step["status"] for step in called] == ([ended[scenario.status]] if scenario.calls else [])
    assert [_call(call) for step in called for call in step["step_details"]["tool_calls"]] == list(scenario.calls)


@each_scenario(waits=True)
def test_a_run_calls_as_the_manner_means_it(met: Met, scenario: Scenario) -> None:
    talk = talk_of(met, scenario)
    first = talk.stream(max_completion_tokens=300, **scenario.asks)
    waiting = first[-2].payload
    assert transcript(first) == [
        *OPENING,
        *([*speaking(scenario.said), *SPOKEN] if scenario.said else []),
        *calling(*(f"{name} {arguments}" for name, arguments in scenario.calls)),
        "thread.run.requires_action requires_action",
        DONE,
    ]
    calls = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert accumulated(first) == calls
    assert [_call(call) for call in calls] == list(scenario.calls)
    ids = [call["id"] for call in calls]
    assert len(set(ids)) == len(ids)
    assert ids == list(scenario.ids) or (not scenario.ids and all(map(OUR_ID.fullmatch, ids)))

    second = talk.submitting(waiting["id"], [{"tool_call_id": call_id, "output": call_id} for call_id in ids])
    run, _, steps = check_ended(talk, first + second)
    assert_ended(talk, run, scenario)
    asked = check_requests(met, scenario)
    said = [scenario.said or "", *(word for call in scenario.calls for word in call)]
    assert asked[0]["messages"] == [HELLO]
    assert asked[1]["messages"] == [
        HELLO,
        {"role": "assistant", "content": scenario.said, "tool_calls": as_servers_take_them(calls)},
        *({"role": "tool", "tool_call_id": call_id, "content": call_id} for call_id in ids),
    ]
    assert run["usage"] == used(scenario, (asked[0], said), (asked[1], [scenario.text or ""]))
    assert asked[1]["max_completion_tokens"] == 300 - sum(step["usage"]["completion_tokens"] for step in steps[:-1])


def _call(call: Json) -> tuple[str, str]:
    return call["function"]["name"], call["function"]["arguments"]


def accumulated(events: list[Event]) -> list[Json]:
    """The calls that the deltas of a stream make up; each index is begun once, and none is left out."""
    calls: list[Json] = []
    for event in events:
        if event.name != "thread.run.step.delta":
            continue
        for part in event.payload["delta"]["step_details"]["tool_calls"]:
            if "id" in part:
                assert part["index"] == len(calls)
                function = {"name": part["function"]["name"], "arguments": part["function"]["arguments"]}
                calls.append({"id": part["id"], "type": part["type"], "function": function})
            else:
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return calls


def as_servers_take_them(calls: list[Json]) -> list[Json]:
    """Calls with arguments that are a JSON object whatever the model has written."""
    return [
        call | {"function": call["function"] | {"arguments": MENDED.get(_call(call)[1], _call(call)[1])}}
        for call in calls
    ]


def check_requests(met: Met, scenario: Scenario) -> list[Json]:
    """The server is asked as often as it has to be, for a stream with usage, and with nothing that it would refuse."""
    asked = met.endpoint.requests[met.manner.name, scenario.name]
    assert len(asked) == scenario.heard
    for request in asked:
        assert set(request) <= met.manner.accepts | met.manner.ignores
        assert None not in request.values()
        assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})
        assert request.get("tools") == (TOOLS if scenario.calls else None)
    assert asked[0]["max_completion_tokens"] == 300
    assert {name: asked[0][name] for name in scenario.asks} == scenario.asks
    assert not scenario.omits & set(asked[-1])
    return asked


@each_manner
def test_the_models_are_listed_however_the_endpoint_lists_them(met: Met) -> None:
    listed = sent(met.http.get("/models"))
    assert [model["id"] for model in listed["data"]] == list(met.manner.model_ids)
    assert {tuple(model) for model in listed["data"]} <= {("id", "object", "created", "owned_by")}
    assert met.endpoint.headers[met.manner.name][-1]["authorization"] == "Bearer sk-model"


@pytest.mark.parametrize("met", [TRANSPORT], indirect=True, scope="module", ids=["transport"])
def test_runs_in_a_row_use_one_connection_even_if_bodies_end_late(met: Met) -> None:
    """The end of a body comes in a write of its own, after what ends the answer."""
    met.endpoint.connections["transport"].clear()
    for _ in range(4):
        converse(met.http, "Hello?", model="ends-late").stream()
    assert len(met.endpoint.connections["transport"]) == 1


def test_deployments_are_reached_by_a_path_with_the_models_name(
    loop: Loop, shared_url: str, endpoint: MannersServer, tmp_path: Path
) -> None:
    """As Azure's resources have them: the deployment in the path, the version in the query, the key in a header."""
    address = endpoint.base_url(AZURE).removesuffix("/v1")
    (tmp_path / "models.toml").write_text(
        f"""
[endpoints.azure]
base_url = "{address}/deployments/{{model}}?api-version=2024-10-21"
api_key = "azure-key"
api_key_header = "api-key"

[models."azure/*"]
endpoint = "azure"
model = "*"
""",
        "utf-8",
    )
    scenario = next(each for each in AZURE.scenarios if each.status == "completed")
    settings = Settings(database_url=shared_url, models_file=tmp_path / "models.toml")
    with serving(loop, settings) as server, client_of(server) as http:
        assert converse(http, "Hello?", model=f"azure/{scenario.name}").completed() == scenario.text
        assert sent(http.get("/models"))["data"] == []
        assert sent(http.get("/models/azure/any"))["owned_by"] == "azure"
        handed_on = http.post("/chat/completions", json={"model": f"azure/{scenario.name}", "messages": []})
    assert handed_on.content == b"".join(scenario.answers[-1].pieces)
    assert endpoint.requests["azure", scenario.name][-1]["model"] == scenario.name
    headers = endpoint.headers["azure"][-1]
    assert (headers["api-key"], headers.get("authorization")) == ("azure-key", None)
