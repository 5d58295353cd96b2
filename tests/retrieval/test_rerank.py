"""Rerankers over real HTTP: those that judge, in both styles, and those that behave badly."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from adlatus.backends import rerank
from adlatus.backends.refusals import ModelError
from adlatus.backends.rerank import BATCH, HttpReranker, open_reranker, read
from adlatus.backends.routing import Endpoint
from adlatus.backends.upstreams import open_clients
from adlatus.errors import StartupError
from adlatus.settings import Settings
from adlatus.telemetry import Metrics
from tests.retrieval.service import running

PATH = "/v1/rerank"
TEXTS = ["a", "bbbb", "cc"]
Answer = Callable[[int, dict[str, Any]], tuple[int, Any]]


def by_length(text: str) -> float:
    """How the models of these tests judge."""
    return len(text) / 100


def of_documents(_: int, body: dict[str, Any]) -> tuple[int, Any]:
    """Jina, Cohere, vLLM: the best first."""
    if "documents" not in body:
        return 422, {"detail": "documents: field required"}
    results = [
        {"index": index, "relevance_score": by_length(text), "document": {"text": text}}
        for index, text in enumerate(body["documents"])
    ]
    return 200, {"results": sorted(results, key=lambda each: -each["relevance_score"])}


def of_texts(_: int, body: dict[str, Any]) -> tuple[int, Any]:
    """Text Embeddings Inference."""
    if "texts" not in body:
        return 422, {"error": "missing field `texts`", "error_type": "Validation"}
    scores = [{"index": index, "score": by_length(text)} for index, text in enumerate(body["texts"])]
    return 200, scores[::-1]


async def _asked(endpoint: Endpoint, rounds: Sequence[Sequence[str]], metrics: Metrics) -> list[list[float]]:
    url = replace(endpoint, base_url=f"{endpoint.base_url}/rerank")
    async with open_clients([url]) as clients:
        reranker = HttpReranker(clients, url, "their-model", metrics.reranks)
        return [await reranker.scores("which?", texts) for texts in rounds]


def asked(endpoint: Endpoint, *rounds: Sequence[str], metrics: Metrics | None = None) -> list[list[float]]:
    """The scores of texts by one reranker, question by question."""
    return asyncio.run(_asked(endpoint, rounds, metrics or Metrics()))


def counted(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("adlatus_reranks_total", {"outcome": outcome}) or 0.0


def test_scores_come_in_the_order_of_the_texts() -> None:
    metrics = Metrics()
    with running(of_documents, PATH) as (service, endpoint):
        assert asked(endpoint, TEXTS, metrics=metrics) == [[0.01, 0.04, 0.02]]
    assert service.requests == [{"query": "which?", "documents": TEXTS, "top_n": 3, "model": "their-model"}]
    assert (counted(metrics, "done"), counted(metrics, "failed")) == (1, 0)


def test_the_style_of_a_server_is_found_out_once() -> None:
    with running(of_texts, PATH) as (service, endpoint):
        assert asked(endpoint, TEXTS, TEXTS) == [[0.01, 0.04, 0.02]] * 2
    assert ["texts" in request for request in service.requests] == [False, True, True]
    assert service.requests[1] == {"query": "which?", "texts": TEXTS}


def test_a_server_that_was_replaced_by_one_of_the_other_style_is_understood() -> None:
    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        return of_texts(number, body) if number <= 2 else of_documents(number, body)

    with running(answer, PATH) as (_, endpoint):
        assert asked(endpoint, TEXTS, TEXTS) == [[0.01, 0.04, 0.02]] * 2


def test_many_texts_go_in_batches() -> None:
    texts = ["x" * (1 + number % 90) for number in range(2 * BATCH + 3)]
    with running(of_documents, PATH) as (service, endpoint):
        assert asked(endpoint, texts) == [[by_length(text) for text in texts]]
    assert [len(request["documents"]) for request in service.requests] == [BATCH, BATCH, 3]


def test_logits_go_through_the_logistic_curve_for_good() -> None:
    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        logits = [-800.0, 0.0, 9.5] if number == 1 else [0.2, 0.5, 0.9]
        return 200, {"results": [{"index": index, "relevance_score": logit} for index, logit in enumerate(logits)]}

    with running(answer, PATH) as (_, endpoint):
        first, second = asked(endpoint, TEXTS, TEXTS)
    assert first == pytest.approx([0, 0.5, 0.999925], abs=1e-6)
    assert second == pytest.approx([1 / (1 + math.exp(-each)) for each in (0.2, 0.5, 0.9)])


def test_a_failure_is_tried_again_once() -> None:
    def once(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        return (503, {"error": "busy"}) if number == 1 else of_documents(number, body)

    with running(once, PATH) as (service, endpoint):
        assert asked(endpoint, TEXTS) == [[0.01, 0.04, 0.02]]
    assert len(service.requests) == 2
    metrics = Metrics()
    with running(lambda *_: (500, {"error": "broken"}), PATH) as (service, endpoint):
        with pytest.raises(ModelError) as refused:
            asked(endpoint, TEXTS, metrics=metrics)
        assert refused.value.message.endswith("failed (500): broken")
        assert str(refused.value).endswith("failed (500): …")  # which the log has
        assert len(service.requests) == 2
    assert counted(metrics, "failed") == 1


def test_a_server_that_hangs_up_is_an_error() -> None:
    with running(lambda *_: (0, b""), PATH) as (_, endpoint), pytest.raises(ModelError, match="could not be reached"):
        asked(endpoint, TEXTS)


def test_a_silent_server_is_not_waited_for() -> None:
    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(1)
        return of_documents(number, body)

    with running(answer, PATH) as (_, endpoint), pytest.raises(ModelError, match="did not answer in time"):
        asked(replace(endpoint, timeout_s=0.05), TEXTS)


def test_a_server_that_takes_forever_in_all_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "TOTAL_S", 0.2)
    metrics = Metrics()

    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.15)
        return of_documents(number, body)

    with running(answer, PATH) as (_, endpoint), pytest.raises(ModelError, match=r"within 0\.2 s"):
        asked(endpoint, ["a"] * 4 * BATCH, metrics=metrics)
    assert counted(metrics, "failed") == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "no reranker at this address.*ADLATUS_RERANK_URL"), (401, "SETTING_KEY"), (400, "refused the request")],
)
def test_a_refusal_says_what_to_do(status: int, message: str) -> None:
    with running(lambda *_: (status, {"error": "no"}), PATH) as (_, endpoint), pytest.raises(ModelError, match=message):
        asked(endpoint, TEXTS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        {"results": None},
        {"data": []},
        [1, 2, 3],
        {"results": [{"index": 0, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}] * 3},
        {"results": [{"index": n + 1, "relevance_score": 0.5} for n in range(3)]},
        {"results": [{"index": float(n), "relevance_score": 0.5} for n in range(3)]},
        {"results": [{"index": n, "relevance_score": "0.5"} for n in range(3)]},
        {"results": [{"index": n, "relevance_score": True} for n in range(3)]},
        {"results": [{"index": n} for n in range(3)]},
        b'[{"index":0,"score":1e999},{"index":1,"score":1},{"index":2,"score":1}]',
        b'{"results": [' + b" " * rerank.ANSWER_BYTES + b"]}",
    ],
)
def test_an_answer_that_is_none_is_an_error(content: Any) -> None:
    with running(lambda *_: (200, content), PATH) as (_, endpoint), pytest.raises(ModelError, match="to rerank with"):
        asked(endpoint, TEXTS)


@given(st.permutations(range(7)), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=7, max_size=7))
def test_any_order_of_an_answer_is_read(order: list[int], scores: list[float]) -> None:
    entries = [{"index": place, "score": scores[place]} for place in order]
    assert read(orjson.dumps(entries), 7) == pytest.approx(scores)


def test_the_settings_make_a_reranker_with_its_key_or_none() -> None:
    async def scores(settings: Settings) -> list[float] | None:
        async with AsyncExitStack() as stack:
            reranker = await stack.enter_async_context(open_reranker(settings, Metrics().reranks))
            return await reranker.scores("\ud800", ["", "\ud800"]) if reranker else None

    assert asyncio.run(scores(Settings())) is None
    with running(of_documents, PATH) as (service, endpoint):
        url = f"{endpoint.base_url}/rerank"
        found = asyncio.run(scores(Settings(rerank_url=url, rerank_api_key=SecretStr("secret"))))
    assert found == [0.01, 0.01]
    assert service.headers[0]["authorization"] == "Bearer secret"
    assert "model" not in service.requests[0]
    for wrong in (Settings(rerank_url="ftp://x"), Settings(rerank_url="http://x", rerank_api_key=SecretStr("a\nb"))):
        with pytest.raises(StartupError, match="ADLATUS_RERANK_"):
            asyncio.run(scores(wrong))
