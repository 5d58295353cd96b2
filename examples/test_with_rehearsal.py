"""How to test an application of your own: against a real Adlatus, offline, with the same answers every time.

The model is `adlatus rehearse`, which plays the script below and fails on anything that the script does not expect.
Copy this file, put your application and your script in, and run it with pytest. It needs `adlatus[local]`, `openai` and
`pytest`. What a script may say is in docs/rehearsal.md.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # so the SDK calls all Assistants

SCRIPT = """
exchanges:
  - expect:
      user: "What is 3 + 4?"
      system: {contains: tutor}
    answer: {text: "7"}
  - expect:
      user: "And twice that?"
    answer: {text: "14"}

  - expect:
      user: {contains: patience}
    answer:
      text: "Here I am."
      error: {status: 429, retry_after_s: 0.01, times: 1}  # the second attempt is answered

  - expect:
      user: {contains: weather}
      tools: [get_weather]
    answer:
      tool_calls:
        - name: get_weather
          arguments: {city: Paris}
  - expect:
      tool_results:
        get_weather: {contains: "22"}
    answer: {text: "It is warm in Paris."}
"""


# --- The application


class Tutor:
    """Answers the questions of one pupil, with the Assistants API."""

    def __init__(self, client: OpenAI) -> None:
        self._client = client
        self._assistant = client.beta.assistants.create(model="gpt-4o", instructions="You are a friendly tutor.")
        self._thread = client.beta.threads.create()

    def ask(self, question: str) -> str:
        self._client.beta.threads.messages.create(self._thread.id, role="user", content=question)
        run = self._client.beta.threads.runs.create_and_poll(
            thread_id=self._thread.id, assistant_id=self._assistant.id, poll_interval_ms=20
        )
        if run.status != "completed":
            raise RuntimeError(run.last_error.message if run.last_error else run.status)
        newest = self._client.beta.threads.messages.list(self._thread.id, limit=1).data[0]
        return "".join(part.text.value for part in newest.content if part.type == "text")


def weather_report(client: OpenAI, city: str, degrees: int) -> str:
    """Lets the model call a function, with chat completions."""
    tools: list[ChatCompletionToolUnionParam] = [{"type": "function", "function": {"name": "get_weather"}}]
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"How is the weather in {city}?"}]
    while calls := (
        answer := client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools).choices[0].message
    ).tool_calls:
        messages.append(answer.model_dump())  # type: ignore[arg-type]
        for call in calls:
            assert call.type == "function"
            measured = {"city": json.loads(call.function.arguments)["city"], "degrees": degrees}
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(measured)})
    return answer.content or ""


# --- The servers


@contextmanager
def started(*command: str, **settings: str) -> Iterator[str]:
    """`adlatus` with this command until the block is left. Gives the base URL, which the command prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADLATUS_")} | settings
    with tempfile.NamedTemporaryFile() as log:
        said = Path(log.name)
        process = subprocess.Popen(
            [sys.executable, "-m", "adlatus.cli", *command, "--port", "0"], stdout=log, stderr=log, env=environment
        )
        try:
            give_up_at = time.monotonic() + 60
            while not (address := re.search(r" on (http://\S+?/v1)", said.read_text())):
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < give_up_at, said.read_text()
                time.sleep(0.02)
            yield address[1]
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a model that plays the script."""
    script = tmp_path_factory.mktemp("rehearsal") / "script.yaml"
    script.write_text(SCRIPT)
    with started("rehearse", "--script", str(script)) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def client(model: str) -> Iterator[OpenAI]:
    """The SDK, pointed at an Adlatus that asks this model."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # if root runs this, the database runs as another user, who has to get in
        with (
            started("serve", "--data-dir", folder, ADLATUS_MODEL_BASE_URL=model) as base_url,
            OpenAI(base_url=base_url, api_key="any") as client,
        ):
            yield client


@pytest.fixture(autouse=True)
def script_from_the_beginning(model: str) -> None:
    """Every test starts with an empty log, and with a script of which nothing was used."""
    httpx.delete(model.removesuffix("v1") + "requests").raise_for_status()


def asked(model: str) -> list[dict[str, Any]]:
    """What the model was asked in this test: `body`, `status`, and the number of the `exchange` that answered."""
    log: list[dict[str, Any]] = httpx.get(model.removesuffix("v1") + "requests").json()["data"]
    return log


# --- The tests


def test_the_tutor_remembers_the_conversation(client: OpenAI, model: str) -> None:
    tutor = Tutor(client)
    assert tutor.ask("What is 3 + 4?") == "7"
    assert tutor.ask("And twice that?") == "14"
    assert [message["content"] for message in asked(model)[-1]["body"]["messages"]] == [
        "You are a friendly tutor.",
        "What is 3 + 4?",
        "7",
        "And twice that?",
    ]


def test_a_busy_model_is_asked_again(client: OpenAI, model: str) -> None:
    assert Tutor(client).ask("Have you patience?") == "Here I am."
    assert [(request["exchange"], request["status"]) for request in asked(model)] == [(2, 429), (2, 200)]


def test_a_question_that_is_not_in_the_script_fails_with_the_reason(client: OpenAI) -> None:
    with pytest.raises(RuntimeError, match="No exchange of the rehearsal script fits"):
        Tutor(client).ask("What is 3 + 5?")


def test_the_weather_report_calls_the_function(model: str) -> None:
    with OpenAI(base_url=model, api_key="any") as client:
        assert weather_report(client, "Paris", 22) == "It is warm in Paris."
    assert [request["exchange"] for request in asked(model)] == [3, 4]
