"""One thread and its runs, as a client sees them: streams as transcripts, objects by REST."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from adlatus.backends import tokens
from tests.conftest import BETA, Server

Json = dict[str, Any]
Result = TypeVar("Result")
FINAL = ("completed", "failed", "cancelled", "expired", "incomplete")
DONE = "done [DONE]"
OPENING = ["thread.run.created queued", "thread.run.queued queued", "thread.run.in_progress in_progress"]
COMPLETED = [
    "thread.message.completed completed",
    "thread.run.step.completed completed",
    "thread.run.completed completed",
]
CANCELLED = [
    "thread.run.cancelling cancelling",
    "thread.message.incomplete incomplete",
    "thread.run.step.cancelled cancelled",
    "thread.run.cancelled cancelled",
]


@dataclass(frozen=True)
class Event:
    """One event of a stream; `payload` is parsed unless it is `[DONE]`."""

    name: str
    payload: Any
    number: int = 0


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream, as they come."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif fields:
            payload = fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])
            yield Event(fields["event"], payload, int(fields.get("id", "0")))
            fields = {}


def read(response: httpx.Response) -> Iterator[Event]:
    """The events of a response that is a stream."""
    if response.status_code != 200:
        response.read()
        raise AssertionError(response.text)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return parse(response.iter_lines())


def speaking(text: str) -> list[str]:
    """The part of a transcript in which the model says `text`."""
    opened = [f"thread.{noun}.{stage} in_progress" for noun in ("run.step", "message") for stage in _STAGES]
    return [*opened, f"thread.message.delta {text}"]


_STAGES = ("created", "in_progress")


def calling(*calls: str) -> list[str]:
    """The part of a transcript in which the model calls functions, each written as `name arguments`."""
    opened = [f"thread.run.step.{stage} in_progress" for stage in _STAGES]
    return [*opened, f"thread.run.step.delta {'; '.join(calls)}"]


def asked(outputs: Mapping[str, str], run: Json) -> list[Json]:
    """The outputs that a run waits for, by the names of its functions."""
    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    return [{"tool_call_id": call["id"], "output": outputs[call["function"]["name"]]} for call in calls]


def transcript(events: Iterable[Event]) -> list[str]:
    """Each event as its name and the object's status; deltas in a row are one, with their text or their calls."""
    lines: list[str] = []
    for event in events:
        if event.name in DELTAS:
            text = "".join(DELTAS[event.name](event.payload["delta"]))
            if lines and lines[-1].startswith(f"{event.name} "):
                lines[-1] += text
            else:
                lines.append(f"{event.name} {text.removeprefix('; ')}")
        elif isinstance(event.payload, str):
            lines.append(f"{event.name} {event.payload}")
        else:
            lines.append(f"{event.name} {event.payload.get('status', '')}".rstrip())
    return lines


def usage(prompt_tokens: int = 0, completion_tokens: int = 0, cached: int = 0, reasoning: int = 0) -> Json:
    """A usage as runs and steps show it."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_token_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


NOTHING_USED = usage()


def counted(prompt: str, said: str, model: str = "gpt-4o") -> Json:
    """The usage of a turn whose endpoint does not tell it: one message, and what was said."""
    count = tokens.counter(model)
    return usage(4 + count(prompt), count(said))


def _said(delta: Json) -> Iterator[str]:
    for part in delta["content"]:
        match part["type"]:
            case "refusal":
                yield part["refusal"]
            case "image_file":
                yield f"<{part['image_file']['file_id'][:5]}>"
            case _:
                yield part["text"]["value"]


def _called(delta: Json) -> Iterator[str]:
    for call in delta["step_details"]["tool_calls"]:
        if call["type"] == "function":
            function = call["function"]
            yield (f"; {function['name']} " if "name" in function else "") + function["arguments"]
        elif call["type"] == "code_interpreter":
            code = call["code_interpreter"]
            yield (f"; {call['type']} " if "id" in call else "") + code.get("input", "")
            for output in code.get("outputs", ()):
                yield f" -> {output['logs']}" if output["type"] == "logs" else " -> image"
        else:
            yield f"; {call['type']}"


DELTAS: dict[str, Callable[[Json], Iterator[str]]] = {
    "thread.message.delta": _said,
    "thread.run.step.delta": _called,
}


def eventually(look: Callable[[], Result], *, within_s: float = 60, every_s: float = 0.005) -> Result:
    """The first true result of `look`; fails after the deadline. `every_s` is for what costs something to look at."""
    give_up_at = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < give_up_at, f"not within {within_s} s"
        time.sleep(every_s)
    return found


@contextmanager
def client_of(server: Server, key: str | None = None) -> Iterator[httpx.Client]:
    """A plain HTTP client of a server that was started for one test."""
    headers = {**BETA, **({"Authorization": f"Bearer {key}"} if key else {})}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=30) as client:
        yield client


def sent(response: httpx.Response) -> Json:
    """The JSON of a response that is no error."""
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def requests(server: Server, of: str) -> list[Json]:
    """The requests with these words that the rehearsal model has received."""
    received = httpx.get(f"{server.model_url.removesuffix('/v1')}/requests").json()["data"]
    return [request["body"] for request in received if of in str(request["body"].get("messages"))]


def unique(text: str) -> str:
    """The text with something before it that no other test says: the rehearsal model counts failures by messages."""
    return f"{uuid.uuid4().hex} {text}"


@dataclass(frozen=True)
class Conversation:
    """A thread, an assistant, and what a client does with them."""

    http: httpx.Client
    assistant_id: str
    thread_id: str

    @property
    def path(self) -> str:
        return f"/threads/{self.thread_id}"

    def say(self, content: Any, role: str = "user") -> Json:
        return sent(self.http.post(f"{self.path}/messages", json={"role": role, "content": content}))

    @contextmanager
    def streaming(self, **body: Any) -> Iterator[Iterator[Event]]:
        """A new run's stream, read as it comes."""
        request = {"assistant_id": self.assistant_id, "stream": True, **body}
        with self.http.stream("POST", f"{self.path}/runs", json=request) as response:
            yield read(response)

    def stream(self, **body: Any) -> list[Event]:
        """A new run's stream, to its end; its numbers only grow."""
        with self.streaming(**body) as events:
            heard = list(events)
        numbers = [event.number for event in heard]
        assert numbers == sorted(set(numbers))
        return heard

    def start(self, **body: Any) -> Json:
        """A new run that is not streamed."""
        return sent(self.http.post(f"{self.path}/runs", json={"assistant_id": self.assistant_id, **body}))

    def active(self) -> str:
        """The id of the newest run."""
        newest: str = sent(self.http.get(f"{self.path}/runs", params={"limit": 1}))["data"][0]["id"]
        return newest

    def cancel(self, run_id: str) -> httpx.Response:
        return self.http.post(f"{self.path}/runs/{run_id}/cancel")

    def submit(self, run_id: str, outputs: list[Json], **body: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/runs/{run_id}/submit_tool_outputs", json={"tool_outputs": outputs, **body})

    @contextmanager
    def submitting_to(self, run_id: str, outputs: list[Json]) -> Iterator[Iterator[Event]]:
        """The stream of a run that goes on with these outputs, read as it comes."""
        body = {"tool_outputs": outputs, "stream": True}
        with self.http.stream("POST", f"{self.path}/runs/{run_id}/submit_tool_outputs", json=body) as response:
            yield read(response)

    def submitting(self, run_id: str, outputs: list[Json]) -> list[Event]:
        """The stream of a run that goes on with these outputs, to its end."""
        with self.submitting_to(run_id, outputs) as events:
            return list(events)

    def waiting(self, **body: Any) -> Json:
        """A new run, once it waits for outputs."""
        run_id = self.start(**body)["id"]
        return eventually(lambda: (run := self.run(run_id))["status"] == "requires_action" and run) or {}

    def run(self, run_id: str) -> Json:
        return sent(self.http.get(f"{self.path}/runs/{run_id}"))

    def steps(self, run_id: str) -> list[Json]:
        listed: list[Json] = sent(self.http.get(f"{self.path}/runs/{run_id}/steps", params={"order": "asc"}))["data"]
        return listed

    def messages(self) -> list[Json]:
        listed: list[Json] = sent(self.http.get(f"{self.path}/messages", params={"order": "asc"}))["data"]
        return listed

    def answer(self) -> str:
        """The text of the last message."""
        return words(self.messages()[-1]["content"])

    def ended(self, run_id: str, within_s: float = 60) -> Json:
        """The run once it has ended."""
        return eventually(lambda: (run := self.run(run_id))["status"] in FINAL and run, within_s=within_s) or {}

    def completed(self, **body: Any) -> str:
        """The answer of a new run, which completes."""
        run = self.ended(self.start(**body)["id"])
        assert run["status"] == "completed", run["last_error"]
        return self.answer()


def converse(http: httpx.Client, *contents: Any, **assistant: Any) -> Conversation:
    """A new thread with messages of the user, and a new assistant."""
    created = sent(http.post("/assistants", json={"model": "gpt-4o", **assistant}))
    messages = [{"role": "user", "content": content} for content in contents]
    thread = sent(http.post("/threads", json={"messages": messages}))
    return Conversation(http, created["id"], thread["id"])


def words(content: list[Json]) -> str:
    """What the parts of a message say; a refusal says something too."""
    return "".join(part["refusal"] if part["type"] == "refusal" else part["text"]["value"] for part in content)


def text_of(message: Json) -> str:
    """The text of a message that has one part."""
    [part] = message["content"]
    value: str = part["text"]["value"]
    return value


def check_ended(talk: Conversation, events: list[Event]) -> tuple[Json, list[Json], list[Json]]:
    """The run, its messages and its steps by REST, which are what the stream told last of each."""
    told = {event.payload["id"]: event.payload for event in events if event.payload != "[DONE]"}
    ended = talk.run(events[-2].payload["id"])
    steps = talk.steps(ended["id"])
    messages = [message for message in talk.messages() if message["run_id"] == ended["id"]]
    assert told[ended["id"]] == ended
    for step in steps:
        assert told[step["id"]] == step | {"expires_at": told[step["id"]]["expires_at"]}
    for message in messages:
        assert told[message["id"]] == message
    assert ended["expires_at"] is None
    assert ended["required_action"] is None
    return ended, messages, steps
