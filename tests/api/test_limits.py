"""What limited projects may do: requests and tokens per minute, active runs, storage; and what others never notice."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import httpx
import pytest
from openai import OpenAI, RateLimitError
from sqlalchemy import text

from adlatus.settings import Settings
from adlatus.store import rates
from adlatus.store.db import Database
from adlatus.store.projects import Limits
from adlatus.store.rates import Standing
from adlatus.tenants.rates import headers
from tests.api.tenancy import limit
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import client_of, converse

PROJECTS = ("requests", "tokens", "handed", "streamed", "storage", "crowd", "together", "both", "free")


@pytest.fixture(scope="module")
def limited(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server with a project for each test; the name of a project is its key."""
    keys = ",".join(f"{name}:{name}" for name in PROJECTS)
    with serving(loop, Settings(database_url=new_database(), api_keys=keys, storage_quota_gb=1e-5)) as server:
        yield server


def told(response: httpx.Response) -> dict[str, str]:
    """What the headers of an answer tell of limits."""
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in response.headers.items()
        if name.startswith(("x-ratelimit-", "retry-after"))
    }


def seconds(duration: str) -> float:
    """A time as the headers have it."""
    match = re.fullmatch(r"(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?|(?P<ms>\d+)ms", duration)
    assert match, duration
    minutes, whole, milliseconds = (float(match[name] or 0) for name in ("m", "s", "ms"))
    return minutes * 60 + whole + milliseconds / 1000


# --- Requests


def test_requests_beyond_the_limit_are_refused_as_the_original_did_it(limited: Server) -> None:
    limit(limited, "requests", requests_per_minute=2)
    with client_of(limited, "requests") as client:
        first, second, third = (client.get("/threads") for _ in range(3))
        missing = client.get("/threads/thread_x")
    assert (first.status_code, second.status_code, third.status_code, missing.status_code) == (200, 200, 429, 429)
    assert told(first) == {"limit-requests": "2", "remaining-requests": "1", "reset-requests": "30s"}
    assert told(second)["remaining-requests"] == "0"
    assert 30 < seconds(told(second)["reset-requests"]) <= 60
    refused = told(third)
    assert refused["limit-requests"] == "2"
    assert refused["remaining-requests"] == "0"
    assert 0 < int(refused["retry-after-ms"]) <= 30_000
    assert int(refused["retry-after"]) - 1 < int(refused["retry-after-ms"]) / 1000 <= int(refused["retry-after"])
    error = third.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("requests", None, "rate_limit_exceeded")
    words = re.fullmatch(
        r"Rate limit reached for project requests in organization adlatus on requests per min \(RPM\): Limit 2, "
        r"Used 2, Requested 1\. Please try again in (\S+s)\. Your operator sets the limit\.",
        error["message"],
    )
    assert words
    assert seconds(words[1]) * 1000 == pytest.approx(int(refused["retry-after-ms"]), abs=1)
    with OpenAI(base_url=limited.base_url, api_key="requests", max_retries=0) as sdk, pytest.raises(RateLimitError):
        sdk.beta.threads.create()


def test_limits_are_lifted_and_changed_while_a_server_runs(limited: Server) -> None:
    with client_of(limited, "together") as client:
        limit(limited, "together", requests_per_minute=1)
        assert [client.get("/threads").status_code for _ in range(3)] == [200, 429, 429]
        limit(limited, "together", requests_per_minute=1000)
        assert told(client.get("/threads"))["limit-requests"] == "1000"
        limit(limited, "together", requests_per_minute=None)
        assert told(client.get("/threads")) == {}


def test_who_is_not_limited_is_told_nothing_and_writes_nothing(limited: Server) -> None:
    limit(limited, "free", storage_bytes=10_000)
    with client_of(limited, "free") as client:
        assert told(client.get("/threads")) == {}
    count = text("SELECT count(*) AS count FROM project_rates WHERE project_id = 'free'")
    row = limited.loop.run(limited.resources.database.fetch_row(count))
    assert row
    assert row["count"] == 0


def test_exactly_as_many_requests_as_allowed_get_through_two_servers(loop: Loop, limited: Server) -> None:
    settings = Settings(database_url=limited.resources.database.dsn, api_keys="crowd:crowd")
    limit(limited, "crowd", requests_per_minute=10)
    with (
        serving(loop, settings, executor=False) as second,
        client_of(limited, "crowd") as here,
        client_of(second, "crowd") as there,
        ThreadPoolExecutor(16) as crowd,
    ):
        begun = time.monotonic()
        answers = list(crowd.map(lambda client: client.get("/threads").status_code, [here, there] * 30))
        room = 10 + int((time.monotonic() - begun) * 10 / 60)  # what drained meanwhile
    assert set(answers) == {200, 429}
    assert 10 <= answers.count(200) <= room


def test_a_client_that_hammers_asks_the_database_nothing(loop: Loop, limited: Server) -> None:
    limit(limited, "both", requests_per_minute=1, tokens_per_minute=100)
    with client_of(limited, "both") as client:
        assert [client.get("/threads").status_code for _ in range(2)] == [200, 429]
        closed = loop.run(asyncpg.connect(limited.resources.database.dsn))
        try:
            loop.run(closed.execute("BEGIN; LOCK TABLE project_rates"))
            answers = [client.get("/threads") for _ in range(5)]
        finally:
            loop.run(closed.close())
    assert [answer.status_code for answer in answers] == [429] * 5
    assert told(answers[-1])["remaining-tokens"] == "100"


def test_a_bucket_drains_at_the_rate_of_its_limit(loop: Loop, database: Database) -> None:
    limits = Limits(requests_per_minute=6, tokens_per_minute=600)
    earlier = text("UPDATE project_rates SET at = at - interval '15 seconds'")

    async def scenario() -> list[Standing | None]:
        taken = [await rates.take(database, "other", limits) for _ in range(7)]
        await rates.spend(database, "other", limits, 500)
        await database.fetch(earlier)
        return [*taken, *[await rates.take(database, "other", limits) for _ in range(2)]]

    *taken, drained, last = loop.run(scenario())
    assert [standing is not None for standing in taken] == [True] * 6 + [False]
    assert drained
    assert last is None or last.requests > 5  # one and a half have drained, unless this took seconds
    assert 4.5 <= drained.requests <= 5.5
    assert drained.tokens <= 350


def test_one_run_fills_a_bucket_with_two_minutes_tokens_at_most(loop: Loop, database: Database) -> None:
    limits = Limits(tokens_per_minute=100)

    async def scenario() -> Standing:
        for _ in range(2):
            await rates.spend(database, "other", limits, 10_000)
        return await rates.look(database, "other", limits)

    standing = loop.run(scenario())
    assert 100 < standing.tokens <= 200
    assert 0 < standing.tokens_in_s <= 60.6


@pytest.mark.parametrize(
    ("used", "reset"), [(1, "12ms"), (0.001, "1ms"), (84, "1.008s"), (2500, "30s"), (5000, "1m0s"), (9000, "1m48s")]
)
def test_times_are_written_as_the_original_wrote_them(used: float, reset: str) -> None:
    assert headers(Standing(Limits(requests_per_minute=5000), used, 0))["x-ratelimit-reset-requests"] == reset


# --- Tokens


def test_who_has_used_up_the_tokens_of_a_minute_may_do_all_but_make_models_work(limited: Server) -> None:
    limit(limited, "tokens", tokens_per_minute=10)
    with client_of(limited, "tokens") as client:
        talk = converse(client, "[[say: One two three four five six seven eight nine ten]]")
        run = talk.ended(talk.start()["id"])
        assert run["usage"]["total_tokens"] > 10
        refused = client.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id})
        both = client.post("/threads/runs", json={"assistant_id": talk.assistant_id})
        relayed = client.post("/chat/completions", json={"model": "m", "messages": []})
        read = client.get(f"{talk.path}/messages")
    assert [each.status_code for each in (refused, both, relayed, read)] == [429, 429, 429, 200]
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
    assert " on tokens per min (TPM): Limit 10, Used " in error["message"]
    assert 0 < int(told(refused)["retry-after-ms"]) <= 66_000
    assert told(read)["limit-tokens"] == "10"
    assert told(read)["remaining-tokens"] == "0"
    assert "limit-requests" not in told(read)


@pytest.mark.parametrize("project", ["handed", "streamed"])
def test_tokens_of_what_is_handed_on_are_counted_where_the_answer_tells_them(limited: Server, project: str) -> None:
    stream = project == "streamed"
    limit(limited, project, tokens_per_minute=40)
    body = {"model": "m", "messages": [{"role": "user", "content": "[[say: One two three]]"}], "stream": stream}
    with client_of(limited, project) as client:
        options = {"stream_options": {"include_usage": True}} if stream else {}
        answer = client.post("/chat/completions", json=body | options)
        after = int(told(client.get("/threads"))["remaining-tokens"])
    used = int(re.findall(r'"total_tokens": ?(\d+)', answer.text)[-1])
    assert 40 - used <= after < 40


# --- Active runs


def test_runs_beyond_the_limit_of_active_ones_are_refused_until_one_ends(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    settings = Settings(database_url=new_database(), api_keys="active:active")
    with serving(loop, settings, executor=False) as idle, client_of(idle, "active") as client:
        limit(idle, "active", active_runs=3)
        talks = [converse(client, "Hello") for _ in range(8)]
        body = {"assistant_id": talks[0].assistant_id}
        with ThreadPoolExecutor(8) as crowd:
            answers = list(crowd.map(lambda talk: client.post(f"{talk.path}/runs", json=body), talks))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"] == {
            "message": "Rate limit reached for project active in organization adlatus on active runs: Limit 3, Used 3, "
            "Requested 1. Please try again when a run has ended. Your operator sets the limit.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert told(refused) == {"retry-after": "1", "retry-after-ms": "1000"}
        threads = len(client.get("/threads", params={"limit": 100}).json()["data"])
        assert client.post("/threads/runs", json=body).status_code == 429
        assert len(client.get("/threads", params={"limit": 100}).json()["data"]) == threads
        ended = next(answer.json() for answer in answers if answer.status_code == 200)
        client.post(f"/threads/{ended['thread_id']}/runs/{ended['id']}/cancel").raise_for_status()
        assert client.post("/threads/runs", json=body).status_code == 200
        assert client.post("/threads/runs", json=body).status_code == 429


# --- Storage


def test_a_projects_own_limit_of_storage_takes_the_place_of_the_settings(limited: Server) -> None:
    with client_of(limited, "storage") as client:

        def send(size: int) -> int:
            form = {"file": ("a.txt", b"x" * size)}
            return client.post("/files", data={"purpose": "user_data"}, files=form).status_code

        assert send(10_001) == 429
        limit(limited, "storage", storage_bytes=20_000)
        assert [send(10_001), send(10_001)] == [200, 429]
        limit(limited, "storage", storage_bytes=None)
        assert send(1) == 429
