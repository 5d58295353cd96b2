"""A support desk over a handbook: chat completions, embeddings, models and an assistant, with one client.

A bicycle shop answers its customers from `handbook.md`. Every question is sorted with a chat completion. What is small
talk gets a streamed completion. Everything else goes to the assistant, in the customer's own thread, together with the
sections of the handbook whose embeddings are nearest. At the end of a shift the thread is summed up for the colleagues.

Try it offline, from the root of the repository, with a model that plays `rehearsal.yaml` and knows no other questions:

    export ADLATUS_MODELS_FILE=examples/support_desk/models.toml
    export ADLATUS_REHEARSAL_SCRIPT=examples/support_desk/rehearsal.yaml
    make run

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any    # in another terminal; needs `openai`
    .venv/bin/pip install openai
    .venv/bin/python examples/support_desk/support_desk.py jane "Can I return a helmet within 30 days?"
    .venv/bin/python examples/support_desk/support_desk.py jane "Good morning!" "And without the receipt?"
    .venv/bin/python examples/support_desk/support_desk.py jane --handover

With a real model leave ADLATUS_REHEARSAL_SCRIPT out and put your endpoint into `models.toml`: the comments show how.
The desk keeps the embeddings of the handbook, and which thread is whose, in `.support-desk` in the working directory.
"""

import argparse
import hashlib
import json
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from openai import (
    APIConnectionError,
    APIStatusError,
    AssistantEventHandler,
    BadRequestError,
    NotFoundError,
    OpenAI,
    OpenAIError,
)
from openai.types.beta import Assistant, Thread
from openai.types.beta.threads import Message, Run, Text, TextDelta
from openai.types.chat import ChatCompletionMessageParam

warnings.filterwarnings(
    "ignore", category=DeprecationWarning, message=".*deprecated"
)  # so the SDK calls all Assistants

HANDBOOK = Path(__file__).with_name("handbook.md")
STATE = Path(".support-desk")

DESK_MODEL = "gpt-4o"
SORTING_MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
EMBEDDING_BATCH = 5
SECTIONS_PER_QUESTION = 3
LONGEST_METADATA = 512

APPLICATION = "velo-corner-support-desk"
INSTRUCTIONS = (
    "You answer customers of the Velo Corner, a bicycle shop: briefly, kindly, and from the handbook alone. "
    "If the handbook does not say it, promise that a colleague will call."
)
TOPICS = ("orders", "repairs", "billing", "other")
SMALL_TALK = "smalltalk"
SORTING = f"Sort the question of a customer. Answer with one word: {', '.join(TOPICS)}, or {SMALL_TALK}."
CHATTING = "You are at the desk of a bicycle shop. Answer small talk in one friendly sentence."
HANDOVER = "Sum up this conversation for the next colleague in one sentence: what was asked, what was promised."


class DeskError(Exception):
    """Something that the person at the desk should read."""


# --- What it costs


class Usage(Protocol):
    """The usage of a completion, of embeddings, or of a run."""

    prompt_tokens: int
    total_tokens: int


class Ledger:
    """The tokens that were used, by model."""

    def __init__(self) -> None:
        self._read: Counter[str] = Counter()
        self._written: Counter[str] = Counter()

    def add(self, model: str, usage: Usage | None) -> None:
        if usage:
            self._read[model] += usage.prompt_tokens
            self._written[model] += usage.total_tokens - usage.prompt_tokens

    def __str__(self) -> str:
        used = (f"{model} {count}+{self._written[model]}" for model, count in sorted(self._read.items()))
        return ", ".join(used) or "none"


# --- The handbook


@dataclass(frozen=True)
class Section:
    """A part of the handbook."""

    title: str
    text: str

    def __str__(self) -> str:
        return f"## {self.title}\n{self.text}"

    @property
    def key(self) -> str:
        """Changes with the text and with the model, and then the vector that is kept is out of date."""
        return hashlib.sha256(f"{EMBEDDING_MODEL}\n{self}".encode()).hexdigest()


class Handbook:
    """The sections, and which of them belong to a question."""

    def __init__(self, client: OpenAI, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._sections = list(read_sections(HANDBOOK.read_text("utf-8")))
        self._vectors = self._embedded_sections()

    def nearest(self, question: str) -> list[Section]:
        """The sections whose vectors point most nearly where the question's does."""
        [asked] = self._embed([question])
        by_likeness = sorted(self._sections, key=lambda section: -cosine(asked, self._vectors[section.key]))
        return by_likeness[:SECTIONS_PER_QUESTION]

    def _embedded_sections(self) -> dict[str, list[float]]:
        """The vectors by key: from the file, and for what is new there from the model."""
        kept: dict[str, list[float]] = read_state("embeddings.json")
        new = [section for section in self._sections if section.key not in kept]
        if new:
            vectors = self._embed([str(section) for section in new])
            kept |= {section.key: vector for section, vector in zip(new, vectors, strict=True)}
            write_state("embeddings.json", {section.key: kept[section.key] for section in self._sections})
        note(f"handbook: {len(self._sections)} sections, {len(new)} of them embedded now")
        return kept

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), EMBEDDING_BATCH):
            batch = list(texts[start : start + EMBEDDING_BATCH])
            answer = self._client.embeddings.create(model=EMBEDDING_MODEL, input=batch)
            self._ledger.add(EMBEDDING_MODEL, answer.usage)
            vectors += [one.embedding for one in answer.data]
        return vectors


def read_sections(markdown: str) -> Iterator[Section]:
    for part in markdown.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        yield Section(title.strip(), text.strip())


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


# --- Without a memory: chat completions


class Reception:
    """Sorts questions, and makes small talk."""

    def __init__(self, client: OpenAI, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger

    def sort(self, question: str) -> str:
        """The topic of a question."""
        completion = self._client.chat.completions.create(
            model=SORTING_MODEL, temperature=0, messages=prompt(SORTING, question)
        )
        self._ledger.add(SORTING_MODEL, completion.usage)
        word = (completion.choices[0].message.content or "").strip(" .\n").lower()
        return word if word in (*TOPICS, SMALL_TALK) else "other"

    def chat(self, remark: str) -> None:
        """Print an answer while it is written."""
        chunks = self._client.chat.completions.create(
            model=SORTING_MODEL,
            messages=prompt(CHATTING, remark),
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in chunks:
            self._ledger.add(SORTING_MODEL, chunk.usage)  # the last chunk has it, and no choices
            for choice in chunk.choices:
                say(choice.delta.content)
        say("\n")


def prompt(system: str, user: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


# --- With a memory: the assistant


class Speaker(AssistantEventHandler):
    """Prints an answer while it is written."""

    def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        say(delta.value)

    def on_message_done(self, message: Message) -> None:
        say("\n")


class Conversation:
    """The thread of one customer, with the assistant that answers in it."""

    def __init__(self, client: OpenAI, ledger: Ledger, customer: str) -> None:
        self._client = client
        self._ledger = ledger
        self._assistant = find_or_create_assistant(client)
        self._thread = find_or_create_thread(client, customer)
        note(f"assistant {self._assistant.id}, thread {self._thread.id}")
        if known := (self._thread.metadata or {}).get("summary"):
            note(f"known from last time: {known}")

    def ask(self, question: str, topic: str, sections: Sequence[Section]) -> None:
        """Print the answer while it is written. The sections are for this answer alone: no thread keeps them."""
        self._cancel_what_nobody_reads()
        with self._client.beta.threads.runs.stream(
            thread_id=self._thread.id,
            assistant_id=self._assistant.id,
            additional_instructions="From the handbook:\n\n" + "\n\n".join(map(str, sections)),
            additional_messages=[{"role": "user", "content": question, "metadata": {"topic": topic}}],
            event_handler=Speaker(),
        ) as stream:
            run = stream.get_final_run()
        self._settle(run)

    def hand_over(self) -> str:
        """A summary, which the thread keeps as metadata and not as a message: the customer's conversation goes on."""
        self._cancel_what_nobody_reads()
        run = self._client.beta.threads.runs.create_and_poll(
            thread_id=self._thread.id, assistant_id=self._assistant.id, instructions=HANDOVER, poll_interval_ms=200
        )
        self._settle(run)
        [message] = self._client.beta.threads.messages.list(self._thread.id, run_id=run.id).data
        self._client.beta.threads.messages.delete(message.id, thread_id=self._thread.id)
        summary = "".join(part.text.value for part in message.content if part.type == "text")[:LONGEST_METADATA]
        metadata = (self._thread.metadata or {}) | {"summary": summary}
        self._thread = self._client.beta.threads.update(self._thread.id, metadata=metadata)
        return summary

    def _settle(self, run: Run) -> None:
        self._ledger.add(run.model, run.usage)
        if run.status != "completed":
            reason = run.last_error.message if run.last_error else f"it is {run.status}"
            raise DeskError(f"The assistant did not answer: {reason}")

    def _cancel_what_nobody_reads(self) -> None:
        """End a run that an earlier start has left behind: as long as it is active, the thread takes nothing new."""
        runs = self._client.beta.threads.runs
        for run in runs.list(self._thread.id, limit=1).data:
            if run.status in ("queued", "in_progress", "cancelling"):
                with suppress(BadRequestError):  # it has just ended by itself, or is being cancelled already
                    runs.cancel(run.id, thread_id=self._thread.id)
                ended = runs.poll(run.id, thread_id=self._thread.id, poll_interval_ms=200)
                note(f"an answer that was left unfinished is {ended.status}")


def find_or_create_assistant(client: OpenAI) -> Assistant:
    """The assistant of this application, brought up to date with this file. All starts share it."""
    for assistant in client.beta.assistants.list(limit=100):  # goes through all the pages
        if (assistant.metadata or {}).get("application") == APPLICATION:
            if (assistant.model, assistant.instructions) == (DESK_MODEL, INSTRUCTIONS):
                return assistant
            return client.beta.assistants.update(assistant.id, model=DESK_MODEL, instructions=INSTRUCTIONS)
    return client.beta.assistants.create(
        name="Velo Corner", model=DESK_MODEL, instructions=INSTRUCTIONS, metadata={"application": APPLICATION}
    )


def find_or_create_thread(client: OpenAI, customer: str) -> Thread:
    """The thread of a customer. The Assistants API lists no threads, so an application notes which are its own."""
    threads: dict[str, str] = read_state("threads.json")
    if customer in threads:
        with suppress(NotFoundError):  # somebody has deleted it, or this is another server
            return client.beta.threads.retrieve(threads[customer])
    thread = client.beta.threads.create(metadata={"customer": customer})
    write_state("threads.json", threads | {customer: thread.id})
    return thread


# --- The desk


def say(text: str | None) -> None:
    """To the customer."""
    sys.stdout.write(text or "")
    sys.stdout.flush()


def note(text: str) -> None:
    """To the person at the desk."""
    print(f"[{text}]", file=sys.stderr, flush=True)


def read_state(name: str) -> Any:
    file = STATE / name
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def write_state(name: str, state: object) -> None:
    """Whole or not at all, whenever this process ends."""
    STATE.mkdir(exist_ok=True)
    draft = STATE / f"{name}.new"
    draft.write_text(json.dumps(state), "utf-8")
    draft.replace(STATE / name)


def check_models(client: OpenAI) -> None:
    """Find out at the start what would fail in the middle of a conversation."""
    offered = {model.id for model in client.models.list()}
    if missing := [name for name in (DESK_MODEL, SORTING_MODEL, EMBEDDING_MODEL) if name not in offered]:
        raise DeskError(f"{client.base_url} does not offer {', '.join(missing)}. Start it with the models.toml here.")


def attend(client: OpenAI, ledger: Ledger, customer: str, questions: Sequence[str], *, hands_over: bool) -> None:
    """Everything for one customer."""
    check_models(client)
    handbook, reception = Handbook(client, ledger), Reception(client, ledger)
    conversation = Conversation(client, ledger, customer)
    for question in questions:
        topic = reception.sort(question)
        if topic == SMALL_TALK:
            note(topic)
            reception.chat(question)
        else:
            sections = handbook.nearest(question)
            note(f"{topic}: {', '.join(section.title for section in sections)}")
            conversation.ask(question, topic, sections)
    if hands_over:
        say(f"{conversation.hand_over()}\n")


def explained(error: Exception) -> str:
    """What a server says about its refusal, without the SDK's wrapping."""
    if isinstance(error, APIStatusError) and isinstance(error.body, dict) and "message" in error.body:
        return f"{error.body['message']} (HTTP {error.status_code}, request {error.request_id})"
    if isinstance(error, APIConnectionError):
        return f"{error.request.url} cannot be reached: is the server running, and OPENAI_BASE_URL right?"
    return str(error)


def main() -> int:
    arguments = argparse.ArgumentParser(description="Answers customers of a bicycle shop from its handbook.")
    arguments.add_argument("customer", help="whose conversation it is")
    arguments.add_argument("questions", nargs="*", metavar="question")
    arguments.add_argument("--handover", action="store_true", help="sum the conversation up for the next colleague")
    given = arguments.parse_args()
    ledger = Ledger()
    try:
        with OpenAI(max_retries=4) as client:  # also after 429, as long as the server's Retry-After says
            attend(client, ledger, given.customer, given.questions, hands_over=given.handover)
    except (DeskError, OpenAIError) as error:
        note(f"error: {explained(error)}")
        return 1
    finally:
        note(f"tokens read+written: {ledger}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
