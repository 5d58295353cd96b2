"""Runs against every manner of `manners`: what becomes of them, and what the servers are sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.manners import Manner, Scenario
from tests.runs.manners.azure import AZURE
from tests.runs.manners.litellm import LITELLM
from tests.runs.manners.llama_cpp import LLAMA_CPP
from tests.runs.manners.ollama import OLLAMA
from tests.runs.manners.openai import OPENAI
from tests.runs.manners.server import MannersServer, serving_manners
from tests.runs.manners.transport import TRANSPORT
from tests.runs.manners.vllm import VLLM
from tests.runs.transcripts import NOTHING_USED, Json, client_of, converse, counted, sent, usage, words

MANNERS = (OPENAI, AZURE, VLLM, OLLAMA, LLAMA_CPP, LITELLM, TRANSPORT)


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


def _each_scenario() -> list[object]:
    return [
        pytest.param(manner, scenario, id=f"{manner.name}-{scenario.name}")
        for manner in MANNERS
        for scenario in manner.scenarios
    ]


each_manner = pytest.mark.parametrize("met", MANNERS, indirect=True, scope="module", ids=lambda manner: manner.name)


def _used(scenario: Scenario) -> Json:
    """The usage that the server tells; where it tells none, what was said is counted."""
    if scenario.usage:
        return usage(*scenario.usage)
    return counted("Hello?", scenario.text, scenario.name) if scenario.text else NOTHING_USED


@pytest.mark.parametrize(("met", "scenario"), _each_scenario(), indirect=["met"], scope="module")
def test_a_run_ends_as_the_manner_means_it(met: Met, scenario: Scenario) -> None:
    met.endpoint.requests[met.manner.name, scenario.name].clear()
    talk = converse(met.http, "Hello?", model=scenario.name)
    events = talk.stream(max_completion_tokens=300)
    run = talk.run(events[-2].payload["id"])
    assert run["status"] == scenario.status, run["last_error"]
    assert run["usage"] == _used(scenario)
    assert (run["incomplete_details"] or {}).get("reason") == scenario.reason
    error = run["last_error"] or {"code": None, "message": ""}
    assert error["code"] == scenario.code
    for said in scenario.says:
        assert said in error["message"]
    answers = [words(message["content"]) for message in talk.messages() if message["role"] == "assistant"]
    assert answers == ([] if scenario.text is None else [scenario.text])
    check_requests(met, scenario)


def check_requests(met: Met, scenario: Scenario) -> None:
    """The server is asked as often as it has to be, for a stream with usage, and with nothing that it would refuse."""
    asked = met.endpoint.requests[met.manner.name, scenario.name]
    assert len(asked) == scenario.heard
    for request in asked:
        assert set(request) <= met.manner.accepts | met.manner.ignores
        assert None not in request.values()
        assert request["max_completion_tokens"] == 300
        assert request["messages"] == [{"role": "user", "content": "Hello?"}]
        assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})
    assert not scenario.omits & set(asked[-1])


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
