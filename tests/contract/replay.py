"""Replays a recorded session of the real service against the server, and tells where the answers differ.

Requests go out as they were recorded; ids are translated as they are learned. Everything in an answer must be equal,
key order included, but for what cannot be: ids (only their kind), moments and token counts (only their type), and what
a model said. A run, or a file of a vector store, is compared with the recorded one in the same status, which may be
later than at that moment of the recording but never earlier.
"""

import builtins
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

LIFECYCLE = ("queued", "in_progress", "requires_action", "completed")
LATER = ("thread.run", "vector_store.file")
"""Objects that go on by themselves."""
CHUNK_BYTES = 1024
"""What the one chunk of a short file adds to its bytes. *Source*: recorded files."""
DEADLINE_S = 60
DELTAS = ("thread.message.delta", "thread.run.step.delta")
_ID = re.compile(
    r"(?=(asst|thread|msg|run|step|call|file|upload|part|vs|vsfb)[_-])"
    r"(?:(?:upload|part|vs|vsfb|vsfb_ibj)_[0-9a-f]{32}|[a-z]+_[A-Za-z0-9]{24}(?![A-Za-z0-9])|file-[A-Za-z0-9]{22})"
)
_AWAITED = re.compile(r"/threads/[^/]+/runs/[^/]+|/vector_stores/.+")
_OF_ACCOUNT = ("/assistants", "/files", "/models", "/vector_stores")
_SAME_HEADERS = ("content-type", "openai-version", "x-content-type-options")
_OTHER_HEADERS = ("openai-organization", "openai-project", "openai-processing-ms", "x-request-id")


@dataclass(frozen=True)
class Deviation:
    """Where the server differs by design: keys that it adds to an object, or whose value is another.

    `values` is the recorded one and the server's, where no other two are meant.
    """

    object: str
    keys: tuple[str, ...]
    reason: str
    adds: bool = True
    by: tuple[str, ...] = ("rest", "stream")
    values: tuple[builtins.object, builtins.object] | None = None


@dataclass(frozen=True)
class Event:
    """One event of a stream; the last one's data is not JSON and is left as it is."""

    name: str
    data: Any


@dataclass(frozen=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: Any  # an object, or a list of events


@dataclass(frozen=True)
class Exchange:
    """A recorded request and its answer. `path` begins after /v1; `query` is as it was sent."""

    method: str
    path: str
    query: str
    body: Any
    answer: Answer
    form: bool = False  # the body is a multipart form, with the bytes of a file under `file` or `data`


@dataclass(frozen=True)
class _Place:
    """Where in an answer a comparison stands, and whether a model's own words are expected there."""

    path: str
    by: str
    object: str = ""
    said: bool = False
    later: bool = False  # runs and files may have come further than recorded

    def at(self, step: str) -> "_Place":
        return replace(self, path=f"{self.path}.{step}")


def events_of(stream: str) -> list[Event]:
    """The events of a whole stream; `id:` lines and comments are passed over."""
    events = []
    for frame in stream.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.split("\n") if line and not line.startswith(":"))
        if lines:
            data = lines["data"]
            events.append(Event(lines["event"], data if data == "[DONE]" else json.loads(data)))
    return events


def load(recording: Path) -> list[Exchange]:
    """The exchanges of a recorded session."""
    entries = json.loads(recording.read_text("utf-8"))["Entries"]
    parts = [entry["ResponseBody"]["id"] for entry in entries if entry["RequestUri"].endswith("/parts")]
    texts = dict(_texts([_parsed(entry["ResponseBody"]) for entry in entries]))
    return [_exchange(entry, parts, texts) for entry in entries]


def _parsed(body: Any) -> Any:
    """A recorded body, a stream as the data of its events."""
    return [event.data for event in events_of("".join(body))] if isinstance(body, list) else body


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """The text of files as results of searches show it."""
    match value:
        case {"file_id": str(file_id), "content": [{"text": str(text)}]}:
            yield file_id, text
        case dict():
            yield from _texts(list(value.values()))
        case list():
            for each in value:
                yield from _texts(each)


def as_listed(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """The session with the files of its batch sent in the order in which the recorded lists have them.

    All of a batch are of one instant, and the service listed them in an order of its own.
    """
    lists = [each for each in exchanges if each.path.endswith("/files") and "/file_batches/" in each.path]
    listed = list(dict.fromkeys(item["id"] for each in lists for item in each.answer.body["data"]))
    if not lists:
        return list(exchanges)
    if "order=asc" not in lists[0].query:
        listed.reverse()
    return [
        replace(each, body={"file_ids": [file_id for file_id in listed if file_id in each.body["file_ids"]]})
        if each.path.endswith("/file_batches")
        else each
        for each in exchanges
    ]


def _exchange(entry: Json, parts: list[str], texts: Mapping[str, str]) -> Exchange:
    path, _, query = entry["RequestUri"].removeprefix("https://api.openai.com/v1").partition("?")
    body, sent = entry["ResponseBody"], entry["RequestBody"]
    content_type = entry["RequestHeaders"].get("Content-Type", "")
    form = content_type.startswith("multipart/form-data")
    if sent is None and content_type:
        sent = _rebuilt(path, body, parts, texts)
    answer = Answer(
        entry["StatusCode"],
        httpx.Headers([(name, value) for name, value in entry["ResponseHeaders"].items() if isinstance(value, str)]),
        events_of("".join(body)) if isinstance(body, list) else body,
    )
    return Exchange(entry["RequestMethod"], path, query, sent, answer, form)


def _rebuilt(path: str, answer: Json, parts: list[str], texts: Mapping[str, str]) -> Json:
    """A request body that the recorder has left out, as far as its answer tells of it."""
    match path.rpartition("/")[2], answer:
        case "files", {"error": {"message": message}}:
            return {"purpose": message.split("'")[1], "file": ("images_dog_and_cat.png", b"Hello")}
        case "files", _:
            text = texts.get(answer["id"])
            content = b"x" * answer["bytes"] if text is None else text.encode().ljust(answer["bytes"], b"\n")
            return {"purpose": answer["purpose"], "file": (answer["filename"], content)}
        case "uploads", _:
            return {name: answer[name] for name in ("purpose", "filename", "bytes")} | {"mime_type": "text/jsonl"}
        case "parts", _:
            return {"data": ("data", b"data")}
        case "complete", _:
            return {"part_ids": parts}
    raise AssertionError(f"nothing is known of the body for {path}")


class Replay:
    """One session on the way: what the ids of the recording are here, and what has differed so far."""

    def __init__(
        self, http: httpx.Client, exchanges: Sequence[Exchange], deviations: Sequence[Deviation], name: str = ""
    ) -> None:
        self._http = http
        self._name = name
        self._exchanges = exchanges
        self._deviations = deviations
        self._ids: dict[str, str] = {}
        self._later = {(shown["id"], shown["status"]): shown for shown in _shown(exchanges, LATER)}
        self._sizes = {shown["id"]: shown["bytes"] for shown in _shown(exchanges, ("file",)) if "bytes" in shown}
        self.differences: list[str] = []
        self.met: set[Deviation] = set()

    def run(self) -> None:
        """Send every request in turn and compare its answer."""
        for number, exchange in enumerate(self._exchanges):
            where = f"{number} {exchange.method} {exchange.path}"
            if exchange.path.endswith("/runs"):
                self._await_stores()
            ours = self._answer(number, exchange)
            self._compare_heads(where, exchange.answer, ours)
            if isinstance(exchange.answer.body, list):
                self._compare_streams(where, exchange.answer.body, ours.body)
            elif exchange.path in _OF_ACCOUNT and exchange.method == "GET":
                self._compare_account(_Place(where, "rest"), exchange.answer.body, ours.body)
            else:
                self._compare(_Place(where, "rest", later=exchange.method == "GET"), exchange.answer.body, ours.body)

    def _differ(self, place: _Place | str, what: str) -> None:
        self.differences.append(f"{place.path if isinstance(place, _Place) else place}: {what}")

    # --- Sending

    def _await_stores(self) -> None:
        """A run does not wait for the files of its assistant, which the recorded service had read by then."""
        give_up_at = time.monotonic() + DEADLINE_S
        while any(store["status"] == "in_progress" for store in self._http.get("vector_stores").json()["data"]):
            assert time.monotonic() < give_up_at

    def _answer(self, number: int, exchange: Exchange) -> Answer:
        """The server's answer; runs and files are asked for until they have come as far as the recorded ones."""
        give_up_at = time.monotonic() + DEADLINE_S
        while True:
            answer = self._send(number, exchange)
            if exchange.method != "GET" or not _AWAITED.fullmatch(exchange.path) or answer.status != 200:
                return answer
            pairs = zip(_items(exchange.answer.body), _items(answer.body), strict=False)
            if not (behind := [here for theirs, here in pairs if _rank(here["status"]) < _rank(theirs["status"])]):
                return answer
            assert time.monotonic() < give_up_at, f"stays as it is: {behind[0]}"

    def _send(self, number: int, exchange: Exchange) -> Answer:
        """The answer; the witness of the suite knows by the user agent which recorded request it belongs to."""
        query = f"?{self._translated(exchange.query)}" if exchange.query else ""
        response = self._http.request(
            exchange.method,
            self._translated(exchange.path).removeprefix("/") + query,
            headers={"user-agent": f"recording {self._name} {number}" if self._name else "replay"},
            **self._body(exchange),
        )
        streamed = response.headers["content-type"].startswith("text/event-stream")
        return Answer(response.status_code, response.headers, events_of(response.text) if streamed else response.json())

    def _body(self, exchange: Exchange) -> Any:
        if exchange.body is None:
            return {}
        if not exchange.form:
            return {"json": json.loads(self._translated(json.dumps(exchange.body)))}
        files = {name: value for name, value in exchange.body.items() if isinstance(value, tuple)}
        return {"files": files, "data": {name: exchange.body[name] for name in exchange.body.keys() - files.keys()}}

    def _translated(self, text: str) -> str:
        return _ID.sub(lambda found: self._ids[found[0]], text)

    # --- Comparing

    def _compare_heads(self, where: str, recorded: Answer, ours: Answer) -> None:
        if ours.status != recorded.status:
            self._differ(where, f"status {recorded.status}, here {ours.status}: {ours.body}")
        for name in _SAME_HEADERS:
            if ours.headers.get(name) != recorded.headers.get(name):
                self._differ(where, f"{name} {recorded.headers.get(name)}, here {ours.headers.get(name)}")
        for name in _OTHER_HEADERS:
            if name in recorded.headers and not ours.headers.get(name):
                self._differ(where, f"no {name}")

    def _compare_streams(self, where: str, recorded: list[Event], ours: list[Event]) -> None:
        """Order of the events with runs of deltas as one; a first delta with a first, later ones with a later one.

        A delta that cites is compared with one that does.
        """
        theirs_grouped, ours_grouped = list(_grouped(recorded)), list(_grouped(ours))
        names, our_names = [name for name, _ in theirs_grouped], [name for name, _ in ours_grouped]
        if names != our_names:
            self._differ(where, f"events {names}, here {our_names}")
            return
        for (name, theirs), (_, here) in zip(theirs_grouped, ours_grouped, strict=True):
            place = _Place(f"{where} {name}", "stream", said=name in DELTAS)
            citing = next(filter(_cites, theirs[1:]), None)
            for number, event in enumerate(here):
                like = citing if citing and _cites(event) else theirs[min(number, 1)]
                self._compare(place, like.data, event.data)

    def _compare_account(self, place: _Place, recorded: Json, ours: Json) -> None:
        """A list that in the recording holds what else the account had: of that only the shape is compared.

        It may lack what was made just before.
        """
        known = [item for item in recorded["data"] if item["id"] in self._ids]
        if recorded["data"][0].get("object") == "vector_store":
            caught_up = {self._ids[item["id"]] for item in known}
            left = [item for item in ours["data"] if item["id"] in caught_up]
            ours = ours | {"data": left, "first_id": left[0]["id"], "last_id": left[-1]["id"]}
        for other in recorded["data"]:
            if list(other) != list(ours["data"][0]):
                self._differ(place, f"an item of {list(other)}, here {list(ours['data'][0])}")
        if "has_more" not in recorded:  # a list without pages
            self._compare_keys(place, list(recorded), list(ours))
            self._compare(place, recorded["object"], ours["object"])
            return
        ends = {"first_id": known[0]["id"], "last_id": known[-1]["id"], "has_more": ours["has_more"]}
        if not isinstance(ours["has_more"], bool):
            self._differ(place, "has_more is not a boolean")
        self._compare(place, recorded | {"data": known} | ends, ours)

    def _compare(self, place: _Place, recorded: Any, ours: Any) -> None:
        match recorded, ours:
            case dict(), dict():
                self._compare_objects(place, recorded, ours)
            case list(), list():
                if len(recorded) != len(ours):
                    self._differ(place, f"{len(recorded)} items, here {len(ours)}")
                for number, (item, here) in enumerate(zip(recorded, ours, strict=False)):
                    self._compare(place.at(str(number)), item, here)
            case str(), str() if _ID.fullmatch(recorded):
                self._compare_ids(place, recorded, ours)
            case _ if _is_free(place, recorded):
                if type(recorded) is not type(ours):
                    self._differ(place, f"{type(recorded).__name__}, here {ours!r}")
            case _:
                if type(recorded) is not type(ours) or recorded != ours:
                    self._differ(place, f"{recorded!r}, here {ours!r}")

    def _compare_ids(self, place: _Place, recorded: str, ours: str) -> None:
        kind, here = _ID.fullmatch(recorded), _ID.fullmatch(ours)
        assert kind
        if recorded not in self._ids and ours in self._ids.values():
            self._differ(place, f"a new {kind[1]}, here one that was seen before")
            return
        known = self._ids.setdefault(recorded, ours)  # a misshapen one too: the session goes on with it
        if not here or here[1] != kind[1]:
            self._differ(place, f"an id such as {recorded}, here {ours}")
        elif known != ours:
            self._differ(place, f"{recorded} known as {known}, here {ours}")

    def _compare_objects(self, place: _Place, recorded: Json, ours: Json) -> None:
        match recorded.get("object"):
            case "list":
                ours = self._without_what_came_early(place, recorded, ours)
            case "thread.run" | "vector_store.file" as noun if place.later:
                recorded = self._in_the_same_status(place, recorded, ours)
                place = replace(place, object=noun)
            case "thread.message":
                place = replace(place, object="thread.message", said=recorded["run_id"] is not None)
            case None if place.path.endswith(".code_interpreter") and "outputs" in recorded:
                place = replace(place, object="code_interpreter")
                ours = self._without_values(place, recorded, ours)
            case None if place.path.endswith(".file_citation"):
                place = replace(place, object="file_citation")
            case noun:
                place = replace(place, object=noun or "")
        if recorded.get("expires_at") and ours.get("expires_at"):
            lasts, here = (shown["expires_at"] - shown["created_at"] for shown in (recorded, ours))
            if recorded["object"] in ("thread.run", "vector_store") and lasts != here:
                self._differ(place, f"expires after {lasts} s, here {here}")
        self._compare_keys(place, list(recorded), list(ours))
        for key in recorded.keys() & ours.keys():
            if recorded[key] == ours[key] or not self._deviates(place, key, (recorded[key], ours[key])):
                self._compare(place.at(key), recorded[key], ours[key])

    def _without_values(self, place: _Place, recorded: Json, ours: Json) -> Json:
        """A call of code without the logs that the recorded one has not, if they may be there."""
        kinds = [output["type"] for output in recorded["outputs"]]
        if "logs" in kinds or not self._deviates(place, "outputs", ([], ["logs"])):
            return ours
        return ours | {"outputs": [output for output in ours["outputs"] if output["type"] != "logs"]}

    def _compare_keys(self, place: _Place, recorded: list[str], ours: list[str]) -> None:
        if missing := [key for key in recorded if key not in ours]:
            self._differ(place, f"without {missing}")
        if extra := [key for key in ours if key not in recorded and not self._deviates(place, key)]:
            self._differ(place, f"with {extra}")
        added = {key for allowed in self._deviations if allowed.object == place.object for key in allowed.keys}
        orders = [[key for key in keys if key in recorded and key not in added] for keys in (ours, recorded)]
        if sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]:
            self._differ(place, f"order {orders[1]}, here {orders[0]}")

    def _deviates(self, place: _Place, key: str, values: tuple[Any, Any] | None = None) -> bool:
        """Whether the list allows a key that the recording has not, or, of one that it has, another value."""
        for allowed in self._deviations:
            if (
                (allowed.object, allowed.adds) == (place.object, values is None)
                and key in allowed.keys
                and place.by in allowed.by
                and allowed.values in (None, values)
            ):
                self.met.add(allowed)
                return True
        return False

    def _in_the_same_status(self, place: _Place, recorded: Json, ours: Json) -> Json:
        """The recorded object in the status of ours; of a file that was seen in progress only, as it had to become."""
        status = ours["status"]
        if _rank(status) < _rank(recorded["status"]):
            self._differ(place, f"status {recorded['status']}, here still {status}")
        become: Json = {"status": status} if recorded["object"] == "vector_store.file" else {}
        if become and "usage_bytes" in recorded:
            become["usage_bytes"] = self._sizes[recorded["id"]] + CHUNK_BYTES
        return self._later.get((recorded["id"], status), recorded | become)

    def _without_what_came_early(self, place: _Place, recorded: Json, ours: Json) -> Json:
        """The list without an answer that the recorded run had not given yet, when ours had."""
        items: list[Json] = ours["data"]
        ends = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        if (ours["first_id"], ours["last_id"]) != ends:
            self._differ(place, "first_id and last_id are not those of the items")
        seen = self._ids.values()
        early = [item for item in items if item.get("run_id") in seen and item["id"] not in seen]
        if not early or len(items) == len(recorded["data"]):
            return ours
        left = [item for item in items if item not in early]
        return ours | {"data": left, "first_id": left[0]["id"], "last_id": left[-1]["id"]}


def _is_free(place: _Place, recorded: object) -> bool:
    """Moments, counts of tokens, scores, and what a model said or is told of may have any value of their type."""
    key = place.path.rpartition(".")[2]
    if key == "score":
        return True
    if key == "owned_by" or (place.object == "model" and key == "created"):
        return True  # whose endpoint it is
    if isinstance(recorded, int):
        return key.endswith(("_at", "_tokens")) and not key.startswith(("max_", "chunk_"))
    return place.said and place.path.endswith("text.value")


def _cites(event: Event) -> bool:
    """Whether it is a delta of a message with an annotation."""
    parts = event.data["delta"].get("content", ()) if event.name == "thread.message.delta" else ()
    return any(part["text"].get("annotations") for part in parts)


def _items(body: Json) -> list[Json]:
    """What goes on by itself in an answer: an object, or those of a list."""
    return [shown for shown in body.get("data", [body]) if shown.get("object") in LATER]


def _rank(status: str) -> int:
    assert status in LIFECYCLE, f"it is {status}"
    return LIFECYCLE.index(status)


def _grouped(events: list[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Events one by one, but neighbouring deltas together."""
    for (name, _), group in itertools.groupby(
        enumerate(events), lambda at: (at[1].name, at[1].name in DELTAS or at[0])
    ):
        yield name, [event for _, event in group]


def _shown(exchanges: Sequence[Exchange], objects: tuple[str, ...]) -> Iterator[Json]:
    """Every recorded object of some kinds."""
    for exchange in exchanges:
        if isinstance(exchange.answer.body, dict):
            for shown in (exchange.answer.body, *exchange.answer.body.get("data", ())):
                if shown.get("object") in objects:
                    yield shown
