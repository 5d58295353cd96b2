"""A run that need not go on hangs up on its model at once, whatever the model was doing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.functions import calculator
from tests.runs.stored import calling
from tests.runs.transcripts import Conversation, client_of, eventually, sent
from tests.runs.upstream import HEAD, Upstream, chunk, upstream

TRIES = 5
"""Of which most have to be as quick as they should: machines that run tests are busy."""

SAID = {
    "before its first token": (),
    "in a text": (chunk("Half"),),
    "in a call": (chunk(delta=calling("add", '{"a":')),),
    "in a call after a text": (chunk("Half"), chunk(delta=calling("add", '{"a":'))),
}


@pytest.fixture
def at_once_s(pytestconfig: pytest.Config) -> float:
    """By the heartbeat alone, as where all wake-ups are lost, it is 0.5 on average."""
    return 2.0 if pytestconfig.getoption("--deaf") else 0.4


each_moment = pytest.mark.parametrize("said", SAID.values(), ids=SAID)


@contextmanager
def held(
    loop: Loop, database_url: str, said: tuple[bytes, ...], expires_after_s: int = 600
) -> Iterator[Callable[[], tuple[Conversation, str, Upstream]]]:
    """Makes runs whose model has said so much and then keeps the connection, of which each is a new one."""
    settings = Settings(database_url=database_url, run_expires_after_s=expires_after_s)
    with (
        upstream(HEAD, *said, hold=True) as model,
        serving(loop, settings.model_copy(update={"model_base_url": model.base_url})) as server,
        client_of(server) as http,
    ):

        def begin() -> tuple[Conversation, str, Upstream]:
            model.hung_up_at, asked_before = None, model.requests
            talk = calculator(http, "Hello?")
            run_id = talk.start()["id"]
            eventually(lambda: model.requests > asked_before and len(talk.steps(run_id)) == len(said))
            return talk, run_id, model

        yield begin


def ended_steps(said: tuple[bytes, ...], status: str) -> list[str]:
    """The statuses of the steps: a text is completed once calls have come after it."""
    return ["completed"] * (len(said) - 1) + [status] * bool(said)


def took_s(model: Upstream, begun: float) -> float:
    hung_up_at = eventually(lambda: model.hung_up_at, within_s=5)
    assert hung_up_at is not None
    return hung_up_at - begun


@each_moment
def test_a_cancel_hangs_up_at_once(loop: Loop, database_url: str, said: tuple[bytes, ...], at_once_s: float) -> None:
    took = []
    with held(loop, database_url, said) as begin:
        for _ in range(TRIES):
            talk, run_id, model = begin()
            begun = time.monotonic()
            assert sent(talk.cancel(run_id))["status"] == "cancelling"
            took.append(took_s(model, begun))
            assert talk.ended(run_id)["status"] == "cancelled"
            assert [step["status"] for step in talk.steps(run_id)] == ended_steps(said, "cancelled")
    assert median(took) < at_once_s


@each_moment
def test_a_thread_that_is_deleted_hangs_up_at_once(
    loop: Loop, database_url: str, said: tuple[bytes, ...], at_once_s: float
) -> None:
    took = []
    with held(loop, database_url, said) as begin:
        for _ in range(TRIES):
            talk, _, model = begin()
            begun = time.monotonic()
            sent(talk.http.delete(talk.path))
            took.append(took_s(model, begun))
    assert median(took) < at_once_s


@each_moment
def test_a_run_that_expires_hangs_up(loop: Loop, database_url: str, said: tuple[bytes, ...]) -> None:
    """By its executor's own clock: nobody has to look."""
    with held(loop, database_url, said, expires_after_s=2) as begin:
        talk, run_id, model = begin()
        took_s(model, time.monotonic())
        hung_up_at = time.time()
        ended = talk.ended(run_id)
        assert ended["status"] == "expired"
        assert hung_up_at - (ended["created_at"] + 2) < 1.5  # both in whole seconds
        assert [step["status"] for step in talk.steps(run_id)] == ended_steps(said, "expired")
