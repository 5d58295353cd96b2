"""`POST /v1/embeddings`: who answers to which name, and what the local model answers."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI

from adlatus.backends.embeddings.local import DIMENSIONS, NAME
from adlatus.errors import StartupError
from adlatus.settings import Settings
from tests.conftest import Loop, Server, missing, serving
from tests.retrieval.service import running
from tests.retrieval.test_embeddings import well


@pytest.fixture(scope="module")
def with_model(loop: Loop, new_database: Callable[[], str], fetched_data_dir: Path) -> Iterator[Server]:
    """A server on which the local model was fetched, and nothing else is set."""
    with serving(loop, Settings(database_url=new_database(), data_dir=fetched_data_dir)) as server:
        yield server


@pytest.fixture
def client(with_model: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=with_model.base_url, timeout=60) as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


def test_the_sdk_gets_vectors_of_the_local_model_under_any_name(with_model: Server) -> None:
    with OpenAI(base_url=with_model.base_url, api_key="any") as sdk:
        answer = sdk.embeddings.create(model="text-embedding-3-small", input=["one", "two words"])  # asks for base64
        alone = sdk.embeddings.create(model=NAME, input="two words", encoding_format="float", dimensions=DIMENSIONS)
        assert [one.index for one in answer.data] == [0, 1]
        assert answer.model == NAME
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
        assert len(alone.data[0].embedding) == DIMENSIONS
        assert np.allclose(alone.data[0].embedding, answer.data[1].embedding, atol=1e-6)


def test_both_forms_say_the_same(client: httpx.Client) -> None:
    body = {"model": "m", "input": "What is this?"}
    floats = client.post("embeddings", json=body).json()["data"][0]["embedding"]
    packed = client.post("embeddings", json={**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert np.array_equal(np.array(floats, np.float32), np.frombuffer(base64.b64decode(packed), "<f4"))


def test_tokens_are_read_as_those_of_cl100k(client: httpx.Client) -> None:
    given = {"hello world": [15339, 1917]}
    for text, tokens in given.items():
        answer = client.post("embeddings", json={"model": "m", "input": tokens})
        if answer.status_code == 400:
            missing("ranks", "bpe-openai is not installed")
        several = client.post("embeddings", json={"model": "m", "input": [tokens, tokens]}).json()
        plain = client.post("embeddings", json={"model": "m", "input": text}).json()
        assert answer.json()["data"] == plain["data"]
        assert [one["embedding"] for one in several["data"]] == [plain["data"][0]["embedding"]] * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "Missing required parameter: 'input'"),
        ({"input": ""}, "Invalid 'input'"),
        ({"input": []}, "Invalid 'input'"),
        ({"input": ["a", ""]}, "Invalid 'input[1]'"),
        ({"input": ["a", 1]}, "input"),
        ({"input": {"a": 1}}, "Invalid type for 'input'"),
        ({"input": [2_000_000_000]}, "no tokens of the encoding"),
        ({"input": [10**30]}, "input"),
        ({"input": ["a"] * 2_049}, "Invalid 'input': array too long"),
        ({"input": "a", "dimensions": 256}, "does not support specifying dimensions: it has 384"),
        ({"input": "a", "dimensions": 0}, "Invalid 'dimensions'"),
        ({"input": "a", "encoding_format": "hex"}, "Invalid value: 'hex'"),
        ({"input": "a " * 9_000}, "maximum context length is 8192 tokens, however you requested 9000 tokens"),
        ({"input": "a" * 200_000}, "string too long"),
        ({"input": ["a " * 8_000] * 38}, "max 300000 tokens per request"),
    ],
)
def test_a_wrong_request_is_refused_in_openais_shape(client: httpx.Client, wrong: dict[str, Any], said: str) -> None:
    assert said in error_of(client.post("embeddings", json={"model": "m", **wrong}))["message"]


def test_the_rehearsal_keeps_its_own_name(client: httpx.Client) -> None:
    answer = client.post("embeddings", json={"model": "rehearsal-embedding", "input": "a"}).json()
    assert (answer["model"], len(answer["data"][0]["embedding"])) == ("rehearsal-embedding", 256)


def test_the_local_model_is_listed_and_its_name_answers_to_nothing_else(client: httpx.Client) -> None:
    assert NAME in [model["id"] for model in client.get("models").json()["data"]]
    assert client.get(f"models/{NAME}").json()["owned_by"] == "local"


def test_the_metric_says_whether_there_are_embeddings(with_model: Server, server: Server) -> None:
    gauge = b"adlatus_embeddings_available"
    assert gauge + b" 1.0" in with_model.resources.metrics.render()
    assert with_model.resources.embedder is with_model.resources.local_model
    assert gauge + b" 0.0" in server.resources.metrics.render()
    assert server.resources.embedder is None
    [(_, what, how)] = [line for line in server.resources.report if line[0] == "embeddings"]
    assert "degraded" in what
    assert "adlatus models fetch" in how


def test_without_the_model_the_rehearsal_answers(http: httpx.Client) -> None:
    answer = http.post("/embeddings", json={"model": "any", "input": "a"}).json()
    assert len(answer["data"][0]["embedding"]) == 256


def test_a_script_keeps_the_rehearsals_vectors(
    loop: Loop, database_url: str, fetched_data_dir: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("exchanges:\n  - expect: {user: Hello}\n    answer: {text: Hello}\n", "utf-8")
    settings = Settings(database_url=database_url, data_dir=fetched_data_dir, rehearsal_script=script)
    with serving(loop, settings) as server:
        vectors = [
            httpx.post(f"{server.base_url}/embeddings", json={"model": name, "input": "a"}).json()["data"]
            for name in ("any", NAME)
        ]
    assert [len(one["embedding"]) for [one] in vectors] == [256, DIMENSIONS]


def test_an_embedding_endpoint_answers_to_every_name_that_is_not_routed(
    loop: Loop, database_url: str, fetched_data_dir: Path
) -> None:
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        settings = Settings(
            database_url=database_url,
            data_dir=fetched_data_dir,
            embedding_base_url=endpoint.base_url,
            embedding_model="bge-m3",
        )
        with serving(loop, settings) as server:
            answer = httpx.post(f"{server.base_url}/embeddings", json={"model": "m", "input": ["a"]}).json()
            embedder = server.resources.embedder
            assert embedder
            vector = loop.run(embedder.embed_query("a"))
    assert answer["model"] == "bge-m3"
    assert [request["model"] for request in service.requests] == ["bge-m3", "bge-m3"]
    assert (embedder.name, len(vector)) == ("bge-m3", 3)


def test_the_model_of_the_index_may_be_a_name_that_is_routed(loop: Loop, database_url: str) -> None:
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        settings = Settings(database_url=database_url, model_base_url=endpoint.base_url, embedding_model="nomic")
        with serving(loop, settings) as server:
            embedder = server.resources.embedder
            assert embedder
            loop.run(embedder.embed_documents(["a", "b"]))
    assert [request["model"] for request in service.requests] == ["nomic"]


def test_an_endpoint_without_the_name_of_a_model_is_refused_at_the_start(loop: Loop, database_url: str) -> None:
    settings = Settings(database_url=database_url, embedding_base_url="http://127.0.0.1:9/v1")
    with pytest.raises(StartupError, match="ADLATUS_EMBEDDING_MODEL"), serving(loop, settings):
        pass
