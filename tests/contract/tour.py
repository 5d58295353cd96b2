"""A tour of every operation that the server offers, with every kind of object and ending it can show today.

Knows requests only; what the answers must look like is for those who take the tour.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.contract.replay import Event, events_of
from tests.retrieval.documents import pdf

Json = dict[str, Any]
Operation = tuple[str, str]

DEADLINE_S = 60
RUNS = "/threads/{thread_id}/runs"
RUN = f"{RUNS}/{{run_id}}"
MESSAGES = "/threads/{thread_id}/messages"
UPLOAD = "/uploads/{upload_id}"
STORE = "/vector_stores/{vector_store_id}"
STORE_FILE = f"{STORE}/files/{{file_id}}"
BATCH = f"{STORE}/file_batches/{{batch_id}}"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
TOOLS = [
    {"type": "code_interpreter"},
    {"type": "file_search"},
    {"type": "file_search", "file_search": {"max_num_results": 5, "ranking_options": {"score_threshold": 0.5}}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}},
]
FORMATS = [
    "auto",
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    {"type": "json_schema", "json_schema": {"name": "open"}},
]


@dataclass(frozen=True)
class Answer:
    """What an operation answered: a body, or the events of a stream."""

    operation: Operation
    status: int
    body: Any = None
    events: tuple[Event, ...] = ()


@dataclass
class Tour:
    """Takes the tour and keeps the answers."""

    http: httpx.Client
    answers: list[Answer] = field(default_factory=list)

    def bodies(self) -> Iterator[Answer]:
        return (answer for answer in self.answers if not answer.events)

    def events(self) -> Iterator[Event]:
        return (event for answer in self.answers for event in answer.events)

    def take(self) -> "Tour":
        """Visit everything."""
        self._assistants()
        self._threads()
        self._messages()
        self._runs()
        self._endings()
        self._functions()
        self._files()
        self._uploads()
        self._vector_stores()
        self._searches()
        self._models()
        self._handed_on()
        self._errors()
        return self

    def _ask(self, method: str, path: str, body: Json | None = None, *, query: str = "", **ids: str) -> Any:
        response = self.http.request(method, path.format(**ids).removeprefix("/") + query, json=body)
        self.answers.append(Answer((method, path), response.status_code, response.json()))
        return response.json()

    def _stream(self, path: str, body: Json, *, cancel: bool = False, **ids: str) -> None:
        """Stream a run to its end, which is a cancel if wanted."""
        with self.http.stream("POST", path.format(**ids).removeprefix("/"), json=body | {"stream": True}) as response:
            text = ""
            for line in response.iter_lines():
                text += f"{line}\n"
                if cancel and not line and "event: thread.message.delta" in text:
                    run = events_of(text)[0].data
                    self._ask("POST", f"{RUN}/cancel", thread_id=run["thread_id"], run_id=run["id"])
                    cancel = False
        operation = ("POST", path.partition("?")[0])
        self.answers.append(Answer(operation, response.status_code, events=tuple(events_of(text))))

    def _follow(self, **ids: str) -> None:
        """Come back to the stream of a run that has ended, to its beginning."""
        response = self.http.get(f"{RUN}/events".format(**ids).removeprefix("/"))
        self.answers.append(
            Answer(("GET", f"{RUN}/events"), response.status_code, events=tuple(events_of(response.text)))
        )

    def _ended(self, run: Json) -> Json:
        ids = {"thread_id": run["thread_id"], "run_id": run["id"]}
        give_up_at = time.monotonic() + DEADLINE_S
        while run["status"] in ("queued", "in_progress", "cancelling"):
            assert time.monotonic() < give_up_at
            run = self._ask("GET", RUN, **ids)
        return run

    def _assistants(self) -> None:
        for response_format in FORMATS:
            body = {"model": "gpt-4o", "response_format": response_format}
            self._ask("POST", "/assistants", body)
        whole = {
            "model": "gpt-4o",
            "name": "Whole",
            "description": "Has everything",
            "instructions": "Be whole.",
            "tools": TOOLS,
            "metadata": {"kind": "whole"},
            "temperature": 0.5,
            "top_p": 0.9,
            "reasoning_effort": "low",
        }
        one = self._ask("POST", "/assistants", whole)["id"]
        self._ask("GET", "/assistants/{assistant_id}", assistant_id=one)
        self._ask("POST", "/assistants/{assistant_id}", {"name": "Modified"}, assistant_id=one)
        self._ask("GET", "/assistants")
        self._ask("GET", "/assistants", query="?limit=2&order=asc")
        self._ask("DELETE", "/assistants/{assistant_id}", assistant_id=one)

    def _threads(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://example.com/image.png", "detail": "low"}}
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
            {"role": "assistant", "content": "An image.", "metadata": {"kind": "answer"}},
        ]
        resources: Json = {"code_interpreter": {"file_ids": []}, "file_search": {"vector_store_ids": []}}
        body = {"messages": messages, "metadata": {"kind": "whole"}, "tool_resources": resources}
        thread = self._ask("POST", "/threads", body)["id"]
        self._ask("GET", MESSAGES, thread_id=thread)
        self._ask("GET", "/threads/{thread_id}", thread_id=thread)
        self._ask("POST", "/threads/{thread_id}", {"metadata": {"kind": "modified"}}, thread_id=thread)
        self._ask("GET", "/threads")
        self._ask("DELETE", "/threads/{thread_id}", thread_id=thread)

    def _messages(self) -> None:
        thread = self._ask("POST", "/threads", {})["id"]
        self._ask("GET", MESSAGES, thread_id=thread)
        body = {"role": "user", "content": "Hello", "metadata": {"kind": "text"}}
        ids = {"thread_id": thread, "message_id": self._ask("POST", MESSAGES, body, thread_id=thread)["id"]}
        self._ask("GET", f"{MESSAGES}/{{message_id}}", **ids)
        self._ask("POST", f"{MESSAGES}/{{message_id}}", {"metadata": {"kind": "modified"}}, **ids)
        self._ask("DELETE", f"{MESSAGES}/{{message_id}}", **ids)

    def _runs(self) -> None:
        assistant = self._ask("POST", "/assistants", {"model": "gpt-4o", "instructions": "Answer.", "tools": TOOLS})
        one = {"assistant_id": assistant["id"]}
        run = self._ended(self._ask("POST", "/threads/runs", one | {"thread": {"metadata": {"kind": "run"}}}))
        thread = run["thread_id"]
        overrides = {
            "model": "gpt-4o-mini",
            "instructions": "Answer otherwise.",
            "additional_instructions": "At once.",
            "additional_messages": [{"role": "user", "content": "Hello"}],
            "tools": TOOLS[3:],
            "metadata": {"kind": "overrides"},
            "temperature": 0.0,
            "top_p": 0.1,
            "max_prompt_tokens": 5000,
            "max_completion_tokens": 500,
            "truncation_strategy": {"type": "last_messages", "last_messages": 3},
            "tool_choice": {"type": "function", "function": {"name": "now"}},
            "parallel_tool_calls": False,
            "response_format": {"type": "json_object"},
            "reasoning_effort": "high",
        }
        run = self._ended(self._ask("POST", RUNS, one | overrides, thread_id=thread))
        ids = {"thread_id": thread, "run_id": run["id"]}
        self._ask("POST", RUN, {"metadata": {"kind": "modified"}}, **ids)
        self._ask("GET", RUNS, thread_id=thread)
        [step] = self._ask("GET", f"{RUN}/steps", **ids)["data"]
        self._ask("GET", f"{RUN}/steps/{{step_id}}", **ids, step_id=step["id"])
        self._ask("GET", MESSAGES, query=f"?run_id={run['id']}", thread_id=thread)
        self._follow(**ids)
        functions = [{"type": "function", "function": {"name": f"f{number}"}} for number in range(128)]
        self._ended(self._ask("POST", RUNS, one | {"tools": functions}, thread_id=thread))
        choice = {"type": "code_interpreter"}
        self._ended(self._ask("POST", RUNS, one | {"tool_choice": choice}, thread_id=thread))
        self._stream(RUNS, one, thread_id=thread)

    def _endings(self) -> None:
        assistant = self._ask("POST", "/assistants", {"model": "gpt-4o", "instructions": "Answer."})["id"]
        for content in (
            "[[say: Whole answer]]",
            "[[say: Half an]][[finish: length]]",
            "[[say: Something]][[finish: content_filter]]",
            "[[say: Lost in the middle]][[cut: 2]]",
            "[[error: 400]]",
            "[[tokens: 1000]][[pace: 0.2]]",
        ):
            thread = self._ask("POST", "/threads", {"messages": [{"role": "user", "content": content}]})["id"]
            self._stream(RUNS, {"assistant_id": assistant}, cancel="pace" in content, thread_id=thread)
            [run] = self._ask("GET", RUNS, thread_id=thread)["data"]
            self._ask("GET", f"{RUN}/steps", thread_id=thread, run_id=run["id"])
            self._ask("GET", MESSAGES, thread_id=thread)
        without_instructions = self._ask("POST", "/assistants", {"model": "gpt-4o"})["id"]
        hello = {"messages": [{"role": "user", "content": "Hello"}]}
        self._stream("/threads/runs", {"assistant_id": without_instructions, "thread": hello})

    def _functions(self) -> None:
        tools = [{"type": "function", "function": {"name": name}} for name in ("now", "add")]
        assistant = self._ask("POST", "/assistants", {"model": "gpt-4o", "instructions": "Call.", "tools": tools})["id"]
        hello = {"messages": [{"role": "user", "content": "[[say: Wait.]] [[call: now]] [[call: add {}]]"}]}
        for stream in (False, True):
            thread = self._ask("POST", "/threads", hello)["id"]
            self._stream(RUNS, {"assistant_id": assistant}, thread_id=thread)
            [run] = self._ask("GET", RUNS, thread_id=thread)["data"]
            ids = {"thread_id": thread, "run_id": run["id"]}
            self._ask("GET", f"{RUN}/steps", **ids)
            calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
            outputs = [{"tool_call_id": call["id"], "output": "Noon"} for call in calls]
            self._ask("POST", f"{RUN}/submit_tool_outputs", {"tool_outputs": outputs[:1]}, **ids)
            if stream:
                self._stream(f"{RUN}/submit_tool_outputs", {"tool_outputs": outputs}, **ids)
            else:
                self._ended(self._ask("POST", f"{RUN}/submit_tool_outputs", {"tool_outputs": outputs}, **ids))
            self._ask("GET", f"{RUN}/steps", **ids)

    def _files(self) -> None:
        made = {purpose: self._send_file(purpose)["id"] for purpose in ("vision", "assistants", "evals")}
        self._send_file("batch", **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
        self._ask("GET", "/files")
        self._ask("GET", "/files", query="?purpose=vision&limit=1&order=asc")
        self._ask("GET", "/files/{file_id}", file_id=made["vision"])
        content = self.http.get(f"files/{made['vision']}/content")
        self.answers.append(Answer(("GET", "/files/{file_id}/content"), content.status_code, content.text))
        self._ask("GET", "/files/{file_id}/content", file_id=made["assistants"])
        self._ask("DELETE", "/files/{file_id}", file_id=made["vision"])
        self._ask("GET", "/files/{file_id}", file_id=made["vision"])

    def _send_file(self, purpose: str, name: str = "tour.txt", content: bytes | str = b"Hello", **fields: str) -> Any:
        data, file = {"purpose": purpose} | fields, (name, content)
        response = self.http.post("files", data=data, files={"file": file})
        self.answers.append(Answer(("POST", "/files"), response.status_code, response.json()))
        return response.json()

    def _uploads(self) -> None:
        body = {"purpose": "vision", "filename": "tour.txt", "bytes": 10, "mime_type": "text/plain"}
        cancelled = self._ask("POST", "/uploads", body)["id"]
        self._ask("POST", f"{UPLOAD}/cancel", upload_id=cancelled)
        for expiry in ({}, {"expires_after": {"anchor": "created_at", "seconds": 3600}}):
            upload = self._ask("POST", "/uploads", body | expiry)["id"]
            parts = []
            for _ in range(2):
                response = self.http.post(f"uploads/{upload}/parts", files={"data": ("upload", b"Hello")})
                self.answers.append(Answer(("POST", f"{UPLOAD}/parts"), response.status_code, response.json()))
                parts.append(response.json()["id"])
            self._ask("POST", f"{UPLOAD}/complete", {"part_ids": parts[:1]}, upload_id=upload)
            self._ask("POST", f"{UPLOAD}/complete", {"part_ids": parts}, upload_id=upload)

    def _vector_stores(self) -> None:
        self._ask("GET", "/vector_stores")
        notes, broken, table = (self._send_file("assistants", name)["id"] for name in ("a.txt", "b.pdf", "c.csv"))
        whole = {
            "name": "Whole",
            "description": "Has everything",
            "expires_after": {"anchor": "last_active_at", "days": 7},
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50},
            },
            "metadata": {"kind": "whole"},
            "file_ids": [notes, broken],
        }
        store = self._ask("POST", "/vector_stores", whole)["id"]
        empty = self._ask("POST", "/vector_stores", {})["id"]
        self._ask("GET", "/vector_stores", query="?limit=1&order=asc")
        self._ask("POST", STORE, {"name": None, "expires_after": None}, vector_store_id=empty)
        self._ask("POST", STORE, {"name": "Modified", "metadata": {"kind": "modified"}}, vector_store_id=store)
        self._ask("GET", f"{STORE}/files", vector_store_id=empty)
        self._ask("POST", f"{STORE}/files", {"file_id": notes}, vector_store_id=empty)
        self._ask("POST", f"{STORE}/files", {"file_id": table, "attributes": {"a": 1}}, vector_store_id=store)
        self._settled(store)
        self._ask("GET", f"{STORE}/files", vector_store_id=store)
        self._ask("GET", f"{STORE}/files", query="?filter=failed&limit=1", vector_store_id=store)
        for file_id in (notes, broken, table):
            ids = {"vector_store_id": store, "file_id": file_id}
            self._ask("GET", STORE_FILE, **ids)
            self._ask("POST", STORE_FILE, {"attributes": {"name": "x", "number": 1.5, "whole": 2, "yes": True}}, **ids)
            self._ask("GET", f"{STORE_FILE}/content", **ids)
        self._batches(store, notes)
        self._ask("DELETE", STORE_FILE, vector_store_id=store, file_id=table)
        self._ask("DELETE", STORE, vector_store_id=empty)
        self._ask("GET", STORE, vector_store_id=empty)
        self._ask("POST", "/vector_stores", {"file_ids": [table]})

    def _batches(self, store: str, file_id: str) -> None:
        """One to its end, and one that is cancelled at once."""
        own = {"file_id": file_id, "attributes": {"a": "b"}, "chunking_strategy": {"type": "auto"}}
        batch = self._ask("POST", f"{STORE}/file_batches", {"files": [own]}, vector_store_id=store)["id"]
        self._settled(store)
        ids = {"vector_store_id": store, "batch_id": batch}
        self._ask("GET", BATCH, **ids)
        self._ask("GET", f"{BATCH}/files", query="?filter=completed&order=asc", **ids)
        many = [self._send_file("assistants", f"{number}.txt")["id"] for number in range(10)]
        batch = self._ask("POST", f"{STORE}/file_batches", {"file_ids": many}, vector_store_id=store)["id"]
        self._ask("POST", f"{BATCH}/cancel", vector_store_id=store, batch_id=batch)
        self._ask("GET", BATCH, vector_store_id=store, batch_id=batch)
        self._ask("GET", f"{BATCH}/files", vector_store_id=store, batch_id=batch)

    def _searches(self) -> None:
        file = {"file_id": self._send_file("assistants", "hello.txt")["id"], "attributes": {"year": 2026}}
        store = self._ask("POST", "/vector_stores", {"name": "Searched"})["id"]
        self._ask("POST", f"{STORE}/search", {"query": "Hello"}, vector_store_id=store)
        self._ask("POST", f"{STORE}/files", file, vector_store_id=store)
        paged = self._send_file("assistants", "hello.pdf", pdf(["Hello", "World"]))["id"]
        self._ask("POST", f"{STORE}/files", {"file_id": paged}, vector_store_id=store)
        self._settled(store)
        whole = {
            "query": ["Hello", "World"],
            "rewrite_query": True,
            "max_num_results": 5,
            "filters": {"type": "and", "filters": [{"type": "gte", "key": "year", "value": 2000}]},
            "ranking_options": {"ranker": "none", "score_threshold": 0.0},
        }
        for search in ({"query": "Hello"}, whole):
            self._ask("POST", f"{STORE}/search", search, vector_store_id=store)

        self._file_search(store)

    def _file_search(self, store: str) -> None:
        """A run that searches and cites, with and without the passages."""
        body = {"model": "gpt-4o", "tools": [{"type": "file_search"}], "instructions": "Search."}
        resources = {"file_search": {"vector_store_ids": [store]}}
        assistant = self._ask("POST", "/assistants", body | {"tool_resources": resources})["id"]
        hello = [{"role": "user", "content": '[[call: file_search {"queries": ["Hello"]}]] [[say: Cited【4:0】.]]'}]
        thread = self._ask("POST", "/threads", {"messages": hello})["id"]
        included = "include[]=step_details.tool_calls[*].file_search.results[*].content"
        self._stream(RUNS, {"assistant_id": assistant}, thread_id=thread)
        self._stream(f"{RUNS}?{included}", {"assistant_id": assistant}, thread_id=thread)
        self._ask("GET", MESSAGES, thread_id=thread)
        for run in self._ask("GET", RUNS, thread_id=thread)["data"]:
            ids = {"thread_id": thread, "run_id": run["id"]}
            [searched] = [
                step for step in self._ask("GET", f"{RUN}/steps", **ids)["data"] if step["type"] == "tool_calls"
            ]
            self._ask("GET", f"{RUN}/steps", query=f"?{included}", **ids)
            self._ask("GET", f"{RUN}/steps/{{step_id}}", query=f"?{included}", **ids, step_id=searched["id"])

    def _settled(self, store: str) -> None:
        give_up_at = time.monotonic() + DEADLINE_S
        while self._ask("GET", STORE, vector_store_id=store)["status"] == "in_progress":
            assert time.monotonic() < give_up_at

    def _models(self) -> None:
        model = self._ask("GET", "/models")["data"][0]
        self._ask("GET", "/models/{model}", model=model["id"])

    def _handed_on(self) -> None:
        """The rehearsal model's own answers, byte for byte."""
        messages = [{"role": "user", "content": "[[say: Hello]] [[call: now {}]]"}]
        self._ask("POST", "/chat/completions", {"model": "gpt-4o", "messages": messages})
        self._ask("POST", "/embeddings", {"model": "embedding", "input": ["Hello", "World"]})

    def _errors(self) -> None:
        self._ask("GET", "/assistants/{assistant_id}", assistant_id="asst_unknown")
        self._ask("GET", "/threads/{thread_id}", thread_id="1234")
        self._ask("GET", "/models/{model}", model="unknown")
        self._ask("GET", "/assistants", query="?limit=1000")
        self._ask("POST", "/assistants", {"model": 1})
        self._ask("POST", "/assistants", {})
