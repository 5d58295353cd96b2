"""Vectors of the local model, and of an endpoint over real HTTP that behaves badly."""

import asyncio
import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adlatus.backends.embeddings import Vectors, unit
from adlatus.backends.embeddings.endpoint import AT_A_TIME, BATCH, EndpointEmbedder, read
from adlatus.backends.embeddings.local import DIMENSIONS, MAX_TOKENS, LocalModel
from adlatus.backends.refusals import ModelError
from adlatus.backends.routing import Endpoint, Route
from adlatus.backends.upstreams import open_clients
from tests.retrieval.service import running

HOSTILE = ["", " ", "\0", "\ud800", "a" * 5_000, "😀" * 400, "[CLS] [SEP]", "\r\n" * 500, "ก" * 300]


# --- The local model


def test_texts_that_mean_the_same_lie_closer_than_others(local_model: LocalModel) -> None:
    texts = ["How do I send a parcel back?", "Instructions for returns", "The moon has no atmosphere."]
    vectors = asyncio.run(local_model.embed_documents(texts))
    assert vectors.shape == (3, DIMENSIONS)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2


def test_a_text_has_the_same_vector_in_any_company(local_model: LocalModel) -> None:
    async def embed() -> tuple[Vectors, Vectors, Vectors]:
        together = local_model.embed_documents(["short", "a longer text " * 30, "another"])
        return await together, await local_model.embed_documents(["short"]), await local_model.embed_query("short")

    together, alone, asked = asyncio.run(embed())
    assert np.array_equal(together[0], alone[0])
    assert np.array_equal(together[0], asked)


def test_a_text_of_many_tokens_is_the_mean_of_its_windows(local_model: LocalModel) -> None:
    text = " ".join(f"word{number}" for number in range(400))
    windows = asyncio.run(local_model.windows([text, "short"]))
    [tokens, _] = windows.tokens
    assert tokens > 3 * MAX_TOKENS
    assert list(windows.owners) == [0] * -(-tokens // (MAX_TOKENS - 2)) + [1]
    own = windows.vectors[:-1].mean(axis=0)
    assert np.allclose(windows.pooled()[0], own / np.linalg.norm(own), atol=1e-5)


def test_the_end_of_a_long_text_is_found(local_model: LocalModel) -> None:
    filler = "The committee met on Tuesday and approved the minutes of the meeting before. " * 40
    texts = [filler + "The password of the laboratory is swordfish.", filler]
    vectors = asyncio.run(local_model.embed_documents(texts))
    asked = asyncio.run(local_model.embed_query("laboratory password"))
    assert vectors[0] @ asked > vectors[1] @ asked + 0.05


def test_no_text_is_too_odd_for_the_local_model(local_model: LocalModel) -> None:
    vectors = asyncio.run(local_model.embed_documents(HOSTILE))
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_becomes_nothing(local_model: LocalModel) -> None:
    assert asyncio.run(local_model.embed_documents([])).shape == (0, DIMENSIONS)


def test_a_query_does_not_wait_for_documents(local_model: LocalModel) -> None:
    async def both() -> bool:
        documents = asyncio.create_task(local_model.embed_documents(["a long text of many words " * 60] * 40))
        await local_model.embed_query("short")
        overtaken = not documents.done()
        documents.cancel()
        return overtaken

    assert asyncio.run(both())


def test_a_folder_without_a_model_is_an_error_with_advice(tmp_path: Path, local_model: LocalModel) -> None:
    broken = LocalModel(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="adlatus models fetch"):
        asyncio.run(broken.embed_documents(["a"]))
    broken.close()


# --- An endpoint


def vector_of(text: str) -> list[float]:
    """What a well-behaved service makes of a text: its length, in a direction of its own."""
    return [float(len(text)), 1.0, 2.0]


def well(body: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {"object": "embedding", "index": index, "embedding": vector_of(text)}
        for index, text in enumerate(body["input"])
    ]
    return {"object": "list", "data": entries, "model": body["model"]}


def embedded(endpoint: Endpoint, texts: list[str], *, dimensions: int | None = None, max_tokens: int = 8191) -> Vectors:
    """The vectors of texts by the endpoint's embedder."""

    async def embed() -> Vectors:
        async with open_clients([endpoint]) as clients:
            route = Route("*", endpoint, "their-model")
            embedder = EndpointEmbedder(clients, route, dimensions=dimensions, max_tokens=max_tokens)
            vectors = await embedder.embed_documents(texts)
            assert embedder.dimensions == vectors.shape[1] or not texts
            return vectors

    return asyncio.run(embed())


def expected(texts: list[str]) -> Vectors:
    vectors = np.array([vector_of(text) for text in texts], np.float32)
    return unit(vectors)


def test_many_texts_go_in_batches_a_few_at_a_time_and_come_back_in_order() -> None:
    texts = ["x" * (1 + number % 200) for number in range(20 * BATCH + 5)]
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        assert np.allclose(embedded(endpoint, texts), expected(texts), atol=1e-6)
    assert sorted({len(request["input"]) for request in service.requests}) == [5, BATCH]
    assert len(service.requests) == 21
    assert service.most_at_a_time <= AT_A_TIME
    assert {request["model"] for request in service.requests} == {"their-model"}
    assert "dimensions" not in service.requests[0]


def test_an_endpoint_that_fails_every_third_call_gives_every_vector_once() -> None:
    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        return (500, {"error": {"message": "out of luck"}}) if number % 3 == 0 else (200, well(body))

    texts = ["x" * (1 + number % 200) for number in range(6 * BATCH)]
    with running(answer) as (service, endpoint):
        assert np.allclose(embedded(endpoint, texts), expected(texts), atol=1e-6)
    assert len(service.requests) == 8


def test_an_endpoint_that_asks_to_wait_is_asked_again() -> None:
    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        said = {"error": {"message": "Please try again in 20ms", "type": "rate_limit_error"}}
        return (429, said) if number == 1 else (200, well(body))

    with running(answer) as (service, endpoint):
        assert np.allclose(embedded(endpoint, ["a"]), expected(["a"]), atol=1e-6)
    assert len(service.requests) == 2


def test_dimensions_are_asked_for_and_an_endpoint_that_gives_others_is_refused() -> None:
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        embedded(endpoint, ["a"], dimensions=3)
        assert service.requests[0]["dimensions"] == 3
        with pytest.raises(ModelError, match="vectors of 3 dimensions instead of 4: check ADLATUS_EMBEDDING_DIM"):
            embedded(endpoint, ["a"], dimensions=4)


def test_base64_and_any_order_are_understood() -> None:
    def answer(_: int, body: dict[str, Any]) -> tuple[int, Any]:
        entries = [
            {"index": index, "embedding": base64.b64encode(struct.pack("<3f", *vector_of(text))).decode()}
            for index, text in enumerate(body["input"])
        ]
        return 200, {"data": entries[::-1]}

    texts = ["a", "bb", "ccc"]
    with running(answer) as (_, endpoint):
        assert np.allclose(embedded(endpoint, texts), expected(texts), atol=1e-6)


def test_a_text_that_is_too_long_for_the_model_goes_in_parts() -> None:
    text = "word " * 500
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        vectors = embedded(endpoint, [text, "short"], max_tokens=100)
    parts = service.requests[0]["input"]
    assert "".join(parts) == text + "short"
    assert all(len(part) <= 100 * 5 for part in parts)
    pooled = expected(parts[:-1]).sum(axis=0)
    assert np.allclose(vectors[0], pooled / np.linalg.norm(pooled), atol=1e-5)


def test_odd_texts_reach_the_endpoint_as_json_and_none_is_empty() -> None:
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        embedded(endpoint, HOSTILE)
    assert [bool(text) for text in service.requests[0]["input"]] == [True] * len(HOSTILE)


def test_nothing_is_not_asked_for() -> None:
    with running(lambda _, body: (200, well(body))) as (service, endpoint):
        assert embedded(endpoint, []).shape[0] == 0
    assert service.requests == []


def entry(embedding: Any = (1.0, 2.0), **other: Any) -> dict[str, Any]:
    return {"index": 0, "embedding": embedding if isinstance(embedding, str) else list(embedding), **other}


WRONG: dict[str, tuple[Any, str]] = {
    "a login page": (b"<html>Log in</html>", "not as a model endpoint does"),
    "no list": ({"data": None}, "no list of embeddings"),
    "a number": (7, "no list of embeddings"),
    "other entries": ({"data": [7]}, "no list of embeddings"),
    "too few": ({"data": []}, "0 vectors for 1 texts"),
    "too many": ({"data": [entry(), entry(index=1)]}, "2 vectors for 1 texts"),
    "another index": ({"data": [entry(index=1)]}, "indexes that are not those"),
    "an odd index": ({"data": [entry(index="0")]}, "indexes that are not those"),
    "no vector": ({"data": [{"index": 0}]}, "neither numbers nor base64"),
    "an empty vector": ({"data": [entry([])]}, "vectors of 0 dimensions"),
    "words": ({"data": [entry(["a", "b"])]}, "neither numbers nor base64"),
    "nested": ({"data": [entry([[1.0]])]}, "neither numbers nor base64"),
    "zero": ({"data": [entry([0.0, 0.0])]}, "zero or not finite"),
    "next to zero": ({"data": [entry([1e-300, 0.0])]}, "zero or not finite"),
    "huge": ({"data": [entry([1e300, 0.0])]}, "zero or not finite"),
    "larger than any float": (b'{"data": [{"index": 0, "embedding": [1' + b"0" * 400 + b", 1]}]}", ""),
    "no base64": ({"data": [entry("§§§")]}, "cannot be read"),
    "half a number": ({"data": [entry(base64.b64encode(b"abcde").decode())]}, "cannot be read"),
    "not a number": ({"data": [entry(base64.b64encode(struct.pack("<f", float("nan"))).decode())]}, "not finite"),
}


@pytest.mark.parametrize(("said", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_told_and_not_asked_for_again(said: Any, problem: str) -> None:
    with running(lambda *_: (200, said)) as (service, endpoint), pytest.raises(ModelError) as refused:
        embedded(endpoint, ["a"])
    assert refused.value.message.startswith("The model endpoint (theirs) answered")
    assert problem in refused.value.message
    assert len(service.requests) == 1


def test_vectors_of_different_lengths_are_no_answer() -> None:
    content = json.dumps({"data": [entry([1.0, 2.0]), entry([1.0], index=1)]}).encode()
    with pytest.raises(ValueError, match="different lengths"):
        read(content, 2)


def test_a_refusal_is_final_and_says_what_to_set() -> None:
    said = {"error": {"message": "The model `their-model` does not exist", "code": "model_not_found"}}
    with running(lambda *_: (404, said)) as (service, endpoint), pytest.raises(ModelError, match="SETTING_MODEL"):
        embedded(endpoint, ["a"] * 3)
    assert len(service.requests) == 1


def test_an_endpoint_that_is_down_is_an_error_after_a_few_attempts() -> None:
    with running(lambda *_: (200, {})) as (_, endpoint):
        pass
    with pytest.raises(ModelError, match=re.escape("could not be reached: check that it runs, and SETTING_URL")):
        embedded(endpoint, ["a"])
